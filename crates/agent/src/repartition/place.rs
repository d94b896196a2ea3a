//! What is committed with the offset of a source partition, and how a start continues from it.

use adtally_model::{Error, InputTime, Result};
use std::collections::BTreeMap;
use std::fmt;

/// Begins each note. A change of its form gets another number.
const FORMAT: &str = "adtally.repartition/1";

/// What makes a topic the same topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its id. A topic that is made again has another one.
    pub id: u128,
    /// The number of its partitions.
    pub partitions: u32,
}

/// How far a source partition was read, and the state there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The next offset to read.
    pub next: u64,
    /// The guarded time of its records without a stamp.
    pub time: InputTime,
    /// The largest watermark of its inputs, in milliseconds since the Unix epoch.
    pub mark_ms: Option<i64>,
}

/// An offset of the group, with its note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The source partition.
    pub partition: u32,
    /// The next offset to read.
    pub next: u64,
    /// A [`Note`].
    pub note: String,
}

/// The text beside an offset. Its length is a fifteenth of what brokers accept (`offset.metadata.max.bytes`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note {
    /// The topic that is read.
    pub from: Topic,
    /// The topic that is written.
    pub to: Topic,
    /// A random number of the process that has committed it.
    pub owner: u64,
    /// See [`Place::time`].
    pub time: InputTime,
    /// See [`Place::mark_ms`].
    pub mark_ms: Option<i64>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Note { from, to, owner, time, mark_ms } = self;
        write!(f, "{FORMAT} from={:032x}/{} to={:032x}/{}", from.id, from.partitions, to.id, to.partitions)?;
        write!(f, " owner={owner:016x} largest={} run={},{}", or_dash(time.largest_ms), time.run, time.run_least_ms)?;
        write!(f, " mark={}", or_dash(*mark_ms))
    }
}

impl Note {
    /// The note in a text; `None` if it is none.
    pub fn parse(text: &str) -> Option<Note> {
        let mut words = text.split(' ');
        words.next().filter(|&word| word == FORMAT)?;
        let mut next = |name: &str| words.next()?.strip_prefix(name).map(str::to_owned);
        let (from, to) = (topic(&next("from=")?)?, topic(&next("to=")?)?);
        let owner = u64::from_str_radix(&next("owner=")?, 16).ok()?;
        let largest_ms = number_or_dash(&next("largest=")?)?;
        let run = next("run=")?;
        let (run, run_least_ms) = run.split_once(',')?;
        let (run, run_least_ms) = (run.parse().ok()?, run_least_ms.parse().ok()?);
        let mark_ms = number_or_dash(&next("mark=")?)?;
        let time = InputTime { largest_ms, run, run_least_ms, advanced_at_ms: 0 };
        Some(Note { from, to, owner, time, mark_ms })
    }
}

fn or_dash(ms: Option<i64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string())
}

fn number_or_dash(word: &str) -> Option<Option<i64>> {
    if word == "-" { Some(None) } else { word.parse().ok().map(Some) }
}

fn topic(word: &str) -> Option<Topic> {
    let (id, partitions) = word.split_once('/')?;
    Some(Topic { id: u128::from_str_radix(id, 16).ok()?, partitions: partitions.parse().ok()? })
}

/// What a start knows before it reads.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The names of the source, the target and the group.
    pub names: [&'a str; 3],
    /// The topic that is read.
    pub from: Topic,
    /// The topic that is written.
    pub to: Topic,
    /// What the group has committed about the source.
    pub committed: &'a [Committed],
    /// Whether the target has no records.
    pub is_target_empty: bool,
    /// Whether the user has said where to begin.
    pub is_beginning_given: bool,
}

/// How a start continues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// Nothing was read before.
    First,
    /// At these places. Partitions without one are new, and begin with their first record.
    Further(BTreeMap<u32, Place>),
}

/// Decides how a start continues.
///
/// # Errors
/// A user error when one of the topics is another one than before, when the offsets are not those of a repartition, or when
/// they may be lost; corrupt when some of them are lost.
pub fn resolve(found: &Found<'_>) -> Result<Beginning> {
    let Found { names: [source, target, group], from, to, committed, .. } = *found;
    if committed.is_empty() {
        if found.is_target_empty || found.is_beginning_given {
            return Ok(Beginning::First);
        }
        return Err(Error::user(format!(
            "the group {group} has no offsets of {source}, and {target} has records already. If some of them were made from \
             {source}, its offsets are lost (a broker keeps those of a group that does nothing for 7 days, and none of a topic \
             that was deleted): begin with a new target. Otherwise say where to begin, as with --from earliest"
        )));
    }
    let mut places = BTreeMap::new();
    let mut known = 0;
    for Committed { partition, next, note } in committed {
        let Some(note) = Note::parse(note) else {
            return Err(Error::user(format!(
                "the offsets of the group {group} for {source} were committed by something else, or by another version: name \
                 another group with --group"
            )));
        };
        if note.from.id != from.id {
            return Err(Error::user(format!(
                "the topic {source} was deleted and made again since the group {group} has read it: its offsets have other \
                 records. Name another group with --group to begin anew"
            )));
        }
        if note.to.id != to.id {
            return Err(Error::user(format!(
                "the group {group} continues {source} into another topic than {target}, or {target} was made again since: name \
                 another group with --group to begin anew"
            )));
        }
        if note.to.partitions != to.partitions {
            return Err(Error::user(target_grown(target, note.to.partitions, to.partitions)));
        }
        known = known.max(note.from.partitions);
        places.insert(*partition, Place { next: *next, time: note.time, mark_ms: note.mark_ms });
    }
    let lost = (0..known.min(from.partitions)).find(|partition| !places.contains_key(partition));
    if let Some(partition) = lost {
        return Err(Error::corrupt(format!(
            "the group {group} has no offset of partition {partition} of {source} any more, but of others: it is not known what \
             of it is in {target}. Begin anew with another group and another target"
        )));
    }
    Ok(Beginning::Further(places))
}

