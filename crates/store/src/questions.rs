//! The questions that clicks are counted for, asked of any store that can answer them.

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

/// What a question is, apart from whose clicks it asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Which minutes.
    pub span: Span,
    /// Which clicks.
    pub filters: Filters,
    /// Whether minutes still open, and clicks not yet committed, are included.
    pub include_open: bool,
}

/// What an answer takes, so that those who wait for slow ones hold up no quick ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// Milliseconds: counts in memory.
    Hot,
    /// Up to seconds: counts in the lake.
    Lake,
    /// Up to many seconds: raw clicks.
    Raw,
}

/// A store that answers questions exactly.
#[async_trait]
pub trait Questions: Send + Sync {
    /// What an answer would take at the moment. Answers from memory, without I/O.
    fn cost(&self, question: &Question) -> Cost;

    /// The revision of an answer that is asked for now. Answers from memory, without I/O.
    fn revision(&self) -> Revision;

    /// Clicks of one ad, with a row a minute when `series` is set.
    ///
    /// # Errors
    /// External when a store cannot be read.
    async fn ad_clicks(&self, ad_id: u64, question: &Question, series: bool) -> Result<AdClicks>;

    /// The `limit` most clicked ads.
    ///
    /// # Errors
    /// External when a store cannot be read.
    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds>;
}
