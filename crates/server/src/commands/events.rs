//! `tidelog events`: what an operator does with the events of a document.

mod archive;
mod inspect;
mod migrate;
mod replay;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tidelog_types::limits::APPEND_SIZE_MAX;

use super::sender::{Query, Sender, refusal_of};
use super::{CommandError, read, say};
use crate::http::APPEND_EVENTS_MAX;

pub use archive::Archive;
pub use inspect::Inspect;
pub use migrate::Migrate;
pub use replay::Replay;

/// How often a server is asked for what is new.
const ASKS_EACH: Duration = Duration::from_secs(1);
/// Bytes of a file of events.
const FILE_SIZE_MAX: usize = 1024 * 1024 * 1024;

/// Flags of `tidelog events`.
#[derive(Args, Clone, Debug)]
pub struct Events {
    /// What to do with them
    #[command(subcommand)]
    pub deed: EventsDeed,
}

/// What to do with events.
#[derive(Clone, Debug, Subcommand)]
pub enum EventsDeed {
    /// Print events that the server has confirmed, oldest first, each as a line of JSON
    Tail(Tail),
    /// Record events: lines of JSON, as tail prints them, or with aggregate, stream, type and data
    /// alone
    Append(Append),
    /// Print what there is of each stream, as a line of JSON: how many events of which type and
    /// version, how many commands, who works at one
    Inspect(Inspect),
    /// Rewrite events of older versions at the newest one, as upcast makes it of them: what is
    /// read stays the same
    Migrate(Migrate),
    /// Have events that precede a state that is kept leave the document, for its archive beside it:
    /// whoever wants them reads them there
    Archive(Archive),
    /// Make anew what follows from the events of an aggregate: empty tables, and run project for
    /// each event again, all of it or nothing
    Replay(Replay),
    /// Erase what the events and commands of a stream say, or a run of a workflow: that they
    /// happened stays
    Erase(Erase),
}

/// Flags of `tidelog events tail`.
#[derive(Args, Clone, Debug)]
pub struct Tail {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Of aggregates of this name alone
    #[arg(long, value_name = "NAME")]
    pub aggregate: Option<String>,

    /// Of this stream alone
    #[arg(long, value_name = "ID")]
    pub stream: Option<String>,

    /// Of this type alone
    #[arg(long = "type", value_name = "NAME")]
    pub name: Option<String>,

    /// Those behind this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub after: u64,

    /// Go on with those that happen from then on
    #[arg(long)]
    pub follow: bool,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role read on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Flags of `tidelog events append`.
#[derive(Args, Clone, Debug)]
pub struct Append {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// File with the lines; - is the standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role admin on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tidelog events erase`.
#[derive(Args, Clone, Debug)]
pub struct Erase {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Name of the stream's aggregate; with --workflow, that of the workflow
    #[arg(value_name = "AGGREGATE")]
    pub aggregate: String,

    /// Which of its streams; with --workflow, the id of a run
    #[arg(value_name = "STREAM")]
    pub stream: String,

    /// Erase a run of a workflow, with what it remembers
    #[arg(long)]
    pub workflow: bool,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role admin on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Why not all events are recorded that were to be.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("line {line}: {count} events before it are recorded, and nothing from there on")]
    Refused {
        line: usize,
        count: usize,
        #[source]
        source: CommandError,
    },
    #[error(
        "line {line}: {count} events before it are recorded; of the {sent} from there on that is \
         not known: look by `tidelog events tail`"
    )]
    InDoubt {
        line: usize,
        count: usize,
        sent: usize,
        #[source]
        source: CommandError,
    },
}

/// What no server takes.
#[derive(Debug, thiserror::Error)]
#[error("line {number} has {APPEND_SIZE_MAX} bytes or more, and is no event")]
struct TooLong {
    number: usize,
}

/// What is counted of what was erased, as the server says it.
const COUNTS: [&str; 4] = ["events", "commands", "runs", "records"];

impl Events {
    /// Does it, and prints what came of that.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; some may be erased or migrated then, and doing it again goes on, or
    /// recorded, which it says.
    pub fn run(&self) -> Result<(), CommandError> {
        match &self.deed {
            EventsDeed::Tail(tail) => tail.run(),
            EventsDeed::Append(append) => append.run(),
            EventsDeed::Inspect(inspect) => inspect.run(),
            EventsDeed::Migrate(migrate) => migrate.run(),
            EventsDeed::Archive(archive) => archive.run(),
            EventsDeed::Replay(replay) => replay.run(),
            EventsDeed::Erase(erase) => erase.run(),
        }
    }
}

impl Tail {
    fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let wanted = [
            ("aggregate", self.aggregate.as_deref()),
            ("stream", self.stream.as_deref()),
            ("type", self.name.as_deref()),
        ];
        let query = Query::of(&self.document, "events", &wanted);
        let mut after = self.after;
        loop {
            after = sender.print_lines(&query, after)?;
            if !self.follow {
                return Ok(());
            }
            sleep(ASKS_EACH);
        }
    }
}

