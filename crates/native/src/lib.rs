//! Tidelog for programs in Rust: the whole client in a process, on tokio.
//!
//! It has what a tab of a browser has, by the same core: its own copy of each document, queries and
//! mutations without a network, and the server's order for everybody once there is one.
//!
//! ```no_run
//! use tidelog_native::{Doctype, Engine, OpenOptions, json};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! // As `npx tidelog extract` writes it of the doctype that pages use.
//! let notes: Doctype = json::parse(&std::fs::read("notes.json")?)?;
//!
//! let engine = Engine::in_folder("data")?;
//! let options = OpenOptions::new("team/notes").server("wss://sync.example.org");
//! let db = engine.open(&notes, options).await?;
//!
//! let receipt = db.mutate("add", [("id", "7".into()), ("text", "Buy milk".into())]);
//! receipt.durable().await?; // on this disk
//! receipt.confirmed().await?; // by the server
//! let rows = db.query("select id, text from notes order by id", ()).await?;
//! for (id, text) in rows.to::<(String, String)>()? {
//!     println!("{id} {text}");
//! }
//! db.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to start reading
//!
//! - [`Engine`]: what a process keeps; `engine/thread.rs` has the core and the page server.
//! - [`Database`]: a document that is open.
//! - [`Receipt`], [`Live`], [`Events`], [`CommandReceipt`]: what comes of asking it.
//! - [`Handler`]: how commands are decided; `handling.rs` does it,
//!   and `attempts.rs` has the attempts.
//! - [`Workflow`]: how runs go on; `progress.rs` decides, and `run.rs` drives the code.
//!
//! # What this crate does not know
//!
//! How anything is decided: that is the core's. It carries out what the core wants done, and turns
//! its answers into futures.

mod attempts;
mod commands;
mod database;
mod drawing;
mod engine;
mod error;
mod events;
mod folds;
mod handler;
mod handling;
mod keeping;
mod live;
mod options;
mod progress;
mod receipt;
mod records;
mod rows;
mod run;
mod run_context;
mod socket;
mod starting;
mod step;
mod trying;
mod workflow;

pub use attempts::Handling;
pub use commands::{CommandName, CommandOutcome, CommandReceipt, SendOptions};
pub use database::{Database, Rejection, Rejections};
pub use engine::{Engine, EngineError};
pub use error::{CommandError, Error, RunError};
pub use events::{Event, Events, EventsFilter};
pub use handler::{CommandContext, GivenCommand, Handler, HandlerError, NewEvent};
pub use live::Live;
pub use options::OpenOptions;
pub use receipt::Receipt;
pub use rows::{DecodeError, Row, Rows};
pub use run_context::{SentOutcome, WorkflowContext};
pub use starting::{RunName, StartOptions, WorkflowReceipt};
pub use step::{Step, Wait};
pub use tidelog_client::{Connection, Status};
pub use tidelog_document::{
    CommandDefinition, Doctype, EventDefinition, MutationDefinition, Param, ParamKind,
    StreamDefinition, WorkflowDefinition, json,
};
pub use tidelog_types::{ErrorCode, Outcome, Params, Role, Value};
pub use trying::StepError;
pub use workflow::{GivenRun, NewArgs, Workflow, WorkflowError};

/// The samples of its page are run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
struct Page;
