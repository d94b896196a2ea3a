//! Answers during recovery, and the death of the server.

use crate::site::{Site, exit_of, wait_for};
use crate::stopping::rest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::net::TcpListener;
use std::process::{Child, Stdio};

/// A site whose log has a record for every ten lines.
fn many_records() -> Site {
    let site = Site::new();
    site.adtally("generate --clicks 200 --rate 1 --output clicks.log").ok();
    let mut command = site.program();
    command.args(["run", "clicks.log", "--data-dir", "data", "--until-end"]).env("ADTALLY_EPOCH__MAX_LINES", "10");
    assert!(command.output().unwrap().status.success());
    site
}

/// Starts a run that recovers slowly; returns it and its address.
fn recovering(site: &Site) -> (Child, String) {
    // The address must be known before the run prints it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut command = site.program();
    command.args(["run", "clicks.log", "--data-dir", "data", "--listen", &address]);
    command.env("FAILPOINTS", "recovering=sleep(150)").stdout(Stdio::null()).stderr(Stdio::piped());
    (command.spawn().unwrap(), format!("http://{address}"))
}

#[test]
fn readiness_says_how_far_recovery_is() {
    let site = many_records();
    let (child, url) = recovering(&site);
    let mut child = Killed(child);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let ask = |path: &str| {
        let mut answer = agent.get(format!("{url}{path}")).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().unwrap()))
    };
    let said = wait_for("the number of records", || {
        let (status, said) = ask("/readyz")?;
        assert_eq!(status, 503, "{said}");
        said.contains(" records of the epoch log are read").then_some(said)
    });
    assert!(said.contains("starting: the state is being recovered, "), "{said}");
    assert_eq!(ask("/healthz").unwrap().0, 200);
    for path in ["/ledger", "/ads/top100?minutes=5", "/ads/1/clicks?minutes=5", "/metrics"] {
        let (status, said) = ask(path).unwrap();
        let problem: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((status, &problem["type"]), (503, &"/problems#recovering".into()), "{path}: {said}");
    }
    wait_for("the ledger", || {
        let (status, said) = ask("/ledger")?;
        (status == 200 && said.contains("\"counted\":200")).then_some(())
    });
    wait_for("readiness", || (ask("/readyz")?.0 == 200).then_some(()));
    child.0.kill().unwrap();
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_signal_ends_a_recovery() {
    let site = many_records();
    let (child, url) = recovering(&site);
    let mut child = Killed(child);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    wait_for("the number of records", || {
        let mut answer = agent.get(format!("{url}/readyz")).call().ok()?;
        answer.body_mut().read_to_string().unwrap().contains(" records of ").then_some(())
    });
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert_eq!(exit_of(&mut child.0).code(), Some(0));
    let said = rest(&mut child.0.stderr.take().unwrap());
    assert!(said.contains("stopped before the state was recovered"), "{said}");
    site.verify();
}

/// A failure during the start ends the process with its own code, although HTTP started before.
#[test]
fn a_start_that_fails_ends_with_its_own_code() {
    let site = many_records();
    let server = site.serve("clicks.log");
    let ended = site.adtally("run clicks.log --data-dir data --listen 127.0.0.1:0");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    server.stop();
    let records = std::fs::read_dir(site.path("data/epochs/00000")).unwrap();
    let newest = records.map(|entry| entry.unwrap().path()).max().unwrap();
    std::fs::write(newest, "").unwrap();
    let ended = site.adtally("run clicks.log --data-dir data --listen 127.0.0.1:0");
    assert_eq!(ended.code, Some(3), "{ended:?}");
}

/// Without the server, a count would go unnoticed.
#[test]
fn the_death_of_the_server_ends_the_process_after_a_commit() {
    let site = Site::new();
    site.adtally("generate --clicks 300 --output clicks.log").ok();
    let server = site.serve_with("clicks.log", &[("FAILPOINTS", "accepting=3*off->panic")]);
    // The first connection may be answered; one of the next ends the server.
    let (code, said) = {
        for _ in 0..5 {
            drop(std::net::TcpStream::connect(server.address()));
        }
        server.ended()
    };
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("the HTTP server died"), "{said}");
    assert!(said.contains("everything read is committed"), "{said}");
    let ledger = site.adtally("run clicks.log --data-dir data --until-end").ok().json();
    assert_eq!(ledger["counted"], 300);
}
