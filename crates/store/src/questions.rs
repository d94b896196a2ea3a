//! The questions that clicks are counted for, asked of any store that can answer them. Nothing here depends on where a
//! store keeps its counts.

use adtally_model::{Country, Minute, MinuteState, Result};
use async_trait::async_trait;

mod revision;

pub use revision::{NoRevision, Reached, Revision};

/// The longest span that a question may cover, in minutes: a week.
pub const MINUTES_MAX: u32 = 10_080;

/// Which minutes a question is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// The last M minutes, 1 to [`MINUTES_MAX`].
    Last(u32),
    /// `[from, to)`; `from < to`, at most [`MINUTES_MAX`] long.
    Between(Minute, Minute),
}

/// Which clicks a question is about; conditions combine with AND.
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
    /// Whether the answer can come from the counts alone.
    pub fn is_counted(&self) -> bool {
        self.ip.is_none() && self.user_id.is_none()
    }
}

/// What every answer says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coverage {
    /// First minute covered and the one after the last; `None` before any click.
    pub span: Option<(Minute, Minute)>,
    /// The least settled state among the minutes covered; open before any click.
    pub state: MinuteState,
    /// Watermark of the last commit.
    pub watermark_ms: Option<i64>,
    /// Event time of the newest click counted; uncommitted ones too where the question included open minutes.
    pub newest_click_ms: Option<i64>,
    /// The epochs that it is made of; none where clicks are in it that are not committed, or before the first epoch.
    pub revision: Option<Revision>,
}

/// Clicks of one minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MinuteClicks {
    /// The minute.
    pub minute: Minute,
    /// Clicks in it.
    pub clicks: u64,
    /// How settled that is.
    pub state: MinuteState,
}

/// The clicks of one ad.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdClicks {
    /// What the answer covers.
    pub coverage: Coverage,
    /// Clicks in all; 0 for an ad never seen.
    pub clicks: u64,
    /// Every minute covered, empty ones included, where it was asked for.
    pub series: Option<Vec<MinuteClicks>>,
}

/// The most clicked ads: descending clicks, ties by ascending ad.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopAds {
    /// What the answer covers.
    pub coverage: Coverage,
    /// (ad, clicks), the most clicked first.
    pub ads: Vec<(u64, u64)>,
}

/// A past state of knowledge: an answer as of it has no later corrections in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KnownAt {
    /// What was committed at this time, in milliseconds since the Unix epoch, UTC.
    Time(i64),
    /// What was committed at this revision.
    Revision(Revision),
}

/// What a question is, apart from whose clicks it asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Which minutes.
    pub span: Span,
    /// Which clicks.
    pub filters: Filters,
    /// Whether minutes still open, and clicks not yet committed where the store sees them, are included.
    pub include_open: bool,
    /// The state of knowledge that is asked for; `None` is the present one. Only final minutes have a past one.
    pub as_of: Option<KnownAt>,
}

impl Question {
    /// The question for all clicks of these minutes, as known now, without open minutes.
    pub fn about(span: Span) -> Question {
        Question { span, filters: Filters::default(), include_open: false, as_of: None }
    }
}

/// What an answer needs, so that those who wait for slow answers hold up no quick ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// Counts of recent minutes, which every store keeps at hand: milliseconds.
    RecentCounts,
    /// Counts that go further back than those kept at hand: up to seconds.
    OlderCounts,
    /// The clicks themselves, since nothing counts them ahead: up to many seconds.
    RawClicks,
}

/// A store that answers questions. An implementation promises that
///
/// - an answer is exact and complete: it contains no approximation and no trimmed groups;
/// - without [`Question::include_open`] an answer consists of committed epochs only, and bears their revision;
/// - answers to one question at one revision are equal, on every node and in every kind of store;
/// - [`Questions::revision`] never moves back;
/// - a question that the store cannot answer as it was asked is refused: no part of it is ignored.
#[async_trait]
pub trait Questions: Send + Sync {
    /// What an answer would need at the moment. Answers from memory, without I/O.
    fn cost(&self, question: &Question) -> Cost;

    /// The revision of an answer that is asked for now; empty before the first epoch. Answers from memory, without I/O.
    fn revision(&self) -> Revision;

    /// Clicks of one ad, with a row a minute when `series` is set.
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
