//! Faults of brokers, groups, object stores and agents. Each test asserts that its fault happened.

use super::Deployment;
use super::services::{Broker, S3};
use crate::expected::Expected;
use crate::faults::{SECOND, START, click};
use crate::site::{Serving, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// Lines of an ad, keyed by it.
pub(super) fn keyed(text: &str) -> Vec<(String, String)> {
    let of = |line: &str| {
        let click: Value = serde_json::from_str(line).unwrap();
        (click["ad_id"].to_string().trim_matches('"').to_owned(), line.to_owned())
    };
    text.lines().map(of).collect()
}

/// Clicks of these users, a second apart.
pub(super) fn clicks(users: std::ops::Range<i64>) -> String {
    users.map(|user| click(START + user * SECOND, user)).collect()
}

/// The counts of all clicks in the lake.
fn counted(deployment: &Deployment<'_>) -> String {
    deployment.site.sql_value("SELECT sum(clicks) FROM clicks_by_minute")
}

/// Waits until a worker has said something.
fn wait_said(worker: &Serving, what: &str) {
    wait_for(what, || worker.said().contains(what).then_some(()));
}

/// The position in the epoch log wins, whatever the group says: a worker that is killed after each record reads nothing again.
#[test]
fn fault_06_a_worker_is_killed_before_the_offset_of_its_group_is_committed() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 1);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..400)));
    for passed in 0..3 {
        let point = format!("after_record={passed}*off->return");
        let worker = deployment.worker_with("", &[("FAILPOINTS", &point)]);
        let (code, said) = worker.ended();
        assert_eq!(code, None, "the process died at the point: {said}");
        let from = 400 + passed * 100;
        broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(from..from + 100)));
    }
    let worker = deployment.worker("");
    let ledger = deployment.wait_read(700);
    assert_eq!((&ledger["counted"], &ledger["duplicate"]), (&700.into(), &0.into()), "{ledger}");
    worker.stop();
    deployment.site.verify();
}

/// A worker that is stopped past its session time-out is fenced when it wakes up, and writes to no store.
#[test]
fn fault_08_a_worker_that_wakes_up_after_its_partitions_were_given_away_is_fenced() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 2);
    let zombie = deployment.worker("");
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..500)));
    deployment.wait_read(500);
    zombie.send(Signal::STOP);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(500..1_000)));
    let heir = deployment.worker("");
    let ledger = deployment.wait_read(1_000);
    assert_eq!(ledger["counted"], 1_000, "{ledger}");
    zombie.send(Signal::CONT);
    wait_for("the zombie to notice", || {
        let said = zombie.said();
        (said.contains("partition dropped") || said.contains("partitions lost")).then_some(())
    });
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(1_000..1_500)));
    let ledger = deployment.wait_read(1_500);
    assert_eq!((&ledger["counted"], &ledger["duplicate"]), (&1_500.into(), &0.into()), "{ledger}");
    zombie.stop();
    heir.stop();
    deployment.site.verify();
    assert_eq!(counted(&deployment), "1500");
}

/// Workers join, leave and are killed all the time: no click is missing, and none is counted twice.
#[test]
fn fault_11_workers_join_and_leave_in_a_storm() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 4);
    let mut workers = vec![deployment.worker(""), deployment.worker("")];
    let mut sent = 0;
    for round in 0..6 {
        broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(sent..sent + 300)));
        sent += 300;
        workers.push(deployment.worker(""));
        let leaving = workers.remove(0);
        match round % 3 {
            0 => leaving.kill(),
            1 => drop(leaving.stop()),
            _ => {
                leaving.send(Signal::STOP);
                std::thread::sleep(std::time::Duration::from_millis(500));
                leaving.send(Signal::CONT);
                workers.push(leaving);
            }
        }
    }
    let ledger = deployment.wait_read(sent as u64);
    assert_eq!((&ledger["counted"], &ledger["duplicate"]), (&sent.into(), &0.into()), "{ledger}");
    let has_joined = workers.iter().any(|worker| worker.said().contains("partition taken over"));
    assert!(has_joined, "workers that joined later took partitions over");
    workers.into_iter().for_each(|worker| drop(worker.stop()));
    deployment.site.verify();
}

