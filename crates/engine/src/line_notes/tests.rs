//! Tests of the notes on refused lines, unknown countries and conflicting copies: when they begin and end.

use super::*;
use adtally_model::{ClickColumns, LinePositions};
use std::borrow::Cow;

const WRONG_UNIT: &str = "click_timestamp: 1767225600 is 1970-01-21 in ms; it would be 2026-01-01 in s: set \
                          input.timestamp_unit";

/// Consecutive epochs, and the state of the inputs after each.
#[derive(Default)]
struct World {
    notes: LineNotes,
    inputs: BTreeMap<InputId, Arc<InputRow>>,
    total: Ledger,
    now_ms: i64,
}

/// Lines of an input in an epoch: accepted ones, and one refused line for each reason.
struct Lines<'a>(u64, u64, Vec<Cow<'a, str>>);

impl World {
    /// Commits lines. Returns the warnings.
    fn epoch(&mut self, lines: &[Lines<'_>]) -> Vec<String> {
        let mut draft = EpochDraft::default();
        for Lines(id, accepted, refused) in lines {
            let mut row = self.inputs.get(&InputId(*id)).map_or_else(|| input(*id), |row| InputRow::clone(row));
            row.ledger.book(Verdict::Counted, *accepted);
            row.ledger.book(Verdict::Invalid, refused.len() as u64);
            for (position, reason) in refused.iter().enumerate() {
                let letter = letter(&row.name, Verdict::Invalid, reason, position as u64);
                draft.dead_letters.push(letter);
            }
            draft.inputs.push(row.into());
        }
        self.commit(&draft, &[])
    }

    fn commit(&mut self, draft: &EpochDraft, countries: &[Countries]) -> Vec<String> {
        self.now_ms += 10_000;
        let warnings = self.notes.observe(draft, countries, &self.inputs, &self.total, self.now_ms);
        self.inputs.extend(draft.inputs.iter().map(|row| (row.id, Arc::clone(row))));
        self.total = draft.progress.ledger;
        warnings
    }

    /// Clicks of one input with a country column in which all countries are unknown or none is.
    fn countries(&mut self, clicks: u64, unknown: Option<&str>) -> Vec<String> {
        let mut row = self.inputs.get(&InputId(1)).map_or_else(|| input(1), |row| InputRow::clone(row));
        row.ledger.book(Verdict::Counted, clicks);
        let country = if unknown.is_some() { Country::UNKNOWN } else { Country::parse(b"DE") };
        let columns = ClickColumns {
            country: vec![country; clicks as usize],
            unknown_country: unknown.map(str::to_owned),
            ..ClickColumns::default()
        };
        let rows = (0..clicks as u32).collect();
        let part = CountedClicks {
            columns: Arc::new(columns),
            rows,
            input: Arc::clone(&row.name),
            positions: LinePositions::Text(0),
        };
        let draft = EpochDraft { inputs: vec![row.into()], ..EpochDraft::default() };
        self.commit(&draft, &countries_of(&[Arc::new(part)]))
    }

    /// Copies, and the click ids of those that conflict.
    fn copies(&mut self, copies: u64, click_ids: &[&str]) -> Vec<String> {
        let mut draft = EpochDraft::default();
        draft.progress.ledger = self.total;
        draft.progress.ledger.book(Verdict::Duplicate, copies);
        let of = |id: &&str| letter("1.log", Verdict::Duplicate, &format!("{CONFLICT_OF}{id}"), 0);
        draft.dead_letters = click_ids.iter().map(of).collect();
        self.commit(&draft, &[])
    }

    fn notes(&self) -> Vec<String> {
        self.notes.notes(self.now_ms)
    }
}

fn input(id: u64) -> InputRow {
    InputRow::new(InputId(id), format!("{id}.log"), 0)
}

fn letter(input: &str, verdict: Verdict, reason: &str, position: u64) -> DeadLetter {
    DeadLetter {
        verdict,
        reason: Cow::Owned(reason.to_owned()),
        payload: Vec::new(),
        header: None,
        input: input.into(),
        position,
        received_at_ms: 0,
        click: None,
    }
}

fn times(lines: usize, reason: &str) -> Vec<Cow<'_, str>> {
    vec![Cow::Borrowed(reason); lines]
}

