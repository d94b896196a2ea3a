//! House rules beyond the compiler's checks. Each is a pure function from text to problems; only [`check`] reads files.

mod documents;
mod rooms;
mod sources;

use crate::faults;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A violation of a rule, and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Problem {
    /// Path from the root.
    path: String,
    /// From 1; 0 for the whole file.
    line: usize,
    /// What is wrong and what to do.
    message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Problem { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// A file of the repository.
#[derive(Clone, Debug)]
struct File {
    /// Path from the root, with `/`.
    path: String,
    /// Its text; empty for binary files.
    text: String,
}

/// Checks all files that git tracks or would add.
///
/// # Errors
/// When the files cannot be listed or read.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let files = list(root)?;
    let mut problems = rooms::check(&files);
    for file in &files {
        problems.extend(sources::check(file));
    }
    problems.extend(documents::check(&files));
    if faults_table(&files)? != document(&files) {
        problems.push(Problem::new(faults::DOCUMENT, 0, "is not what the tests say: run `cargo xtask faults`"));
    }
    problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(problems.iter().map(Problem::to_string).collect())
}

/// Updates the table of faults.
///
/// # Errors
/// When the files cannot be listed, read or written.
pub(crate) fn write_faults(root: &Path) -> Result<(), String> {
    let path = root.join(faults::DOCUMENT);
    fs::write(&path, faults_table(&list(root)?)?).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn document(files: &[File]) -> &str {
    files.iter().find(|file| file.path == faults::DOCUMENT).map_or("", |file| &file.text)
}

/// The expected content of the document on faults. Tests of this toolbox show no faults.
fn faults_table(files: &[File]) -> Result<String, String> {
    let sources = files.iter().filter(|file| file.path.ends_with(".rs") && file.path.starts_with("crates/"));
    let sources: Vec<(&str, &str)> = sources.map(|file| (file.path.as_str(), file.text.as_str())).collect();
    faults::updated(document(files), &sources)
}

fn list(root: &Path) -> Result<Vec<File>, String> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot run git, which lists the files: {error}"))?;
    if !listing.status.success() {
        return Err(format!("git cannot list the files: {}", String::from_utf8_lossy(&listing.stderr).trim()));
    }
    let mut files = Vec::new();
    for path in String::from_utf8_lossy(&listing.stdout).split('\0').filter(|path| !path.is_empty()) {
        let full = root.join(path);
        // Removed but not yet staged, or a link to a folder.
        if full.is_file() {
            let bytes = fs::read(&full).map_err(|error| format!("cannot read {path}: {error}"))?;
            files.push(File { path: path.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() });
        }
    }
    Ok(files)
}

/// Checks that the problems of a sample are the expected ones, by a part of each message.
#[cfg(test)]
fn assert_problems(problems: &[Problem], expected: &[&str]) {
    let shown: Vec<_> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(shown.contains(expected), "{shown} lacks {expected}");
    }
}

#[cfg(test)]
fn file(path: &str, text: impl Into<String>) -> File {
    File { path: path.to_owned(), text: text.into() }
}
