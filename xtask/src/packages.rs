//! Debian packages that the tests need: installed if run by root, otherwise reported.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

/// A package, and a command that works only if it is installed.
type Package = (&'static str, &'static [&'static str]);

/// The packages of the tests. The C compiler is not listed: without it this program would not have been built.
const PACKAGES: [Package; 9] = [
    ("python3", &["python3", "--version"]),
    ("python3-venv", &["python3", "-c", "import ensurepip, venv"]),
    ("openjdk-17-jre-headless", &["java", "-version"]),
    ("maven", &["mvn", "--version"]),
    ("kafkacat", &["kcat", "-V"]),
    ("gzip", &["gzip", "--version"]),
    ("bsdutils", &["script", "--version"]),
    ("mount", &["mount", "--version"]),
    ("e2fsprogs", &["mkfs.ext4", "-V"]),
];

/// Ensures that all packages are installed.
///
/// # Errors
/// When one is missing and cannot be installed; names the command that installs it.
pub(crate) fn provide() -> Result<(), String> {
    let missing = missing(&PACKAGES, works);
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install {}", missing.join(" "));
    if !is_root() || !works(&["apt-get", "--version"]) {
        return Err(format!("the tests need more packages (named as in Debian): {install}"));
    }
    eprintln!("$ {install}");
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    run(command.args(["install", "-qq", "--yes", "--no-install-recommends"]).args(&missing))
}

fn missing(packages: &[Package], works: impl Fn(&[&str]) -> bool) -> Vec<&'static str> {
    packages.iter().filter(|(_, command)| !works(command)).map(|(package, _)| *package).collect()
}

fn works(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether this process runs as root, by the owner of its `/proc` entry.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|facts| facts.uid() == 0)
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed: {status}", command.get_program().display())),
        Err(error) => Err(format!("cannot run {}: {error}", command.get_program().display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_work_is_missing() {
        let packages: [Package; 3] = [("a", &["true"]), ("b", &["false"]), ("c", &["no-such-command"])];
        assert_eq!(missing(&packages, works), ["b", "c"]);
    }
}
