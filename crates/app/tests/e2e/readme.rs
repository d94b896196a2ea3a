//! The commands of the README: each one works, in the order of the README and in one folder, and prints what the README
//! shows below it.
//!
//! Outputs are compared exactly, except for parts that differ from run to run: the values of `FREE_KEYS` in JSON, and
//! numbers and paths in the text of the commands in `FREE_NUMBERS`. `…` in the README matches anything.

use crate::lake::interpreter;
use crate::site::{Serving, Site, end, poll};
use crate::stopping::is_empty;
use serde_json::Value;
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::process::Command;

/// Commands that are not run, by their beginning.
const NOT_RUN: [&str; 2] = [
    // It runs this test.
    "cargo xtask test",
    // The tests of `scale_out::demo` do.
    "cargo run --features scale-out -- demo --kafka",
];

/// Commands that change the shell in which the reader works. They are run again before each later command.
const SHELL: [&str; 2] = ["export ", "mkdir -p target/tour && cd "];

/// Commands that need the data directory for themselves, so that the reader stops `run` first.
const ALONE: [&str; 1] = ["repair"];

/// Commands whose numbers and paths differ from run to run: ages, ports, temporary folders and counts of epochs.
const FREE_NUMBERS: [&str; 3] = ["demo", "run", "verify"];

/// Keys whose values differ from run to run: an epoch's number depends on the machine's speed, a revision on the
/// identity key, and an idle input closes minutes by the clock.
const FREE_KEYS: [&str; 3] = ["epoch", "revision", "closed"];

/// The address in the README's commands. The test uses a free port instead.
const ADDRESS: &str = "http://127.0.0.1:8080";

/// The placeholder that matches anything in the README.
const ANYTHING: &str = "…";

/// A step of the README that a reader can try.
#[derive(Debug, PartialEq)]
enum Step {
    /// A shell line, and its output in the README.
    Line { line: String, shown: Option<Output> },
    /// A program in Python.
    Python(String),
    /// Lines of the log that `generate` writes.
    Clicks(String),
}

/// An output as the README shows it.
#[derive(Debug, PartialEq)]
enum Output {
    Text(String),
    Json(String),
}

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap()
}

/// Finds the steps of a document.
#[derive(Default)]
struct Steps {
    steps: Vec<Step>,
    /// The step whose output would be shown next, within the same section.
    last: Option<usize>,
    /// The prose right before.
    paragraph: String,
}

impl Steps {
    fn of(document: &str) -> Vec<Step> {
        let mut found = Steps::default();
        let mut lines = document.lines();
        let mut between = false;
        while let Some(line) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
                found.block(language, &(block.join("\n") + "\n"));
                found.paragraph.clear();
            } else if line.starts_with('#') {
                found.last = None;
                found.paragraph.clear();
            } else if line.is_empty() {
                between = true;
            } else {
                if std::mem::take(&mut between) {
                    found.paragraph.clear();
                }
                found.paragraph += line;
                found.paragraph.push(' ');
            }
        }
        found.steps
    }

    fn block(&mut self, language: &str, block: &str) {
        match language {
            "sh" => block.replace("\\\n", "").lines().for_each(|line| self.line(line)),
            "python" => self.steps.push(Step::Python(block.to_owned())),
            "" => self.output(Output::Text(block.to_owned())),
            "json" => self.output(Output::Json(block.to_owned())),
            other => panic!("a block of {other:?}: this test must learn whether it contains commands\n{block}"),
        }
    }

    fn line(&mut self, line: &str) {
        let line = line.split(" #").next().unwrap_or_default().trim().to_owned();
        if line.is_empty() {
            return;
        }
        let is_same = |step: &Step| matches!(step, Step::Line { line: other, .. } if *other == line);
        self.last = self.steps.iter().position(is_same).or_else(|| {
            self.steps.push(Step::Line { line, shown: None });
            Some(self.steps.len() - 1)
        });
    }

    /// An output belongs to the command of "`command` prints:" right before it, or to the last command of its section.
    fn output(&mut self, output: Output) {
        if self.paragraph.trim_end().ends_with("prints:") {
            let command = self.paragraph.rsplit('`').nth(1).map(str::to_owned);
            self.line(&command.unwrap_or_else(|| panic!("no command in {:?}", self.paragraph)));
        }
        match (self.last.map(|last| &mut self.steps[last]), output) {
            (Some(Step::Line { shown: shown @ None, .. }), output) => *shown = Some(output),
            (Some(step), output) => panic!("two outputs of one command: {step:?} and {output:?}"),
            (None, Output::Json(clicks)) => self.steps.push(Step::Clicks(clicks)),
            (None, Output::Text(text)) => panic!("which command prints this?\n{text}"),
        }
    }
}

