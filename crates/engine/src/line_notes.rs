//! Notes for the people who supply lines: inputs with mostly refused lines, inputs without any known country, and click
//! ids that many clicks share. A problem is shown as a note while it lasts, and logged as a warning when it begins.

use adtally_model::dead_letter::{CONFLICT_OF, reason_kind};
use adtally_model::{CountedClicks, Country, DeadLetter, InputId, InputRow, Ledger, Verdict};
use adtally_pipeline::EpochDraft;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Refused lines from which an input is reported, if they are at least half of its lines. A few broken lines are
/// ordinary, and a log written by hand as a trial has no more lines than this.
const REFUSED_MIN: u64 = 10;

/// Clicks without any known country from which an input is reported.
const UNKNOWN_COUNTRIES_MIN: u64 = 20;

/// Copies of other users' clicks from which they are reported, if they are at least a tenth of all copies.
const CONFLICTS_MIN: u64 = 100;

/// Copies are reported for one to two of these spans, in milliseconds. They come from many inputs, so no line ends it.
const CONFLICTS_MS: i64 = 600_000;

/// Time without lines after which an input is no longer reported. The ledger and the dead letters keep it.
const QUIET_MS: i64 = 3_600_000;

/// Most inputs with refused lines or unknown countries to watch at a time. Others are watched once there is room. Each
/// takes a few hundred bytes.
const WATCHED_MAX: usize = 1_024;

/// Most inputs to name at a time. Others are only counted, because more names would not help the reader.
const NAMED_MAX: usize = 5;

/// Kinds of reasons to count per input: one wrong setting causes one kind, a log of another format a few.
const REASONS_MAX: usize = 8;

/// Dead letters per input and epoch whose reasons are examined: enough to find the most frequent one.
const LETTERS_MAX: u64 = 1_000;

/// Click ids to count at a time. An id with more than 1 / `CLICK_IDS_MAX` of all conflicts is always kept (Misra and
/// Gries, "Finding repeated elements", 1982).
const CLICK_IDS_MAX: usize = 32;

/// Most warnings logged within [`WARN_AGAIN_MS`], for all inputs together.
const WARNINGS_MAX: usize = 10;

/// How long after a warning the same warning is logged again, in milliseconds.
const WARN_AGAIN_MS: i64 = 600_000;

/// A reason why lines were refused, with its first line.
struct Reason {
    lines: u64,
    verdict: Verdict,
    text: String,
    position: u64,
}

/// An input with a problem that is, or may become, worth reporting.
struct Watched {
    name: Arc<str>,
    /// Lines read, and lines refused, since the first epoch with mostly refused lines.
    read: u64,
    refused: u64,
    reasons: BTreeMap<String, Reason>,
    /// Clicks since the last known country that had the country field, and an example of the field's value.
    unknown_countries: u64,
    country: String,
    seen_at_ms: i64,
    warned_at_ms: [Option<i64>; 2],
}

/// The countries of one input's clicks in one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Countries {
    /// The origin of the input.
    input: Arc<str>,
    /// Whether any country is known.
    known: bool,
    /// Clicks of the blocks that have the country field but no known country.
    unknown: u64,
    /// An example of the unknown values.
    example: String,
}

/// Summarizes the countries of an epoch's clicks. Reads a single row of most blocks.
pub fn countries_of(clicks: &[Arc<CountedClicks>]) -> Vec<Countries> {
    let mut found: Vec<Countries> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for part in clicks {
        let is_known = |row: &u32| part.columns.country.get(*row as usize).is_some_and(|of| *of != Country::UNKNOWN);
        let example = &part.columns.unknown_country;
        if example.is_none() && !part.rows.iter().any(is_known) {
            continue;
        }
        let index = *at.entry(&*part.input).or_insert(found.len());
        if index == found.len() {
            let input = Arc::clone(&part.input);
            found.push(Countries { input, known: false, unknown: 0, example: String::new() });
        }
        let countries = &mut found[index];
        match example {
            Some(example) => {
                countries.unknown += part.rows.len() as u64;
                countries.example.clone_from(example);
            }
            None => countries.known = true,
        }
    }
    found
}

/// Copies within one span of time, and how many of them conflict with the counted click.
#[derive(Default)]
struct Conflicts {
    copies: u64,
    conflicts: u64,
    click_ids: HashMap<String, u64>,
}

/// The notes, as of the last epoch.
#[derive(Default)]
pub struct LineNotes {
    watched: BTreeMap<InputId, Watched>,
    /// The current span and the one before it.
    conflicts: [Conflicts; 2],
    conflicts_since_ms: i64,
    conflicts_warned_at_ms: Option<i64>,
    warnings_since_ms: i64,
    warnings: usize,
}

