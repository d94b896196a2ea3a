//! Properties over random streams.

use crate::driver::{LINE_BYTES, drive};
use crate::oracle::{self, Line};
use adtally_pipeline::TimeSettings;
use proptest::collection::vec;
use proptest::prelude::*;

const START: i64 = 1_700_000_000_000;

/// A line as a step in time: mostly forward, sometimes back, rarely far. Many lines repeat an earlier one.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A click this many milliseconds after the newest so far (or before, when negative).
    Click { delta: i64, who: u32, ad: u64 },
    /// A copy of the line `back` lines before, with its own country.
    Copy { back: usize, country: &'static str },
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let delta = prop_oneof![
        20 => 0_i64..8_000,
        4 => -20_000_i64..0,
        3 => 20_000_i64..200_000,
        2 => -700_000_i64..-200_000,
        1 => 590_000_i64..1_000_000,
        1 => Just(72_000_000_i64),
    ];
    prop_oneof![
        6 => (delta, 0_u32..3, 1_u64..5).prop_map(|(delta, who, ad)| Step::Click { delta, who, ad }),
        3 => (1_usize..60, prop_oneof![Just("US"), Just("DE")]).prop_map(|(back, country)| Step::Copy { back, country }),
    ]
}

pub(crate) fn lines(steps: &[Step]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut at = START;
    for step in steps {
        let line = match *step {
            Step::Click { delta, who, ad } => {
                let time = at + delta;
                // A jump by 20 hours is one wrong clock and does not change the current time.
                if delta < 1_000_000 {
                    at = at.max(time);
                }
                Line { at: time, who, ad, country: "US" }
            }
            Step::Copy { back, country } => match lines.len().checked_sub(back) {
                Some(index) => Line { country, ..lines[index] },
                None => Line { at, who: 9, ad: 9, country },
            },
        };
        lines.push(line);
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// One input: every verdict is the contract's, whatever the batches, epochs and crashes.
    #[test]
    fn one_input_has_the_oracles_verdicts(steps in vec(step(), 1..300), choices in vec(any::<u32>(), 1..200), crashes: bool) {
        let input = lines(&steps);
        let log = drive(std::slice::from_ref(&input), TimeSettings::default(), &choices, crashes);
        let verdicts = oracle::single(&input);
        let ledger = log.ledger();
        let total = |verdict| verdicts.chars().filter(|&other| other == verdict).count() as u64;
        prop_assert_eq!((ledger.counted, ledger.duplicate, ledger.late), (total('c'), total('d'), total('l')));
        prop_assert_eq!(ledger.read, input.len() as u64);
        let watermarks = oracle::watermarks(&input);
        prop_assert_eq!(log.letters.len() as u64, ledger.late);
        for letter in &log.letters {
            let number = (letter.position / LINE_BYTES) as usize;
            let (line, user) = (input[number], input[number].who.to_string());
            let click = letter.click.as_ref().unwrap();
            prop_assert_eq!(click.watermark.get(), watermarks[number]);
            let fields = click.fields();
            let found = (fields.event_time_ms, fields.ad_id, fields.user_id, fields.country.as_str());
            prop_assert_eq!(found, (line.at, line.ad, user.as_bytes(), line.country));
        }
        prop_assert_eq!(log.counts(), oracle::counts(&[input]));
    }

    /// Several inputs of different speeds: the counts depend only on each input's lines.
    #[test]
    fn counts_do_not_depend_on_how_inputs_interleave(
        steps in vec(vec(step(), 1..150), 1..5),
        choices in vec(any::<u32>(), 1..200),
        crashes: bool,
    ) {
        let inputs: Vec<Vec<Line>> = steps.iter().map(|steps| lines(steps)).collect();
        let log = drive(&inputs, TimeSettings::default(), &choices, crashes);
        prop_assert_eq!(log.counts(), oracle::counts(&inputs));
        let ledger = log.ledger();
        prop_assert_eq!(ledger.read, inputs.iter().map(Vec::len).sum::<usize>() as u64);
        prop_assert!(ledger.check("the test").is_ok());
    }
}
