//! Rules for single files: headers, names, sizes, and forbidden text.

use super::{File, Problem};

/// Names that do not describe the content.
const BANNED_NAMES: [&str; 9] =
    ["common", "helper", "helpers", "manager", "managers", "misc", "types", "util", "utils"];

/// Maximum lines of a source file.
const LINES_MAX: usize = 500;

/// Forbidden text in Rust code, with the reason. Split in two, so that this file passes its own check.
const BANNED_CODE: [((&str, &str), &str); 4] = [
    (("#[ig", "nore"), "a test that is not run proves nothing: repair it or remove it"),
    (("todo", "!("), "unfinished: finish it or leave it out"),
    (("unimple", "mented!("), "unfinished: finish it or leave it out"),
    (("dbg", "!("), "left over from debugging"),
];

/// Folders of single machines, which must not occur in any file.
const MACHINE_PATHS: [(&str, &str); 2] = [("/wo", "rk/"), ("/ro", "ot/")];

pub(super) fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_path(file, &mut problems);
    check_machine_paths(file, &mut problems);
    if file.path.ends_with(".rs") {
        check_code(file, &mut problems);
    }
    problems
}

fn check_path(file: &File, problems: &mut Vec<Problem>) {
    for part in file.path.split('/') {
        let stem = part.split('.').next().unwrap_or_default();
        if BANNED_NAMES.contains(&stem) {
            problems.push(Problem::new(&file.path, 0, format!("{stem} names nothing: name it after what it does")));
        }
    }
}

fn check_machine_paths(file: &File, problems: &mut Vec<Problem>) {
    for (at, line) in file.text.lines().enumerate() {
        for (one, other) in MACHINE_PATHS {
            let path = [one, other].concat();
            let absolute = line.match_indices(&path).any(|(found, _)| {
                let before = line[..found].chars().next_back();
                // Part of a longer path or of an address.
                !before.is_some_and(|before| before.is_alphanumeric() || "._-}*)".contains(before))
            });
            if absolute {
                problems.push(Problem::new(&file.path, at + 1, format!("{path} exists on one machine only")));
            }
        }
    }
}

fn check_code(file: &File, problems: &mut Vec<Problem>) {
    if !file.text.starts_with("//!") {
        let message = "begins without a //! header that says what the file is for";
        problems.push(Problem::new(&file.path, 1, message));
    }
    let count = file.text.lines().count();
    if count > LINES_MAX {
        problems.push(Problem::new(&file.path, 0, format!("{count} lines, at most {LINES_MAX}: split it by topic")));
    }
    for (at, line) in file.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for ((one, other), why) in BANNED_CODE {
            let banned = [one, other].concat();
            if code.contains(&banned) {
                problems.push(Problem::new(&file.path, at + 1, format!("{banned}: {why}")));
            }
        }
        let words: Vec<_> = code.split_whitespace().collect();
        if let [.., "mod", name] | [.., "mod", name, "{"] = words.as_slice() {
            let name = name.trim_end_matches([';', '{']);
            if BANNED_NAMES.contains(&name) {
                let message = format!("{name} names nothing: name the module after what it does");
                problems.push(Problem::new(&file.path, at + 1, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{assert_problems, file};
    use super::*;

    fn code(text: &str, expected: &[&str]) {
        assert_problems(&check(&file("crates/store/src/a.rs", text)), expected);
    }

    #[test]
    fn code_has_a_header_and_a_bound() {
        code("//! Fine.\n", &[]);
        code("use std::fs;\n", &["a.rs:1: begins without a //! header"]);
        code("", &["header"]);
        code(&format!("//! Long.\n{}", "\n".repeat(LINES_MAX)), &["501 lines, at most 500"]);
    }

    #[test]
    fn names_say_something() {
        assert_problems(&check(&file("crates/store/src/utils.rs", "//! Bad.")), &["utils names nothing"]);
        assert_problems(&check(&file("tests/common/mod.rs", "//! Bad.")), &["common names nothing"]);
        assert_problems(&check(&file("docs/types.md", "")), &["types names nothing"]);
        assert_problems(&check(&file("crates/store/src/task_manager_log.rs", "//! Fine.")), &[]);
        code("//! Bad.\npub(crate) mod helpers;\n", &["a.rs:2: helpers names nothing"]);
        code("//! Bad.\nmod manager {\n}\n", &["manager names nothing"]);
        code("//! Fine.\nmod commonplace;\n// mod utils;\n", &[]);
    }

    #[test]
    fn nothing_unfinished_or_switched_off_stays() {
        for ((one, other), _) in BANNED_CODE {
            code(&format!("//! Bad.\n    {one}{other})\n"), &[&format!("a.rs:2: {one}{other}")]);
            code(&format!("//! Fine.\n// {one}{other})\n"), &[]);
        }
    }

    #[test]
    fn folders_of_one_machine_stand_in_no_file() {
        let [work, home] = MACHINE_PATHS.map(|(one, other)| [one, other].concat());
        assert_problems(
            &check(&file("README.md", format!("cd {work}main\n\n`{home}x`"))),
            &["README.md:1", "README.md:3"],
        );
        assert_problems(&check(&file("README.md", format!("https://example.com{work}x and target{home}x"))), &[]);
    }
}
