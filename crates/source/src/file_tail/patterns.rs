//! Selects files by paths, folders and globs, which are evaluated again in each look.

use super::warnings::Warnings;
use crate::file_system::{FileKind, FileStat, FileSystem};
use adtally_model::{Error, Result};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// Maximum depth of `**`: more than any layout of logs needs, and a bound for loops that inodes do not reveal.
const FOLDER_DEPTH_MAX: usize = 32;

/// The patterns that select files.
#[derive(Debug)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Debug)]
enum Pattern {
    /// A file, or all files directly in a folder, depending on what the path is at the moment.
    Path(PathBuf),
    /// A glob below a folder.
    Glob { base: PathBuf, matcher: GlobMatcher, depth_max: usize, hidden: bool },
}

/// The amount of data to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// Files that are not empty, each counted once.
    pub files: u64,
    /// Their total bytes on disk.
    pub bytes: u64,
}

/// Determines how much data the files named by `paths` contain, without opening them.
///
/// # Errors
/// A user error when a named file does not exist or a glob is not valid.
pub fn survey(fs: &dyn FileSystem, paths: &[String]) -> Result<Survey> {
    let listing =
        Patterns::new(fs, paths, &HashSet::new(), false, usize::MAX)?.list(fs, usize::MAX, &mut Warnings::default());
    let mut seen = HashSet::new();
    let files = listing.files.values().filter(|stat| stat.len > 0 && seen.insert(stat.inode));
    Ok(files.fold(Survey::default(), |sum, stat| Survey { files: sum.files + 1, bytes: sum.bytes + stat.len }))
}

/// The result of one look.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Regular files by path.
    pub(super) files: BTreeMap<PathBuf, FileStat>,
    /// Paths that could not be examined, and why: their content is unknown, not gone.
    failed: BTreeMap<PathBuf, Failure>,
    /// Whether more files match than are followed.
    left_off: bool,
}

/// Existing files, each inode under one path.
pub(super) struct Files {
    pub(super) by_path: BTreeMap<PathBuf, FileStat>,
    pub(super) by_inode: HashMap<(u64, u64), PathBuf>,
}

/// Why a path could not be examined.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// Whether permission was denied: waiting does not help.
    pub(super) denied: bool,
}

impl Listing {
    /// Whether the state of a path is unknown at the moment.
    pub(super) fn is_unknown(&self, path: &Path) -> bool {
        !self.failed.is_empty()
            && (self.failed.contains_key(Path::new(".")) || path.ancestors().any(|path| self.failed.contains_key(path)))
    }

    /// Paths that could not be examined, and why.
    pub(super) fn failed(&self) -> &BTreeMap<PathBuf, Failure> {
        &self.failed
    }

    /// Whether more files match than are followed.
    pub(super) fn is_cut(&self) -> bool {
        self.left_off
    }

    /// Whether some path could not be examined: a missing file may be there.
    pub(super) fn hides_something(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Notes that a path could not be examined or opened. If handles have run out, the state of all paths is unknown.
    pub(super) fn fail(&mut self, path: &Path, error: &io::Error) {
        let none_left = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        let path = if none_left { Path::new(".") } else { path };
        let failure = Failure {
            reason: format!("{}: cannot be read: {error}", path.display()),
            denied: error.kind() == ErrorKind::PermissionDenied,
        };
        self.failed.insert(path.to_owned(), failure);
    }
}

impl Patterns {
    /// Parses the patterns; in a bounded run each must match a file now. A path that is `known` from an earlier run
    /// need not: its log may just have been rotated.
    pub(super) fn new(
        fs: &dyn FileSystem,
        texts: &[String],
        known: &HashSet<&Path>,
        bounded: bool,
        files_max: usize,
    ) -> Result<Patterns> {
        if texts.is_empty() {
            return Err(Error::user("no input is given: name a file, a folder or a glob such as 'logs/*.ndjson'"));
        }
        let patterns = texts.iter().map(|text| Pattern::new(fs, text, known)).collect::<Result<Vec<_>>>()?;
        for (pattern, text) in patterns.iter().zip(texts) {
            let mut listing = Listing::default();
            let mut warnings = Warnings::default();
            if bounded {
                pattern.list(fs, &mut listing, files_max, &mut warnings);
                if listing.files.is_empty() && !known.contains(&*normal(Path::new(text))) {
                    let why = warnings.all().first().map_or(String::new(), |why| format!(" ({why})"));
                    return Err(Error::user(format!(
                        "no file matches {text:?}{why}: there is nothing to read to its end"
                    )));
                }
            }
        }
        Ok(Patterns(patterns))
    }

