//! A topic, workers and nodes give the answers of a process that reads the files.

use super::Deployment;
use super::services::{Broker, S3};
use crate::expected::Expected;
use crate::site::{VERDICTS, wait_for};
use serde_json::Value;

/// Answers without what must differ: the logs differ, and stamps are older than the lines after them.
fn comparable(mut answer: Value) -> Value {
    for field in ["revision", "watermark", "state"] {
        answer.as_object_mut().unwrap().remove(field);
    }
    answer
}

#[test]
fn agents_workers_and_a_node_on_s3_answer_as_one_process_does() {
    let (broker, s3) = (Broker::shared(), S3::start());
    let deployment = Deployment::on_s3(broker, &s3, 3);
    let site = &deployment.site;
    let words = "--lines 60000 --rate 100 --seed 5 --late 1% --duplicates 4% --malformed 0.5% --invalid 0.5% \
                 --click-ids 30% --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(site, "clicks.log", words);
    let workers = [deployment.worker(""), deployment.worker("")];
    deployment.produce("clicks.log", "agent");
    let ledger = deployment.wait_read(expected.lines());
    for verdict in VERDICTS {
        assert_eq!(ledger[verdict], expected.report[verdict], "{verdict}: {ledger}");
    }
    expected.check_counts(site);
    // Neither worker has all partitions, so neither answers.
    for worker in &workers {
        let (status, text) = worker.text("/ads/top100?minutes=5");
        assert_eq!(status, 421, "{text}");
        assert_eq!(worker.text("/healthz").0, 200);
    }
    let node = deployment.node();
    let span =
        format!("from={}&to={}", expected.report["from"].as_str().unwrap(), expected.report["to"].as_str().unwrap());
    wait_for("the node", || {
        let top = node.get(&format!("/ads/top100?{span}"));
        (top["ads"] == expected.report["ads"]).then_some(())
    });
    expected.check_answers(&node);
    // The same log in one process.
    let files = crate::site::Site::new();
    files.write("clicks.log", site.read("clicks.log"));
    files.write("fast.toml", site.read("fast.toml"));
    let server = files.serve("clicks.log --config fast.toml");
    server.wait_read(expected.lines());
    let ad = expected.report["ads"][0]["ad_id"].as_str().unwrap();
    for question in [
        format!("/ads/top100?{span}"),
        format!("/ads/top100?{span}&filter_country=US"),
        format!("/ads/top100?{span}&filter_ip=10.0.0.1"),
        format!("/ads/top100?{span}&filter_user_id=u7"),
        format!("/ads/{ad}/clicks?{span}&series=true"),
    ] {
        let (mut one, mut other) = (comparable(server.get(&question)), comparable(node.get(&question)));
        for answer in [&mut one, &mut other] {
            for minute in answer["minutes"].as_array_mut().into_iter().flatten() {
                minute.as_object_mut().unwrap().remove("state");
            }
        }
        assert_eq!(one, other, "{question}");
    }
    for worker in workers {
        worker.stop();
    }
    site.verify();
    // One worker that owns all partitions answers as well.
    let worker = deployment.worker("");
    wait_for("all partitions", || (worker.text(&format!("/ads/top100?{span}")).0 == 200).then_some(()));
    expected.check_answers(&worker);
    worker.stop();
}

/// Lines of agents with one line a record, and lines of other producers, are read as packed ones are.
#[test]
fn records_with_one_line_are_read_as_well() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 2);
    let site = &deployment.site;
    let expected = Expected::generate(site, "clicks.log", "--lines 5000 --seed 6 --duplicates 3%");
    site.write(
        "fast.toml",
        format!("{}[agent]\nsingle_lines = true\n", String::from_utf8(site.read("fast.toml")).unwrap()),
    );
    deployment.produce("clicks.log", "agent");
    let worker = deployment.worker("");
    deployment.wait_read(expected.lines());
    expected.check_counts(site);
    // The same lines once more, by another producer: all are copies.
    let text = String::from_utf8(site.read("clicks.log")).unwrap();
    let keyed = text.lines().map(|line| {
        let click: Value = serde_json::from_str(line).unwrap();
        (click["ad_id"].to_string().trim_matches('"').to_owned(), line.to_owned())
    });
    broker.produce(&deployment.topic, "murmur2_random", keyed);
    let ledger = deployment.wait_read(2 * expected.lines());
    assert_eq!(ledger["invalid"], 0, "{ledger}");
    expected.check_counts(site);
    worker.stop();
    site.verify();
}
