//! A topic, workers and nodes give the answers of a process that reads the files.

use super::Deployment;
use super::services::{Broker, S3};
use crate::expected::Expected;
use crate::site::{VERDICTS, wait_for};
use serde_json::Value;

/// Answers without what must differ: the logs differ, and stamps are older than the lines after them.
pub(super) fn comparable(mut answer: Value) -> Value {
    for field in ["revision", "watermark", "state"] {
        answer.as_object_mut().unwrap().remove(field);
    }
    for minute in answer["minutes"].as_array_mut().into_iter().flatten() {
        minute.as_object_mut().unwrap().remove("state");
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
        assert_eq!(comparable(server.get(&question)), comparable(node.get(&question)), "{question}");
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

/// A deployment on one machine goes on as agents and workers: its lake goes on, and nothing is counted twice or lost.
#[test]
fn a_deployment_on_one_machine_moves_to_a_topic() {
    let broker = Broker::shared();
    let mut deployment = Deployment::on_disk(broker, 2);
    let words = "--lines 30000 --rate 50 --seed 31 --duplicates 4% --click-ids 30% --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(&deployment.site, "whole.log", words);
    let text = String::from_utf8(deployment.site.read("whole.log")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (before, after) = lines.split_at(lines.len() / 2);
    let site = &deployment.site;
    site.write("logs/clicks.log", before.concat());
    site.adtally("run logs --config fast.toml --data-dir data --until-end").ok();
    // Workers refuse data that log files are still read into.
    deployment.site.keep_data_at(format!("file://{}", deployment.site.path("data").display()));
    let (code, said) = deployment.refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("adtally retire"), "{said}");
    let site = &deployment.site;
    let retired = site.adtally("retire --config fast.toml --data-dir data").ok().stdout;
    assert_eq!(retired, "partitions retired: 1; all their minutes are final\n");
    let refused = site.adtally("run logs --config fast.toml --data-dir data --until-end");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    site.verify();
    // The agent begins where the process ended. Some of what follows is copies of what was counted.
    site.append("logs/clicks.log", after.concat());
    site.append("logs/clicks.log", before[before.len() - 2_000..].concat());
    let mut command = site.program();
    command.args(["agent", "logs", "--until-end", "--config", "fast.toml", "--brokers", broker.address()]);
    command.args(["--topic", &deployment.topic, "--data-dir", "agent", "--after", "data"]);
    crate::site::end(command).ok();
    let worker = deployment.worker("");
    let ledger = deployment.wait_read(expected.lines() + 2_000);
    assert!(ledger["late"].as_u64().unwrap() >= 2_000, "the copies come after the newest click: {ledger}");
    worker.stop();
    // Later clicks would make the minutes final; so does the end of the topic.
    let topic = ["retire", "--config", "fast.toml", "--data-dir", site.data(), "--topic", &deployment.topic];
    assert_eq!(site.words(&topic).ok().stdout, "partitions retired: 2; all their minutes are final\n");
    site.words(&["reconcile", "--config", "fast.toml", "--data-dir", site.data()]).ok();
    expected.check_csv("clicks_by_minute", &site.sql(crate::expected::COUNTS));
    site.verify();
}
