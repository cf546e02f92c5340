mod failures;
mod memory;
mod messages;
mod pace;
mod retiring;

use std::sync::atomic::AtomicU64;
use std::sync::mpsc as std_mpsc;

use tidelog_document::Doctype;
use tidelog_pages::AppendError;
use tidelog_room::{Caution, Doctypes, Speaker, Suspect};
use tidelog_sync::{ByeReason, Channel, Intent, ToRoom, WireFrame, codec};
use tidelog_types::limits::{Limits, MESSAGE_SIZE_MAX};
use tidelog_types::{BudgetLimits, CallId, JournalId, Life, Lineage, Lsn, Position};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::large_messages::PERMIT_SIZE;
use crate::rooms::ANSWER_TAKES;
use crate::rooms::mail::RoomSender;
use crate::rooms::tests::{Scene, list};

fn settings() -> RoomSettings {
    settings_with(Limits::DEFAULT)
}

fn settings_with(limits: Limits) -> RoomSettings {
    RoomSettings { doctypes: Doctypes::any(), limits, ..RoomSettings::default() }
}

fn message(connection: &Connection, body: ToRoom) -> RoomMail {
    message_with(connection, body, None)
}

fn message_with(connection: &Connection, body: ToRoom, space: Option<Space>) -> RoomMail {
    let own = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
    message_of(connection, body, MessagePermit::new(own, space, &Arc::default()))
}

fn message_of(connection: &Connection, body: ToRoom, permit: MessagePermit) -> RoomMail {
    let (connection, message) = (connection.clone(), Box::new(body));
    RoomMail::Message {
        connection,
        channel: Channel(1),
        message,
        speaker: Speaker::anybody(),
        permit,
    }
}

fn open() -> ToRoom {
    let doctype = Doctype {
        name: "list".to_owned(),
        migrations: vec!["create table item (id text primary key) strict".to_owned()],
        mutations: Vec::new(),
        streams: Vec::new(),
        workflows: Vec::new(),
    };
    ToRoom::Open {
        document: "list".to_owned(),
        doctype: codec::encode(&doctype).into(),
        timeline: JournalId([1; 16]),
        secret: tidelog_types::CopySecret::NONE,
        have: None,
        intent: Intent::Follow,
    }
}

/// The same from a timeline of that number.
fn open_from(number: usize) -> ToRoom {
    let ToRoom::Open { document, doctype, have, intent, .. } = open() else {
        unreachable!("it opens")
    };
    let timeline = JournalId([u8::try_from(number).expect("few"); 16]);
    ToRoom::Open {
        document,
        doctype,
        timeline,
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent,
    }
}

/// Settings with which a room does one thing in a step.
fn slow_settings() -> RoomSettings {
    let slice = BudgetLimits { steps: 1, ..Limits::DEFAULT.slice };
    settings_with(Limits { slice, ..Limits::DEFAULT })
}

/// Many frames, each of which takes a step.
fn frames() -> ToRoom {
    let frame = WireFrame { call: CallId([0; 16]), body: b"no mutation".to_vec(), predicted: None };
    ToRoom::Frames { life: Life([1; 16]), first: Lsn::FIRST, frames: vec![frame; 100] }
}

/// Takes steps until this is so.
async fn step_until(task: &mut RoomTask, is_so: impl Fn(&RoomTask) -> bool) {
    while !is_so(task) {
        let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("in time");
        task.step(input.expect("it is there"));
    }
}

/// Space for so many large messages.
fn space(count: usize) -> (Arc<Semaphore>, impl Fn() -> Option<Space>) {
    let space = Arc::new(Semaphore::new(count));
    let theirs = Arc::clone(&space);
    (space, move || {
        Some(Space::new(Arc::clone(&theirs).try_acquire_owned().expect("there is space")))
    })
}
