//! The stages of a click, each next to its floor.

use super::report::{Report, Table, ratio};
use crate::cargo_command;
use std::process::Stdio;

/// Runs `crates/app/benches/stages.rs` and reports its output.
pub(super) fn beside_their_floors(quick: bool, report: &mut Report) -> Result<(), String> {
    // With the profile of the tests, it only checks that it runs.
    let words = if quick {
        &["test", "--workspace", "--bench", "stages"]
    } else {
        &["bench", "--workspace", "--bench", "stages"]
    };
    let output = cargo_command(words).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", words.join(" "), output.status));
    }
    let mut table = Table::new(&["stage", "ns per click", "floor", "ns per click", "times the floor"]);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let [stage, took, floor, least] = cells.as_slice() else { continue };
        let number = |text: &str| text.parse::<f64>().map_err(|_| format!("a line of the stages: {line}"));
        table.row(&[stage, took, floor, least, &ratio(number(took)?, number(least)?)]);
        eprintln!("{stage}: {took} ns, {floor}: {least} ns");
    }
    report.section(
        "Stages",
        "Each stage processes a million clicks alone, on one core. Medians of seven runs.",
        table,
        "",
    );
    Ok(())
}