impl LineNotes {
    /// Observes a committed epoch. `before` are the inputs and `total` is the ledger as of the epoch before it.
    /// `now_ms` is monotonic time. Returns the warnings to log.
    pub fn observe(
        &mut self,
        draft: &EpochDraft,
        countries: &[Countries],
        before: &BTreeMap<InputId, Arc<InputRow>>,
        total: &Ledger,
        now_ms: i64,
    ) -> Vec<String> {
        let mut letters: HashMap<&str, Vec<&DeadLetter>> = HashMap::new();
        for letter in draft.dead_letters.iter().filter(|letter| is_refused(letter.verdict)) {
            letters.entry(&*letter.input).or_default().push(letter);
        }
        let countries: HashMap<&str, &Countries> = countries.iter().map(|found| (&*found.input, found)).collect();
        self.watched.retain(|_, input| now_ms - input.seen_at_ms < QUIET_MS);
        for row in &draft.inputs {
            let was = before.get(&row.id).map(|row| row.ledger).unwrap_or_default();
            let read = row.ledger.read.saturating_sub(was.read);
            let refused = refused(&row.ledger).saturating_sub(refused(&was));
            let origin = &*row.origin;
            let (letters, countries) = (letters.get(origin).map_or(&[][..], Vec::as_slice), countries.get(origin));
            self.observe_input(row, (read, refused), letters, countries.copied(), now_ms);
        }
        self.observe_conflicts(draft, total, now_ms);
        self.warnings(now_ms)
    }

    fn observe_input(
        &mut self,
        row: &InputRow,
        (read, refused): (u64, u64),
        letters: &[&DeadLetter],
        countries: Option<&Countries>,
        now_ms: i64,
    ) {
        let unknown = countries.is_some_and(|countries| countries.unknown > 0);
        let room = self.watched.len() < WATCHED_MAX;
        if read == 0 || !(self.watched.contains_key(&row.id) || (room && (refused > 0 || unknown))) {
            return;
        }
        let input = self.watched.entry(row.id).or_insert_with(|| Watched::new(&row.name));
        input.name = Arc::clone(&row.name);
        input.seen_at_ms = now_ms;
        if refused * 2 < read {
            (input.read, input.refused) = (0, 0);
            input.reasons.clear();
        } else {
            input.read += read;
            input.refused += refused;
            input.count_reasons(letters);
        }
        match countries {
            Some(countries) if countries.known => input.unknown_countries = 0,
            Some(countries) => {
                input.unknown_countries += countries.unknown;
                input.country.clone_from(&countries.example);
            }
            None => {}
        }
        if input.refused == 0 && input.unknown_countries == 0 {
            self.watched.remove(&row.id);
        }
    }

    fn observe_conflicts(&mut self, draft: &EpochDraft, total: &Ledger, now_ms: i64) {
        if now_ms - self.conflicts_since_ms >= CONFLICTS_MS {
            self.conflicts_since_ms = now_ms;
            self.conflicts.swap(0, 1);
            self.conflicts[0] = Conflicts::default();
        }
        let [now, _] = &mut self.conflicts;
        now.copies += draft.progress.ledger.duplicate.saturating_sub(total.duplicate);
        for letter in draft.dead_letters.iter().filter(|letter| letter.verdict == Verdict::Duplicate) {
            now.conflicts += 1;
            now.count(letter.reason.strip_prefix(CONFLICT_OF).unwrap_or_default());
        }
    }

    /// The current notes.
    pub fn notes(&self, now_ms: i64) -> Vec<String> {
        let live = || self.watched.values().filter(|input| now_ms - input.seen_at_ms < QUIET_MS);
        let mut notes = named(live().filter_map(Watched::refusal), "are rejected as well");
        notes.extend(named(live().filter_map(Watched::countries), "have no known country either"));
        notes.extend(self.conflict());
        notes
    }

    /// A note if there are many copies of other users' clicks.
    fn conflict(&self) -> Option<String> {
        let sum = |of: fn(&Conflicts) -> u64| self.conflicts.iter().map(of).sum::<u64>();
        let (copies, conflicts) = (sum(|of| of.copies), sum(|of| of.conflicts));
        if conflicts < CONFLICTS_MIN || conflicts * 10 < copies {
            return None;
        }
        let most = self.conflicts.iter().flat_map(|of| &of.click_ids).max_by_key(|(id, times)| (**times, *id));
        let which = most.map(|(id, _)| format!(": click_id {id:?} repeats")).unwrap_or_default();
        Some(format!(
            "{conflicts} of {copies} duplicates have another user_id or ip than the counted click{which}; if this \
             click_id is a placeholder, add it to input.null_values; the duplicates are in dead_letters (verdict \
             conflict)"
        ))
    }

