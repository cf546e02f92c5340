//! Shorter names for what a module and the script around it need of each other.
//!
//! wasm-bindgen ends each name with a hash, so that those of several crates never meet. A browser
//! downloads them twice, in the module and in the script, and hashes do not compress.

use anyhow::{Context, Result, bail, ensure};

/// What every module begins with: its magic and its version.
const PREAMBLE: &[u8] = b"\0asm\x01\0\0\0";
const IMPORT_SECTION: u8 = 2;
const EXPORT_SECTION: u8 = 7;

/// Pairs of a long name and the short one in its place.
pub type Names = Vec<(String, String)>;

/// The module with shorter names, and which names those were.
pub fn shorten_module(module: &[u8]) -> Result<(Vec<u8>, Names)> {
    let mut rest = module.strip_prefix(PREAMBLE).context("not a module")?;
    let mut out = PREAMBLE.to_vec();
    let mut names = Names::new();
    while let Some((&id, after)) = rest.split_first() {
        rest = after;
        let size = number(&mut rest)?;
        let section = take(&mut rest, size)?;
        let section = match id {
            IMPORT_SECTION => shorten_imports(section, &mut names)?,
            EXPORT_SECTION => shorten_exports(section, &mut names)?,
            _ => section.to_vec(),
        };
        out.push(id);
        put_number(&mut out, section.len());
        out.extend(section);
    }
    Ok((out, names))
}

fn shorten_imports(mut section: &[u8], names: &mut Names) -> Result<Vec<u8>> {
    let count = number(&mut section)?;
    let mut out = Vec::new();
    put_number(&mut out, count);
    for _ in 0..count {
        for is_field in [false, true] {
            let size = number(&mut section)?;
            let long = std::str::from_utf8(take(&mut section, size)?)?;
            let short = if is_field { shorten(long, names) } else { long.to_owned() };
            put_number(&mut out, short.len());
            out.extend(short.bytes());
        }
        // A function and its type: wasm-bindgen imports nothing else.
        let kind = take(&mut section, 1)?;
        ensure!(kind == [0], "an import of kind {kind:?}");
        out.extend(kind);
        put_number(&mut out, number(&mut section)?);
    }
    ensure!(section.is_empty(), "{} bytes behind the imports", section.len());
    Ok(out)
}

fn shorten_exports(mut section: &[u8], names: &mut Names) -> Result<Vec<u8>> {
    let count = number(&mut section)?;
    let mut out = Vec::new();
    put_number(&mut out, count);
    for _ in 0..count {
        let size = number(&mut section)?;
        let short = shorten(std::str::from_utf8(take(&mut section, size)?)?, names);
        put_number(&mut out, short.len());
        out.extend(short.bytes());
        out.extend(take(&mut section, 1)?);
        put_number(&mut out, number(&mut section)?);
    }
    ensure!(section.is_empty(), "{} bytes behind the exports", section.len());
    Ok(out)
}

/// A name of its own for one that ends with a hash.
fn shorten(long: &str, names: &mut Names) -> String {
    let is_hash = |(_, hash): &(&str, &str)| {
        let digits = hash.strip_prefix('h').unwrap_or(hash);
        digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if long.rsplit_once('_').filter(is_hash).is_none() {
        return long.to_owned();
    }
    let short = format!("_{:x}", names.len());
    names.push((long.to_owned(), short.clone()));
    short
}

/// An unsigned number in LEB128.
fn number(bytes: &mut &[u8]) -> Result<usize> {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= usize::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    bail!("a number that does not end")
}

fn put_number(out: &mut Vec<u8>, mut value: usize) {
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Result<&'b [u8]> {
    let (taken, left) = bytes.split_at_checked(count).context("the module is cut short")?;
    *bytes = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(fields: &[&str], exported: &str) -> Vec<u8> {
        let mut section = vec![fields.len() as u8];
        for field in fields {
            section.extend([1, b'm', field.len() as u8]);
            section.extend(field.bytes());
            section.extend([0, 5]);
        }
        let mut module = PREAMBLE.to_vec();
        module.extend([1, 2, 7, 7, IMPORT_SECTION]);
        put_number(&mut module, section.len());
        module.extend(section);
        module.extend([EXPORT_SECTION, exported.len() as u8 + 4, 1, exported.len() as u8]);
        module.extend(exported.bytes());
        module.extend([0, 3]);
        module.extend([10, 1, 9]);
        module
    }

    #[test]
    fn names_with_hashes_become_short_and_stay_apart() {
        let long = ["__wbg_close_264222edec0e3164", "__wbg_close_a4fa560819c78ecd", "memory_grow"];
        let exported = "closures_____invoke__hba222984cb9256c3";
        let (short, names) = shorten_module(&module(&long, exported)).expect("a module");
        assert_eq!(short, module(&["_0", "_1", "memory_grow"], "_2"));
        assert_eq!(
            shorten_module(&module(&[], "serve")).expect("a module").0,
            module(&[], "serve")
        );
        let pairs = [(long[0], "_0"), (long[1], "_1"), (exported, "_2")];
        assert_eq!(names, pairs.map(|(long, short)| (long.to_owned(), short.to_owned())));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let whole = module(&["__wbg_close_264222edec0e3164"], "serve");
        assert!(shorten_module(b"no module").is_err());
        assert!(shorten_module(&whole[..whole.len() - 5]).is_err());
    }
}
