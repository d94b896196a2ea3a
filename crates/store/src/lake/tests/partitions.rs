//! Tests of the tables' epochs of several partitions and logs.

use super::*;

#[test]
fn a_missing_epoch_is_refused() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=4).await;
        for wrong in [&epochs[1..], &[epochs[0].clone(), epochs[2].clone()]] {
            assert_eq!(lake.project(wrong, TOKEN).await.unwrap_err().kind(), ErrorKind::Internal);
        }
        check_holds(&lake, 0).await;
    });
}

#[test]
fn partitions_are_held_apart() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=2).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        let mut other = epochs[0].clone();
        other.staged.clear();
        other.counts = counted(&clicks(9)).into();
        lake.project(&under(LOG_ID + 1, 3, &[other]), TOKEN).await.unwrap();
        assert_eq!(lake.epochs().await.unwrap().iter().collect::<Vec<_>>(), [(0, 2), (3, 1)]);
        let only = lake.counts(EVER.0, EVER.1, Some(&Epochs::of(3, 9))).await.unwrap();
        assert_eq!(only.minutes, counted(&clicks(9)));
        let mut all = all_clicks(1..=2);
        all.extend(clicks(9));
        assert_eq!(lake.counts(EVER.0, EVER.1, None).await.unwrap().minutes, counted(&all));
    });
}

#[test]
fn partitions_come_in_one_commit_and_each_goes_on_from_where_it_is_held() {
    run(async {
        let lake = in_memory().await;
        let first = staged(&lake, 1..=3).await;
        let mut second = under(LOG_ID + 1, 3, &first);
        for (epoch, seed) in second.iter_mut().zip(7..) {
            epoch.staged.clear();
            epoch.counts = counted(&clicks(seed)).into();
        }
        lake.project(&first[..2], TOKEN).await.unwrap();
        let versions = async || {
            let mut versions = Vec::new();
            for table in Table::PROJECTED {
                versions.push(lake.table(table).latest().await.unwrap().version().unwrap());
            }
            versions
        };
        let before = versions().await;
        // One partition continues, the other begins.
        let both = [&first[..], &second[..]].concat();
        lake.project(&both, TOKEN).await.unwrap();
        assert_eq!(versions().await, before.iter().map(|version| version + 1).collect::<Vec<_>>());
        lake.project(&both, TOKEN).await.unwrap();
        assert_eq!(versions().await, before.iter().map(|version| version + 1).collect::<Vec<_>>());
        assert_eq!(lake.epochs().await.unwrap().iter().collect::<Vec<_>>(), [(0, 3), (3, 3)]);
        let mut all = all_clicks(1..=3);
        (7..10).for_each(|seed| all.extend(clicks(seed)));
        assert_eq!(lake.counts(EVER.0, EVER.1, None).await.unwrap().minutes, counted(&all));

        let twice = [&second[2..], &first[2..], &second[2..]].concat();
        assert_eq!(lake.project(&twice, TOKEN).await.unwrap_err().kind(), ErrorKind::Internal);
    });
}

#[test]
fn fault_47_an_unknown_log_is_refused_with_its_repair() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=1).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        for error in [
            lake.held(LOG_ID ^ 1, 0).await.unwrap_err(),
            lake.project(&under(LOG_ID ^ 1, 0, &epochs), TOKEN).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("Restore the epoch log"), "{error}");
        }
        check_holds(&lake, 1).await;
        let other_partition = lake.held(LOG_ID ^ 1, 1).await.unwrap();
        assert_eq!(other_partition.by_all(), 0);
    });
}

/// Writers of one lake at once.
const WRITERS: u32 = 16;

/// Sixteen processes commit to one lake at once, again and again: each commit is made, and none of them starves.
#[test]
fn fault_67_many_committers_on_one_lake() {
    run(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let first = Lake::open(Arc::clone(&store)).await.unwrap();
        let epochs = staged(&first, 1..=3).await;
        let writers = (0..WRITERS).map(|partition| {
            let (store, epochs) = (Arc::clone(&store), epochs.clone());
            tokio::spawn(async move {
                let lake = Lake::open_existing(store).await.unwrap();
                let mut own = under(LOG_ID + u128::from(partition), partition, &epochs);
                own.iter_mut().for_each(|epoch| epoch.staged.clear());
                let mut repeated = 0;
                for to in 1..=own.len() {
                    // The caller repeats a call that was refused.
                    while let Err(error) = lake.project(&own[..to], TOKEN + u128::from(partition)).await {
                        assert!(error.is_retryable(), "{}", error.report());
                        repeated += 1;
                    }
                }
                repeated
            })
        });
        let repeated = futures::future::join_all(writers.collect::<Vec<_>>()).await;
        let most = repeated.into_iter().map(|repeated| repeated.unwrap()).max().unwrap();
        // A call has ten attempts.
        assert!(most <= 2, "a writer had to repeat its call {most} times");
        let held: Vec<_> = first.epochs().await.unwrap().iter().collect();
        assert_eq!(held, (0..WRITERS).map(|partition| (partition, 3)).collect::<Vec<_>>());
        let once = all_clicks(1..=3);
        let all = (0..WRITERS).flat_map(|_| once.iter());
        assert_eq!(first.counts(EVER.0, EVER.1, None).await.unwrap().minutes, counted(all));
    });
}
