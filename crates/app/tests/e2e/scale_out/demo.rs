//! `adtally demo --kafka`: a worker is killed, every line is accounted for, and nothing is left behind.

use super::services::Broker;
use crate::site::{Site, exit_of, wait_for};
use crate::stopping::{hear, is_empty, rest, send, start};
use rustix::process::Signal;
use std::io::BufReader;

/// The programs of the processes that run in the temporary folders of a site, also in removed ones.
fn left_behind(site: &Site) -> Vec<String> {
    let folder = site.path("tmp").canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let here = processes
        .filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(&folder)));
    // It may end in the meantime.
    here.filter_map(|process| std::fs::read(process.join("cmdline")).ok())
        .map(|words| String::from_utf8_lossy(&words).replace('\0', " "))
        .collect()
}

/// What the demo says to its end. It must end well and leave nothing.
fn told(site: &Site, line: &str) -> String {
    let mut child = start(site, line);
    let said = rest(child.stderr.as_mut().unwrap());
    assert_eq!(exit_of(&mut child).code(), Some(0), "{said}");
    assert!(said.ends_with("the temporary folder is removed\n"), "{said}");
    assert!(is_empty(site, "tmp"), "{said}");
    assert_eq!(left_behind(site), Vec::<String>::new(), "{said}");
    said
}

#[test]
fn the_demo_on_kafka_kills_a_worker_and_accounts_for_every_line() {
    let site = Site::new();
    let said = told(&site, "demo --kafka --seconds 40 --rate 2000 --listen 127.0.0.1:0");
    let story = [
        "starting Apache Kafka",
        "answering on\n\nhttp://127.0.0.1:",
        " lines written, ",
        "worker 2 was killed (SIGKILL), and its partitions ",
        "worker 2: killed",
        "worker 1 has taken over the partitions ",
        "worker 1 has caught up",
        "stopping the workers and the node",
        " lines = ",
        " lines that were written are accounted for: ",
    ];
    let mut rest = said.as_str();
    for word in story {
        rest = rest.split_once(word).unwrap_or_else(|| panic!("{word} is missing or too early: {said}")).1;
    }
    // The node has answered.
    assert!(said.contains("First answers:") && said.contains(" leads in minute "), "{said}");
}

#[test]
fn the_demo_uses_a_broker_that_runs_and_deletes_its_topic() {
    let (site, broker) = (Site::new(), Broker::shared());
    let line = format!("demo --kafka --brokers {} --seconds 5 --rate 300 --listen 127.0.0.1:0", broker.address());
    let said = told(&site, &line);
    let (_, after) = said.split_once("the topic adtally-demo-").unwrap_or_else(|| panic!("{said}"));
    let number = after.split(' ').next().unwrap();
    assert!(said.contains(&format!("the topic adtally-demo-{number} is deleted\n")), "{said}");
    wait_for("the end of the topic", || (!broker.topics().contains(number)).then_some(()));
    assert!(said.contains("are accounted for"), "{said}");
}

#[test]
fn the_processes_of_the_demo_die_with_it() {
    let site = Site::new();
    let mut child = start(&site, "demo --kafka --rate 300 --listen 127.0.0.1:0");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let said = hear(&mut stderr, "answering on");
    let running = left_behind(&site);
    for word in ["kafka.Kafka", " agent ", " worker ", " serve "] {
        assert!(running.iter().any(|program| program.contains(word)), "{word}: {running:?}: {said}");
    }
    send(&child, Signal::KILL);
    assert_eq!(exit_of(&mut child).code(), None);
    wait_for("the end of all processes", || left_behind(&site).is_empty().then_some(()));
}

#[test]
fn the_demo_on_kafka_refuses_other_machines_before_it_begins() {
    let ended = Site::new().adtally("demo --kafka --listen 0.0.0.0:0");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("this machine only") && !ended.stderr.contains("starting"), "{ended:?}");
}
