//! A broker of Apache Kafka for the demo: its jars, and one node that is its own controller.

use super::process::{Launcher, Process};
use crate::terminal;
use adtally_model::{Error, Result};
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The variable with the folder of Kafka's jars.
const JARS: &str = "ADTALLY_KAFKA_JARS";

/// The list of the jars, as `cargo xtask services` writes it beside them when they are complete.
const LIST: &str = include_str!("../../../../../../tests/kafka/pom.xml");

/// The settings of the broker. The words in capitals are replaced.
const SETTINGS: &str = include_str!("../../../../../../tests/kafka/server.properties");

/// The oldest Java that runs Apache Kafka 4.
const JAVA_MIN: u32 = 17;

/// The id of the cluster. It has one node, so any will do.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// How long setting up its folder may take, in milliseconds.
const SET_UP_MS_MAX: i64 = 60_000;

/// Starts a broker. Returns it with its address; it answers a moment later.
///
/// # Errors
/// A user error when Java or the jars are missing; external when the broker cannot be set up.
pub(super) fn start(launcher: &Launcher) -> Result<(Process, String)> {
    check_java()?;
    let jars = jars()?;
    terminal::say(&format!("starting Apache Kafka from the jars in {}", jars.display()));
    let class_path = jars.join("*").into_os_string().into_string();
    let class_path = class_path.map_err(|path| Error::user(format!("{path:?}, the jars of Kafka: not UTF-8")))?;
    let (port, controller) = free_ports()?;
    // Relative to the folder of the processes, because commas separate folders.
    let settings = SETTINGS
        .replace("PORT_OF_CONTROLLER", &controller.to_string())
        .replace("PORT", &port.to_string())
        .replace("FOLDER", "kafka");
    let file = launcher.folder().join("server.properties");
    std::fs::write(&file, settings)
        .map_err(|e| Error::external(format!("{} cannot be written", file.display())).because(e))?;
    let java = |name: &str, memory: &str, rest: &[&str]| {
        let begin = [memory, "-XX:+UseSerialGC", "-cp", &class_path];
        launcher.start(name, "java", &[begin.as_slice(), rest].concat())
    };
    let set_up = ["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", "server.properties"];
    if let Some(complaint) = java("kafka set-up", "-Xmx128m", &set_up)?.wait(SET_UP_MS_MAX)? {
        return Err(Error::external(complaint));
    }
    let broker = java("kafka", "-Xmx384m", &["kafka.Kafka", "server.properties"])?;
    Ok((broker, format!("127.0.0.1:{port}")))
}

/// Two free ports of this machine.
fn free_ports() -> Result<(u16, u16)> {
    let failed = |e: std::io::Error| Error::external("no free port is found for the broker").because(e);
    // Both are bound at once, so that they differ.
    let bound = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let [port, controller] = bound.map(|bound| -> std::io::Result<u16> { Ok(bound?.local_addr()?.port()) });
    Ok((port.map_err(failed)?, controller.map_err(failed)?))
}

/// Finds a Java that is new enough.
fn check_java() -> Result<()> {
    let wanted = format!(
        "Apache Kafka needs Java {JAVA_MIN}: install it (Debian: apt-get install openjdk-17-jre-headless), or use your own \
         brokers with --brokers HOST:PORT"
    );
    let found = Command::new("java").arg("-version").stdin(Stdio::null()).output();
    let found = found.map_err(|e| Error::user(format!("{wanted}; java cannot be run")).because(e))?;
    // It tells its version on stderr.
    let said = String::from_utf8_lossy(&found.stderr);
    match version(&said) {
        _ if !found.status.success() => {
            Err(Error::external(format!("{wanted}; `java -version` fails: {}", said.trim_end())))
        }
        Some(version) if version < JAVA_MIN => {
            Err(Error::user(format!("{wanted}; the java here has version {version}")))
        }
        _ => Ok(()),
    }
}

/// The version in the answer of `java -version`.
fn version(said: &str) -> Option<u32> {
    let quoted = said.split('"').nth(1)?;
    quoted.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The folder with the jars: the one in the variable, or the one of `cargo xtask services`, which fills it if necessary.
fn jars() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(JARS) {
        return absolute(folder.into());
    }
    if let Some(folder) = cached() {
        return Ok(folder);
    }
    // Cargo says where the repository is to the programs that it runs.
    let (Some(cargo), Some(package)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR")) else {
        return Err(Error::user(format!(
            "the jars of Apache Kafka are missing. Start the demo with `cargo run --features scale-out -- demo --kafka`, which \
             gets them with Maven; or name a folder that has them in {JARS}; or use your own brokers with --brokers HOST:PORT"
        )));
    };
    provided(cargo, Path::new(&package))
}

/// An absolute path: the broker runs in another folder.
fn absolute(folder: PathBuf) -> Result<PathBuf> {
    match folder.canonicalize() {
        Ok(absolute) if absolute.is_dir() => Ok(absolute),
        Ok(_) => Err(Error::user(format!("{JARS} is {}, which is not a folder", folder.display()))),
        Err(e) => Err(Error::user(format!("{JARS} is {}, which cannot be read", folder.display())).because(e)),
    }
}

/// The folder of `cargo xtask services`, if it is complete.
fn cached() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folder = cache.join("adtally/kafka");
    let list = std::fs::read(folder.join("installed.xml")).ok()?;
    (list == LIST.as_bytes()).then_some(folder)
}

/// Lets the toolbox of the repository get the jars.
fn provided(cargo: OsString, package: &Path) -> Result<PathBuf> {
    terminal::say("getting the jars of Apache Kafka with Maven, 54 MB, once: cargo xtask services jars");
    let hint = "see above, or use your own brokers with --brokers HOST:PORT";
    let mut command = Command::new(cargo);
    // They are about this package, and not about the toolbox.
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&variable);
        }
    }
    command.args(["xtask", "services", "jars"]).current_dir(package).stdin(Stdio::null());
    let ended = command.output().map_err(|e| Error::external(format!("cargo cannot be run: {hint}")).because(e))?;
    let [said, printed] = [&ended.stderr, &ended.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if !ended.status.success() {
        terminal::say(said.trim_end());
        return Err(Error::external(format!("`cargo xtask services jars` failed ({}): {hint}", ended.status)));
    }
    match printed.lines().last() {
        Some(folder) => Ok(folder.into()),
        None => Err(Error::internal("`cargo xtask services jars` printed no folder")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_java_is_read() {
        let check = |said: &str, expected| assert_eq!(version(said), expected, "{said}");
        check("openjdk version \"17.0.10\" 2024-01-16\nOpenJDK Runtime Environment", Some(17));
        check("openjdk version \"21\" 2023-09-19", Some(21));
        check("java version \"1.8.0_392\"", Some(1));
        check("something else", None);
    }

    #[test]
    fn ports_differ() {
        let (port, controller) = free_ports().unwrap();
        assert_ne!(port, controller);
    }
}
