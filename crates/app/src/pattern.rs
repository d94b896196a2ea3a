//! Patterns of paths, as the settings take them.

/// The pattern that means one path and nothing else: what is special in patterns is escaped.
pub(crate) fn literally(path: &str) -> String {
    let escaped = |c: char| match c {
        '*' | '?' | '[' | ']' | '{' | '}' => vec!['[', c, ']'],
        // Escapes the character behind it.
        '\\' => vec!['\\', '\\'],
        _ => vec![c],
    };
    if path.contains(['*', '?', '[', ']', '{', '}']) {
        path.chars().flat_map(escaped).collect()
    } else {
        path.to_owned()
    }
}
