//! A Python environment with other readers of the lake, for the test that reads it from Python.

use crate::packages::run;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable with the path of the interpreter for tests; set it to use your own environment.
pub(crate) const VARIABLE: &str = "ADTALLY_PYTHON";

/// The interpreter: the one in the variable, or one in an environment in the user's cache, which is created on first
/// use and whenever the list of packages changes.
pub(crate) fn interpreter(root: &Path) -> Result<PathBuf, String> {
    if let Some(python) = env::var_os(VARIABLE) {
        return Ok(python.into());
    }
    environment(&root.join("tests/python/requirements.txt"), "venv")
}

/// The interpreter of the environment with this name in the user's cache, with the packages of a list.
pub(crate) fn environment(requirements: &Path, name: &str) -> Result<PathBuf, String> {
    let wanted = fs::read(requirements).map_err(|error| format!("cannot read {}: {error}", requirements.display()))?;
    let folder = cache()?.join("adtally").join(name);
    // Written last, so that an incomplete installation is repeated.
    let installed = folder.join("installed.txt");
    let python = folder.join("bin/python");
    if fs::read(&installed).is_ok_and(|found| found == wanted) && python.is_file() {
        return Ok(python);
    }
    eprintln!("$ python3 -m venv {}", folder.display());
    let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    made.map_err(|error| format!("{error}: install python3 and python3-venv, or name an interpreter in {VARIABLE}"))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    run(&mut pip).map_err(|error| format!("{error}: cannot install the packages of {}", requirements.display()))?;
    fs::write(&installed, wanted).map_err(|error| format!("cannot write {}: {error}", installed.display()))?;
    Ok(python)
}

/// The folder for files that can be recreated.
pub(crate) fn cache() -> Result<PathBuf, String> {
    let named = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    named.or_else(home).ok_or_else(|| format!("HOME is not set: name a Python interpreter in {VARIABLE}"))
}