/// The broker is killed and started again while a worker and an agent run: both go on.
#[test]
fn fault_13_the_broker_restarts() {
    let broker = Broker::start();
    let deployment = Deployment::on_disk(&broker, 2);
    let site = &deployment.site;
    let worker = deployment.worker("");
    site.write("logs/clicks.log", clicks(0..500));
    let mut agent = site.program();
    agent.args(["agent", "logs", "--config", "fast.toml", "--brokers", broker.address(), "--topic", &deployment.topic]);
    let mut agent = agent.args(["--data-dir", "agent"]).spawn().unwrap();
    deployment.wait_read(500);
    broker.kill();
    site.append("logs/clicks.log", clicks(500..1_000));
    wait_for("the worker to notice", || worker.text("/readyz").1.contains("group cannot be reached").then_some(()));
    broker.revive();
    site.append("logs/clicks.log", clicks(1_000..1_500));
    let ledger = deployment.wait_read(1_500);
    assert_eq!((&ledger["counted"], &ledger["duplicate"]), (&1_500.into(), &0.into()), "{ledger}");
    agent.kill().unwrap();
    agent.wait().unwrap();
    worker.stop();
    site.verify();
}

/// Offsets that the topic has lost before they were read stop a worker, which says how many. It goes on if it is told to.
#[test]
fn fault_14_offsets_are_lost_before_they_were_read() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 1);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..100)));
    let worker = deployment.worker("");
    deployment.wait_read(100);
    worker.stop();
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(100..200)));
    let json = format!(
        "{{\"partitions\":[{{\"topic\":\"{}\",\"partition\":0,\"offset\":150}}],\"version\":1}}",
        deployment.topic
    );
    deployment.site.write("delete.json", json);
    let file = deployment.site.path("delete.json").display().to_string();
    broker.tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", &file]);
    let (code, said) = deployment.worker("").ended();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("50 offsets are lost"), "{said}");
    let worker = deployment.worker("--accept-loss");
    let ledger = deployment.wait_read(150);
    assert_eq!(ledger["counted"], 150, "{ledger}");
    wait_for("the gap", || (worker.get("/ledger")["gap_offsets"] == 50).then_some(()));
    worker.stop();
    deployment.site.verify();
}

/// A topic that was deleted and made again is another topic: a worker that runs stops, and the next one refuses to begin.
#[test]
fn fault_14_the_topic_is_made_again() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 2);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..100)));
    let worker = deployment.worker("");
    deployment.wait_read(100);
    broker.tool("org.apache.kafka.tools.TopicCommand", &["--delete", "--topic", &deployment.topic]);
    broker.create_topic(&deployment.topic, 2);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..300)));
    let (code, said) = worker.ended();
    assert_eq!(code, Some(3), "{said}");
    // It was deleted, made again, or has no such offset any more, depending on when it is looked at.
    assert!(said.contains("was deleted") || said.contains("was cut or restored"), "{said}");
    let (code, said) = deployment.refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("reads another topic") && said.contains("is not retired"), "{said}");
    deployment.wait_read(100);
}

/// More partitions stop a worker, which says how to grow.
#[test]
fn fault_15_partitions_are_added_to_the_topic() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 2);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..100)));
    let worker = deployment.worker("");
    deployment.wait_read(100);
    let alter = ["--alter", "--topic", &deployment.topic, "--partitions", "4"];
    broker.tool("org.apache.kafka.tools.TopicCommand", &alter);
    let (code, said) = worker.ended();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("had 2 partitions and now has 4") && said.contains("adtally repartition"), "{said}");
    let (code, said) = deployment.refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("had 2 partitions and now has 4"), "{said}");
}

/// While the store is slow, reading pauses: the worker stays a member of its group, its memory is bounded, and nothing is lost.
#[test]
fn fault_31_the_store_is_slow() {
    let (broker, s3) = (Broker::shared(), S3::start());
    let deployment = Deployment::on_s3(broker, &s3, 2);
    let expected = Expected::generate(&deployment.site, "clicks.log", "--lines 200000 --rate 2000 --seed 8");
    let worker = deployment.worker("");
    wait_said(&worker, "partition taken over");
    s3.set_faults("slow_ms=1500");
    deployment.produce("clicks.log", "agent");
    // Longer than the session time-out.
    std::thread::sleep(std::time::Duration::from_secs(9));
    assert!(!worker.said().contains("partitions lost"), "{}", worker.said());
    s3.set_faults("");
    deployment.wait_read(expected.lines());
    expected.check_counts(&deployment.site);
    assert!(worker.memory_mib_max() < 900, "{} MiB", worker.memory_mib_max());
    worker.stop();
    deployment.site.verify();
}

