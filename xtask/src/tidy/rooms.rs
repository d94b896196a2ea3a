//! Dependencies between rooms: which crate may use which, and which libraries are limited to certain rooms.

use super::{File, Problem};
use std::collections::BTreeSet;

/// Each room with the rooms that it may use. A new room must be added here and in ARCHITECTURE.md.
const ROOMS: [(&str, &[&str]); 13] = [
    ("allocator", &[]),
    ("model", &[]),
    ("source", &["model"]),
    ("pipeline", &["model"]),
    ("store", &["model"]),
    ("kafka", &["model", "source"]),
    ("agent", &["model", "source", "pipeline", "store"]),
    ("reconcile", &["model", "store"]),
    ("engine", &["allocator", "model", "source", "pipeline", "store", "reconcile"]),
    ("serve", &["model", "store", "engine"]),
    ("generate", &["model"]),
    (
        "app",
        &[
            "agent",
            "allocator",
            "model",
            "source",
            "pipeline",
            "store",
            "engine",
            "kafka",
            "reconcile",
            "serve",
            "generate",
        ],
    ),
    ("sim", &["model", "source", "pipeline", "store", "engine", "reconcile"]),
];

/// The rooms with their own lints: the workspace's lints forbid unsafe code, which they need and document.
const UNSAFE_ROOMS: [&str; 2] = ["crates/allocator/Cargo.toml", "crates/kafka/Cargo.toml"];

/// Libraries that only these rooms may use, with the reason.
const KEPT: [(&str, &[&str], &str); 10] = [
    ("libmimalloc-sys", &["allocator"], "unsafe code is the allocator's alone"),
    ("axum", &["serve"], "serve is the only room that knows HTTP"),
    ("hyper", &["serve"], "serve is the only room that knows HTTP"),
    ("hyper-util", &["serve"], "serve is the only room that knows HTTP"),
    ("tower-http", &["serve"], "serve is the only room that knows HTTP"),
    ("deltalake-core", &["store", "reconcile"], "the lake is the store's"),
    ("datafusion", &["store", "reconcile"], "the lake is the store's"),
    ("rdkafka", &["kafka"], "the client of Kafka is kafka's"),
    ("object_store", &["store", "reconcile", "sim"], "where bytes lie is the store's"),
    (
        "tokio",
        &["store", "engine", "agent", "reconcile", "serve", "app", "sim"],
        "model, source and pipeline are synchronous",
    ),
];

/// The prefix of package names; the binary's package is named by it alone.
const PREFIX: &str = "adtally";

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    let manifests = files.iter().filter(|file| file.path.ends_with("Cargo.toml") && !file.path.contains("/fuzz/"));
    for manifest in manifests {
        used.extend(dependencies(&manifest.text).filter(|entry| entry.inherited).map(|entry| entry.name.to_owned()));
        if manifest.path == "Cargo.toml" {
            continue;
        }
        // The test server is a workspace of its own.
        let is_apart = UNSAFE_ROOMS.contains(&&*manifest.path) || manifest.path.starts_with("tests/");
        if !is_apart && !has_lints(&manifest.text) {
            problems.push(Problem::new(&manifest.path, 0, "lacks [lints] workspace = true"));
        }
        if let Some(room) = manifest.path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/Cargo.toml")) {
            check_room(room, manifest, &mut problems);
        }
    }
    if let Some(root) = files.iter().find(|file| file.path == "Cargo.toml") {
        for entry in entries(&root.text).filter(|entry| entry.section == "workspace.dependencies") {
            if !used.contains(entry.name) {
                let message = format!("no crate uses the dependency {}: remove it", entry.name);
                problems.push(Problem::new(&root.path, entry.line, message));
            }
        }
    }
    problems
}

fn check_room(room: &str, manifest: &File, problems: &mut Vec<Problem>) {
    let Some((_, may_know)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        let message = format!("{room} is no room: enter it in the table in xtask/src/tidy/rooms.rs, with its arrows");
        problems.push(Problem::new(&manifest.path, 0, message));
        return;
    };
    let package = if room == "app" { PREFIX.to_owned() } else { format!("{PREFIX}-{room}") };
    let named = entries(&manifest.text).find(|entry| entry.section == "package" && entry.name == "name");
    if named.is_none_or(|entry| entry.value != format!("\"{package}\"")) {
        problems.push(Problem::new(&manifest.path, 0, format!("the package of crates/{room} is named {package}")));
    }
    for entry in dependencies(&manifest.text) {
        let known = match entry.name.strip_prefix(PREFIX) {
            Some("") => Some("app"),
            Some(rest) => rest.strip_prefix('-'),
            None => None,
        };
        if let Some(known) = known
            && !may_know.contains(&known)
        {
            let message = format!("{room} must not know {known}; it may know {}", words(may_know));
            problems.push(Problem::new(&manifest.path, entry.line, message));
        }
        // Tests may use a library to replace it.
        if let Some((library, rooms, why)) = KEPT.iter().find(|(library, ..)| *library == entry.name)
            && !rooms.contains(&room)
            && entry.section != "dev-dependencies"
        {
            let message = format!("{library} is kept to {}: {why}", words(rooms));
            problems.push(Problem::new(&manifest.path, entry.line, message));
        }
    }
}