/// Whether a line of the README can be found in `real`.
fn is_line(shown: &str, real: &str) -> bool {
    match shown.strip_suffix(ANYTHING) {
        Some(start) => real.starts_with(start),
        None => shown == real,
    }
}

/// Whether the lines match those of the README, up to the end if `whole`.
fn are_lines(shown: &[String], real: &[String], whole: bool) -> bool {
    match shown {
        [] => !whole || real.is_empty(),
        [first, rest @ ..] if first.trim() == ANYTHING => {
            (0..=real.len()).any(|at| are_lines(rest, &real[at..], whole))
        }
        [first, rest @ ..] => {
            real.split_first().is_some_and(|(line, real)| is_line(first, line) && are_lines(rest, real, whole))
        }
    }
}

/// A line with `#` in place of each number or time, and of each path that begins at the root.
fn without_numbers(line: &str) -> String {
    let (mut shape, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_digit() {
            let part = |char: char| char.is_ascii_digit() || ",.:-T".contains(char);
            let end = rest.find(|char| !part(char)).unwrap_or(rest.len());
            rest[..end].trim_end_matches(|char: char| !char.is_ascii_digit()).len()
        } else if first == '/' && (shape.is_empty() || shape.ends_with(' ')) {
            rest.find([' ', ',', ';']).unwrap_or(rest.len())
        } else {
            0
        };
        if length == 0 {
            shape.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            shape.push('#');
            rest = &rest[length..];
        }
    }
    shape
}

/// Whether a text matches the README's output of the command with this name.
fn is_text(name: &str, shown: &str, real: &str, whole: bool) -> bool {
    let [shown, real] = [shown, real].map(|text| -> Vec<String> {
        let free = FREE_NUMBERS.contains(&name);
        text.trim_end().lines().map(|line| if free { without_numbers(line) } else { line.to_owned() }).collect()
    });
    are_lines(&shown, &real, whole)
}

fn difference(line: &str, shown: &str, real: &str) -> String {
    format!("{line}\n\nThe README shows:\n{shown}\nIt prints:\n{real}")
}

/// Fails unless a document matches the README's output of this command.
fn check_json(line: &str, shown: &str, real: &Value) {
    let complete = shown.replace(",…}", ",\"…\":null}").replace(",…]", ",\"…\"]");
    let shown = serde_json::from_str(&complete)
        .unwrap_or_else(|error| panic!("{line}: no JSON in the README: {error}: {shown}"));
    check_value(line, &shown, real);
}

fn check_value(at: &str, shown: &Value, real: &Value) {
    match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            for (key, value) in shown.iter().filter(|(key, _)| *key != ANYTHING) {
                let found = real.get(key).unwrap_or_else(|| panic!("{at} .{key} is only in the README"));
                if FREE_KEYS.contains(&key.as_str()) {
                    assert_eq!(discriminant(value), discriminant(found), "{at} .{key}: {value}, {found}");
                } else {
                    check_value(&format!("{at} .{key}"), value, found);
                }
            }
            let missing = real.keys().find(|key| !shown.contains_key(ANYTHING) && !shown.contains_key(*key));
            assert_eq!(missing, None, "the README does not show all keys: {at}");
        }
        (Value::Array(shown), Value::Array(real)) => {
            let first = shown.iter().take_while(|value| *value != ANYTHING).count();
            assert!(real.len() == first || first < shown.len() && first < real.len(), "{at}: {shown:?}, {real:?}");
            shown[..first].iter().zip(real).for_each(|(shown, real)| check_value(&format!("{at} []"), shown, real));
        }
        _ => assert_eq!(shown, real, "the README and the real value differ: {at}"),
    }
}

