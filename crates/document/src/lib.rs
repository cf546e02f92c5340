//! The two roles of a document: the [`Authority`] decides, the [`Replica`] follows.
//!
//! ```text
//!            issue                    entry from the authority
//! mutation ─────────▶ Replica ◀──────────────────────────────┐
//!                     layers over the authority's pages       │
//!                        │ timeline frame                     │
//!                        └──────────────▶ Authority ──────────┘
//!                                         applies or rejects, once, for good
//! ```
//!
//! Both run the same program (`program.rs`) for the same frame, so that the pages which a replica
//! predicts can equal the authority's byte for byte. A replica's view is the authority's pages
//! under one layer for each mutation that has no verdict yet; when the authority's pages move on,
//! a rebase runs those mutations again (`replica/rebase.rs`). A local document is an authority
//! alone.
//!
//! # Where to start reading
//!
//! - [`Doctype`] and [`Mutation`]: what an app defines and what it asks for.
//! - `program.rs`: what running a mutation means, system rows and verdict included.
//! - [`Authority`], then [`Replica`].
//!
//! # What this crate does not know
//!
//! Sockets, tabs, clocks, and where pages lie: a page that is not in memory makes a run end with
//! `Run::Fault`, and the caller runs it again once it has brought the page.

mod archiving;
mod arriving;
mod authority;
mod chain;
mod check;
mod doctype;
mod due;
mod erasing;
mod events;
mod handlers;
mod inspecting;
#[cfg(feature = "json")]
pub mod json;
mod mutation;
mod operator;
mod page_links;
mod pending;
mod program;
mod public_life;
mod replaying;
mod replica;
mod streams;
mod tasks;
mod upcasting;
mod warm_up;
mod workflows;

pub use archiving::{
    ArchivePart, ArchiveRefusal, ArchivedEvents, LeavingEvent, archive_doctype, find_archivable,
};
pub use arriving::ArrivingEntry;
pub use authority::{Applied, AppliedLocally, Authority, Committed};
pub use chain::{EntryHasher, chain_after, chain_of, hash_of, hash_part};
pub use check::{DoctypeError, FoundRight, check, schema_of};
pub use doctype::{ArgumentError, Doctype, DoctypeHash, MutationDefinition, Param, ParamKind};
pub use due::{DueTasks, find_due};
pub use erasing::{Erasable, EraseRefusal, Erased, ErasedUpTo};
pub use events::{FoundEvents, InArchive, WantedEvents, find_events};
pub use handlers::Handlers;
pub use inspecting::{
    EventPlace, EventsOfKind, FailedCommands, FailedUpTo, FoundStreams, Holder, InspectedStream,
    InspectedUpTo, KeptState, StreamRef, WantedStreams, find_failed, find_streams, inspect_stream,
};
pub use mutation::{Mutation, Verdict};
pub use operator::{
    AppendRefusal, AppendedEvent, CommandRef, FoundCommands, Intervened, Intervention,
    WantedCommands, find_commands,
};
pub use page_links::{FreeWalk, Malformed, PageLinks};
pub use program::{AppliedTimeline, is_migrated_to, is_unknown};
pub use public_life::{client_of, public_client, public_entry, public_life};
pub use replaying::{Replay, ReplayRefusal, Replayed, ReplayedTable};
pub use replica::{
    Advance, Decided, Issued, OwnTimeline, PutOff, Replica, ReplicaError, ServerEntry, Undecided,
};
pub use streams::{
    Action, CommandDefinition, EventDefinition, StreamDefinition, cancelling, is_reserved, sending,
    starting,
};
pub use tasks::{
    Change, Changed, Completion, Endings, FoundOutcome, Free, InstanceId, NewCommand, NewEvent,
    NewSnapshot, Outcome, TaskKind, Work, find_endings, find_given, find_outcome,
};
pub use upcasting::{UpcastEvents, UpcastRefusal};
pub use warm_up::warm_up;
pub use workflows::{NewRecord, NewRun, Recorded, WorkflowDefinition, find_records};
