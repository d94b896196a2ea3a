//! The counts that an exact counter must find in the generated lines, if it reads them in the order in which they are
//! written, as one input, with default settings.
//!
//! This is an independent implementation of the contract that shares no code with the pipeline. It keeps identities as
//! long as copies can matter, and counts until a minute is final, so that a billion lines fit in memory.

use super::click::Click;
use super::generator::Line;
use super::random::mix;
use adtally_model::time::rfc3339;
use adtally_model::{Country, Minute};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io::{self, Write};

const OUT_OF_ORDERNESS_MS: i64 = 5_000;
const ALLOWED_LATENESS_MS: i64 = 300_000;
const DEDUP_HORIZON_MS: i64 = 600_000;
const MAX_JUMP_MS: i64 = 600_000;

/// Accepted lines that the guard of the largest event time waits for.
const GUARD_RUN: u32 = 16;

/// Ads listed in the report.
const TOP: usize = 100;

/// Totals and top ads, written as the truth file. Field order is that of `GET /ledger`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// Lines.
    pub read: u64,
    /// New clicks.
    pub counted: u64,
    /// Copies of clicks that are still remembered.
    pub duplicate: u64,
    /// Clicks whose minute was final.
    pub late: u64,
    /// Always 0: event times are assumed to be behind the clock.
    pub future: u64,
    /// Lines that cannot be parsed.
    pub malformed: u64,
    /// Lines with a field that breaks the rules.
    pub invalid: u64,
    /// Copies whose country differs from the click's.
    pub conflicting_duplicates: u64,
    /// Start of the first minute with clicks, RFC 3339.
    pub from: Option<String>,
    /// End of the last minute with clicks, RFC 3339.
    pub to: Option<String>,
    /// The most clicked ads, ties by ascending id.
    pub ads: Vec<AdClicks>,
    /// Clicks by minute; empty minutes are omitted.
    pub minutes: Vec<MinuteClicks>,
    /// Clicks by country, most first.
    pub countries: Vec<CountryClicks>,
}

/// Clicks of an ad.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AdClicks {
    /// From 1.
    pub rank: usize,
    /// The ad; text in JSON, as in answers of the server.
    #[serde(serialize_with = "as_text")]
    pub ad_id: u64,
    /// Its clicks.
    pub clicks: u64,
}

fn as_text<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// Clicks of a minute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MinuteClicks {
    /// Its start, RFC 3339.
    pub minute: String,
    /// Its clicks.
    pub clicks: u64,
}

/// Clicks from a country.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CountryClicks {
    /// The code.
    pub country: &'static str,
    /// Its clicks.
    pub clicks: u64,
}

/// Counts generated lines. Pass it every line in order, then call [`finish`](Truth::finish).
pub struct Truth<W> {
    report: Report,
    guard: Guard,
    minutes: BTreeMap<Minute, Held>,
    ads: HashMap<u64, u64>,
    countries: HashMap<Country, u64>,
    /// When the oldest minute in memory has to be examined again.
    next_expiry_ms: i64,
    counts: W,
}

/// The state of a minute.
#[derive(Default)]
struct Held {
    /// Clicks counted in it, with their countries.
    identities: HashMap<Key, Country, BuildHasherDefault<AlreadyMixed>>,
    /// Clicks by ad and country; emptied when written.
    counts: HashMap<(u64, Country), u32>,
}

/// The guarded largest event time of the one input.
#[derive(Default)]
struct Guard {
    largest_ms: Option<i64>,
    run: u32,
    run_least_ms: i64,
}

