//! What goes beside the counts of a topic: corrections, dead letters, gaps and the lag.

use super::Deployment;
use super::answers::comparable;
use super::services::{Broker, S3};
use crate::expected::Expected;
use crate::site::{Site, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;

/// Corrections are the same in both modes, and every process shows those of others.
#[test]
fn corrections_are_those_of_one_process() {
    let (broker, s3) = (Broker::shared(), S3::start());
    let deployment = Deployment::on_s3(broker, &s3, 3);
    let site = &deployment.site;
    let words = "--lines 30000 --rate 10 --seed 8 --late 3% --duplicates 4% --malformed 0.5% --click-ids 30% \
                 --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(site, "clicks.log", words);
    let worker = deployment.worker("");
    deployment.produce("clicks.log", "agent");
    let ledger = deployment.wait_read(expected.lines());
    assert!(ledger["late"].as_u64().unwrap() > 100, "{ledger}");
    let span =
        format!("from={}&to={}", expected.report["from"].as_str().unwrap(), expected.report["to"].as_str().unwrap());
    let top = format!("/ads/top100?{span}");
    wait_for("all partitions", || (worker.text(&top).0 == 200).then_some(()));
    let before = worker.get(&top);
    // Another process corrects what is final by now. The worker shows it.
    let reconcile = ["reconcile", "--config", "fast.toml", "--data-dir", site.data(), "--json"];
    let first = site.words(&reconcile).ok().json();
    let recovered = |report: &Value| report["recovered"].as_u64().unwrap();
    assert!(recovered(&first) > 0, "{first}");
    let node = deployment.node();
    wait_for("the corrections", || (worker.get("/ledger")["corrections"]["runs"] == 1).then_some(()));
    wait_for("the corrections at the node", || (node.get("/ledger")["corrections"]["runs"] == 1).then_some(()));
    assert_ne!(comparable(worker.get(&top)), comparable(before));
    assert_eq!(comparable(worker.get(&top)), comparable(node.get(&top)));
    worker.stop();
    // The end of the topic makes the remaining minutes final.
    site.words(&["retire", "--config", "fast.toml", "--data-dir", site.data(), "--topic", &deployment.topic]).ok();
    let second = site.words(&reconcile).ok().json();
    site.verify();

    let files = Site::new();
    files.write("clicks.log", site.read("clicks.log"));
    files.write("fast.toml", site.read("fast.toml"));
    files.adtally("run clicks.log --config fast.toml --data-dir data --until-end --final").ok();
    let embedded = files.adtally("reconcile --config fast.toml --data-dir data --json").ok().json();
    assert_eq!(recovered(&first) + recovered(&second), recovered(&embedded), "{first} {second} {embedded}");
    wait_for("both runs at the node", || (node.get("/ledger")["corrections"]["runs"] == 2).then_some(()));
    let server = files.serve("clicks.log --config fast.toml");
    server.wait_read(expected.lines());
    let ad = expected.report["ads"][0]["ad_id"].as_str().unwrap();
    for question in [
        top,
        format!("/ads/top100?{span}&filter_country=US"),
        format!("/ads/{ad}/clicks?{span}&series=true"),
        format!("/ads/{ad}/clicks?{span}&filter_ip=10.0.0.1"),
    ] {
        assert_eq!(comparable(server.get(&question)), comparable(node.get(&question)), "{question}");
    }
}

/// Dead letters reach the topic that is configured, through the death of a worker.
#[test]
fn dead_letters_reach_a_topic() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 3);
    let site = &deployment.site;
    let letters_topic = format!("{}-letters", deployment.topic);
    let words = "--lines 20000 --rate 10 --seed 9 --late 2% --malformed 2% --invalid 2% --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(site, "clicks.log", words);
    let settings = String::from_utf8(site.read("fast.toml")).unwrap();
    site.write("fast.toml", format!("{settings}[kafka]\ndead_letter_topic = \"{letters_topic}\"\n"));
    let (code, said) = deployment.refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("the topic {letters_topic} does not exist")), "{said}");
    broker.create_topic(&letters_topic, 2);
    let worker = deployment.worker("");
    deployment.produce("clicks.log", "agent");
    std::thread::sleep(std::time::Duration::from_secs(1));
    worker.kill();
    let worker = deployment.worker("");
    let ledger = deployment.wait_read(expected.lines());
    worker.stop();
    let verdicts = ["late", "malformed", "invalid", "future"];
    let rejected: u64 = verdicts.iter().map(|verdict| ledger[verdict].as_u64().unwrap()).sum();
    let rows = site.sql_value("SELECT count(*) FROM dead_letters WHERE verdict != 'conflict'");
    assert_eq!(rows, rejected.to_string());
    // Those that were sent again after the kill have the same headers.
    let sent = broker.records(&letters_topic);
    let known: BTreeSet<&(String, String)> =
        sent.iter().filter(|(_, json)| !json.contains("\"verdict\":\"conflict\"")).collect();
    assert_eq!(known.len() as u64, rejected);
    let ids: BTreeSet<&String> = known.iter().map(|(headers, _)| headers).collect();
    assert_eq!(ids.len(), known.len(), "headers identify a letter");
    let letter: Value = known
        .iter()
        .map(|(_, json)| serde_json::from_str::<Value>(json).unwrap())
        .find(|letter| letter["verdict"] == "late")
        .unwrap();
    for field in ["reason", "line", "input", "received_at", "click_timestamp", "ad_id", "watermark"] {
        assert!(letter[field].is_string() || letter[field].is_number(), "{field}: {letter}");
    }
}

/// What an agent could never read is in the ledger of the deployment, once.
#[test]
fn a_gap_of_an_agent_is_in_the_ledger() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 3);
    let site = &deployment.site;
    Expected::generate(site, "whole.log", "--lines 200 --seed 10");
    let whole = site.read("whole.log");
    site.write("logs/clicks.log", &whole[..whole.len() - 30]);
    let worker = deployment.worker("");
    let agent = || {
        let mut command = site.program();
        command.args(["agent", "logs", "--config", "fast.toml", "--topic", &deployment.topic]);
        command.args(["--brokers", broker.address(), "--data-dir", "agent"]).spawn().unwrap()
    };
    let stop = |mut agent: std::process::Child| {
        kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
        assert!(agent.wait().unwrap().success());
    };
    let first = agent();
    deployment.wait_read(199);
    wait_for("no lag", || (worker.text("/metrics").1.matches("adtally_topic_lag_records{").count() == 3).then_some(()));
    stop(first);
    std::fs::remove_file(site.path("logs/clicks.log")).unwrap();
    let half = whole.len() - 30 - whole[..whole.len() - 30].iter().rposition(|&byte| byte == b'\n').unwrap() - 1;
    let second = agent();
    wait_for("the gap", || (worker.get("/ledger")["gap_bytes"] == half as u64).then_some(()));
    stop(second);
    // Both begin again, and say it again.
    worker.stop();
    let (worker, third) = (deployment.worker(""), agent());
    wait_for("no lag", || {
        let metrics = worker.text("/metrics").1;
        let lags = || metrics.lines().filter(|line| line.starts_with("adtally_topic_lag_records{"));
        (lags().count() == 3 && lags().all(|line| line.ends_with(" 0") || line.ends_with(" 0.0"))).then_some(())
    });
    stop(third);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(worker.get("/ledger")["gap_bytes"], half as u64);
    worker.stop();
    site.verify();
}
