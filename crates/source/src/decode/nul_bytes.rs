//! NUL bytes in logs: from preallocation, or from a writer that kept its offset after the file was truncated.

use memchr::memchr;

/// A run of at least this many NUL bytes ends the text before it, wherever it is: a writer was interrupted there.
pub(crate) const RUN_MIN: usize = 64;

/// The number of NUL bytes at the beginning of a text.
pub(crate) fn leading(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte != 0).unwrap_or(text.len())
}

/// Start and end of the first run of NUL bytes that ends the text before it: a run of [`RUN_MIN`] or more, or, if
/// `at_end` is set, one that reaches the end of the text.
pub(crate) fn run(text: &[u8], at_end: bool) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(at) = memchr(0, &text[from..]) {
        let start = from + at;
        let end = start + leading(&text[start..]);
        if end - start >= RUN_MIN || (at_end && end == text.len()) {
            return Some((start, end));
        }
        from = end;
    }
    None
}

/// The lines in a text without line endings, as start and end offsets.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += leading(&text[at..]);
        if at == text.len() {
            return None;
        }
        let (start, rest) = (at, &text[at..]);
        let end = run(rest, false).map_or(text.len(), |(start, _)| at + start);
        at = end;
        Some((start, end))
    })
}

/// The number of NUL bytes of a text outside its [`lines`].
pub(super) fn outside(text: &[u8]) -> u64 {
    let within: usize = lines(text).map(|(start, end)| end - start).sum();
    (text.len() - within) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_bytes_end_lines_only_in_long_runs() {
        let check = |text: &str, expected: &[&str], outside_expected: u64| {
            let text = text.replace('N', &"\0".repeat(RUN_MIN)).replace('n', "\0");
            let found: Vec<&str> = lines(text.as_bytes()).map(|(start, end)| &text[start..end]).collect();
            assert_eq!((found.as_slice(), outside(text.as_bytes())), (expected, outside_expected), "{text:?}");
        };
        check("a", &["a"], 0);
        check("na", &["a"], 1);
        check("nnan", &["a\0"], 2);
        check("anb", &["a\0b"], 0);
        check("aNb", &["a", "b"], 64);
        check("aNnbN", &["a", "b"], 129);
        check("NN", &[], 128);
        check("n", &[], 1);
    }
}
