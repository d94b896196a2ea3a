//! Handles: more files and clients than a process may have open.

use super::{START, check, click};
use crate::site::{Site, wait_for};
use std::net::TcpStream;

/// The limit of handles, soft and hard.
const HANDLES: u32 = 256;

const FILES: i64 = 400;

/// Clients that connect and send nothing.
const CLIENTS: usize = 200;

/// The soft limit is raised to the hard one at the start.
#[test]
fn fault_59_the_soft_limit_is_raised() {
    let site = Site::new();
    site.write("logs/a.log", click(START, 1));
    let server = site.serve_limited("-S -n 64", "logs");
    let (soft, hard) = server.handles();
    assert!(soft == hard && soft != "64", "{soft} {hard}");
    server.stop();
}

/// With more files than handles, and clients that hold all that are theirs, every file is read and committed, and
/// questions are answered again as soon as the clients are gone.
#[test]
fn fault_59_more_files_and_clients_than_handles() {
    let site = Site::new();
    let one = |user: i64| click(START + user, user);
    for user in 0..FILES {
        site.write(&format!("logs/{user}.log"), one(user));
    }
    let server = site.serve_limited(&format!("-n {HANDLES}"), "logs");
    let idle: Vec<TcpStream> = (0..CLIENTS).filter_map(|_| TcpStream::connect(server.address()).ok()).collect();
    for user in 0..FILES {
        site.append(&format!("logs/{user}.log"), one(FILES + user));
    }
    // While clients occupy the server's connections, it cannot be queried; the epoch log can be read.
    wait_for("all files to be committed while clients hold their handles", || {
        (site.ledger()["read"] == 2 * FILES).then_some(())
    });
    drop(idle);
    server.wait_read(2 * FILES as u64);
    server.stop();
    check(&site, &(0..2 * FILES).map(one).collect::<String>(), &[]);
}
