//! The lines of a decoded block, each with the partition of a topic that it belongs to.

use super::Partitioner;
use adtally_model::{ClickColumns, Rejected, Verdict};
use memchr::memchr;

/// A line of a decoded block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoutedLine<'a> {
    /// Where it begins in the block's text, in bytes.
    pub start: u32,
    /// Its text, without the line ending.
    pub text: &'a [u8],
    /// Its partition: by its ad or, if it is not a click, by its text.
    pub partition: u32,
    /// Its ad and its event time in milliseconds, if it is a click.
    pub click: Option<(u64, i64)>,
    /// The decoder's verdict, if it is not a click.
    pub rejected: Option<Verdict>,
}

/// Iterates over the lines of a decoded block in their order.
#[derive(Clone, Debug)]
pub struct RoutedLines<'a> {
    text: &'a [u8],
    clicks: &'a ClickColumns,
    rejected: &'a [Rejected],
    partitioner: Partitioner,
    partitions: u32,
    /// The next click.
    row: usize,
    /// The next rejected line.
    refused: usize,
}

impl<'a> RoutedLines<'a> {
    /// The lines of a block whose text was decoded into clicks and rejected lines, for a topic with `partitions` partitions.
    pub fn new(
        text: &'a [u8],
        clicks: &'a ClickColumns,
        rejected: &'a [Rejected],
        (partitioner, partitions): (Partitioner, u32),
    ) -> RoutedLines<'a> {
        RoutedLines { text, clicks, rejected, partitioner, partitions, row: 0, refused: 0 }
    }

    /// The same, continued where another iterator over the same block was.
    #[must_use]
    pub fn continued(self, (row, refused): (usize, usize)) -> RoutedLines<'a> {
        RoutedLines { row, refused, ..self }
    }

    /// How many clicks and how many rejected lines were returned.
    pub fn returned(&self) -> (usize, usize) {
        (self.row, self.refused)
    }

    /// The next line, if it begins before an offset in the text.
    pub fn next_before(&mut self, end: u32) -> Option<RoutedLine<'a>> {
        self.next_start().filter(|&(start, _)| start < end).and_then(|_| self.next())
    }

    /// Where the next line begins, and whether it is a click.
    fn next_start(&self) -> Option<(u32, bool)> {
        let click = self.clicks.line_start.get(self.row).copied();
        let rejected = self.rejected.get(self.refused).map(|rejected| rejected.line_start);
        match (click, rejected) {
            (Some(click), Some(rejected)) => Some((click.min(rejected), click < rejected)),
            (click, rejected) => click.or(rejected).map(|start| (start, click.is_some())),
        }
    }
}

impl<'a> Iterator for RoutedLines<'a> {
    type Item = RoutedLine<'a>;

    fn next(&mut self) -> Option<RoutedLine<'a>> {
        let (start, is_click) = self.next_start()?;
        let (mut click, mut rejected) = (None, None);
        if is_click {
            click = self.clicks.ad_id.get(self.row).copied().zip(self.clicks.event_time_ms.get(self.row).copied());
            self.row += 1;
        } else {
            rejected = self.rejected.get(self.refused).map(|rejected| rejected.verdict);
            self.refused += 1;
        }
        // The next line can begin before a line ending: after a run of NUL bytes.
        let end = self.next_start().map_or(self.text.len(), |(next, _)| next as usize);
        let text = line(self.text.get(start as usize..end).unwrap_or_default());
        let partition = match click {
            Some((ad, _)) => self.partitioner.partition_of(ad, self.partitions),
            None => self.partitioner.partition(text, self.partitions),
        };
        Some(RoutedLine { start, text, partition, click, rejected })
    }
}

/// The first line of a text, without its line ending.
fn line(text: &[u8]) -> &[u8] {
    let line = memchr(b'\n', text).and_then(|end| text.get(..end)).unwrap_or(text);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, DecodeSettings, Decoder, Format};
    use adtally_model::{IdentityKey, InputId};

    #[test]
    fn each_line_comes_once_with_its_partition() {
        let click =
            |ad: u64| format!("{{\"click_timestamp\":1748822400000,\"ad_id\":{ad},\"user_id\":\"u\",\"ip\":\"::1\"}}");
        let nul_bytes = "\0".repeat(64);
        // An empty line is no line. A long run of NUL bytes separates two lines.
        let text = format!("{}\n\nbroken\r\n{}{nul_bytes}{}\nbroken", click(7), click(8), click(9));
        let block = Block {
            input: InputId(1),
            from: 0,
            to: text.len() as u64,
            text: text.into_bytes(),
            format: Format::Ndjson,
            nul_bytes: 0,
            overlong: false,
        };
        let decoder = Decoder::new(DecodeSettings::default(), IdentityKey::new([0; 16])).unwrap();
        let batch = decoder.decode(block);
        let routing = (Partitioner::Murmur2, 1_000);
        let lines: Vec<RoutedLine<'_>> =
            RoutedLines::new(&batch.text, &batch.clicks, &batch.rejected, routing).collect();
        let texts: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(line.text).into_owned()).collect();
        let expected = [click(7), "broken".into(), click(8) + &nul_bytes, click(9), "broken".into()];
        assert_eq!(texts, expected);
        assert!(lines.is_sorted_by_key(|line| line.start));
        for line in lines {
            let key = line.click.map_or("broken".to_owned(), |(ad, _)| ad.to_string());
            assert_eq!(line.partition, Partitioner::Murmur2.partition(key.as_bytes(), 1_000));
            assert_eq!(line.rejected, line.click.is_none().then_some(Verdict::Malformed));
        }
    }
}