    fn warnings(&mut self, now_ms: i64) -> Vec<String> {
        if now_ms - self.warnings_since_ms >= WARN_AGAIN_MS {
            (self.warnings_since_ms, self.warnings) = (now_ms, 0);
        }
        let mut due = Vec::new();
        let is_due = |at: &mut Option<i64>| {
            let is_due = at.is_none_or(|at| now_ms - at >= WARN_AGAIN_MS);
            if is_due {
                *at = Some(now_ms);
            }
            is_due
        };
        for input in self.watched.values_mut().filter(|input| input.seen_at_ms == now_ms) {
            let told = [input.refusal(), input.countries()];
            for (told, at) in told.into_iter().zip(&mut input.warned_at_ms) {
                due.extend(told.filter(|_| is_due(at)));
            }
        }
        due.extend(self.conflict().filter(|_| is_due(&mut self.conflicts_warned_at_ms)));
        due.truncate(WARNINGS_MAX.saturating_sub(self.warnings));
        self.warnings += due.len();
        due
    }
}

impl Watched {
    fn new(name: &Arc<str>) -> Watched {
        Watched {
            name: Arc::clone(name),
            read: 0,
            refused: 0,
            reasons: BTreeMap::new(),
            unknown_countries: 0,
            country: String::new(),
            seen_at_ms: 0,
            warned_at_ms: [None; 2],
        }
    }

    fn count_reasons(&mut self, letters: &[&DeadLetter]) {
        for letter in letters.iter().take(LETTERS_MAX as usize) {
            let (kind, room) = (reason_kind(&letter.reason), self.reasons.len() < REASONS_MAX);
            match self.reasons.get_mut(&kind) {
                Some(reason) => reason.lines += 1,
                None if room => {
                    let (text, position) = (letter.reason.to_string(), letter.position);
                    self.reasons.insert(kind, Reason { lines: 1, verdict: letter.verdict, text, position });
                }
                None => {}
            }
        }
    }

    /// A note if most lines are refused.
    fn refusal(&self) -> Option<String> {
        if self.refused < REFUSED_MIN || self.refused * 2 < self.read {
            return None;
        }
        let Watched { name, read, refused, .. } = self;
        let Some(reason) = self.reasons.values().max_by_key(|reason| reason.lines) else {
            return Some(format!("{name}: {refused} of its last {read} lines are rejected: see dead_letters"));
        };
        let Reason { verdict, text, position, .. } = reason;
        let help = help(*verdict, text, name);
        Some(format!(
            "{name}: {refused} of its last {read} lines are rejected, most of them like the one at byte {position}: \
             {verdict}: {text}{help}"
        ))
    }

    /// A note if no country is known.
    fn countries(&self) -> Option<String> {
        let Watched { name, unknown_countries, country, .. } = self;
        (*unknown_countries >= UNKNOWN_COUNTRIES_MIN).then(|| {
            format!(
                "{name}: none of its last {unknown_countries} clicks has a known country, so they are counted as ZZ: \
                 the field has {country:?}, but a code of ISO 3166-1 alpha-2 such as \"DE\" is expected; see \
                 input.fields"
            )
        })
    }
}

impl Conflicts {
    fn count(&mut self, click_id: &str) {
        if let Some(times) = self.click_ids.get_mut(click_id) {
            *times += 1;
        } else if self.click_ids.len() < CLICK_IDS_MAX {
            self.click_ids.insert(click_id.to_owned(), 1);
        } else {
            self.click_ids.retain(|_, times| {
                *times -= 1;
                *times > 0
            });
        }
    }
}

/// Advice, unless the reason already contains it.
fn help(verdict: Verdict, reason: &str, name: &str) -> String {
    if reason.contains("set input.") {
        String::new()
    } else if verdict == Verdict::Future {
        "; check the clocks and input.timestamp_unit".to_owned()
    } else {
        format!("; `adtally inspect '{name}'` shows what is wrong and proposes settings")
    }
}

fn is_refused(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Malformed | Verdict::Invalid | Verdict::Future)
}

fn refused(ledger: &Ledger) -> u64 {
    ledger.malformed + ledger.invalid + ledger.future
}

/// The first few notes, and the number of those left off.
fn named(notes: impl Iterator<Item = String>, what: &str) -> Vec<String> {
    let mut notes = notes;
    let mut told: Vec<String> = notes.by_ref().take(NAMED_MAX).collect();
    let left = notes.count();
    if left > 0 {
        told.push(format!("{left} more inputs {what}"));
    }
    told
}
