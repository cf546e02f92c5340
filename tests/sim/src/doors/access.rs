//! What a core makes of what servers allow, seen at its door: it rejects for want of access only
//! what was asked for before it heard that a document may only be read, tells that once its disk
//! has that mutation in no timeline any more, and says nothing of a copy on a connection of another
//! user than the one by whose token it was let in.
//!
//! The first two would be noticed only by a power cut within a few milliseconds.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::SocketId;
use tidelog_pages::{Append, OpenedDocument, Ticket};
use tidelog_sync::{Channel, FromRoom, FromServer, ToRoom, ToServer, decode_message};
use tidelog_types::{CallId, DocumentKey, Role};

/// Why a mutation is rejected that its issuer might not issue any more.
pub(crate) const NO_ACCESS: &str = "access";

/// What servers have said to the cores of a device, and what those have on their disk.
#[derive(Default)]
pub(super) struct AccessDoor {
    /// How much has come in.
    count: u64,
    /// When each mutation was asked for first, and when each document was last said to be one to
    /// read.
    asked: BTreeMap<CallId, (u64, String)>,
    read: BTreeMap<String, u64>,
    /// Whose token the server has taken on each connection, and the documents of its channels.
    subjects: BTreeMap<SocketId, String>,
    channels: BTreeMap<(SocketId, Channel), String>,
    /// The user by whose token this core has come to each document first.
    owners: BTreeMap<String, String>,
    /// What the timeline of each document has on the disk, and what is on its way there.
    timelines: BTreeMap<DocumentKey, BTreeSet<CallId>>,
    leaving: BTreeMap<Ticket, Leaving>,
}

/// What an append does to a timeline.
#[derive(Clone)]
struct Leaving {
    document: DocumentKey,
    begins: bool,
    calls: Vec<CallId>,
}

impl AccessDoor {
    /// Another core begins.
    pub(super) fn core_is_new(&mut self) {
        self.subjects.clear();
        self.channels.clear();
        self.owners.clear();
        self.leaving.clear();
    }

    pub(super) fn is_asked(&mut self, call: CallId, document: &str) {
        self.asked.entry(call).or_insert((self.count, document.to_owned()));
    }

    /// What it knew of a document is what the disk has of that.
    pub(super) fn is_read_anew(&mut self, document: &DocumentKey) {
        self.owners.remove(&document.document);
        self.leaving.retain(|_, leaving| leaving.document != *document);
    }

    pub(super) fn is_opened(&mut self, document: &DocumentKey, state: Option<&OpenedDocument>) {
        self.owners.remove(&document.document);
        let timeline = state.and_then(|state| state.timeline.as_ref());
        let calls = timeline.into_iter().flat_map(|it| it.frames.iter().map(|frame| frame.call));
        self.timelines.insert(document.clone(), calls.collect());
    }

    pub(super) fn writes(&mut self, ticket: Ticket, append: &Append) {
        let document = append.document.clone();
        let begins = append.begin_timeline.is_some();
        let calls = append.timeline.iter().map(|frame| frame.call).collect();
        self.leaving.insert(ticket, Leaving { document, begins, calls });
    }

    pub(super) fn are_durable(&mut self, ticket: Ticket) {
        let later = self.leaving.split_off(&Ticket(ticket.0 + 1));
        for Leaving { document, begins, calls } in
            std::mem::replace(&mut self.leaving, later).into_values()
        {
            let timeline = self.timelines.entry(document).or_default();
            if begins {
                timeline.clear();
            }
            timeline.extend(calls);
        }
    }

    /// A server says something.
    pub(super) fn hears(&mut self, socket: SocketId, bytes: &[u8]) {
        self.count += 1;
        match decode_message(bytes) {
            Ok(FromServer::Admitted { subject, .. }) => {
                self.subjects.insert(socket, subject);
            }
            Ok(FromServer::About { channel, body }) => {
                let Some(document) = self.channels.get(&(socket, channel)).cloned() else { return };
                match body {
                    FromRoom::Allowed { role: Role::Read } => {
                        self.read.insert(document, self.count);
                    }
                    FromRoom::Opened { .. } => {
                        if let Some(subject) = self.subjects.get(&socket).cloned() {
                            self.owners.entry(document).or_insert(subject);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    pub(super) fn ends(&mut self, socket: SocketId) {
        self.subjects.remove(&socket);
        self.channels.retain(|(on, _), _| *on != socket);
    }

    /// Something is said to a server.
    ///
    /// # Errors
    ///
    /// It is of another user's copy.
    pub(super) fn says(&mut self, socket: SocketId, bytes: &[u8]) -> Result<(), String> {
        let Ok(ToServer::About { channel, body }) = decode_message(bytes) else { return Ok(()) };
        match body {
            ToRoom::Open { document, .. } => {
                self.channels.insert((socket, channel), document);
            }
            ToRoom::Close => {
                self.channels.remove(&(socket, channel));
                return Ok(());
            }
            _ => {}
        }
        let Some(document) = self.channels.get(&(socket, channel)) else { return Ok(()) };
        match (self.owners.get(document), self.subjects.get(&socket)) {
            (Some(owner), Some(subject)) if owner != subject => {
                Err(format!("{document} is {owner}'s, and {subject} says something of it"))
            }
            _ => Ok(()),
        }
    }

    /// A tab is told that a mutation was rejected for want of access.
    ///
    /// # Errors
    ///
    /// It may not be.
    pub(super) fn tells(&self, call: CallId) -> Result<(), String> {
        if self.timelines.values().any(|timeline| timeline.contains(&call)) {
            return Err(format!("{call:?} is rejected for want of access, and on its way yet"));
        }
        match self.asked.get(&call) {
            Some((asked, document)) if self.read.get(document).is_none_or(|read| read < asked) => {
                Err(format!("{call:?} is rejected for want of access that it has had since"))
            }
            _ => Ok(()),
        }
    }
}
