//! The table of faults in `docs/faults.md`, generated from the names and comments of tests.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The document with the table, between [`BEGIN`] and [`END`].
pub(crate) const DOCUMENT: &str = "docs/faults.md";

const BEGIN: &str = "<!-- made by `cargo xtask faults`: do not edit -->";
const END: &str = "<!-- end of what is made -->";

/// Each fault by number, in a few words.
const FAULTS: [(u8, &str); 70] = [
    (1, "killed before an epoch's record is created"),
    (2, "killed while a record is being written"),
    (3, "the reply to the creation of a record is lost"),
    (4, "killed after staging files, before the record"),
    (5, "killed between the record and the stores, or between two stores"),
    (6, "killed before the Kafka offset is committed"),
    (7, "a Delta commit reports an error after it was durable"),
    (8, "a process that was thought dead wakes up"),
    (9, "it creates a record under a number that was collected; another builds on that"),
    (10, "two owners race for epochs and claims"),
    (11, "workers join and leave in a storm"),
    (12, "a poll times out during a rebalance"),
    (13, "the broker or its coordinator restarts"),
    (14, "offsets have expired, or the topic was made anew"),
    (15, "partitions are added to the topic"),
    (16, "the disk is full"),
    (17, "an epoch record is torn, empty or has a flipped bit"),
    (18, "an entry of a Delta log is torn or empty"),
    (19, "the power fails"),
    (20, "the wall clock jumps by a day"),
    (21, "a timestamp lies ten years ahead"),
    (22, "one input is idle, or all are"),
    (23, "clicks come late"),
    (24, "copies come after a restart, in another input, at the horizon's edge"),
    (25, "poison: JSON that is deep, incomplete, NaN or huge"),
    (26, "a line of a gigabyte without a newline"),
    (27, "bad UTF-8, NULs, byte-order marks, CRLF, half a last line"),
    (28, "a log is rotated by renaming it"),
    (29, "a log is copied and truncated, and grows again"),
    (30, "an inode is used again; a file that was read is compressed"),
    (31, "a store is slow"),
    (32, "an object store answers 500, 503, 409, 412 or not at all"),
    (33, "ClickHouse is down, or times out after an insert"),
    (34, "stores hold different epochs"),
    (35, "the API is overloaded"),
    (36, "clients are slow on purpose"),
    (37, "parameters are hostile"),
    (38, "a key is missing, wrong or another tenant's"),
    (39, "SIGTERM; an epoch log in an older format"),
    (40, "a stored count is altered by hand"),
    (41, "one server's clock is an hour fast"),
    (42, "one line in the midst of a file lies 20 hours ahead"),
    (43, "an old file is dropped into an idle, empty deployment"),
    (44, "day one ends in half a line, and day two goes on"),
    (45, "a file is deleted half read while nothing runs"),
    (46, "settings change between runs"),
    (47, "the epoch log is lost or cut short, the lake survives"),
    (48, "a store is down for hours"),
    (49, "one agent of three is cut off for twenty minutes"),
    (50, "a producer partitions in another way"),
    (51, "the first line of a file lies 20 hours ahead"),
    (52, "a crash between the lines that make a clock believed"),
    (53, "the process is suspended for minutes"),
    (54, "a server's clock is an hour slow; a mount hangs; a day-old file is dropped in"),
    (55, "clicks in ten million different minutes"),
    (56, "one line 20 hours ahead, and a long log after it"),
    (57, "only late or rejected lines for hours"),
    (58, "more inputs than may be open, more clicks than identities may be held"),
    (59, "handles run out: files, clients, both"),
    (60, "a log is padded with NULs and written in place; NULs before a line"),
    (61, "a file grows between its end and the next look, or while nothing runs"),
    (62, "an input cannot be opened or read during a bounded run"),
    (63, "a placeholder stands in `click_id` of every line"),
    (64, "maintenance after a long stop"),
    (65, "every line is refused: a wrong unit, a wrong field"),
    (66, "an owner that writes nothing was succeeded"),
    (67, "many committers on one lake"),
    (68, "reconciliation beside late arrivals, replay and backfill"),
    (69, "a store answers 409 or 5xx for a create that was or was not done"),
    (70, "a retry of an HTTP batch after a time-out"),
];

