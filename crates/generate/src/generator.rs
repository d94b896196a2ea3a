//! Decides line by line what follows: a new click, a copy, a late click or a line that is not a click.

use super::broken;
use super::click::{Click, Format, Population, Written, csv_header};
use super::random::{Random, mix};
use adtally_model::time::{EVENT_TIME_END_MS, EVENT_TIME_MIN_MS};
use adtally_model::{Country, Error, Result};

/// Maximum number of ads: ids stay exact in the arithmetic of the distribution, and a list of them fits in memory.
pub const ADS_MAX: u64 = 1_000_000_000;

/// Maximum disorder: with more, some lines would be late under default settings.
pub const OUT_OF_ORDER_MAX_MS: i64 = 240_000;

/// Maximum fraction of lines that are not new clicks, if a number of clicks is requested: with more, there would be
/// over a thousand such lines per click.
const CLICKS_FRACTION_MAX: f64 = 0.999;

/// Maximum age of a copied click: well within the default `dedup_horizon` of 10 minutes, whatever the order.
const COPY_AGE_MAX_MS: u64 = 420_000;

/// Clicks remembered for copies: this many of the latest, and this many of a sample that reaches further back.
const REMEMBERED: usize = 8_192;

/// A click this far behind the largest event time is always late under default settings: `allowed_lateness` (5 min),
/// `out_of_orderness` (5 s), and the rest of its minute.
const LATE_MIN_MS: i64 = 300_000 + 5_000 + 60_000;

/// Maximum additional delay of late clicks.
const LATE_SPREAD_MS: u64 = 1_800_000;

/// When generating ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    /// After this many lines, of every kind.
    Lines(u64),
    /// After this many clicks that an exact counter counts; copies, late clicks and rejected lines are extra.
    Clicks(u64),
}

/// Settings of the generator.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// How much to generate.
    pub amount: Amount,
    /// The same seed gives the same lines on every machine.
    pub seed: u64,
    /// Lines per second of event time, 1 to 10^9.
    pub rate: f64,
    /// Number of different ads, 1 to [`ADS_MAX`].
    pub ads: u64,
    /// Fraction of lines that copy an earlier click.
    pub duplicates: f64,
    /// Whether all copies have the country of the original.
    pub exact_copies: bool,
    /// Fraction of lines that arrive after their minute is final.
    pub late: f64,
    /// Fraction of lines that cannot be parsed.
    pub malformed: f64,
    /// Fraction of lines with a field that breaks the rules.
    pub invalid: f64,
    /// Fraction of clicks with a unique id from the client.
    pub click_ids: f64,
    /// Maximum disorder of event times, 0 to [`OUT_OF_ORDER_MAX_MS`].
    pub out_of_order_ms: i64,
    /// The first event time in milliseconds.
    pub start_ms: i64,
    /// How lines are written.
    pub format: Format,
}

/// The kind of the last written line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// A click: new, a copy, or late.
    Click(Click),
    /// Not parsable.
    Malformed,
    /// Parsable, with a field that breaks the rules.
    Invalid,
}

/// Generates lines. See [`Settings`]; it uses constant memory whatever the number of lines.
#[derive(Clone, Debug)]
pub struct Generator {
    settings: Settings,
    random: Random,
    population: Population,
    /// Thresholds of 64 random bits for a malformed, invalid, duplicate or late line.
    chances: [u64; 4],
    /// The same for a click with an id from the client.
    click_id_chance: u64,
    /// Lines written.
    written: u64,
    /// Clicks among them that are new and not late.
    new_clicks: u64,
    /// Lines per 1,000 seconds.
    rate_milli: u64,
    /// Emission time of the next line, and the millionths of a thousandth of a line that belong to its millisecond.
    emission_ms: i64,
    emission_rest: u64,
    largest_ms: i64,
    recent: Memory,
    sample: Memory,
    last: Line,
}

impl Generator {
    /// Prepares a generator with these settings.
    ///
    /// # Errors
    /// A user error that names the setting that is out of range.
    pub fn new(settings: Settings) -> Result<Generator> {
        settings.check()?;
        let rate_milli = (settings.rate * 1_000.0).round() as u64;
        let mut bound = 0.0;
        let chances = [settings.malformed, settings.invalid, settings.duplicates, settings.late].map(|fraction| {
            bound += fraction;
            threshold(bound)
        });
        // Only every `step`th click enters the sample, so that the sample spans the maximum age of copies.
        let clicks_in_reach = u128::from(rate_milli) * u128::from(COPY_AGE_MAX_MS) / 1_000_000;
        let clicks_in_reach = clicks_in_reach.min(u128::from(u64::MAX)) as u64;
        let step = clicks_in_reach.div_ceil(REMEMBERED as u64).max(1);
        Ok(Generator {
            random: Random::new(settings.seed),
            population: Population::new(settings.ads),
            chances,
            click_id_chance: threshold(settings.click_ids),
            written: 0,
            new_clicks: 0,
            rate_milli,
            emission_ms: settings.start_ms + settings.out_of_order_ms,
            emission_rest: 0,
            largest_ms: settings.start_ms,
            recent: Memory::new(1, clicks_in_reach),
            sample: Memory::new(step, clicks_in_reach),
            last: Line::Malformed,
            settings,
        })
    }

