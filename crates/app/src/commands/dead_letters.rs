//! `adtally dead-letters`: lists the lines that were not counted, and decodes rejected ones again.

use super::correct::correct;
use super::reconcile::{as_json, as_text, exit_of};
use super::settings::StoreSettings;
use super::{existing, runtime};
use crate::config::Config;
use crate::exit::Exit;
use crate::terminal::{self, Unit};
use adtally_engine::reconciler::Asked;
use adtally_model::ledger::thousands;
use adtally_model::time::{parse_rfc3339, rfc3339};
use adtally_model::{Error, Result};
use adtally_reconcile::{Letter, LetterGroup, LetterSelection};
use adtally_source::{DecodeSettings, line_number};
use adtally_store::backing::Backing;
use adtally_store::lake::Lake;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Characters of a line that `show` and a dry run print.
const LINE_CHARS_SHOWN: usize = 200;

/// List the lines that were not counted, and decode rejected ones again.
#[derive(Debug, Args)]
#[command(after_help = "\
After a mistake in the configuration is mended, such as a wrong name of a field, `replay` decodes malformed and invalid lines
again and counts each of their clicks once, as a correction. Lines of minutes that are not final wait for a later replay.
Replaying again changes nothing.")]
pub struct DeadLettersArgs {
    /// Where the data is, and the configuration by which lines are decoded again.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Print JSON: `list` an array, `show` one object per dead letter, `replay` one object.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Count them by verdict and reason.
    List {
        /// Which ones.
        #[command(flatten)]
        which: Which,
    },
    /// Print some of them, with their lines.
    Show {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// How many to print.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Decode malformed and invalid lines again, and count their clicks.
    Replay {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// Change nothing, and print what each line would become.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters are meant.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Only those with this verdict, or whose reason contains this text.
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Only those that were read at this time or later (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<i64>,
}

impl From<&Which> for LetterSelection {
    fn from(Which { reason, since }: &Which) -> LetterSelection {
        LetterSelection { reason: reason.clone(), since_ms: *since }
    }
}

fn time(text: &str) -> std::result::Result<i64, String> {
    parse_rfc3339(text.as_bytes()).ok_or_else(|| "no RFC 3339 time such as 2026-01-31T10:00:00Z".to_owned())
}

/// Runs the command.
///
/// # Errors
/// External when the stores fail; as [`Asked::run`] for a replay.
pub fn dead_letters(args: &DeadLettersArgs) -> Result<Exit> {
    let config = args.store.load()?;
    existing(&config.run.store.data_dir)?;
    match &args.action {
        Action::List { which } => {
            let which = which.into();
            let groups = read(config, async move |lake| adtally_reconcile::letter_groups(&lake, &which).await)?;
            if args.json {
                terminal::print(&format!("{}\n", json!(groups.iter().map(group_json).collect::<Vec<_>>())))?;
            } else {
                terminal::print_text(&list(&groups))?;
            }
        }
        Action::Show { which, limit } => {
            let (which, limit) = (which.into(), *limit);
            let letters = read(config, async move |lake| adtally_reconcile::letters(&lake, &which, limit).await)?;
            for letter in &letters {
                if args.json {
                    terminal::print(&format!("{}\n", letter_json(letter)))?;
                } else {
                    terminal::print_text(&shown(letter))?;
                }
            }
        }
        Action::Replay { which, dry_run } => {
            let decode = Box::new(DecodeSettings::clone(&config.run.source.tail.decode));
            let (json, told) = (args.json, *dry_run && !args.json);
            let tell = move |letter: &Letter, outcome: &str| {
                if told {
                    // An error of stdout ends the command when the report is printed.
                    let _ = terminal::print_text(&format!("{}\n  {outcome}\n", line_of(letter)));
                }
            };
            let report = correct(config, Asked::Replay(which.into(), decode), *dry_run, Unit::Lines, tell)?;
            if json {
                terminal::print(&format!("{}\n", as_json(&report)))?;
            } else {
                terminal::print_text(&as_text(&report, *dry_run))?;
            }
            return Ok(exit_of(&report));
        }
    }
    Ok(Exit::Success)
}

/// Reads from the lake, on a thread whose stack is large enough for planning SQL.
fn read<T: Send + 'static, F>(config: Config, of: impl FnOnce(Arc<Lake>) -> F + Send + 'static) -> Result<T>
where
    F: Future<Output = Result<T>> + Send,
{
    let runtime = runtime()?;
    let read = runtime.block_on(runtime.spawn(async move {
        let lake = Backing::for_reader(&config.run.store.data_dir)?.existing_lake().await?;
        of(Arc::new(lake)).await
    }));
    read.map_err(|e| Error::internal("the query stopped unexpectedly").because(e))?
}

/// The place of a line, as an editor takes it if the file is still there.
fn place(input: &str, position: u64) -> String {
    match line_number(Path::new(input), position) {
        Some(line) => format!("{input}:{line}"),
        None => format!("{input}, position {position}"),
    }
}

fn list(groups: &[LetterGroup]) -> String {
    if groups.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let group = |group: &LetterGroup| {
        let LetterGroup { verdict, reason, lines, kind: _, first: (input, position), received_ms: (first_ms, last_ms) } =
            group;
        let noun = if *lines == 1 { "line" } else { "lines" };
        format!(
            "{} {verdict} {noun}: {reason}\n  first {}, read from {} to {}\n",
            thousands(*lines),
            place(input, *position),
            rfc3339(*first_ms),
            rfc3339(*last_ms)
        )
    };
    groups.iter().map(group).collect()
}

fn group_json(group: &LetterGroup) -> Value {
    json!({
        "verdict": group.verdict,
        "kind": group.kind,
        "reason": group.reason,
        "lines": group.lines,
        "first_input": *group.first.0,
        "first_position": group.first.1,
        "first_received_at": rfc3339(group.received_ms.0),
        "last_received_at": rfc3339(group.received_ms.1),
    })
}

/// The place and the beginning of a line.
fn line_of(letter: &Letter) -> String {
    let text = String::from_utf8_lossy(&letter.payload);
    let mut shown: String = text.chars().take(LINE_CHARS_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push_str(" ...");
    }
    format!("{}, position {}: {}", letter.origin.input, letter.origin.position, terminal::on_one_line(&shown))
}

fn shown(letter: &Letter) -> String {
    let Letter { verdict, reason, origin, .. } = letter;
    format!("{}\n  {verdict}: {reason}, read at {}\n", line_of(letter), rfc3339(origin.received_at_ms))
}

fn letter_json(letter: &Letter) -> Value {
    json!({
        "verdict": letter.verdict,
        "reason": letter.reason,
        "input": *letter.origin.input,
        "position": letter.origin.position,
        "received_at": rfc3339(letter.origin.received_at_ms),
        "line": String::from_utf8_lossy(&letter.payload),
        "header": letter.header.as_deref().map(String::from_utf8_lossy),
    })
}
