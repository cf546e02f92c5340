//! Cutting what is too large for one message.

/// What `pages` brings, in order, in parts of `part_pages_max` or fewer, none of them empty.
///
/// # Panics
///
/// If `part_pages_max` is 0: no part could hold a page.
pub fn in_parts<T>(
    pages: impl IntoIterator<Item = T>,
    part_pages_max: usize,
) -> impl Iterator<Item = Vec<T>> {
    assert!(part_pages_max > 0, "BUG: parts without pages");
    let mut pages = pages.into_iter();
    std::iter::from_fn(move || {
        let part: Vec<T> = pages.by_ref().take(part_pages_max).collect();
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_but_the_last_are_full_and_none_is_empty() {
        let cut = |pages_count| in_parts(0..pages_count, 2).collect::<Vec<_>>();
        assert!(cut(0).is_empty());
        assert_eq!(cut(3), [vec![0, 1], vec![2]]);
        assert_eq!(cut(4), [vec![0, 1], vec![2, 3]]);
    }
}
