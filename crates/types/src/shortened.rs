//! Reasons that are not too long.

use crate::limits::REASON_SIZE_MAX;

/// As much of a reason as is written down and told: what SQLite, a doctype or an app says in it may
/// be of any length.
#[must_use]
pub fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_SIZE_MAX {
        let end = (0..=REASON_SIZE_MAX).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or(0));
        reason.push_str(" ...");
    }
    // It may be kept for long, and would keep the memory of all that was in it.
    reason.shrink_to_fit();
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let reason = shortened("\u{e9}".repeat(REASON_SIZE_MAX));
        assert_eq!(reason, "\u{e9}".repeat(REASON_SIZE_MAX / 2) + " ...");
        assert_eq!(shortened("short".to_owned()), "short");
    }

    #[test]
    fn a_reason_takes_no_more_memory_than_it_has_bytes() {
        for size in [100, 100 * REASON_SIZE_MAX] {
            let mut reason = String::with_capacity(200 * REASON_SIZE_MAX);
            reason.extend(std::iter::repeat_n('x', size));
            let reason = shortened(reason);
            assert!(reason.capacity() <= REASON_SIZE_MAX + 4, "{}", reason.capacity());
        }
    }
}
