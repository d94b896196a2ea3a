//! `benches/README.md`: every figure with its environment and the command that measures it again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The title of the section of `cargo xtask bench scale-out`, which is measured apart.
pub(super) const BEYOND: &str = "Beyond one machine";

/// The measurements, in order.
#[derive(Default)]
pub(super) struct Report {
    text: String,
    targets: Vec<[String; 5]>,
    /// The figures with targets, and whether more is better.
    figures: Vec<(String, f64, bool)>,
}

/// The target of a figure.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// At least the first value; the second is the aim.
    AtLeast(f64, f64),
    /// At most the first value; the second is the aim.
    AtMost(f64, f64),
    /// No target; at least this value is the aim.
    Aim(f64),
}

impl Target {
    fn judge(self, measured: f64) -> &'static str {
        let (holds, aim_holds) = match self {
            Target::AtLeast(bound, aim) => (measured >= bound, measured >= aim),
            Target::AtMost(bound, aim) => (measured <= bound, measured <= aim),
            Target::Aim(aim) => return if measured >= aim { "aim reached" } else { "aim missed" },
        };
        match (holds, aim_holds) {
            (_, true) => "aim reached",
            (true, false) => "bound reached, aim missed",
            (false, false) => "bound missed",
        }
    }
}

/// Rows of figures under a heading each.
pub(super) struct Table {
    columns: usize,
    text: String,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Table {
        let mut table = Table { columns: headings.len(), text: String::new() };
        table.row(headings);
        let _ = writeln!(table.text, "|{}", " --- |".repeat(headings.len()));
        table
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        debug_assert_eq!(cells.len(), self.columns, "a row of the table");
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }
}

impl Report {
    pub(super) fn section(&mut self, title: &str, what: &str, table: Table, after: &str) {
        let _ = write!(self.text, "## {title}\n\n{}\n\n{}\n", wrapped(what), table.text);
        if !after.is_empty() {
            let _ = write!(self.text, "{}\n\n", wrapped(after));
        }
    }

    /// Adds a figure and compares it with its target.
    pub(super) fn target(&mut self, what: &str, measured: f64, unit: &str, target: Target) {
        self.figures.push((what.to_owned(), measured, !matches!(target, Target::AtMost(..))));
        self.target_beside_others(what, measured, unit, target);
    }

    /// The same for a figure that depends on other systems too, so it says too little about two programs.
    pub(super) fn target_beside_others(&mut self, what: &str, measured: f64, unit: &str, target: Target) {
        let (bound, aim) = match target {
            Target::AtLeast(bound, aim) => (format!("at least {bound}{unit}"), aim),
            Target::AtMost(bound, aim) => (format!("at most {bound}{unit}"), aim),
            Target::Aim(aim) => (String::new(), aim),
        };
        let digits = if measured < 10.0 { 2 } else { 1 };
        let (aim, measured_text) = (format!("{aim}{unit}"), format!("{measured:.digits$}{unit}"));
        self.targets.push([what.to_owned(), bound, aim, measured_text, target.judge(measured).to_owned()]);
    }

