//! Rules for documents: required ones, their length, and broken links.

use super::{File, Problem};

/// Documents that a newcomer looks for.
const REQUIRED: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"];

/// Maximum lines of ARCHITECTURE.md: it must stay a readable overview.
const ARCHITECTURE_LINES_MAX: usize = 300;

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for path in REQUIRED {
        match files.iter().find(|file| file.path == path) {
            None => problems.push(Problem::new(path, 0, "is missing")),
            Some(file) if path == "ARCHITECTURE.md" && file.text.lines().count() > ARCHITECTURE_LINES_MAX => {
                let count = file.text.lines().count();
                problems.push(Problem::new(path, 0, format!("{count} lines, at most {ARCHITECTURE_LINES_MAX}")));
            }
            Some(_) => {}
        }
    }
    for document in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&document.text) {
            if let Some(message) = broken(files, document, target) {
                problems.push(Problem::new(&document.path, line, message));
            }
        }
    }
    problems
}

/// Why a link is broken; `None` if it is not. Links to other sites are not followed.
fn broken(files: &[File], document: &File, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { document.path.clone() } else { resolve(&document.path, path)? };
    let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
    let Some(file) = files.iter().find(|file| file.path == path) else {
        let is_folder = files.iter().any(|file| file.path.starts_with(&folder));
        return (!is_folder).then(|| format!("the link to {target} leads nowhere"));
    };
    let has_anchor = anchor.is_empty() || !path.ends_with(".md") || headings(&file.text).any(|slug| slug == anchor);
    (!has_anchor).then(|| format!("{path} has no heading #{anchor}"))
}

/// Converts a path relative to a document to one from the root. A path out of the root gives itself, which no file has.
fn resolve(document: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = match path.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => document.split('/').collect(),
    };
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.is_empty() => return Some(path.to_owned()),
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Targets of `[text](target)` and `[name]: target` outside of code, with their line numbers.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in prose(text) {
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            found.push((at, target.split_whitespace().next().unwrap_or_default()));
        }
        // If a line is split at its backquotes, every other part is code.
        for part in line.split('`').step_by(2) {
            for (open, _) in part.match_indices("](") {
                let target = part[open + 2..].split([')', ' ']).next().unwrap_or_default();
                found.push((at, target.trim_matches(['<', '>'])));
            }
        }
        // Backquotes split a link whose text is code: its target follows one.
        for (open, _) in line.match_indices("`](") {
            found.push((at, line[open + 3..].split([')', ' ']).next().unwrap_or_default()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The anchors of a document's headings, as the usual hosts generate them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        let is_heading = title.len() < line.len() && title.starts_with(' ');
        is_heading.then(|| {
            let kept = title.trim().chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
        })
    })
}

/// Lines with their numbers, without fenced code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{assert_problems, file};
    use super::*;

    fn house(readme: &str) -> Vec<File> {
        vec![
            file("README.md", readme),
            file("ARCHITECTURE.md", "# Map\n\n## Errors, and what to do\n"),
            file("CHANGELOG.md", ""),
            file("LICENSE", ""),
            file("docs/adr/0001-one.md", "# One\n[up](../../README.md) [gone](0002-two.md)\n"),
        ]
    }

    fn check_readme(readme: &str, expected: &[&str]) {
        let problems: Vec<_> =
            check(&house(readme)).into_iter().filter(|problem| problem.path != "docs/adr/0001-one.md").collect();
        assert_problems(&problems, expected);
    }

    #[test]
    fn links_lead_somewhere() {
        check_readme("[a](ARCHITECTURE.md) [b](docs/adr/) [c](docs/adr/0001-one.md) [d](https://example.com/x)", &[]);
        check_readme("[a](ARCHITECTURE.md#errors-and-what-to-do) [`x`](LICENSE) [top](#start)\n# Start", &[]);
        check_readme("\n[a](GONE.md)", &["README.md:2: the link to GONE.md leads nowhere"]);
        check_readme("[`a`](GONE.md)", &["leads nowhere"]);
        check_readme("[a]: gone/ \"title\"", &["gone/ leads nowhere"]);
        check_readme("[a](ARCHITECTURE.md#error)", &["ARCHITECTURE.md has no heading #error"]);
        check_readme("[a](../outside.md)", &["leads nowhere"]);
        check_readme("`[a](GONE.md)`\n```\n[b](GONE.md)\n```\n", &[]);
        assert_problems(&check(&house("")), &["docs/adr/0001-one.md:2: the link to 0002-two.md"]);
    }

    #[test]
    fn the_documents_are_there_and_short_enough() {
        let missing = check(&[]);
        assert_problems(&missing, &["README.md: is missing", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"]);
        let mut house = house("");
        house[1].text = "line\n".repeat(ARCHITECTURE_LINES_MAX + 1);
        house.pop();
        assert_problems(&check(&house), &["301 lines, at most 300"]);
    }
}