/// The words of a line after the program `adtally`; `None` if it calls another program.
fn words_of(line: &str) -> Option<Vec<&str>> {
    let is_variable = |word: &&str| word.starts_with("ADTALLY_") && word.contains('=');
    let mut words = line.split_whitespace().skip_while(is_variable);
    ["adtally", "target/debug/adtally"].contains(&words.next()?).then(|| words.collect())
}

/// A user who follows the README.
struct Reader {
    site: Site,
    /// The persistent state of the reader's shell: variables and the current folder.
    shell: String,
    server: Option<Serving>,
}

impl Reader {
    /// A reader in a clone of the repository that has been built.
    fn new() -> Reader {
        let site = Site::new();
        std::fs::create_dir_all(site.path("target/debug")).unwrap();
        std::fs::create_dir(site.path("tmp")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_adtally"), site.path("target/debug/adtally")).unwrap();
        Reader { site, shell: String::new(), server: None }
    }

    fn command(&self, script: &str) -> Command {
        let mut command = self.site.shell(&format!("{}{script}", self.shell));
        command.env("TMPDIR", self.site.path("tmp"));
        command
    }

    /// Ctrl-C.
    fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    fn line(&mut self, line: &str, shown: Option<&Output>) {
        let begins = |starts: &[&str]| starts.iter().any(|start| line.starts_with(start));
        if begins(&NOT_RUN) {
            assert_eq!(shown, None, "nothing compares what {line} prints");
        } else if begins(&SHELL) {
            self.shell += &format!("{line} && ");
            assert_eq!(end(self.command("true")).ok().stdout, "", "{line}");
        } else if let Some(question) = line.strip_prefix(&format!("curl '{ADDRESS}")) {
            let server = self.server.as_ref().unwrap_or_else(|| panic!("nothing serves that could answer {line}"));
            let answer = server.get(question.trim_end_matches('\''));
            match shown {
                Some(Output::Json(shown)) => check_json(line, shown, &answer),
                other => panic!("{line} answers with JSON, and the README shows {other:?}"),
            }
        } else {
            let line = line.replacen("cargo run -- ", "target/debug/adtally ", 1);
            let words = words_of(&line).unwrap_or_else(|| panic!("{line}: this test must learn how to run it"));
            match words[0] {
                "demo" => self.serve(&line, words[0], shown),
                "run" if !words.contains(&"--until-end") => self.serve(&line, words[0], shown),
                name => self.run(&line, name, shown),
            }
        }
    }

    fn serve(&mut self, line: &str, name: &str, shown: Option<&Output>) {
        self.stop();
        let server = Serving::start(self.command(&format!("exec {line} --listen 127.0.0.1:0")));
        match shown {
            Some(Output::Text(shown)) => {
                let found = poll(|| is_text(name, shown, &server.said(), false).then_some(()));
                assert!(found.is_some(), "{}", difference(line, shown, &server.said()));
            }
            other => assert_eq!(other, None, "{line} prints text"),
        }
        self.server = Some(server);
    }

    fn run(&mut self, line: &str, name: &str, shown: Option<&Output>) {
        if ALONE.contains(&name) {
            self.stop();
        }
        match shown {
            // A terminal shows both outputs.
            Some(Output::Text(shown)) => {
                let printed = end(self.command(&format!("{{ {line}\n}} 2>&1"))).ok().stdout;
                assert!(is_text(name, shown, &printed, true), "{}", difference(line, shown, &printed));
            }
            Some(Output::Json(shown)) => check_json(line, shown, &end(self.command(line)).ok().json()),
            None => drop(end(self.command(line)).ok()),
        }
    }
}

#[test]
fn every_command_works_and_prints_what_is_shown() {
    let mut reader = Reader::new();
    let steps = Steps::of(&readme());
    for step in &steps {
        match step {
            Step::Line { line, shown } => reader.line(line, shown.as_ref()),
            Step::Python(program) => {
                let mut command = reader.command("exec \"$@\"");
                command.args([&interpreter(), "-c", program]);
                end(command).ok();
            }
            Step::Clicks(clicks) => {
                for click in clicks.lines() {
                    let mut command = reader.command("grep -m1 -xF -- \"$1\" clicks.ndjson");
                    command.arg(click);
                    assert_eq!(end(command).stdout.trim_end(), click, "the log has no such line");
                }
            }
        }
    }
    reader.stop();
    assert!(is_empty(&reader.site, "tmp"));
    // None of the lists and rules above may be a leftover from an earlier README.
    let begins =
        |start: &str| steps.iter().any(|step| matches!(step, Step::Line { line, .. } if line.starts_with(start)));
    for start in NOT_RUN.iter().chain(&SHELL).chain(&["cargo run -- demo", "curl ", "adtally "]) {
        assert!(begins(start), "the README has no command that begins with {start}");
    }
}

/// The code spans of the prose.
fn spans(document: &str) -> Vec<String> {
    let mut in_block = false;
    let prose = document.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    });
    let prose = prose.collect::<Vec<_>>().join(" ");
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The prose names commands and flags without all arguments of a run; they must exist.
#[test]
fn commands_and_flags_of_the_prose_exist() {
    let site = Site::new();
    let help = |words: &str| site.adtally(&format!("{words} --help")).ok().stdout;
    let main = help("");
    let (_, list) = main.split_once("Commands:\n").unwrap();
    let names = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let helps: BTreeMap<&str, String> = names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(|name| {
            let further: &[&str] = match name {
                "config" => &["config show"],
                "dead-letters" => &["dead-letters show", "dead-letters replay"],
                _ => &[],
            };
            (name, further.iter().fold(help(name), |text, words| text + &help(words)))
        })
        .collect();
    let has = |help: &str, flag: &str| help.split(|c: char| c != '-' && !c.is_alphanumeric()).any(|word| word == flag);
    let mut commands = 0;
    for span in spans(&readme()) {
        let line = span.rsplit("| ").next().unwrap_or_default();
        let flags: Vec<_> = line.split_whitespace().filter(|word| word.starts_with("--")).collect();
        let called = words_of(line);
        let first = called.as_ref().map_or_else(|| line.split_whitespace().next(), |words| words.first().copied());
        match first.and_then(|first| helps.get(first)) {
            Some(help) => {
                commands += 1;
                flags.iter().for_each(|flag| assert!(has(help, flag), "`{span}`: no {flag} in its help"));
            }
            // A program of another name, such as `cargo`.
            None if called.is_none() && !line.starts_with("--") => {}
            None if called.is_none_or(|words| words.is_empty()) => {
                let known = |flag: &str| helps.values().any(|help| has(help, flag));
                flags.iter().for_each(|flag| assert!(known(flag), "`{span}`: no command has {flag}"));
            }
            None => panic!("`{span}`: there is no such command"),
        }
    }
    assert!(commands > 10, "{commands} commands in the prose");
}

