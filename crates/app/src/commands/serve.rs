//! `adtally serve`: answers questions from the lake of a deployment.

use super::run::start_log;
use super::serving::Server;
use super::settings::load;
use super::stopping::Stopping;
use super::{existing, runtime};
use crate::config::{FlagSetting, Value};
use crate::exit::Exit;
use crate::handles;
use crate::terminal;
use adtally_engine::clock::SystemClock;
use adtally_engine::lake_node::LakeNode;
use adtally_engine::{ATTEMPTS_MAX, Backing, Ending, ServiceStart};
use adtally_model::{Error, Result};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Answer questions from the lake of a deployment. Keeps no state: start as many nodes as you like.
#[derive(Debug, Args)]
#[command(after_help = "\
An answer is as fresh as the last commits of the workers to the lake (store.lake_interval, 60 s by default).

Examples:
  adtally serve --lake s3://bucket/adtally
  adtally serve --lake file:///mnt/shared/adtally --listen 127.0.0.1:8081")]
pub struct ServeArgs {
    /// Where the deployment keeps its data: the URL of its workers, or the data directory of `run`.
    #[arg(long, visible_alias = "data-dir", value_name = "URL")]
    pub lake: Option<String>,
    /// The configuration file (- means standard input).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port of the HTTP server, on this machine [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The error that stopped the node.
pub fn serve(args: &ServeArgs) -> Result<Exit> {
    let texts = [("--lake", "store.data_dir", &args.lake), ("--listen", "serve.listen", &args.listen)];
    let flags = texts
        .into_iter()
        .filter_map(|(flag, key, text)| Some(FlagSetting { flag, key, value: Value::Text(text.clone()?) }));
    let (_, config) = load(args.config.as_deref(), &flags.collect::<Vec<_>>())?;
    start_log(&config)?;
    refuse_other_machines(config.listen)?;
    let url = &config.run.store.data_dir;
    existing(url)?;
    let options = handles::run_options(&config, Ending::Never, ATTEMPTS_MAX);
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let listener = Server::listen(&runtime, &config)?;
    let start = ServiceStart::new(&options, Arc::new(SystemClock), Arc::clone(stopping.flag()));
    let server = Server::start(&runtime, listener, &config, &start, &stopping)?;
    let followed = Backing::for_reader(url).and_then(|backing| {
        let (started, stop, address, lake) =
            (start.clone(), Arc::clone(stopping.flag()), server.address(), url.clone());
        // On a thread of the runtime, whose stack is large enough for planning SQL.
        let followed = runtime.block_on(runtime.spawn(async move {
            let Some(node) = LakeNode::begin(backing, &started).await? else { return Ok(()) };
            terminal::say(&format!("answering on http://{address}; from the lake of {lake}"));
            node.run(&stop).await;
            Ok(())
        }));
        followed.map_err(|error| Error::internal("the node stopped unexpectedly").because(error))?
    });
    stopping.stop();
    let served = server.finish(runtime, false);
    followed?;
    served?;
    Ok(Exit::Success)
}

/// Rejects an address that other machines reach.
pub(super) fn refuse_other_machines(listen: SocketAddr) -> Result<()> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    Err(Error::user(format!(
        "serve listens on this machine only, because it does not know its clients, and not on {listen}: put a proxy before it"
    )))
}
