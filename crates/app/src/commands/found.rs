//! Messages of a service about what it found: the files at its start, and clicks so old that queries for the last
//! minutes find nothing.

use crate::terminal;
use adtally_engine::SourceSettings;
use adtally_model::Minute;
use adtally_model::ledger::thousands;
use adtally_model::time::rfc3339;
use adtally_source::{LocalFiles, Survey};

/// Age of the newest click, in milliseconds, from which it is reported: queries for the last minutes would miss it.
const OLD_MS: i64 = 3_600_000;

/// Minutes in the suggested question.
const PROPOSED_MINUTES: i64 = 60;

/// Prints which files exist, from its own survey; the ledger reports what is read of them.
pub(crate) fn say(source: &SourceSettings) {
    let look = |paths: &[String]| adtally_source::survey(&LocalFiles, paths).unwrap_or_default();
    let Survey { files, bytes } = look(&source.paths);
    let (paths, noun) =
        (terminal::on_one_line(&source.paths.join(", ")).into_owned(), if files == 1 { "file" } else { "files" });
    let (files, bytes) = (thousands(files), thousands(bytes));
    terminal::say(&format!("reading {paths}: found {files} {noun}, {bytes} bytes"));
    for path in &source.paths {
        if source.paths.len() > 1 && look(std::slice::from_ref(path)).files > 0 {
            continue;
        }
        if source.paths.len() > 1 || files == "0" {
            let path = terminal::on_one_line(path);
            terminal::say(&format!(
                "no file with lines matches {path} yet: a matching file is read as soon as it appears"
            ));
        }
    }
}

/// Reports once how old the newest click is.
#[derive(Debug, Default)]
pub(crate) struct Age {
    said: bool,
}

impl Age {
    /// `newest_ms` is the event time of the newest click, once all readable lines are committed.
    pub(crate) fn say_once(&mut self, newest_ms: Option<i64>, now_ms: i64) {
        if self.said {
            return;
        }
        if let Some(message) = newest_ms.and_then(|newest_ms| old(newest_ms, now_ms)) {
            terminal::say(&message);
            self.said = true;
        }
    }
}

fn old(newest_ms: i64, now_ms: i64) -> Option<String> {
    let age_ms = now_ms - newest_ms;
    let to = Minute::of(newest_ms).next();
    let from = Minute(to.0 - PROPOSED_MINUTES);
    (age_ms >= OLD_MS).then(|| {
        let (hours, from, to) = (age_ms / 3_600_000, rfc3339(from.start_ms()), rfc3339(to.start_ms()));
        format!("newest click {hours} h old: ask with from/to, for example from={from}&to={to}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_click_proposes_whole_minutes() {
        let newest = 1_767_225_601_932;
        assert_eq!(old(newest, newest + OLD_MS - 1), None);
        let expected =
            "newest click 26 h old: ask with from/to, for example from=2025-12-31T23:01:00Z&to=2026-01-01T00:01:00Z";
        assert_eq!(old(newest, newest + 26 * OLD_MS + 1).as_deref(), Some(expected));
    }
}
