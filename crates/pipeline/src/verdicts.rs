//! The verdicts on a batch's clicks, passed from the stages to the ledger.

use adtally_model::Verdict;
use adtally_model::dead_letter::CONFLICT_OF;
use std::borrow::Cow;

/// The decision on a click: its verdict, and details that distinguish clicks of the same verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A new click.
    Counted,
    /// Its event time is too far ahead of the clock.
    Future,
    /// A copy of a click whose identity is known.
    Duplicate,
    /// A copy that differs in fields outside the identity, but has the same user.
    DifferingDuplicate,
    /// A copy under the same click id as a click of another user or address.
    Conflict,
    /// Its minute is final.
    Late,
    /// There is no room for its minute beside the live ones.
    TooManyMinutes,
}

/// The decisions on the lines of a batch.
#[derive(Debug)]
pub(crate) struct Verdicts {
    /// Rows that are counted, in ascending order.
    pub(crate) counted: Vec<u32>,
    /// The other rows, in ascending order.
    pub(crate) not_counted: Vec<(u32, Outcome)>,
}

impl Outcome {
    /// The verdict under which it is booked.
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Outcome::Counted => Verdict::Counted,
            Outcome::Future => Verdict::Future,
            Outcome::Duplicate | Outcome::DifferingDuplicate | Outcome::Conflict => Verdict::Duplicate,
            Outcome::Late | Outcome::TooManyMinutes => Verdict::Late,
        }
    }

    /// Whether it is a copy that differs from the counted click.
    pub(crate) fn differs(self) -> bool {
        matches!(self, Outcome::DifferingDuplicate | Outcome::Conflict)
    }

    /// The reason for its dead letter; `None` if it leaves no dead letter.
    pub(crate) fn reason(self, click_id: &[u8]) -> Option<Cow<'static, str>> {
        match self {
            Outcome::Counted | Outcome::Duplicate | Outcome::DifferingDuplicate => None,
            Outcome::Future => Some("click_timestamp: ahead of the clock by more than max_future_skew".into()),
            // The id is last because it comes from the client and may contain anything.
            Outcome::Conflict => Some(format!("{CONFLICT_OF}{}", String::from_utf8_lossy(click_id)).into()),
            Outcome::Late => Some("its minute is final".into()),
            Outcome::TooManyMinutes => Some("too_many_minutes: its minute cannot be held beside 4096 others".into()),
        }
    }
}