impl Append {
    /// Has the server record them, as many at a time as it takes together, or as few as it takes
    /// any of: it ends with the first line that cannot be recorded.
    fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let bytes = read(&self.file, FILE_SIZE_MAX)?;
        let lines = lines_of(&bytes)?;
        let document = utf8_percent_encode(&self.document, NON_ALPHANUMERIC);
        let path = format!("/v1/documents/{document}/events");
        let (mut count, mut last) = (0, None);
        // What is to be sent next stands last.
        let mut batches = batches(&lines);
        batches.reverse();
        while let Some(batch) = batches.pop() {
            let body =
                batch.iter().flat_map(|line| [line.text, b"\n"]).collect::<Vec<_>>().concat();
            match sender.send(Method::POST, &path, &body) {
                Ok((status, answer)) => {
                    count += batch.len();
                    last = Some(answer["last"].as_u64().ok_or_else(|| sender.odd(status))?);
                }
                Err(error) => match (batch, refusal_of(&error)) {
                    // One of them is why, or how much they are together.
                    (
                        [_, _, ..],
                        Some(
                            StatusCode::BAD_REQUEST
                            | StatusCode::CONFLICT
                            | StatusCode::UNPROCESSABLE_ENTITY,
                        ),
                    ) => {
                        let (first, second) = batch.split_at(batch.len() / 2);
                        batches.extend([second, first]);
                    }
                    (batch, status) => {
                        let (line, sent) = (batch[0].number, batch.len());
                        let is_told = status.is_some_and(|status| status.is_client_error());
                        let source = error;
                        return Err(CommandError::failed(match is_told {
                            true => Interrupted::Refused { line, count, source },
                            false => Interrupted::InDoubt { line, count, sent, source },
                        }));
                    }
                },
            }
        }
        match (self.json, last) {
            (true, last) => say(json!({ "events": count, "last": last })),
            (false, None) => say("recorded no events: there is no line"),
            (false, Some(last)) => {
                say(format_args!("recorded {count} events; the last one is number {last}"))
            }
        }
    }
}

/// A line that is to be sent, and which one that is, from 1.
struct Line<'b> {
    number: usize,
    text: &'b [u8],
}

/// Those in which something stands. What an editor puts at the beginning of a file is not sent.
fn lines_of(bytes: &[u8]) -> Result<Vec<Line<'_>>, CommandError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.map(|(nth, text)| Line { number: nth + 1, text: text.trim_ascii() });
    let lines: Vec<Line<'_>> = lines.filter(|line| !line.text.is_empty()).collect();
    match lines.iter().find(|line| line.text.len() >= APPEND_SIZE_MAX) {
        Some(Line { number, .. }) => Err(CommandError::usage(TooLong { number: *number })),
        None => Ok(lines),
    }
}

/// As many at a time as a server takes together.
fn batches<'l, 'b>(lines: &'l [Line<'b>]) -> Vec<&'l [Line<'b>]> {
    let (mut batches, mut start, mut size) = (Vec::new(), 0, 0);
    for (nth, line) in lines.iter().enumerate() {
        size += line.text.len() + 1;
        if nth - start == APPEND_EVENTS_MAX || size > APPEND_SIZE_MAX {
            batches.push(&lines[start..nth]);
            (start, size) = (nth, line.text.len() + 1);
        }
    }
    batches.extend((start < lines.len()).then(|| &lines[start..]));
    batches
}

impl Erase {
    /// Has the server erase it, which says each time how far it has come.
    fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let document = utf8_percent_encode(&self.document, NON_ALPHANUMERIC);
        let path = format!("/v1/documents/{document}/erase");
        let mut what = match self.workflow {
            true => json!({ "workflow": &self.aggregate, "id": &self.stream }),
            false => json!({ "aggregate": &self.aggregate, "stream": &self.stream }),
        };
        let mut all = [0; COUNTS.len()];
        loop {
            let bytes = what.to_string();
            let (status, mut answer) = sender.send(Method::POST, &path, bytes.as_bytes())?;
            for (sum, name) in all.iter_mut().zip(COUNTS) {
                *sum += answer[name].as_u64().ok_or_else(|| sender.odd(status))?;
            }
            match answer["next"].take() {
                Value::Null => break,
                next => what["after"] = next,
            }
        }
        let [events, commands, runs, records] = all;
        if self.json {
            return say(json!({
                "events": events, "commands": commands, "runs": runs, "records": records,
            }));
        }
        match self.workflow {
            true => say(format_args!("erased {runs} runs and {records} records")),
            false => say(format_args!("erased {events} events and {commands} commands")),
        }
    }
}
