//! The environment of a benchmark: the optimised program, the Python of the other systems, a temporary folder.

use super::measure::run;
use crate::python;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

/// All paths of a benchmark; dropping the last clone removes the folder.
pub(super) struct Site {
    program: PathBuf,
    /// The program that writes the logs, so that all programs read the same.
    generator: PathBuf,
    root: PathBuf,
    folder: Rc<Folder>,
    python: Option<PathBuf>,
}

impl Site {
    pub(super) fn new(program: &Path, root: &Path, with_others: bool) -> Result<Site, String> {
        let python = with_others.then(|| python::environment(&root.join(REQUIREMENTS), "bench-venv")).transpose()?;
        let folder = std::env::temp_dir().join(format!("adtally-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let folder = Rc::new(Folder(folder));
        Ok(Site { program: program.to_owned(), generator: program.to_owned(), root: root.to_owned(), folder, python })
    }

    /// The same site with another program to measure.
    pub(super) fn with_program(&self, program: &Path) -> Site {
        Site {
            program: program.to_owned(),
            generator: self.generator.clone(),
            root: self.root.clone(),
            folder: Rc::clone(&self.folder),
            python: self.python.clone(),
        }
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The folder of the repository.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Creates an empty folder, replacing an existing one.
    pub(super) fn fresh(&self, folder: &Path) -> Result<(), String> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
        }
        fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))
    }

    /// A script of another system.
    pub(super) fn python(&self, script: &str) -> Result<Command, String> {
        let python = self.python.as_ref().ok_or("no Python was asked for")?;
        let mut command = Command::new(python);
        command.arg(self.root.join("benches/peers").join(script));
        Ok(command)
    }

    fn generator(&self, clicks: u64, more: &[&str]) -> Command {
        let mut command = Command::new(&self.generator);
        command.args(["generate", "--seed", "1", "--lines", &clicks.to_string()]).args(more);
        command
    }

    /// Writes a log; with `truth`, returns the path of its exact counts.
    pub(super) fn generate(&self, log: &Path, clicks: u64, more: &[&str], truth: bool) -> Result<PathBuf, String> {
        let mut command = self.generator(clicks, more);
        command.arg("--output").arg(log);
        if truth {
            command.arg("--truth").arg(self.path("truth.json"));
        }
        run(&mut command).map(|_| self.path("truth.counts.csv"))
    }

    /// Writes a log divided among `files` files, as if by as many servers.
    pub(super) fn generate_split(&self, folder: &Path, clicks: u64, files: usize) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot write to {}: {error}", folder.display());
        let mut outs = Vec::new();
        for number in 0..files {
            outs.push(BufWriter::new(File::create(folder.join(format!("server-{number:02}.ndjson"))).map_err(failed)?));
        }
        let mut child = self.generator(clicks, &[]).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let mut lines = BufReader::with_capacity(1 << 20, child.stdout.take().ok_or("no output to read")?);
        let mut line = Vec::new();
        for number in (0..files).cycle() {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            outs[number].write_all(&line).map_err(failed)?;
        }
        for mut out in outs {
            out.flush().map_err(failed)?;
        }
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            ended => Err(format!("adtally generate: {ended:?}")),
        }
    }

    /// Runs SQL over the lake.
    pub(super) fn sql(&self, query: &str) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg("sql").arg("--data-dir").arg(self.data()).args(["--format", "csv", query]);
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot run {}: {error}", self.program.display()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("adtally sql: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// All counts of the lake, in a file for the comparison.
    pub(super) fn counts(&self) -> Result<PathBuf, String> {
        let path = self.path("counts.csv");
        let rows = self.sql(
            "SELECT CAST(date_part('epoch', minute) AS BIGINT) / 60 AS minute, ad_id, country, sum(clicks) AS clicks \
             FROM clicks_by_minute GROUP BY 1, 2, 3",
        )?;
        fs::write(&path, rows).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    }

    /// The number of count rows.
    pub(super) fn count_rows(&self) -> Result<u64, String> {
        let rows = self.sql("SELECT count(*) AS rows FROM clicks_by_minute")?;
        rows.lines().nth(1).and_then(|row| row.trim().parse().ok()).ok_or(format!("no number of rows: {rows}"))
    }
}

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Anything left is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The packages of the other systems.
const REQUIREMENTS: &str = "benches/peers/requirements.txt";
