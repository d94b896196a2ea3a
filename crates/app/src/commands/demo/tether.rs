//! A program that never outlives the process that started it.

use crate::exit::Exit;
use adtally_model::{Error, Result};
use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Run a program that the system kills when the process that started it ends, however that ends.
#[derive(Debug, Args)]
pub struct TetherArgs {
    /// The process that started this one.
    #[arg(value_name = "PID")]
    pub parent: i32,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub program: Vec<String>,
}

/// Becomes the program. The signal is kept across that; it is sent when the thread ends that started this process.
///
/// # Errors
/// External when the program cannot be run, or the parent has ended already.
pub fn tether(args: &TetherArgs) -> Result<Exit> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::external("this process cannot be tied to its parent").because(e))?;
    // The parent may have ended before that.
    if getppid().is_none_or(|parent| parent.as_raw_pid() != args.parent) {
        return Err(Error::external(format!("process {}, which started this one, has ended", args.parent)));
    }
    let (program, arguments) = args.program.split_first().ok_or_else(|| Error::user("there is no program to run"))?;
    let error = Command::new(program).args(arguments).exec();
    Err(Error::external(format!("{program} cannot be run")).because(error))
}
