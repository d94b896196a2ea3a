//! The verdicts of a batch's clicks, on their way from the stages to the ledger.

use adtally_model::Verdict;
use adtally_model::dead_letter::CONFLICT_OF;
use std::borrow::Cow;

/// What the stages decided about a click: its verdict, and what sets it apart from others of that verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A new click.
    Counted,
    /// Its event time is too far ahead of the clock.
    Future,
    /// A copy of a click that is held.
    Duplicate,
    /// A copy that differs in the fields that are not part of the identity, but not in its user.
    DifferingDuplicate,
    /// A copy under the same click id of a click of another user or address.
    Conflict,
    /// Its minute is final.
    Late,
    /// Its minute cannot be held beside the live ones.
    TooManyMinutes,
}

/// What the stages decided about the lines of a batch.
#[derive(Debug)]
pub(crate) struct Verdicts {
    /// Rows that are counted, ascending.
    pub(crate) counted: Vec<u32>,
    /// The other rows, ascending.
    pub(crate) not_counted: Vec<(u32, Outcome)>,
}

impl Outcome {
    /// What it is booked under.
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Outcome::Counted => Verdict::Counted,
            Outcome::Future => Verdict::Future,
            Outcome::Duplicate | Outcome::DifferingDuplicate | Outcome::Conflict => Verdict::Duplicate,
            Outcome::Late | Outcome::TooManyMinutes => Verdict::Late,
        }
    }

    /// Whether it is a copy that differs from the click that was counted.
    pub(crate) fn differs(self) -> bool {
        matches!(self, Outcome::DifferingDuplicate | Outcome::Conflict)
    }

    /// The reason that its dead letter gives; none where it leaves no dead letter.
    pub(crate) fn reason(self, click_id: &[u8]) -> Option<Cow<'static, str>> {
        match self {
            Outcome::Counted | Outcome::Duplicate | Outcome::DifferingDuplicate => None,
            Outcome::Future => Some("click_timestamp: ahead of the clock by more than max_future_skew".into()),
            // The id comes last: it is the client's, and may hold anything.
            Outcome::Conflict => Some(format!("{CONFLICT_OF}{}", String::from_utf8_lossy(click_id)).into()),
            Outcome::Late => Some("its minute is final".into()),
            Outcome::TooManyMinutes => Some("too_many_minutes: its minute cannot be held beside 4096 others".into()),
        }
    }
}
