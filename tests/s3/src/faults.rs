//! The faults of the server: which are on, which request they hit, and how many they have hit.

use hyper::StatusCode;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// What happens to a request. A fault without a status is an answer that hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chosen {
    /// It is done and answered.
    Nothing,
    /// It is not done.
    Refuse(Option<StatusCode>),
    /// It is done, and its answer is lost.
    Lose(Option<StatusCode>),
}

/// The faults that hit a share of the requests, whether only PUT requests, and what they do.
const KINDS: [(&str, bool, Chosen); 7] = [
    ("refuse_500", false, Chosen::Refuse(Some(StatusCode::INTERNAL_SERVER_ERROR))),
    ("refuse_503", false, Chosen::Refuse(Some(StatusCode::SERVICE_UNAVAILABLE))),
    ("lose_500", false, Chosen::Lose(Some(StatusCode::INTERNAL_SERVER_ERROR))),
    ("refuse_409", true, Chosen::Refuse(Some(StatusCode::CONFLICT))),
    ("lose_409", true, Chosen::Lose(Some(StatusCode::CONFLICT))),
    ("refuse_hang", false, Chosen::Refuse(None)),
    ("lose_hang", false, Chosen::Lose(None)),
];

/// Other settings.
const SETTINGS: [&str; 3] = ["hang_ms", "slow_ms", "seed"];

/// The faults in force.
#[derive(Default)]
pub(crate) struct Faults {
    values: BTreeMap<String, u64>,
    hits: BTreeMap<&'static str, u64>,
    random: u64,
}

impl Faults {
    /// Replaces the faults; the counts go on.
    pub(crate) fn set(&mut self, text: &str) -> Result<(), String> {
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').ok_or_else(|| format!("not name=value: {line}\n"))?;
            if !SETTINGS.contains(&name) && !KINDS.iter().any(|&(kind, ..)| kind == name) {
                return Err(format!("no such fault: {name}\n"));
            }
            let value = value.parse().map_err(|_| format!("not a number: {line}\n"))?;
            values.insert(name.to_owned(), value);
        }
        self.random = values.get("seed").copied().unwrap_or(1);
        self.values = values;
        Ok(())
    }

    /// How many requests each fault has hit.
    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        for (name, ..) in KINDS {
            let _ = writeln!(text, "{name}={}", self.hits.get(name).copied().unwrap_or_default());
        }
        text
    }

    /// Decides about a request.
    pub(crate) fn choose(&mut self, is_put: bool) -> Chosen {
        let mut left = self.draw() % 1_000_000;
        for (name, only_put, what) in KINDS {
            let ppm = self.values.get(name).copied().unwrap_or_default();
            if left < ppm {
                if only_put && !is_put {
                    return Chosen::Nothing;
                }
                *self.hits.entry(name).or_default() += 1;
                return what;
            }
            left -= ppm;
        }
        Chosen::Nothing
    }

    /// How long an answer hangs.
    pub(crate) fn hang(&self) -> Duration {
        Duration::from_millis(self.values.get("hang_ms").copied().unwrap_or(40_000))
    }

    /// How much longer each request takes.
    pub(crate) fn slow(&self) -> Duration {
        Duration::from_millis(self.values.get("slow_ms").copied().unwrap_or_default())
    }

    /// A number by SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