    /// Appends the next line with its newline (in CSV, the first follows the header); false if there is none.
    pub fn next_line(&mut self, out: &mut Vec<u8>) -> bool {
        if self.progress() == self.settings.amount.number() {
            return false;
        }
        if self.written == 0 && self.settings.format == Format::Csv {
            out.extend_from_slice(self.header().as_bytes());
        }
        let kind = self.random.bits();
        let [malformed, invalid, duplicate, late] = self.chances;
        self.last = if kind < malformed {
            let click = self.new_click();
            broken::malformed(&click, self.settings.format, self.with_click_ids(), &mut self.random, out);
            Line::Malformed
        } else if kind < invalid {
            let click = self.new_click();
            broken::invalid(&click, self.settings.format, self.with_click_ids(), &mut self.random, out);
            Line::Invalid
        } else {
            let special = if kind < duplicate {
                self.copy()
            } else if kind < late {
                self.late_click()
            } else {
                None
            };
            let click = special.unwrap_or_else(|| self.remembered_click());
            click.write(self.settings.format, self.with_click_ids(), out);
            Line::Click(click)
        };
        self.written += 1;
        self.emission_rest += 1_000_000;
        self.emission_ms += (self.emission_rest / self.rate_milli) as i64;
        self.emission_rest %= self.rate_milli;
        true
    }

    /// The kind of the last written line; meaningless before the first.
    pub fn last(&self) -> &Line {
        &self.last
    }

    /// When the next line is due: its event time is not later. This clock advances at the rate of lines and starts at
    /// `start_ms + out_of_order_ms`; a live demonstration waits for it.
    pub fn event_time_ms(&self) -> i64 {
        self.emission_ms
    }

    /// Lines written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How much of the requested amount is written, in its unit.
    pub fn progress(&self) -> u64 {
        match self.settings.amount {
            Amount::Lines(_) => self.written,
            Amount::Clicks(_) => self.new_clicks,
        }
    }

    /// The header of each CSV file, also if the lines are split into several files.
    pub fn header(&self) -> &'static str {
        csv_header(self.with_click_ids())
    }

    fn with_click_ids(&self) -> bool {
        self.settings.click_ids > 0.0
    }

    fn new_click(&mut self) -> Click {
        let behind = self.random.below(self.settings.out_of_order_ms.unsigned_abs() + 1) as i64;
        self.click_at(self.emission_ms - behind)
    }

    fn click_at(&mut self, event_time_ms: i64) -> Click {
        // Mixing is a bijection, so different lines have different ids.
        let click_id = (self.click_id_chance > 0 && self.random.bits() <= self.click_id_chance)
            .then(|| mix(self.settings.seed ^ self.written << 1));
        self.population.click(&mut self.random, event_time_ms, click_id)
    }

    fn remembered_click(&mut self) -> Click {
        let click = self.new_click();
        self.new_clicks += 1;
        self.largest_ms = self.largest_ms.max(click.event_time_ms);
        self.recent.remember(click);
        self.sample.remember(click);
        click
    }

    /// A copy of an earlier click. Unless copies are to be exact, one in eight has another country, as after an update
    /// of a geo-IP table.
    fn copy(&mut self) -> Option<Click> {
        let chance = self.random.bits();
        let memory = if chance & 3 == 0 { &self.sample } else { &self.recent };
        let mut click = memory.recall(&mut self.random)?;
        // If few lines are new clicks, the remembered clicks may be older than the limit.
        if self.emission_ms - click.event_time_ms > COPY_AGE_MAX_MS as i64 {
            return None;
        }
        if chance >> 2 & 7 == 0 && !self.settings.exact_copies {
            let other = Country::from_rank((chance >> 8) as u8 % Country::UNKNOWN.rank());
            click.written = Written::Code(other.unwrap_or(Country::UNKNOWN));
        }
        Some(click)
    }

    /// A new click whose minute is already final; `None` while too little time has passed.
    fn late_click(&mut self) -> Option<Click> {
        let event_time_ms = self.largest_ms - LATE_MIN_MS - self.random.below(LATE_SPREAD_MS) as i64;
        (event_time_ms >= self.settings.start_ms).then(|| self.click_at(event_time_ms))
    }
}

