//! Damage in the lake, and a store that fails temporarily: the former is an error, the latter is retried.

use super::*;

const ENTRY: &str = "clicks_by_minute/_delta_log/00000000000000000002.json";

/// A lake with two commits of one epoch each.
async fn two_commits() -> (Arc<InMemory>, Lake) {
    let store = Arc::new(InMemory::new());
    let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
    for number in 1..=2 {
        let epochs = staged(&lake, number..=number).await;
        lake.project(&epochs, TOKEN).await.unwrap();
    }
    (store, lake)
}

async fn text_of(store: &InMemory, path: &str) -> String {
    let bytes = store.get(&path.into()).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn reopen(store: &Arc<InMemory>) -> Result<Lake> {
    Lake::open_existing(Arc::clone(store) as Arc<dyn ObjectStore>).await
}

#[test]
fn a_torn_log_entry_is_damage_and_not_a_failing_store() {
    run(async {
        let (store, lake) = two_commits().await;
        let text = text_of(&store, ENTRY).await;
        for cut in [1, text.len() / 2, text.len() - 1] {
            store.put(&ENTRY.into(), text[..cut].to_owned().into()).await.unwrap();
            let error = reopen(&store).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error}");
            assert!(error.to_string().contains("clicks_by_minute/_delta_log"), "{error}");
            let found = damaged_entries(&lake.store).await.unwrap();
            let expected = DamagedEntry { path: ENTRY.into(), what: "is not JSON", dispensable: true };
            assert_eq!(found, [expected], "{cut}");
        }
        let first = "clicks_by_minute/_delta_log/00000000000000000000.json";
        store.put(&ENTRY.into(), text.into()).await.unwrap();
        store.put(&first.into(), "".into()).await.unwrap();
        assert_eq!(reopen(&store).await.unwrap_err().kind(), ErrorKind::Corrupt, "the table's birth is empty");
    });
}

/// The Delta library reads such an entry as one with fewer actions.
#[test]
fn an_entry_that_is_empty_or_lacks_its_last_lines_is_found() {
    run(async {
        let (store, lake) = two_commits().await;
        let text = text_of(&store, ENTRY).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "commitInfo, add and two txn: {text}");
        for kept in 0..lines.len() {
            store.put(&ENTRY.into(), lines[..kept].join("\n").into()).await.unwrap();
            let reopened = reopen(&store).await.unwrap();
            let wrong = reopened.audit().await.unwrap();
            let told = if kept == 0 { "is empty" } else { "was cut short" };
            // Of the two lines with the table's last epoch, the first is enough.
            assert_eq!(
                wrong.iter().any(|what| what.contains(ENTRY) && what.contains(told)),
                kept < 3,
                "{kept}: {wrong:?}"
            );
            // Rows without a mark would be added once more.
            let held = reopened.held(LOG_ID, 0).await;
            match kept {
                2 => {
                    let error = held.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    assert!(error.to_string().contains("was cut"), "{error}");
                }
                _ => assert_eq!(held.unwrap().by_all(), if kept < 2 { 1 } else { 2 }),
            }
        }
        // The next projection repairs an entry without rows.
        store.put(&ENTRY.into(), "".into()).await.unwrap();
        let reopened = reopen(&store).await.unwrap();
        let epochs = staged(&lake, 1..=2).await;
        reopened.project(&epochs, TOKEN + 1).await.unwrap();
        check_holds(&reopened, 2).await;
    });
}

#[test]
fn a_failing_store_is_tried_again() {
    run(async {
        let store = Failing::new("_delta_log/0");
        let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
        let epochs = staged(&lake, 1..=1).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        store.set_unreadable(true);
        let error = Lake::open_existing(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap_err();
        assert!(error.is_retryable(), "{}", error.report());
        store.set_unreadable(false);
        check_holds(&Lake::open_existing(store as Arc<dyn ObjectStore>).await.unwrap(), 1).await;
    });
}

#[test]
fn a_table_that_is_lost_is_told_and_not_made_again() {
    run(async {
        let (store, _) = two_commits().await;
        let lost: Vec<Path> =
            store.list(Some(&"dead_letters".into())).map_ok(|object| object.location).try_collect().await.unwrap();
        for path in &lost {
            store.delete(path).await.unwrap();
        }
        let error = reopen(&store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("`dead_letters` is missing"), "{error}");
        assert_eq!(store.list(Some(&"dead_letters".into())).try_collect::<Vec<_>>().await.unwrap(), []);
    });
}

/// The results of counting and of a query on the same lake.
async fn check_both(store: &Arc<InMemory>, kind: ErrorKind, word: &str) {
    let lake = reopen(store).await.unwrap();
    let recounted = lake.recount(EVER.0, EVER.1, None).await.unwrap_err();
    let answered = match lake.sql("SELECT sum(ad_id) FROM clicks").await {
        Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.map(drop),
        Err(error) => Err(error),
    };
    for error in [recounted, answered.unwrap_err()] {
        assert_eq!(error.kind(), kind, "{}", error.report());
        assert!(error.to_string().contains(word), "{}", error.report());
    }
    let wrong = lake.audit().await.unwrap();
    assert!(wrong.iter().any(|what| what.contains("click_date=2025-02-19")), "{wrong:?}");
}

#[test]
fn a_file_that_is_missing_or_damaged_is_told() {
    run(async {
        let (store, lake) = two_commits().await;
        assert!(lake.audit().await.unwrap().is_empty());
        let file = lake.table(Table::Clicks).files().await.unwrap().files[0].clone();
        let path = Path::from(format!("clicks/{}", file.path));
        store.put(&path, vec![7; file.size as usize - 1].into()).await.unwrap();
        let wrong = lake.audit().await.unwrap();
        assert!(wrong.iter().any(|what| what.contains("instead of")), "{wrong:?}");
        store.put(&path, vec![7; file.size as usize].into()).await.unwrap();
        let error = reopen(&store).await.unwrap().recount(EVER.0, EVER.1, None).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("is damaged"), "{}", error.report());
        let answered = reopen(&store).await.unwrap().sql("SELECT sum(ad_id) FROM clicks").await;
        let error = match answered {
            Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report());
        store.delete(&path).await.unwrap();
        check_both(&store, ErrorKind::Corrupt, "is missing").await;
    });
}

#[test]
fn a_query_on_a_failing_store_is_not_the_users_fault() {
    run(async {
        let store = Failing::new("click_date=");
        let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
        let epochs = staged(&lake, 1..=1).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        store.set_unreadable(true);
        let error = match lake.sql("SELECT sum(ad_id) FROM clicks").await {
            Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.is_retryable(), "{}", error.report());
    });
}
