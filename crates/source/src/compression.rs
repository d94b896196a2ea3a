//! Detects from its first bytes whether and how a file is compressed.

/// How a file is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

/// What the first bytes of a file show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Magic {
    /// It is text.
    Plain,
    /// It is compressed.
    Compressed(Compression),
    /// There are too few bytes to decide.
    Undecided,
}

/// Decides by magic bytes. A zstd file may begin with a skippable frame (0x184D2A5?).
pub(crate) fn magic(first: &[u8]) -> Magic {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    const SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
    let skippable = |bytes: &[u8]| bytes.len() <= 3 && SKIPPABLE.starts_with(bytes);
    match first {
        [] => Magic::Undecided,
        _ if first.starts_with(GZIP) => Magic::Compressed(Compression::Gzip),
        _ if first.starts_with(ZSTD) => Magic::Compressed(Compression::Zstd),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Magic::Compressed(Compression::Zstd),
        _ if GZIP.starts_with(first) || ZSTD.starts_with(first) => Magic::Undecided,
        // A single byte from `P` to `_` is probably text, which is read at once; its line is incomplete in any case.
        [0x50..=0x5f, rest @ ..] if !rest.is_empty() && skippable(rest) => Magic::Undecided,
        _ => Magic::Plain,
    }
}