/// A test that shows faults.
#[derive(Debug)]
struct Test {
    name: String,
    path: String,
    shows: String,
}

/// The document with an updated table; an error if the marks are missing.
pub(crate) fn updated(document: &str, sources: &[(&str, &str)]) -> Result<String, String> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or(format!("{DOCUMENT} lacks the lines `{BEGIN}` and `{END}`"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n{END}{after}", table(sources)))
}

fn table(sources: &[(&str, &str)]) -> String {
    let mut tests: BTreeMap<u8, Vec<Test>> = BTreeMap::new();
    for (path, text) in sources {
        for (number, test) in tests_in(path, text) {
            tests.entry(number).or_default().push(test);
        }
    }
    let mut table = String::from("| # | fault | test | what it shows |\n|---|---|---|---|\n");
    for (number, fault) in FAULTS {
        let Some(tests) = tests.get_mut(&number) else {
            let _ = writeln!(table, "| {number} | {fault} | none yet | |");
            continue;
        };
        tests.sort_by(|a, b| (&a.path, &a.name).cmp(&(&b.path, &b.name)));
        for (at, Test { name, path, shows }) in tests.iter().enumerate() {
            let (number, fault) = if at == 0 { (number.to_string(), fault) } else { (String::new(), "") };
            let _ = writeln!(table, "| {number} | {fault} | [`{name}`](../{path}) | {shows} |");
        }
    }
    table
}

/// The tests in a source whose names begin with their faults: `fault_07_and_33_what_is_seen`.
fn tests_in(path: &str, text: &str) -> Vec<(u8, Test)> {
    let (mut found, mut comment) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("///") {
            comment.push_str(more);
        } else if let Some((name, _)) = line.strip_prefix("fn fault_").and_then(|rest| rest.split_once('(')) {
            let (numbers, rest) = numbers(name);
            let words = rest.replace('_', " ");
            let shows =
                comment.trim().split_once(". ").map_or(comment.trim(), |(first, _)| first).trim_end_matches('.');
            for number in numbers {
                let shows = if shows.is_empty() { words.clone() } else { shows.replace('|', "\\|") };
                found.push((number, Test { name: format!("fault_{name}"), path: path.to_owned(), shows }));
            }
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

/// The numbers at the start of a name, joined by `and`, and the rest of the name.
fn numbers(name: &str) -> (Vec<u8>, &str) {
    let Some((number, rest)) = name.split_once('_').and_then(|(word, rest)| Some((word.parse().ok()?, rest))) else {
        return (Vec::new(), name);
    };
    let (more, rest) = rest.strip_prefix("and_").map_or((Vec::new(), rest), numbers);
    ([vec![number], more].concat(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "/// One is shown. More is said.\n#[test]\nfn fault_01_and_02_of_both() {\n    let x = 1;\n}\n\n\
                          #[test]\nfn fault_02_2_lines() {}\n";

    #[test]
    fn a_row_for_each_test_of_each_fault() {
        let document = format!("before\n{BEGIN}\nstale\n{END}\nafter\n");
        let made = updated(&document, &[("crates/a.rs", SOURCE)]).unwrap();
        assert!(made.starts_with("before\n") && made.ends_with("\nafter\n") && !made.contains("stale"), "{made}");
        let row = "| 1 | killed before an epoch's record is created | [`fault_01_and_02_of_both`](../crates/a.rs) | One is shown |";
        assert!(made.contains(row), "{made}");
        assert!(made.contains("|  |  | [`fault_02_2_lines`](../crates/a.rs) | 2 lines |"), "{made}");
        assert!(made.contains("| 3 | the reply to the creation of a record is lost | none yet | |"), "{made}");
        assert_eq!(updated(&made, &[("crates/a.rs", SOURCE)]).unwrap(), made, "made again it is the same");
        assert!(updated("no marks", &[]).is_err());
    }
}