    /// All figures with targets.
    fn targets(&self) -> String {
        if self.targets.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["figure", "bound", "aim", "measured", "result"]);
        for row in &self.targets {
            table.row(&row.each_ref().map(String::as_str));
        }
        let about = wrapped(
            "Each figure is explained below. [The measurements of the hot path](../docs/hot-path.md) explain what \
             limits those whose aim is missed.",
        );
        format!("## Targets\n\n{about}\n\n{}\n", table.text)
    }

    /// Each figure next to that of another program, and the change.
    pub(super) fn beside(&self, other: &Report) -> String {
        let mut table = Table::new(&["figure", "other program", "this program", "change"]);
        for ((what, now, more_is_better), (_, then, _)) in self.figures.iter().zip(&other.figures) {
            let change = (now / then - 1.0) * 100.0;
            let verdict = match change.abs() {
                0.05.. => {
                    let word = if (change > 0.0) == *more_is_better { "better" } else { "worse" };
                    format!("{:.1} % {word}", change.abs())
                }
                _ => "the same".to_owned(),
            };
            table.row(&[what, &format!("{then:.3}"), &format!("{now:.3}"), &verdict]);
        }
        table.text
    }

    /// The measurements so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Replaces the figures of this report in a file that an earlier run has written, and keeps the others.
    pub(super) fn update(&self, path: &Path, command: &str) -> Result<(), String> {
        let before = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let text = self.merged(&before, command)?;
        fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn merged(&self, before: &str, command: &str) -> Result<String, String> {
        let mut sections: Vec<String> = before.split("\n## ").map(|text| format!("{}\n", text.trim_end())).collect();
        let targets = sections.iter_mut().find(|section| section.starts_with("Targets\n"));
        let targets = targets.ok_or("the file of an earlier run has no targets: run all parts")?;
        for row in &self.targets {
            let text = format!("| {} |", row.join(" | "));
            let mut lines: Vec<&str> = targets.lines().collect();
            let begin = format!("| {} |", row[0]);
            match lines.iter().position(|line| line.starts_with(&begin)) {
                Some(at) => lines[at] = &text,
                None => lines.push(&text),
            }
            *targets = lines.join("\n") + "\n";
        }
        for section in self.text.split("## ").filter(|section| !section.is_empty()) {
            let (title, body) = section.split_once('\n').unwrap_or((section, ""));
            let text = format!("{title}\n\nMeasured by `{command}`, in a run of its own.\n{}\n", body.trim_end());
            match sections.iter_mut().find(|section| section.starts_with(&format!("{title}\n"))) {
                Some(section) => *section = text,
                None => sections.push(text),
            }
        }
        Ok(sections.join("\n## "))
    }

    /// Writes the file. The section [`BEYOND`] of an earlier file stays.
    pub(super) fn write(&self, path: &Path, command: &str) -> Result<(), String> {
        let before = fs::read_to_string(path).unwrap_or_default();
        let head = format!(
            "# Benchmarks\n\nWritten by `{command}`. Machines differ and are noisy: compare only figures \
             of one run.\n\n- machine: {}\n- system: {}\n- compiler: {}\n- other systems: {}\n\n",
            machine(),
            said("uname", &["-sr"]),
            said("rustc", &["--version"]),
            fs::read_to_string(path.with_file_name("peers/requirements.txt"))
                .map_or_else(|_| "none".to_owned(), |text| text.lines().collect::<Vec<_>>().join(", ")),
        );
        let text = format!("{head}{}{}{}", self.targets(), self.text, section_of(&before, BEYOND));
        fs::write(path, format!("{}\n", text.trim_end()))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

/// The section with this title in a file; empty if there is none.
fn section_of(text: &str, title: &str) -> String {
    let section = text.split("\n## ").skip(1).find(|section| section.lines().next() == Some(title));
    section.map(|section| format!("## {}\n", section.trim_end())).unwrap_or_default()
}

/// The ratio of `theirs` to `ours`.
pub(super) fn ratio(theirs: f64, ours: f64) -> String {
    format!("{:.2}x", theirs / ours)
}

fn machine() -> String {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(": unknown").to_owned();
        line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{} with {cores} cores, memory {}",
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal")
    )
}

fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    output.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Lines of at most 118 characters.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        if width > 0 && width + 1 + word.chars().count() > 118 {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += word.chars().count();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_replaces_its_own_figures() {
        let before = "# Benchmarks\n\nHead.\n\n## Targets\n\n| figure | bound |\n| --- | --- |\n| a | 1 |\n| b | 1 |\n\n## First\n\n\
                      Old.\n\n## Second\n\nOld.\n";
        let mut report = Report::default();
        report.target("b", 2.0, "", Target::Aim(1.0));
        report.target("c", 2.0, "", Target::Aim(1.0));
        for title in ["Second", "Third"] {
            report.section(title, "New.", Table::new(&["what"]), "");
        }
        let merged = report.merged(before, "bench").expect("targets");
        let table = "New.\n\n| what |\n| --- |\n";
        let measured = "Measured by `bench`, in a run of its own.";
        let expected = format!(
            "# Benchmarks\n\nHead.\n\n## Targets\n\n| figure | bound |\n| --- | --- |\n| a | 1 |\n| b |  | 1 | 2.00 | aim reached \
             |\n| c |  | 1 | 2.00 | aim reached |\n\n## First\n\nOld.\n\n## Second\n\n{measured}\n\n{table}\n## \
             Third\n\n{measured}\n\n{table}"
        );
        assert_eq!(merged, expected);
        assert!(report.merged("# Nothing\n", "bench").is_err());
    }

    #[test]
    fn a_section_is_found_by_its_title() {
        let text = "# Benchmarks\n\n## First\n\n| a |\n\n## Second\n\nText.\n";
        assert_eq!(section_of(text, "First"), "## First\n\n| a |\n");
        assert_eq!(section_of(text, "Second"), "## Second\n\nText.\n");
        assert_eq!(section_of(text, "Third"), "");
    }

    #[test]
    fn sections_are_markdown() {
        let mut table = Table::new(&["what", "seconds"]);
        table.row(&["a", "1.00"]);
        let mut report = Report::default();
        report.section("Title", "In short.", table, "");
        assert_eq!(report.text, "## Title\n\nIn short.\n\n| what | seconds |\n| --- | --- |\n| a | 1.00 |\n\n");
        report.target("faster", 1.6, "x", Target::AtLeast(1.5, 2.0));
        report.target("memory", 2_000.0, " MiB", Target::AtMost(1_536.0, 1_024.0));
        report.target("rate", 2.0, " million", Target::Aim(2.5));
        let rows = report.targets();
        assert!(rows.contains("| rate |  | 2.5 million | 2.00 million | aim missed |"), "{rows}");
        assert!(rows.contains("| faster | at least 1.5x | 2x | 1.60x | bound reached, aim missed |"), "{rows}");
        assert!(rows.contains("| memory | at most 1536 MiB | 1024 MiB | 2000.0 MiB | bound missed |"), "{rows}");
        let mut other = Report::default();
        other.target("faster", 2.0, "x", Target::AtLeast(1.5, 2.0));
        other.target("memory", 1_600.0, " MiB", Target::AtMost(1_536.0, 1_024.0));
        let beside = report.beside(&other);
        assert!(beside.contains("| faster | 2.000 | 1.600 | 20.0 % worse |"), "{beside}");
        assert!(beside.contains("| memory | 1600.000 | 2000.000 | 25.0 % worse |"), "{beside}");
        assert!(wrapped(&"word ".repeat(100)).lines().all(|line| line.len() <= 118));
        assert_eq!(ratio(3.0, 2.0), "1.50x");
    }
}