/// The smallest 64-bit number outside a fraction.
fn threshold(fraction: f64) -> u64 {
    // 2^64 times the fraction; the conversion saturates at 1.
    (fraction * 18_446_744_073_709_551_616.0) as u64
}

/// A ring of clicks that may be copied.
#[derive(Clone, Debug)]
struct Memory {
    clicks: Vec<Click>,
    /// One in this many clicks is kept.
    step: u64,
    /// The number of clicks offered.
    offered: u64,
    /// The number of kept clicks that are young enough.
    reach: u64,
}

impl Memory {
    fn new(step: u64, clicks_in_reach: u64) -> Self {
        let reach = (clicks_in_reach / step).clamp(1, REMEMBERED as u64);
        Memory { clicks: Vec::with_capacity(REMEMBERED), step, offered: 0, reach }
    }

    fn remember(&mut self, click: Click) {
        if self.offered.is_multiple_of(self.step) {
            let at = (self.offered / self.step) as usize % REMEMBERED;
            if at < self.clicks.len() {
                self.clicks[at] = click;
            } else {
                self.clicks.push(click);
            }
        }
        self.offered += 1;
    }

    fn recall(&self, random: &mut Random) -> Option<Click> {
        let kept = self.offered.div_ceil(self.step);
        if kept == 0 {
            return None;
        }
        let back = 1 + random.below(self.reach.min(kept));
        self.clicks.get((kept - back) as usize % REMEMBERED).copied()
    }
}

impl Amount {
    /// The number of lines or of clicks.
    pub fn number(self) -> u64 {
        match self {
            Amount::Lines(number) | Amount::Clicks(number) => number,
        }
    }
}

impl Settings {
    /// Fractions of lines that are not new clicks.
    fn fractions(&self) -> [f64; 4] {
        [self.duplicates, self.late, self.malformed, self.invalid]
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::user(what));
        if !(1.0..=1e9).contains(&self.rate) {
            return refuse(format!(
                "--rate must be from 1 to 1000000000 lines per second of event time, not {}",
                self.rate
            ));
        }
        if !(1..=ADS_MAX).contains(&self.ads) {
            return refuse(format!("--ads must be a number from 1 to {ADS_MAX}, not {}", self.ads));
        }
        if !(0..=OUT_OF_ORDER_MAX_MS).contains(&self.out_of_order_ms) {
            let given = self.out_of_order_ms;
            return refuse(format!("--out-of-order must be from 0 to {OUT_OF_ORDER_MAX_MS} milliseconds, not {given}"));
        }
        let fractions = self.fractions();
        if fractions.iter().chain([&self.click_ids]).any(|fraction| !(0.0..=1.0).contains(fraction)) {
            return refuse("fractions must be from 0 to 1 (or 0% to 100%)".to_owned());
        }
        if fractions.iter().sum::<f64>() > 1.0 {
            return refuse("--duplicates, --late, --malformed and --invalid add up to more than all lines".to_owned());
        }
        if matches!(self.amount, Amount::Clicks(_)) && fractions.iter().sum::<f64>() > CLICKS_FRACTION_MAX {
            return refuse(format!(
                "--duplicates, --late, --malformed and --invalid add up to more than {CLICKS_FRACTION_MAX}, which \
                 leaves too few lines for --clicks: lower them, or use --lines instead of --clicks"
            ));
        }
        if !(EVENT_TIME_MIN_MS..EVENT_TIME_END_MS).contains(&self.start_ms) {
            return refuse("--start must be from 2000-01-01 to 2099-12-31".to_owned());
        }
        Ok(())
    }

    /// The event time at which the last line is due, in milliseconds.
    ///
    /// # Errors
    /// A user error when that is later than any valid click.
    pub fn end_ms(&self) -> Result<i64> {
        let lines = match self.amount {
            Amount::Lines(lines) => lines as f64,
            Amount::Clicks(clicks) => clicks as f64 / (1.0 - self.fractions().iter().sum::<f64>()),
        };
        let end = self.start_ms as f64 + self.out_of_order_ms as f64 + lines * 1_000.0 / self.rate;
        if end < EVENT_TIME_END_MS as f64 {
            Ok(end as i64)
        } else {
            Err(Error::user(
                "that many lines at this rate reach beyond 2099: lower --clicks or --lines, or raise --rate",
            ))
        }
    }
}
