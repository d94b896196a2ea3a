//! Path patterns, as used in settings.

/// A pattern that matches exactly one path: special characters are escaped.
pub(crate) fn literally(path: &str) -> String {
    let escaped = |c: char| match c {
        '*' | '?' | '[' | ']' | '{' | '}' => vec!['[', c, ']'],
        // It escapes the next character.
        '\\' => vec!['\\', '\\'],
        _ => vec![c],
    };
    if path.contains(['*', '?', '[', ']', '{', '}']) {
        path.chars().flat_map(escaped).collect()
    } else {
        path.to_owned()
    }
}
