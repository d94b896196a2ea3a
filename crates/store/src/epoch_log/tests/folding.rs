//! Folding: from a base, with a running owner, and over damage.

use super::*;

#[test]
fn the_fold_from_a_base_is_the_fold_of_everything() {
    // From a few epochs a minute, where no minute is old, to so many that each base repeats minutes.
    for per_minute in [3, 40, 90] {
        let (_, log) = in_memory();
        let (mut owner, mut state) = claim(&log, 1);
        let mut repeated = 0;
        for number in 2..=300 {
            grow(&mut owner, &mut state, 1, per_minute);
            assert_eq!(owner.head(), number);
            if number % 7 == 0 || number % BASE_EVERY <= 1 {
                let folded = block_on(log.fold()).unwrap().unwrap();
                assert_eq!(facts(&folded), facts(&state), "{per_minute} a minute, up to {number}");
            }
            if number.is_multiple_of(BASE_EVERY) {
                let (epoch, _) = block_on(log.read(number)).unwrap().unwrap();
                repeated += epoch.base.unwrap().minutes.len();
            }
        }
        assert_eq!(repeated > 0, per_minute > 3, "{per_minute} a minute: {repeated} minutes were repeated");
    }
}

#[test]
fn a_claim_at_a_base_is_a_base() {
    let (_, log) = in_memory();
    let (mut owner, mut state) = claim(&log, 1);
    grow(&mut owner, &mut state, BASE_EVERY * 4 - 2, 90);
    let (owner, claimed) = claim(&log, 2);
    assert_eq!(owner.head(), BASE_EVERY * 4);
    let folded = block_on(log.fold()).unwrap().unwrap();
    assert_eq!(facts(&folded), facts(&claimed));
    state.progress.number = folded.progress.number;
    state.checksum = folded.checksum;
    assert_eq!(facts(&folded), facts(&state));
}

#[test]
fn fault_17_damage_in_the_log_is_named() {
    type Spoil = fn(&[u8]) -> Vec<u8>;
    let spoil: [(&str, Spoil); 3] = [
        ("empty", |_| Vec::new()),
        ("torn", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("flipped", |bytes| bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 30)).collect()),
    ];
    for (what, spoil) in spoil {
        for number in [1, 5, 10] {
            let (store, log) = in_memory();
            let (mut owner, mut state) = claim(&log, 1);
            grow(&mut owner, &mut state, 9, 3);
            let path = log.path(number);
            let bytes = block_on(async { store.get(&path).await?.bytes().await }).unwrap();
            block_on(store.put(&path, spoil(&bytes).into())).unwrap();
            for error in [block_on(log.fold()).err(), block_on(log.claim(2, 2, KEYS)).err()] {
                let error = error.unwrap_or_else(|| panic!("{what} record {number} was not noticed"));
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what} {number}: {error}");
                assert!(error.to_string().contains(path.as_ref()), "{error}");
            }
        }
    }
    let (store, log) = in_memory();
    let (mut owner, mut state) = claim(&log, 1);
    grow(&mut owner, &mut state, 9, 3);
    block_on(store.copy(&log.path(4), &log.path(5))).unwrap();
    assert_eq!(block_on(log.read(5)).unwrap_err().kind(), ErrorKind::Corrupt, "a copied record");
    block_on(store.delete(&log.path(5))).unwrap();
    let error = block_on(log.fold()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

/// A reader lists the records, and the owner deletes some of them before they are read.
#[test]
fn a_fold_beside_a_running_owner_begins_anew() {
    let store = Arc::new(Lossy::default());
    let log = EpochLog::new(store.clone(), 0);
    let (mut owner, mut state) = claim(&log, 1);
    grow(&mut owner, &mut state, 199, 10);
    let old: Vec<ObjectMeta> = block_on(store.inner.list(None).try_collect()).unwrap();
    grow(&mut owner, &mut state, 200, 10);
    assert!(block_on(log.collect(fold_start(400))).unwrap() > 200);
    store.old_listings.lock().push_back(old.clone());
    assert_eq!(facts(&block_on(log.fold()).unwrap().unwrap()), facts(&state));
    store.old_listings.lock().push_back(old);
    let (next, claimed) = claim(&log, 2);
    assert_eq!((next.head(), claimed.progress.ledger), (401, state.progress.ledger));
    // A record that the owner cannot have deleted is missing.
    block_on(store.inner.delete(&log.path(390))).unwrap();
    let error = block_on(log.fold()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("390"), "{error}");
}

#[test]
fn a_position_that_does_not_follow_is_noticed() {
    for base in [false, true] {
        let (_, log) = in_memory();
        let (mut owner, mut state) = claim(&log, 1);
        grow(&mut owner, &mut state, if base { 62 } else { 5 }, 10);
        let mut epoch = next_epoch(&mut state, 2_000, 1);
        assert_eq!(epoch.base.is_some(), base);
        let rows = epoch.base.as_mut().map_or(&mut epoch.inputs, |base| &mut base.inputs);
        Arc::make_mut(&mut rows[0]).file_mut().unwrap().position.from += 1;
        block_on(owner.append(&mut epoch)).unwrap();
        let error = block_on(log.fold()).unwrap_err();
        assert!(error.to_string().contains("EO-3"), "{error}");
    }
}

// ---- collecting ----