/// An object store answers 500, 503 and 409, or not at all, whether or not it has done what was asked: everything is read back,
/// and every click is counted once.
#[test]
fn fault_32_and_03_and_69_the_object_store_answers_wrongly() {
    let (broker, s3) = (Broker::shared(), S3::start());
    let mut deployment = Deployment::on_s3(broker, &s3, 2);
    // A request that hangs is given up soon.
    deployment.site.set("AWS_TIMEOUT", "2 seconds");
    let expected =
        Expected::generate(&deployment.site, "clicks.log", "--lines 40000 --rate 400 --seed 9 --duplicates 3%");
    let faults = ["refuse_500", "refuse_503", "lose_500", "refuse_409", "lose_409", "refuse_hang", "lose_hang"];
    let worker = deployment.worker("");
    wait_said(&worker, "partition taken over");
    let settings: String = faults.iter().map(|fault| format!("{fault}=30000\n")).collect();
    s3.set_faults(&format!("{settings}hang_ms=6000\nseed=4"));
    deployment.produce("clicks.log", "agent");
    wait_for("every fault", || {
        let lines = worker.get("/ledger")["read"].as_u64().unwrap();
        let all_hit = faults.iter().all(|fault| s3.hits(fault) > 0);
        (all_hit && lines == expected.lines()).then_some(())
    });
    s3.set_faults("");
    deployment.wait_read(expected.lines());
    expected.check_counts(&deployment.site);
    worker.stop();
    deployment.site.verify();
}

/// Clicks in a partition that is not their ad's are invalid, whatever their key; with the right setting, they are counted.
#[test]
fn fault_50_a_producer_partitions_in_another_way() {
    let broker = Broker::shared();
    let mut deployment = Deployment::on_disk(broker, 4);
    // The key is right for murmur2, and the producer uses CRC-32; a few have no key of their own.
    let mut lines = keyed(&clicks(0..700));
    lines.extend(clicks(700..800).lines().map(|line| ("same".to_owned(), line.to_owned())));
    broker.produce(&deployment.topic, "consistent", lines);
    let worker = deployment.worker("");
    let ledger = deployment.wait_read(800);
    let number = |verdict: &str| ledger[verdict].as_u64().unwrap();
    assert!(number("invalid") > 100 && number("counted") > 0, "{ledger}");
    assert_eq!(number("invalid") + number("counted"), 800, "{ledger}");
    let letters = deployment.site.sql_value("SELECT count(*) FROM dead_letters WHERE reason LIKE 'ad_id: misrouted%'");
    assert_eq!(letters, number("invalid").to_string());
    worker.stop();
    // The same topic, read by its real partitioner: only the lines with a foreign key are misrouted.
    let url = format!("file://{}", deployment.site.path("again").display());
    deployment.site.keep_data_at(url);
    let settings = String::from_utf8(deployment.site.read("fast.toml")).unwrap();
    deployment.site.write("fast.toml", format!("{settings}[kafka]\npartitioner = \"crc32\"\n"));
    let worker = deployment.worker("--group again");
    let ledger = deployment.wait_read(800);
    let counted = ledger["counted"].as_u64().unwrap();
    assert!((700..800).contains(&counted), "{ledger}");
    worker.stop();
    deployment.site.verify();
}

