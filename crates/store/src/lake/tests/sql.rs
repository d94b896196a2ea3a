//! Ad-hoc SQL: answers and rejected queries.

use super::*;
use arrow::array::RecordBatch;

#[test]
fn queries_over_all_tables() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=2).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        let cases = [
            ("SELECT count(*), count(click_id), min(position) FROM clicks", &["80|40|100"][..]),
            (
                "SELECT ip, count(*) FROM clicks WHERE user_id = 'user-3' AND country = 'US' GROUP BY ip ORDER BY ip",
                &["10.0.0.9|2", "::1|2"][..],
            ),
            ("SELECT sum(clicks) FROM clicks_by_minute WHERE ad_id = 42 AND correction IS NULL", &["20"][..]),
            (
                "SELECT count(DISTINCT click_hour), min(click_date), max(click_timestamp) FROM clicks",
                &["1|2025-02-19|2025-02-19T21:21:09.351Z"][..],
            ),
            (
                "SELECT verdict, reason, input, position, click_timestamp FROM dead_letters",
                &["malformed|not JSON|logs/a.log|2|null"],
            ),
            ("SELECT epoch, counted FROM ledger WHERE input IS NULL ORDER BY epoch", &["1|40", "2|80"][..]),
            (
                "SELECT (SELECT count(*) FROM clicks_by_hour) AS a, (SELECT count(*) FROM corrections) AS b",
                &["0|0"][..],
            ),
            ("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'", &["7"][..]),
        ];
        for (query, expected) in cases {
            assert_eq!(sql(&lake, query).await, expected, "{query}");
        }
        assert_eq!(sql(&lake, "SELECT * FROM clicks LIMIT 1").await.len(), 1);
        assert_eq!(sql(&lake, "SHOW TABLES").await.len(), 7 + 7, "ours and the information schema");
    });
}

#[test]
fn fault_37_queries_that_change_or_reach_out_are_refused() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret.csv");
        std::fs::write(&secret, "a\n1\n").unwrap();
        let secret = secret.display();
        let lake = in_memory().await;
        let queries = [
            "DELETE FROM clicks".to_owned(),
            "INSERT INTO corrections SELECT * FROM corrections".to_owned(),
            "UPDATE clicks SET ad_id = 1".to_owned(),
            "DROP TABLE clicks".to_owned(),
            "CREATE TABLE x AS SELECT 1".to_owned(),
            format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{secret}'"),
            format!("COPY (SELECT 1) TO '{secret}.out' STORED AS CSV"),
            "SET datafusion.execution.batch_size = 1".to_owned(),
            "EXPLAIN ANALYZE SELECT 1".to_owned(),
            format!("SELECT * FROM '{secret}'"),
            format!("SELECT * FROM 'file://{secret}'"),
            format!("SELECT * FROM read_csv('{secret}')"),
            "SELECT nope FROM clicks".to_owned(),
            "SELEC 1".to_owned(),
            "SELECT 1; SELECT 2".to_owned(),
            String::new(),
            "x".repeat(70_000),
        ];
        for query in queries {
            let error = lake.sql(&query).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::User, "{query}: {}", error.report());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(sql(&lake, "EXPLAIN SELECT 1").await.len(), 2);
        let divided = lake.sql("SELECT 1 / (clicks - clicks) FROM (VALUES (1)) AS t(clicks)").await;
        let failed = match divided {
            Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::User);
    });
}

/// Runs a query to its end.
async fn outcome(lake: &Lake, query: &str) -> Result<Vec<RecordBatch>> {
    lake.sql(query).await?.batches.try_collect().await
}