#[test]
fn a_wrong_readme_fails() {
    let check = |shown: &str, real: &str, expected: bool| {
        assert_eq!(is_text("verify", shown, real, true), expected, "{shown:?} and {real:?}");
    };
    check("ok 4 epochs\n", "ok 17 epochs\n", true);
    check("ok 4 epochs\n", "ok 17 records\n", false);
    check("ok 4 epochs\n", "ok 4 epochs\nwrong\n", false);
    check("ok 4 epochs\n…\nend\n", "ok 4 epochs\na\nb\nend\n", true);
    check("read /tmp/a-1xZ/logs, 1,234 lines at 2026-01-01T00:00:00Z …\n", "read /x, 7 lines at 0Z and more\n", true);
    assert!(!is_text("count", "1  117,080\n", "1  117,081\n", true));
    let fails = |document: &str, word: &str| {
        let document = document.to_owned();
        let failed = std::thread::spawn(move || {
            let mut reader = Reader::new();
            for step in Steps::of(&document) {
                let Step::Line { line, shown } = step else { panic!("{step:?}") };
                reader.line(&line, shown.as_ref());
            }
        });
        let message = failed.join().unwrap_err();
        let message = message.downcast_ref::<String>().map_or("", String::as_str);
        assert!(message.contains(word), "{word}: {message}");
    };
    fails("```sh\nmake install\n```\n", "make install: this test must learn how to run it");
    fails("```sh\ncargo run -- rnu\n```\n", "unrecognized subcommand");
    fails("```\nout\n```\n", "which command prints this?");
    fails(
        "`cargo run -- config check --json` prints:\n\n```json\n{\"valid\":false,…}\n```\n",
        "differ: target/debug/adtally config check --json .valid",
    );
    fails("`cargo run -- config check` prints:\n\n```\nit is valid\n```\n", "The README shows:\nit is valid\n");
}
