//! Tests of copies that differ from the counted click: which are kept, and under which verdict.

use crate::driver::{LATER, clock, new_input};
use adtally_model::dead_letter::CONFLICT;
use adtally_model::identity::IdentityFields;
use adtally_model::{
    ClickColumns, ClickRef, Country, DecodedBatch, IdentityKey, InputId, Ledger, PartitionState, Verdict, ip,
};
use adtally_pipeline::{EpochDraft, Partition, PendingBatch, RunEnd, TimeSettings};

const AT: i64 = 1_767_225_600_000;

/// Judges one click per row (user, address, country, click id), all with the same time and ad.
fn judge(rows: &[[&str; 4]]) -> EpochDraft {
    let key = IdentityKey::new([3; 16]);
    let (mut clicks, mut text) = (ClickColumns::default(), Vec::new());
    for [user, address, country, click_id] in rows {
        let click = ClickRef {
            event_time_ms: AT,
            ad_id: 7,
            country: Country::parse(country.as_bytes()),
            ip: ip::parse(address.as_bytes()).unwrap(),
            user_id: user.as_bytes(),
            click_id: click_id.as_bytes(),
        };
        let identity = key.identify(&IdentityFields {
            event_time_ms: AT,
            ad_id: 7,
            ip: click.ip,
            country: click.country.rank(),
            user_id: click.user_id,
            click_id: click.click_id,
        });
        clicks.push(&click, text.len() as u32, identity);
        text.extend_from_slice(format!("{user} {address} {country} {click_id}\n").as_bytes());
    }
    let to = text.len() as u64;
    let mut partition = Partition::new(TimeSettings::default(), PartitionState::default());
    partition.add_input(new_input(1), &clock(LATER));
    let mut batch = PendingBatch::new(DecodedBatch {
        input: InputId(1),
        from: 0,
        to,
        clicks,
        rejected: Vec::new(),
        nul_bytes: 0,
        text,
    });
    partition.judge(&mut batch, &clock(LATER), usize::MAX).unwrap();
    partition.end_epoch(&clock(LATER), RunEnd::GoesOn).unwrap().unwrap()
}

/// Checks the numbers of counted, duplicate and conflicting lines, and the kept lines.
fn check(rows: &[[&str; 4]], expected: (u64, u64, u64), kept: &[&str]) {
    let draft = judge(rows);
    let Ledger { counted, duplicate, conflicting_duplicates, .. } = draft.progress.ledger;
    assert_eq!((counted, duplicate, conflicting_duplicates), expected, "{rows:?}");
    let letters: Vec<_> =
        draft.dead_letters.iter().map(|letter| String::from_utf8(letter.payload.clone()).unwrap()).collect();
    assert_eq!(letters, kept, "{rows:?}");
    for letter in &draft.dead_letters {
        assert_eq!((letter.verdict, letter.cause()), (Verdict::Duplicate, CONFLICT));
        assert_eq!(letter.click.as_ref().map(|click| click.fields().event_time_ms), Some(AT));
    }
}

#[test]
fn a_copy_of_another_user_or_address_is_kept_and_one_of_another_country_counted() {
    let first = ["u1", "192.0.2.1", "DE", "c"];
    check(&[first, first], (1, 1, 0), &[]);
    check(&[first, ["u1", "192.0.2.1", "FR", "c"]], (1, 1, 1), &[]);
    check(&[first, ["u2", "192.0.2.1", "DE", "c"]], (1, 1, 1), &["u2 192.0.2.1 DE c"]);
    check(&[first, ["u1", "192.0.2.2", "FR", "c"], first], (1, 2, 1), &["u1 192.0.2.2 FR c"]);
    // Without a click id, user and address are the identity.
    let first = ["u1", "192.0.2.1", "DE", ""];
    check(&[first, ["u1", "192.0.2.1", "FR", ""], ["u2", "192.0.2.1", "DE", ""]], (2, 1, 1), &[]);
}

#[test]
fn a_click_id_that_all_bear_costs_no_click_its_line() {
    let users: Vec<String> = (0..400).map(|user| format!("u{user}")).collect();
    let rows: Vec<_> = users.iter().map(|user| [&**user, "192.0.2.1", "DE", "placeholder"]).collect();
    let draft = judge(&rows);
    assert_eq!((draft.progress.ledger.counted, draft.progress.ledger.duplicate), (1, 399));
    let (conflicting, kept) = (draft.progress.ledger.conflicting_duplicates, draft.dead_letters.len() as u64);
    // 8 bits distinguish users: one of 256 copies appears to be of the same user.
    assert!(conflicting == kept && kept > 390, "{kept} of 399");
    assert!(draft.dead_letters.iter().all(|letter| letter.reason.ends_with(" click_id placeholder")));
    draft.progress.ledger.check("the partition").unwrap();
}