fn words(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// One `name = value` of a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry<'a> {
    section: &'a str,
    name: &'a str,
    value: &'a str,
    line: usize,
    /// Whether the value is inherited from the workspace.
    inherited: bool,
}

/// The entries of a manifest, one per line, as is our style.
fn entries(manifest: &str) -> impl Iterator<Item = Entry<'_>> {
    let mut section = "";
    manifest.lines().enumerate().filter_map(move |(at, line)| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
            return None;
        }
        let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        let (name, value) = (name.trim(), value.trim());
        let key = name.split('.').next().unwrap_or_default().trim_matches('"');
        let inherited = name.ends_with(".workspace") || value.contains("workspace = true");
        Some(Entry { section, name: key, value, line: at + 1, inherited })
    })
}

/// The entries that are dependencies, of any kind and platform.
fn dependencies(manifest: &str) -> impl Iterator<Item = Entry<'_>> {
    entries(manifest)
        .filter(|entry| entry.section != "workspace.dependencies" && entry.section.ends_with("dependencies"))
}

fn has_lints(manifest: &str) -> bool {
    entries(manifest).any(|entry| entry.section == "lints" && entry.name == "workspace" && entry.value == "true")
}

#[cfg(test)]
mod tests {
    use super::super::{assert_problems, file};
    use super::*;

    fn manifest(room: &str, package: &str, dependencies: &str) -> File {
        let text =
            format!("[package]\nname = \"{package}\"\n\n[dependencies]\n{dependencies}\n[lints]\nworkspace = true\n");
        file(&format!("crates/{room}/Cargo.toml"), text)
    }

    #[test]
    fn arrows_point_one_way() {
        let check = |room: &str, dependencies: &str, expected: &[&str]| {
            let package = if room == "app" { "adtally".to_owned() } else { format!("adtally-{room}") };
            assert_problems(&check(&[manifest(room, &package, dependencies)]), expected);
        };
        check("pipeline", "adtally-model.workspace = true\nhashbrown.workspace = true", &[]);
        check("app", "adtally-store.workspace = true\nadtally-serve.workspace = true", &[]);
        check("sim", "adtally-engine.workspace = true", &[]);
        check("source", "adtally-pipeline.workspace = true", &["source must not know pipeline; it may know model"]);
        check(
            "model",
            "adtally-store = { path = \"../store\" }",
            &["crates/model/Cargo.toml:5: model must not know store"],
        );
        check("serve", "[dev-dependencies]\nadtally.workspace = true", &["serve must not know app"]);
        check(
            "store",
            "[target.'cfg(unix)'.dependencies]\nadtally-serve.workspace = true",
            &["store must not know serve"],
        );
        check("reconcile", "adtally-pipeline.workspace = true", &["reconcile must not know pipeline"]);
        check("pipeline", "tokio.workspace = true", &["synchronous"]);
        check("app", "axum = { workspace = true }", &["axum is kept to serve"]);
        check("app", "[dev-dependencies]\nobject_store.workspace = true", &[]);
        check("kitchen", "", &["kitchen is no room"]);
    }

    #[test]
    fn packages_bear_the_prefix_and_the_lints() {
        assert_problems(&check(&[manifest("store", "store", "")]), &["named adtally-store"]);
        let bare = file("crates/store/Cargo.toml", "[package]\nname = \"adtally-store\"\n");
        assert_problems(&check(&[bare]), &["lacks [lints]"]);
    }

    #[test]
    fn dependencies_that_nobody_uses_are_told() {
        let root =
            file("Cargo.toml", "[workspace.dependencies]\nbytes = \"1\"\nserde = { version = \"1\" }\nuuid = \"1\"\n");
        let uses = "bytes.workspace = true\n[dev-dependencies]\nserde = { workspace = true, features = [\"rc\"] }";
        assert_problems(&check(&[root, manifest("store", "adtally-store", uses)]), &["Cargo.toml:4: no crate uses"]);
    }
}