#[test]
fn whole_numbers_that_do_not_fit_are_errors() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=2).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        let (least, largest) = (i64::MIN, i64::MAX);
        let numbers = format!("(VALUES ({largest}, 1), ({largest}, 2)) AS t(x, k)");
        for query in [
            format!("SELECT x + 1 FROM {numbers}"),
            format!("SELECT x * k FROM {numbers} WHERE k = 2"),
            format!("SELECT -x - 2 FROM {numbers}"),
            format!("SELECT sum(x) FROM {numbers}"),
            format!("SELECT sum(DISTINCT x) + sum(x - 1) FROM {numbers}"),
            format!("SELECT k % 1, sum(x) FROM {numbers} GROUP BY 1"),
            format!("SELECT sum(x) OVER (ORDER BY k) FROM {numbers}"),
            format!("SELECT (SELECT sum(x) FROM {numbers}) AS total"),
            format!("SELECT k FROM {numbers} GROUP BY k HAVING sum(x + k) > 5"),
            format!("SELECT -(x) FROM (VALUES (CAST('{least}' AS BIGINT))) AS t(x)"),
            format!("SELECT {largest} + 1"),
            "SELECT sum(clicks) * 9000000000000000000 FROM clicks_by_minute".to_owned(),
        ] {
            let error = outcome(&lake, &query).await.expect_err(&query);
            assert_eq!(error.kind(), ErrorKind::User, "{query}: {}", error.report());
            assert!(error.report().contains("does not fit its type"), "{query}: {}", error.report());
        }
        let cases = [
            (
                format!("SELECT x - 1 + 1, -x, k * 3 AS a FROM {numbers} ORDER BY k LIMIT 1"),
                "9223372036854775807|-9223372036854775807|3",
            ),
            (format!("SELECT sum(k), sum(k) FILTER (WHERE k > 1), sum(x - x) FROM {numbers}"), "3|2|0"),
            (format!("SELECT sum(CAST(x AS DECIMAL(38, 0))) FROM {numbers}"), "18446744073709551614"),
            (format!("SELECT max(s) FROM (SELECT sum(k) OVER (ORDER BY k) AS s FROM {numbers})"), "3"),
            (format!("SELECT x FROM {numbers} WHERE k + 1 = 3"), "9223372036854775807"),
            (format!("SELECT sum(k) AS s FROM {numbers} GROUP BY ROLLUP(x) ORDER BY s LIMIT 1"), "3"),
        ];
        for (query, expected) in cases {
            assert_eq!(sql(&lake, &query).await, [expected], "{query}");
        }
        let answer = lake.sql("SELECT sum(clicks), clicks + 1 FROM clicks_by_minute GROUP BY 2").await.unwrap();
        let columns: Vec<_> =
            answer.schema.fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
        use arrow::datatypes::DataType::Int64;
        assert_eq!(columns, [("sum(clicks_by_minute.clicks)", &Int64), ("clicks_by_minute.clicks + Int64(1)", &Int64)]);
    });
}

/// One operator may use all of a query's memory, and the message names that bound.
#[test]
fn a_query_may_use_the_memory_that_the_message_names() {
    run(async {
        let lake = in_memory().await;
        // Some 400 MB of groups, next to operators that need some too.
        let query = "SELECT count(*) FROM (SELECT a.value AS x, count(*) AS n FROM generate_series(1, 3000000) AS a \
                     JOIN generate_series(1, 10) AS b ON a.value % 10 + 1 = b.value GROUP BY 1 ORDER BY n DESC, x)";
        assert_eq!(sql(&lake, query).await, ["3000000"]);
        let query =
            "SELECT a.value, array_agg(repeat('x', 1000)) FROM generate_series(1, 3000000) AS a GROUP BY 1 ORDER BY 2";
        let error = outcome(&lake, query).await.unwrap_err();
        assert_eq!((error.kind(), error.report().contains("1024 MiB")), (ErrorKind::User, true), "{}", error.report());
    });
}

#[test]
fn messages_are_about_the_query() {
    run(async {
        let lake = in_memory().await;
        let rollup = "SELECT ad_id * 4, sum(clicks) FROM clicks_by_minute GROUP BY ROLLUP(ad_id * 4)";
        assert!(outcome(&lake, rollup).await.unwrap_err().report().contains("in a subquery"));
        for query in ["SELECT Ad_Id, \"AD_ID\" FROM clicks", "SELECT nope FROM clicks", "SELECT sum(ip) FROM clicks"] {
            let error = outcome(&lake, query).await.unwrap_err().report();
            assert!(!error.to_lowercase().contains("datafusion"), "{query}: {error}");
        }
    });
}