#[test]
fn an_input_whose_lines_are_refused_is_told_until_they_are_accepted() {
    let mut world = World::default();
    assert_eq!(world.epoch(&[Lines(1, 0, times(9, WRONG_UNIT)), Lines(2, 1_000, times(9, "ip: missing"))]), [""; 0]);
    assert_eq!(world.notes(), [""; 0]);
    let told = format!(
        "1.log: 11 of its last 11 lines are rejected, most of them like the one at byte 0: invalid: {WRONG_UNIT}"
    );
    assert_eq!(world.epoch(&[Lines(1, 0, times(2, WRONG_UNIT)), Lines(2, 1_000, times(400, "ip: missing"))]), [&*told]);
    assert_eq!(world.notes(), [&*told]);
    // Warned once, shown as long as it lasts.
    assert_eq!(world.epoch(&[Lines(1, 0, times(300, WRONG_UNIT))]), [""; 0]);
    assert!(world.notes()[0].starts_with("1.log: 311 of its last 311 lines are rejected"));
    assert_eq!(world.epoch(&[Lines(1, 3, times(1, WRONG_UNIT))]), [""; 0]);
    assert_eq!(world.notes(), [""; 0]);
    // An epoch without lines of the input changes nothing; an hour without lines ends the note.
    world.epoch(&[Lines(2, 0, times(20, "ip: missing"))]);
    world.epoch(&[Lines(1, 1, Vec::new()), Lines(2, 0, Vec::new())]);
    assert_eq!(world.notes().len(), 1);
    assert!(
        world.notes()[0]
            .ends_with("invalid: ip: missing; `adtally inspect '2.log'` shows what is wrong and proposes settings")
    );
    world.now_ms += QUIET_MS;
    assert_eq!(world.notes(), [""; 0]);
}

#[test]
fn the_most_frequent_reason_is_named_whatever_numbers_are_in_it() {
    let mut world = World::default();
    let mut reasons = times(10, "ip: missing");
    reasons.extend((0..20).map(|second| Cow::Owned(WRONG_UNIT.replace("1767225600", &format!("17672256{second:02}")))));
    let warnings = world.epoch(&[Lines(1, 0, reasons)]);
    assert!(
        warnings[0].contains("most of them like the one at byte 10: invalid: click_timestamp: 1767225600 is"),
        "{warnings:?}"
    );
}

#[test]
fn many_inputs_are_told_in_few_words() {
    let mut world = World::default();
    let lines: Vec<_> = (1..=2_000).map(|id| Lines(id, 0, times(10, WRONG_UNIT))).collect();
    assert_eq!(world.epoch(&lines).len(), WARNINGS_MAX);
    let notes = world.notes();
    assert_eq!((notes.len(), notes[NAMED_MAX].as_str()), (6, "1019 more inputs are rejected as well"));
    assert_eq!(world.epoch(&lines), [""; 0]);
    world.now_ms += WARN_AGAIN_MS;
    assert_eq!(world.epoch(&lines).len(), WARNINGS_MAX, "it lasts");
}

#[test]
fn a_column_without_a_known_country_is_told_until_there_is_one() {
    let mut world = World::default();
    let told = "1.log: none of its last 20 clicks has a known country, so they are counted as ZZ: the field has \
                \"Germany\", but a code of ISO 3166-1 alpha-2 such as \"DE\" is expected; see input.fields";
    assert_eq!(world.countries(19, Some("Germany")), [""; 0]);
    assert_eq!(world.countries(1, Some("Germany")), [told]);
    assert_eq!(world.notes(), [told]);
    assert_eq!(world.countries(1, None), [""; 0]);
    assert_eq!(world.notes(), [""; 0]);
}

#[test]
fn click_ids_that_many_bear_are_told_while_they_do() {
    let mut world = World::default();
    // A tenth of all copies, and one less than the threshold.
    let mut ids = vec!["-"; 60];
    ids.extend(vec!["other"; 39]);
    assert_eq!(world.copies(999, &ids), [""; 0]);
    let told = "100 of 1000 duplicates have another user_id or ip than the counted click: click_id \"-\" repeats; if \
                this click_id is a placeholder, add it to input.null_values; the duplicates are in dead_letters \
                (verdict conflict)";
    assert_eq!(world.copies(1, &["-"]), [told]);
    assert_eq!(world.copies(0, &[]), [""; 0]);
    assert_eq!(world.notes(), [told]);
    world.copies(1, &[]);
    assert_eq!(world.notes(), [""; 0], "less than a tenth");
    world.copies(0, &["\u{1b}[31m"; 400]);
    assert!(world.notes()[0].contains(r#"click_id "\u{1b}[31m" repeats"#), "{:?}", world.notes());
    for _ in 0..2 {
        world.now_ms += CONFLICTS_MS;
        world.copies(1, &[]);
    }
    assert_eq!(world.notes(), [""; 0], "long ago");
}

#[test]
fn the_id_that_repeats_is_found_among_many_that_do_not() {
    let mut world = World::default();
    let unique: Vec<String> = (0..2_000).map(|id| format!("c{id}")).collect();
    let ids: Vec<&str> = unique.iter().flat_map(|id| [&**id, "repeats"]).collect();
    let warnings = world.copies(4_000, &ids);
    assert!(warnings[0].contains("click_id \"repeats\" repeats"), "{warnings:?}");
}
