//! Converts the decoder's result to the types of the independent parser, so that the two can be compared. The fuzz
//! targets include this file too.

use super::reader::{Plain, Reading};
use adtally_model::{DecodedBatch, Verdict, ip};

/// Each line of a batch, in order.
pub(crate) fn in_order(batch: &DecodedBatch) -> Vec<Reading> {
    let mut lines: Vec<(u32, Reading)> = Vec::new();
    for row in 0..batch.clicks.len() {
        let click = batch.clicks.get(row);
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).expect("UTF-8").to_owned();
        let plain = Plain {
            ms: click.event_time_ms,
            ad_id: click.ad_id,
            user_id: text(click.user_id),
            ip: ip::format(click.ip),
            country: click.country.as_str().into(),
            click_id: text(click.click_id),
        };
        lines.push((batch.clicks.line_start[row], Reading::Click(plain)));
    }
    for rejected in &batch.rejected {
        let reading = if rejected.verdict == Verdict::Invalid { Reading::Invalid } else { Reading::Malformed };
        assert!(batch.line(rejected.line_start).starts_with(&rejected.payload));
        lines.push((rejected.line_start, reading));
    }
    lines.sort_by_key(|line| line.0);
    assert!(lines.windows(2).all(|pair| pair[0].0 < pair[1].0), "a line was read twice");
    lines.into_iter().map(|line| line.1).collect()
}