/// An owner of partitions that bring nothing notices within 30 s that another process has taken them over, and no longer answers.
#[test]
fn fault_66_an_owner_that_writes_nothing_was_succeeded() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 1);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..100)));
    let owner = deployment.worker("");
    deployment.wait_read(100);
    wait_for("an answer", || (owner.text("/ads/1/clicks?minutes=5").0 == 200).then_some(()));
    // A member of another group takes the partition over, and is gone: the group of the owner knows nothing of it.
    let thief = deployment.worker("--group another");
    wait_said(&thief, "partition taken over");
    thief.kill();
    wait_for("the owner to notice", || (owner.text("/ads/1/clicks?minutes=5").0 == 421).then_some(()));
    assert!(owner.said().contains("partition dropped"), "{}", owner.said());
    // The group still gives it the partition, and nobody else claims it: it goes on.
    wait_for("an answer", || (owner.text("/ads/1/clicks?minutes=5").0 == 200).then_some(()));
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(100..200)));
    let ledger = deployment.wait_read(200);
    assert_eq!((&ledger["counted"], &ledger["duplicate"]), (&200.into(), &0.into()), "{ledger}");
    owner.stop();
    deployment.site.verify();
}

/// A worker whose loop stands still while the group moves its partitions drops its work on them.
#[test]
fn fault_12_a_worker_does_not_react_while_partitions_are_moved() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 2);
    broker.produce(&deployment.topic, "murmur2_random", keyed(&clicks(0..300)));
    // Its commits pause for longer than a revocation waits.
    let slow = deployment.worker_with("", &[("FAILPOINTS", "before_record=2*off->sleep(9000)")]);
    deployment.site.write("more.log", clicks(300..600));
    wait_for("the first epochs", || slow.said().contains("partition taken over").then_some(()));
    deployment.produce("more.log", "agent");
    let other = deployment.worker("");
    wait_said(&other, "partition taken over");
    let ledger = deployment.wait_read(600);
    assert_eq!((&ledger["counted"], &ledger["duplicate"]), (&600.into(), &0.into()), "{ledger}");
    slow.stop();
    other.stop();
    deployment.site.verify();
}

/// One agent of three is stopped while the others go on: its clicks come late, and reconciliation recovers each of them.
#[test]
fn fault_49_an_agent_is_cut_off() {
    let broker = Broker::shared();
    let deployment = Deployment::on_disk(broker, 2);
    let site = &deployment.site;
    let settings = String::from_utf8(site.read("fast.toml")).unwrap();
    site.write("fast.toml", format!("{settings}[time]\nidle_timeout = \"2s\"\n"));
    let mut users = 0..;
    // Some clicks of new users within a minute, for each ad.
    let mut minute = |minute: i64| -> String {
        (0..21).map(|second| click(START + (minute * 60 + second) * SECOND, users.next().unwrap())).collect()
    };
    let log = |agent: usize| format!("logs-{agent}/clicks.log");
    let worker = deployment.worker("");
    let agents: Vec<std::process::Child> = (0..3)
        .map(|agent| {
            site.write(&log(agent), minute(0));
            let mut command = site.program();
            command.args(["agent", &format!("logs-{agent}"), "--config", "fast.toml", "--brokers", broker.address()]);
            command.args(["--topic", &deployment.topic, "--data-dir", &format!("agent-{agent}")]).spawn().unwrap()
        })
        .collect();
    deployment.wait_read(63);
    let signal = |signal| rustix::process::kill_process(rustix::process::Pid::from_child(&agents[2]), signal).unwrap();
    signal(Signal::STOP);
    // Twenty minutes of all logs, and longer than `idle_timeout` without anything of the third.
    let mut lines = 63;
    for at in 1..=20 {
        (0..3).for_each(|agent| site.append(&log(agent), minute(at)));
        lines += 63;
        if at == 2 {
            deployment.wait_read(63 + 2 * 42);
            std::thread::sleep(std::time::Duration::from_secs(4));
        }
    }
    deployment.wait_read(lines - 20 * 21);
    signal(Signal::CONT);
    let ledger = deployment.wait_read(lines);
    assert!(ledger["late"].as_u64().unwrap() > 0, "the clicks of the agent that was stopped came late: {ledger}");
    // Later clicks make all these minutes final in both partitions.
    for at in [100, 101, 102] {
        (0..3).for_each(|agent| site.append(&log(agent), minute(at)));
        lines += 63;
        deployment.wait_read(lines);
    }
    for mut agent in agents {
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    worker.stop();
    site.words(&["reconcile", "--config", "fast.toml", "--data-dir", site.data()]).ok();
    assert_eq!(counted(&deployment), lines.to_string());
    assert_eq!(site.sql_value("SELECT sum(sign) FROM clicks"), lines.to_string());
    site.verify();
}
