//! Clients and servers in one process, from one seed, with everything going wrong that may.
//!
//! Two or three devices (tabs, core, page server, disk) and two servers with their disks, all the
//! shipped crates, and what a tab decides the shipped `js/src/tab.ts`, down to when it seeks a core
//! and lends a page server (`port.rs`, `world/lending.rs`); only what carries messages, grants
//! locks, keeps time and wants something is made here. One seed decides everything: the
//! same seed gives the same trace hash, natively and in a browser (`tests/browser.rs`). It also
//! draws what its world is made of (`swarm.rs`): which documents and servers, which troubles and
//! how often, and limits that are shrunk until a short run meets them.
//!
//! # What may go wrong
//!
//! - A message between a device and a server is delayed, comes twice, or is lost together with
//!   all that follows it on that connection; the connection is cut, or falls silent, both ways or
//!   one way; its client reads late.
//! - A tab is opened or closed; the tab that lends the page server is closed, between any two of
//!   its steps, or frozen; the core is killed, which its tabs see in their own time, alone or
//!   while its page server lives on and still has what it asked; a device or a server loses power,
//!   and with it any of its un-flushed sectors, at any time or right after it has called something
//!   done.
//! - A tab goes into the back/forward cache, where it can hold nothing, and comes back to the same
//!   core.
//! - The worker of a page server breaks, does not load, or says nothing, and one that is ended has
//!   said something just before; a tab says hello to a core that is about to die.
//! - A flush takes its time, or is complete when it returns. Stores answer late, a slice at a time;
//!   a slice of what a core has to do may take a while.
//!   A disk is full for a while, or one of its calls fails.
//! - Documents are closed and opened again, and local copies deleted; local documents are handed
//!   to a server; a document is opened with another server, which has one of that name; a new
//!   release of the app comes, with a successor of the doctype, or two of which neither succeeds
//!   the other; an empty room leaves a server's memory; devices' clocks differ.
//! - A document is so full that there is no room for verdicts, until somebody makes some.
//! - When all is well again, one device is cut off for a while longer, and may have much to send
//!   when it comes back.
//! - A server is restored from a backup, twice in a row if need be, or begins anew with an empty
//!   store, or a document is deleted there; a device's store is cloned, cleared under its core, or
//!   goes back to an earlier state, with the memory of its core or without; a page rots, or the log
//!   of a store.
//! - A server lets nobody in for a while, or not without a token, which tabs may lack for once, or
//!   which it refuses.
//! - Tokens are good for seconds, and tabs have none then, old ones, or never say a word; they
//!   allow to read only for a while, or nothing; they are withdrawn, or the key is lost that has
//!   signed them; a server's clock is an hour off from that of who issues them; they are another
//!   user's; a copy is written to before it is known whose it is.
//! - A tab cannot reach the next core at first, or finds none that says a word for seconds, or is
//!   never told whether there is one; it opens a document that is being deleted. A tab says a last
//!   word on connecting and is closed.
//! - Of a value that takes several pages the last one alone changes.
//! - In a run with tasks (`--tasks`) tabs send commands, some by a key that was used; some handle
//!   them, and leave, close or die amid that; a server's clock goes on, or back, by up to a year
//!   (`world/tasks.rs`). What is drawn for that is drawn apart. Nothing of it meets tokens, full
//!   documents, or machines that are put back.
//! - In a run with workflows (`--runs`) tabs start runs as well, some by an id that was used, and
//!   cancel some; those who handle them leave, close, die amid a step or with the answer of
//!   whoever was asked, or are of another release (`code.rs`, `world/runs.rs`).
//! - A tab hears late of all that is said to it, also while its worker takes over the store; a core
//!   is killed as soon as it has taken over, and what it has said arrives after what the next one
//!   says.
//!
//! Ports within a browser lose nothing while both ends live, and a power cut does not damage
//! sectors that were flushed: the design does not promise to survive more, so no more is injected
//! here.
//!
//! # What has to hold
//!
//! While it runs: every query shows each mutation once, none that failed, and all that its tab
//! issued before, from pages of one state; every mutation has one end, and a rejection that was
//! handled is told nobody again; every call that need not wait for a server settles within ten
//! seconds of what went wrong last; no room and no core tells what its disk may still lose, and no
//! room says anything to those whom it has refused, or hands its store what has no place there
//! (`doors/room.rs`, `doors/core.rs`); a room refuses nobody without the reason that it gives,
//! sends each follower each LSN once, and owes nobody an answer when it waits for nothing
//! (`doors/talk.rs`), its notes say who wrote what is beside them (`doors/room_notes.rs`), and no
//! two frames that it runs have the same name (`doors/names.rs`); no
//! core says what has no place on its line, tells its tabs another thing of that, keeps more notes
//! than it may, or forgets to ask when it has to be woken (`doors/line.rs`, `doors/core_notes.rs`,
//! `doors/wake.rs`); no room and no core counts what is not there, or keeps anything for somebody
//! who is gone (`Room::doubt`, `Client::doubt`); each page server answers each request once, in its
//! turn and with what is so, and comes to rest when nobody asks it for anything, holding nothing
//! back (`doors/store.rs`); no tab takes what it asked for the cause of more deaths than there
//! were, or waits for a core or a worker without end (`doors/tab.rs`); no core tells of what the
//! disk has refused once that is over (`doors/refusals.rs`), says of a copy that it is deleted
//! before its store has (`doors/deletions.rs`), waits on and on for a server that does not let it
//! in, or for a token (`doors/greetings.rs`), or tries again without pauses (`doors/tries.rs`),
//! calls a mutation an entry that it never was
//! (`doors/entries.rs`), or tells a rejection twice, or none before its record has that
//! no more (`doors/rejections.rs`), rejects for want of access what was issued since it had that
//! again, or tells so before its disk has it, or says anything of a copy by another user's token
//! (`doors/access.rs`); no room runs frames of one who may not write; no tab is told what it did
//! not ask for on top of what it has not heard.
//!
//! Of commands: an attempt is given to one at a time and taken once, and what is told to be over is
//! so. In the end each that was confirmed has completed or failed, once for its key; what follows
//! from events is what folding them gives; positions have no gaps, and no command of a stream is
//! decided before those that came before it, or by an old state of it (`task_tables.rs`,
//! `judge/tasks.rs`).
//!
//! Of runs: each ends once, and as its code does by what it remembers, which the judge runs by
//! itself; each attempt is told the same in the same order; what a run has heard of stays as it
//! is; nobody who has the last attempt asks for what is remembered; nothing is taken of an attempt
//! once a later one is known; nothing sleeps too short by the deciding clock; events since the
//! start of a run are seen one by one; and what a run waits for ends for it as it has ended
//! (`tab/runs.rs`, `run_tables.rs`, `judge/runs.rs`).
//!
//! When the faults have stopped, all sides converge byte for byte, live queries show what there is,
//! tabs are told so, what is issued then is confirmed (in documents that may be full, decided), and
//! whoever has nothing to say is silent. Each mutation that was called durable was applied once or
//! rejected once and for a reason, one that was called confirmed was applied once, one that failed
//! left nothing, and what one tab issued was applied in its order (`judge.rs`). What was accepted,
//! run through plain SQLite in the order in which it was accepted, gives the same rows
//! (`reference.rs`), and the system tables say what can be so (`system_tables.rs`). A stranger, who
//! says what no core would, is answered as `PROTOCOL.md` has it (`stranger.rs`). What everybody has
//! closed can be deleted. No device runs an undecided mutation again oftener than its document is
//! opened and entries come, and what goes over the net stays in proportion to what was issued
//! (`Work`).
//!
//! Rare branches of the product count how often they are entered (`tidelog_types::probe`). Each run
//! says which were not, and a run of 2,000 worlds or more fails if there are any.
//!
//! # Where to start reading
//!
//! [`World::run`], then `world/trouble.rs`, `world/calls.rs`, `device.rs` and `host.rs`. That a run
//! would notice what it is there for is shown by the faults in `planted/`, each a change that
//! breaks the product.

mod app;
mod code;
mod device;
mod docs;
mod doors;
mod guard;
mod host;
mod judge;
mod plain_file;
mod port;
mod reference;
mod rng;
mod run_tables;
mod say;
mod stranger;
mod swarm;
mod system_tables;
mod tab;
mod task_tables;
mod world;

pub use judge::Work;
pub use world::{Outcome, Told, World};