impl<W: Write> Truth<W> {
    /// Writes the counts of each minute to `counts` as CSV (`minute,ad_id,country,clicks`, sorted) once it is final.
    ///
    /// # Errors
    /// Errors of writing.
    pub fn new(mut counts: W) -> io::Result<Self> {
        counts.write_all(b"minute,ad_id,country,clicks\n")?;
        Ok(Truth {
            report: Report::default(),
            guard: Guard::default(),
            minutes: BTreeMap::new(),
            ads: HashMap::new(),
            countries: HashMap::new(),
            next_expiry_ms: i64::MIN,
            counts,
        })
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// Errors of writing.
    pub fn observe(&mut self, line: &Line) -> io::Result<()> {
        self.report.read += 1;
        match line {
            Line::Malformed => self.report.malformed += 1,
            Line::Invalid => self.report.invalid += 1,
            Line::Click(click) => self.judge(click)?,
        }
        Ok(())
    }

    fn judge(&mut self, click: &Click) -> io::Result<()> {
        let minute = Minute::of(click.event_time_ms);
        let watermark_ms = self.guard.largest_ms.map_or(i64::MIN, |largest| largest - OUT_OF_ORDERNESS_MS);
        if watermark_ms >= self.next_expiry_ms {
            self.settle(watermark_ms)?;
        }
        self.guard.accept(click.event_time_ms);

        let key = Key::of(click);
        let known = self.minutes.get(&minute).and_then(|held| held.identities.get(&key));
        if let Some(country) = known {
            self.report.duplicate += 1;
            self.report.conflicting_duplicates += u64::from(*country != click.country());
        } else if minute.end_ms() + ALLOWED_LATENESS_MS <= watermark_ms {
            self.report.late += 1;
        } else {
            self.report.counted += 1;
            let held = self.minutes.entry(minute).or_default();
            held.identities.insert(key, click.country());
            *held.counts.entry((click.ad_id, click.country())).or_default() += 1;
        }
        Ok(())
    }

    /// Writes minutes that are final and drops those that no copy can belong to any more.
    fn settle(&mut self, watermark_ms: i64) -> io::Result<()> {
        let is_final = |minute: &Minute| minute.end_ms() + ALLOWED_LATENESS_MS <= watermark_ms;
        let due: Vec<_> = self.minutes.keys().copied().take_while(is_final).collect();
        for minute in due {
            self.write_minute(minute)?;
            if minute.end_ms() + DEDUP_HORIZON_MS <= watermark_ms {
                self.minutes.remove(&minute);
            }
        }
        // Minutes end at multiples of 60 s; nothing changes before the next one.
        self.next_expiry_ms = Minute::of(watermark_ms).end_ms();
        Ok(())
    }

    fn write_minute(&mut self, minute: Minute) -> io::Result<()> {
        let Some(held) = self.minutes.get_mut(&minute) else { return Ok(()) };
        let mut rows: Vec<_> = std::mem::take(&mut held.counts).into_iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        rows.sort_unstable();
        let start = rfc3339(minute.start_ms());
        let mut total = 0;
        for ((ad_id, country), clicks) in rows {
            writeln!(self.counts, "{start},{ad_id},{country},{clicks}")?;
            let clicks = u64::from(clicks);
            *self.ads.entry(ad_id).or_default() += clicks;
            *self.countries.entry(country).or_default() += clicks;
            total += clicks;
        }
        self.report.from.get_or_insert(start.clone());
        self.report.to = Some(rfc3339(minute.end_ms()));
        self.report.minutes.push(MinuteClicks { minute: start, clicks: total });
        Ok(())
    }

    /// Writes the rest and returns the sums.
    ///
    /// # Errors
    /// Errors of writing.
    pub fn finish(mut self) -> io::Result<Report> {
        let minutes: Vec<_> = self.minutes.keys().copied().collect();
        for minute in minutes {
            self.write_minute(minute)?;
        }
        self.counts.flush()?;
        let mut ads: Vec<_> = self.ads.into_iter().collect();
        ads.sort_unstable_by_key(|&(ad_id, clicks)| (std::cmp::Reverse(clicks), ad_id));
        let top = ads.iter().take(TOP).enumerate();
        self.report.ads = top.map(|(at, &(ad_id, clicks))| AdClicks { rank: at + 1, ad_id, clicks }).collect();
        let mut countries: Vec<_> = self.countries.into_iter().collect();
        countries.sort_unstable_by_key(|&(country, clicks)| (std::cmp::Reverse(clicks), country));
        self.report.countries = countries
            .into_iter()
            .map(|(country, clicks)| CountryClicks { country: country.as_str(), clicks })
            .collect();
        Ok(self.report)
    }
}

impl Guard {
    /// Takes the event time of an accepted line. There is no largest time before 16 lines, and a jump far ahead is
    /// accepted only after 16 consecutive lines with it.
    fn accept(&mut self, event_time_ms: i64) {
        match self.largest_ms {
            Some(largest) if event_time_ms <= largest + MAX_JUMP_MS => {
                self.largest_ms = Some(largest.max(event_time_ms));
                self.run = 0;
            }
            _ => {
                self.run_least_ms = if self.run == 0 { event_time_ms } else { self.run_least_ms.min(event_time_ms) };
                self.run += 1;
                if self.run == GUARD_RUN {
                    self.largest_ms = Some(self.run_least_ms);
                    self.run = 0;
                }
            }
        }
    }
}

/// 96 bits that identify a click: a hash of its event time, its ad, and the client's id or user and address. Among a
/// billion clicks, two collide once in some 10^11 runs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u32; 3]);

impl Key {
    fn of(click: &Click) -> Key {
        let place = mix(click.event_time_ms.unsigned_abs() ^ mix(click.ad_id));
        let (one, other) = match click.click_id {
            Some(click_id) => (mix(place ^ mix(click_id ^ 1 << 63)), mix(place.rotate_left(32) ^ click_id)),
            None => {
                let (high, low) = ((click.ip >> 64) as u64, click.ip as u64);
                let who = mix(click.user ^ mix(low ^ mix(high)));
                (
                    mix(place ^ who),
                    mix(place.rotate_left(32) ^ mix(click.user.rotate_left(32) ^ low ^ high.rotate_left(8))),
                )
            }
        };
        Key([one as u32, (one >> 32) as u32, other as u32])
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) | u64::from(self.0[1]) << 32);
    }
}

/// Passes bits that are already mixed on unchanged.
#[derive(Default)]
struct AlreadyMixed(u64);

impl Hasher for AlreadyMixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }
}