/// What to do about a target with another number of partitions.
pub fn target_grown(target: &str, before: u32, now: u32) -> String {
    format!(
        "the topic {target} had {before} partitions and now has {now}: the copies of a click before and after the change are in \
         different partitions. Begin anew with a new target and another group"
    )
}

/// Whether offsets were committed by this owner, or by nobody.
pub fn is_owner(owner: u64, committed: &[Committed]) -> bool {
    committed.iter().all(|committed| Note::parse(&committed.note).is_none_or(|note| note.owner == owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use adtally_model::ErrorKind;

    const FROM: Topic = Topic { id: 0xabc, partitions: 2 };
    const TO: Topic = Topic { id: u128::MAX, partitions: 4 };

    fn note() -> Note {
        let time = InputTime { largest_ms: Some(1_748_822_400_000), run: 3, run_least_ms: -5, advanced_at_ms: 0 };
        Note { from: FROM, to: TO, owner: 7, time, mark_ms: None }
    }

    #[test]
    fn notes_are_read_back() {
        let notes = [
            note(),
            Note { time: InputTime::default(), mark_ms: Some(i64::MIN), ..note() },
            Note { owner: u64::MAX, from: Topic { id: 0, partitions: u32::MAX }, ..note() },
        ];
        for note in notes {
            let text = note.to_string();
            assert_eq!(Note::parse(&text), Some(note), "{text}");
            assert!(text.len() <= 4_096 / 15, "{} bytes: {text}", text.len());
        }
        for text in ["", "adtally.repartition/2", FORMAT, "consumed by another program"] {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }

    fn check(found: Found<'_>, expected: Result<Beginning, (ErrorKind, &str)>) {
        match (resolve(&found), expected) {
            (Ok(beginning), Ok(expected)) => assert_eq!(beginning, expected),
            (Err(error), Err((kind, text))) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(text), "{error}");
            }
            (resolved, expected) => panic!("{resolved:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_start_continues_or_says_why_it_cannot() {
        let committed =
            |partition, note: &Note| Committed { partition, next: 10 + u64::from(partition), note: note.to_string() };
        let none = Found {
            names: ["old", "new", "g"],
            from: FROM,
            to: TO,
            committed: &[],
            is_target_empty: true,
            is_beginning_given: false,
        };
        check(none, Ok(Beginning::First));
        check(Found { is_target_empty: false, ..none }, Err((ErrorKind::User, "has records already")));
        check(Found { is_target_empty: false, is_beginning_given: true, ..none }, Ok(Beginning::First));
        let both = [committed(0, &note()), committed(1, &note())];
        let place = |next| Place { next, time: note().time, mark_ms: None };
        let further = BTreeMap::from([(0, place(10)), (1, place(11))]);
        let found = Found { committed: &both, is_target_empty: false, ..none };
        check(found, Ok(Beginning::Further(further.clone())));
        // The source may grow: its new partitions begin with their first record.
        check(Found { from: Topic { partitions: 3, ..FROM }, ..found }, Ok(Beginning::Further(further)));
        check(Found { to: Topic { partitions: 5, ..TO }, ..found }, Err((ErrorKind::User, "had 4 partitions")));
        check(Found { to: Topic { id: 1, ..TO }, ..found }, Err((ErrorKind::User, "into another topic")));
        check(Found { from: Topic { id: 1, ..FROM }, ..found }, Err((ErrorKind::User, "made again")));
        check(Found { committed: &both[1..], ..found }, Err((ErrorKind::Corrupt, "no offset of partition 0")));
        let foreign = [Committed { note: String::new(), ..both[0].clone() }];
        check(Found { committed: &foreign, ..found }, Err((ErrorKind::User, "committed by something else")));
        assert!(is_owner(7, &both) && is_owner(8, &[]));
        assert!(!is_owner(8, &both));
    }
}