    /// Lists the files that match, at most `files_max` of them.
    pub(super) fn list(&self, fs: &dyn FileSystem, files_max: usize, warnings: &mut Warnings) -> Listing {
        let mut listing = Listing::default();
        for pattern in &self.0 {
            pattern.list(fs, &mut listing, files_max, warnings);
        }
        listing
    }
}

fn has_meta(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

impl Pattern {
    fn new(fs: &dyn FileSystem, text: &str, known: &HashSet<&Path>) -> Result<Pattern> {
        let path = normal(Path::new(text));
        match fs.stat(&path) {
            Ok(_) => return Ok(Pattern::Path(path)),
            Err(_) if known.contains(&*path) => return Ok(Pattern::Path(path)),
            Err(_) if has_meta(text) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::user(format!(
                    "there is no file or folder {text:?}: check the path, or use a glob for files that do not exist yet"
                )));
            }
            // It exists and may become readable; until then this is a warning, not an error.
            Err(_) => return Ok(Pattern::Path(path)),
        }
        let text = path.to_string_lossy();
        let glob = GlobBuilder::new(&text)
            .literal_separator(true)
            .build()
            .map_err(|error| Error::user(format!("the glob {text:?} is not valid")).because(error))?;
        let is_meta = |component: &Component<'_>| has_meta(&component.as_os_str().to_string_lossy());
        let base: PathBuf = path.components().take_while(|component| !is_meta(component)).collect();
        let rest: Vec<_> = path.components().skip_while(|component| !is_meta(component)).collect();
        let of_any_depth = text.contains("**") || text.contains('{');
        let depth_max = if of_any_depth { FOLDER_DEPTH_MAX } else { rest.len().min(FOLDER_DEPTH_MAX) };
        let hidden = rest.iter().any(|component| component.as_os_str().to_string_lossy().starts_with('.'));
        Ok(Pattern::Glob { base, matcher: glob.compile_matcher(), depth_max, hidden })
    }

    fn list(&self, fs: &dyn FileSystem, listing: &mut Listing, files_max: usize, warnings: &mut Warnings) {
        match self {
            Pattern::Path(path) => match look(fs, path, listing, warnings) {
                Some(stat) if stat.kind == FileKind::Folder => {
                    for (path, stat) in children(fs, path, false, listing, warnings) {
                        match stat.kind {
                            FileKind::Folder => {}
                            FileKind::File => insert(listing, path, stat, files_max, warnings),
                            FileKind::Other => not_regular(&path, warnings),
                        }
                    }
                }
                Some(stat) if stat.kind == FileKind::File => insert(listing, path.clone(), stat, files_max, warnings),
                Some(_) => not_regular(path, warnings),
                None => {}
            },
            Pattern::Glob { base, matcher, depth_max, hidden } => {
                // Visited folders, by inode: symbolic links can make loops.
                let mut seen = HashSet::new();
                let mut folders = vec![(base.clone(), 1)];
                while let Some((folder, depth)) = folders.pop() {
                    for (path, stat) in children(fs, &folder, *hidden, listing, warnings) {
                        let matches = matcher.is_match(&path);
                        match stat.kind {
                            FileKind::File if matches => insert(listing, path, stat, files_max, warnings),
                            FileKind::File => {}
                            FileKind::Folder => {
                                if matches && depth == *depth_max {
                                    not_regular(&path, warnings);
                                } else if depth < *depth_max && seen.insert(stat.inode) {
                                    folders.push((path, depth + 1));
                                }
                            }
                            FileKind::Other if matches => not_regular(&path, warnings),
                            FileKind::Other => {}
                        }
                    }
                }
            }
        }
    }
}

/// Removes doubled separators and a leading `./`, so that each file has one path, however it was named.
fn normal(path: &Path) -> PathBuf {
    let plain: PathBuf = path.components().filter(|component| *component != Component::CurDir).collect();
    if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain }
}

fn insert(listing: &mut Listing, path: PathBuf, stat: FileStat, files_max: usize, warnings: &mut Warnings) {
    if listing.files.len() < files_max || listing.files.contains_key(&path) {
        listing.files.insert(path, stat);
    } else {
        listing.left_off = true;
        warnings.set("files_max", format!("more than {files_max} files match: the others are not read"));
    }
}

fn not_regular(path: &Path, warnings: &mut Warnings) {
    warnings.set_for(path, format!("{}: not a regular file, so it is not read", path.display()));
}

/// The state of a path; `None` if nothing is there or it cannot be determined.
fn look(fs: &dyn FileSystem, path: &Path, listing: &mut Listing, warnings: &mut Warnings) -> Option<FileStat> {
    match fs.stat(path) {
        Ok(stat) => Some(stat),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            warnings.set_for(path, format!("{}: cannot be examined: {error}", path.display()));
            listing.fail(path, &error);
            None
        }
    }
}

fn children(
    fs: &dyn FileSystem,
    folder: &Path,
    hidden: bool,
    listing: &mut Listing,
    warnings: &mut Warnings,
) -> Vec<(PathBuf, FileStat)> {
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let names = match fs.list(shown) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warnings.set_for(shown, format!("{}: the folder cannot be read: {error}", shown.display()));
            listing.fail(shown, &error);
            return Vec::new();
        }
    };
    let mut children = Vec::with_capacity(names.len());
    for name in names {
        if !hidden && name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = if folder.as_os_str() == "." { PathBuf::from(&name) } else { folder.join(&name) };
        if let Some(stat) = look(fs, &path, listing, warnings) {
            children.push((path, stat));
        }
    }
    children
}
