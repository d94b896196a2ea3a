//! The questions about clicks that a store answers. Nothing here depends on where a store keeps its counts.

use adtally_model::{Country, Minute, MinuteState, Result};
use async_trait::async_trait;

mod revision;

pub use revision::{NoRevision, Reached, Revision};

/// The longest span that a question may cover, in minutes: a week.
pub const MINUTES_MAX: u32 = 10_080;

/// The minutes of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// The last M minutes, 1 to [`MINUTES_MAX`].
    Last(u32),
    /// `[from, to)`; `from < to`, at most [`MINUTES_MAX`] long.
    Between(Minute, Minute),
}

/// The clicks of a question; conditions combine with AND.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filters {
    /// Only from this country (`ZZ`: unknown).
    pub country: Option<Country>,
    /// Only from this canonical address, see [`adtally_model::ip`].
    pub ip: Option<u128>,
    /// Only by this user.
    pub user_id: Option<String>,
}

impl Filters {
    /// Whether counts alone are enough for the answer.
    pub fn is_counted(&self) -> bool {
        self.ip.is_none() && self.user_id.is_none()
    }
}

/// The metadata of every answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coverage {
    /// First covered minute and the one after the last; `None` before any click.
    pub span: Option<(Minute, Minute)>,
    /// The least settled state among the covered minutes; open before any click.
    pub state: MinuteState,
    /// Watermark of the last commit.
    pub watermark_ms: Option<i64>,
    /// Event time of the newest counted click, including uncommitted ones if the question includes open minutes.
    pub newest_click_ms: Option<i64>,
    /// Whether a correction changed a covered minute.
    pub restated: bool,
    /// Every earlier minute whose raw clicks are kept is reconciled; `None` before the first run.
    pub reconciled_to_ms: Option<i64>,
    /// The epochs of the answer; `None` if it includes uncommitted clicks, or before the first epoch.
    pub revision: Option<Revision>,
}

/// Clicks of one minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MinuteClicks {
    /// The minute.
    pub minute: Minute,
    /// Clicks in it.
    pub clicks: u64,
    /// How settled the count is.
    pub state: MinuteState,
    /// Whether a correction changed the minute.
    pub restated: bool,
}

/// The clicks of one ad.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdClicks {
    /// The minutes that the answer covers.
    pub coverage: Coverage,
    /// The sum of clicks; 0 for an unknown ad.
    pub clicks: u64,
    /// Every covered minute, including empty ones, if it was requested.
    pub series: Option<Vec<MinuteClicks>>,
}

/// The most clicked ads: descending clicks, ties by ascending ad.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopAds {
    /// The minutes that the answer covers.
    pub coverage: Coverage,
    /// (ad, clicks), the most clicked first.
    pub ads: Vec<(u64, u64)>,
}

/// A past state: an answer as of it excludes later corrections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KnownAt {
    /// The state committed at this time, in milliseconds since the Unix epoch, UTC.
    Time(i64),
    /// The state committed at this revision.
    Revision(Revision),
}

/// A question, without its subject (one ad, or the top ads).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The minutes.
    pub span: Span,
    /// The clicks.
    pub filters: Filters,
    /// Whether to include open minutes, and uncommitted clicks if the store sees them.
    pub include_open: bool,
    /// The requested past state; `None` is the present one. Only final minutes have a past state.
    pub as_of: Option<KnownAt>,
}

impl Question {
    /// A question for all clicks of these minutes, in the present state, without open minutes.
    pub fn about(span: Span) -> Question {
        Question { span, filters: Filters::default(), include_open: false, as_of: None }
    }
}

/// The cost of an answer, so that slow answers do not delay quick ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// Counts of recent minutes, which every store keeps at hand: milliseconds.
    RecentCounts,
    /// Counts older than those kept at hand: up to seconds.
    OlderCounts,
    /// The raw clicks, since no counts exist for the filter: up to many seconds.
    RawClicks,
}

/// A store that answers questions. An implementation promises that
///
/// - an answer is exact and complete: it contains no approximation and no trimmed groups;
/// - without [`Question::include_open`] an answer consists of committed epochs only, and contains their revision;
/// - answers to one question at one revision are equal, on every node and in every kind of store;
/// - [`Questions::revision`] never moves back;
/// - a question that the store cannot answer as asked is rejected: no part of it is ignored.
#[async_trait]
pub trait Questions: Send + Sync {
    /// The current cost of an answer. Answers from memory, without I/O.
    fn cost(&self, question: &Question) -> Cost;

    /// The revision that an answer would have now; empty before the first epoch. Answers from memory, without I/O.
    fn revision(&self) -> Revision;

    /// Why this node must not answer, and whom to ask instead; `None` if it may. Answers from memory, without I/O.
    fn misdirected(&self) -> Option<String> {
        None
    }

    /// Clicks of one ad, with a row per minute if `series` is set.
    ///
    /// # Errors
    /// User when the store cannot answer such a question, external when it cannot be read.
    async fn ad_clicks(&self, ad_id: u64, question: &Question, series: bool) -> Result<AdClicks>;

    /// The `limit` most clicked ads.
    ///
    /// # Errors
    /// User when the store cannot answer such a question, external when it cannot be read.
    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds>;
}
