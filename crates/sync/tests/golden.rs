//! Every message between client and server, byte for byte as it lies in `tests/golden`: each is
//! read as it was written. `cargo xtask golden` writes those of the present version anew.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelog_sync::{
    ArchiveAnswer, ArchiveQuestion, ArchivedEvent, Attendee, ByeReason, Channel, CodedPage,
    CompletionAnswer, EntryPart, FromRoom, FromServer, Hears, Intent, MessageError, OpenDoctype,
    PROTOCOL_VERSION, PresenceNews, PresenceWho, PresenceWord, Present, ProbeId, Refusal,
    StateText, ToRoom, ToServer, UndecidedReason, WireFrame, codec, decode_message, encode_message,
};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{
    CallId, Chain, ClientId, EntryHash, EntryId, JournalId, Life, Lineage, Lsn, LsnRange, Page,
    Pgid, Position, Role,
};

fn file(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/golden/wire-v{version}.txt"))
}

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("from 1")
}

fn position() -> Position {
    let (journal, life) = (JournalId([2; 16]), Life([4; 16]));
    Position { journal, life, next: lsn(43), chain: Chain([7; 32]) }
}

fn lives() -> Lineage {
    Lineage::try_from(vec![(Life([3; 16]), lsn(1)), (Life([4; 16]), lsn(30))]).expect("in order")
}

/// A page in each coding that goes by no other page.
fn pages_alone() -> Vec<CodedPage> {
    let full = Page::new(&[7; PAGE_SIZE]).expect("a page");
    let few = Page::zeroed().with(PAGE_SIZE - 4, b"tide");
    vec![CodedPage::new(Pgid(3), &full, None), CodedPage::new(Pgid(4), &few, None)]
}

/// A page in each coding.
fn pages() -> Vec<CodedPage> {
    let before = Page::new(&[7; PAGE_SIZE]).expect("a page");
    let page = before.with(200, b"tide").with(300, b"log");
    let mut pages = pages_alone();
    pages.push(CodedPage::new(Pgid(9), &page, Some(&before)));
    pages
}

fn state(text: &str) -> StateText {
    StateText::new(text).expect("short")
}

/// One who is so, and one who is not present any more.
fn word(hears: Hears) -> PresenceWord {
    let changes = vec![(Attendee(1), Some(state("{}"))), (Attendee(2), None)];
    PresenceWord { hears, heard: 4, changes }
}

/// One of every message that a client sends, and of every shape of its parts.
fn to_server() -> Vec<(&'static str, ToServer)> {
    let about = |body| ToServer::About { channel: Channel(5), body };
    let open_by = |doctype, intent, have| {
        about(ToRoom::Open {
            document: "lists/grün".to_owned(),
            doctype,
            timeline: JournalId([1; 16]),
            secret: tidelog_types::CopySecret::NONE,
            have,
            intent,
        })
    };
    let open = |intent, have| open_by(vec![1, 2, 3].into(), intent, have);
    let named = OpenDoctype::Named([7; 32]);
    let frame = |number: u8| WireFrame {
        call: CallId([number; 16]),
        body: vec![number; 3],
        predicted: (number == 2).then_some([6; 8]),
    };
    let (life, frames) = (Life([4; 16]), vec![frame(1), frame(2)]);
    let (db_pages, pages) = (4, pages_alone());
    let (client, token) = (ClientId([9; 16]), Some("why".to_owned()));
    let kinds = vec![("order".to_owned(), "place".to_owned())];
    let completion = vec![1, 2, 3];
    let question = ArchiveQuestion {
        number: 3,
        archive: JournalId([8; 16]),
        aggregate: Some("order".to_owned()),
        stream: Some("o1".to_owned()),
        types: vec!["placed".to_owned()],
        after: 41,
    };
    let of_all =
        ArchiveQuestion { aggregate: None, stream: None, types: Vec::new(), ..question.clone() };
    vec![
        ("hello", ToServer::Hello { client, token: None }),
        ("hello with a token", ToServer::Hello { client, token }),
        ("renew", ToServer::Renew { token: "why".to_owned() }),
        ("ping", ToServer::Ping),
        ("open, following", open(Intent::Follow, Some(position()))),
        ("open, following, without a copy", open(Intent::Follow, None)),
        ("open, by a name", open_by(named, Intent::Follow, Some(position()))),
        ("open, offering", open(Intent::Offer { lives: lives() }, Some(position()))),
        ("frames", about(ToRoom::Frames { life, first: lsn(14), frames })),
        ("seed", about(ToRoom::Seed { position: position(), db_pages, pages, last: true })),
        ("received", about(ToRoom::Received { next: lsn(43) })),
        ("probe", about(ToRoom::Probe { probe: ProbeId(77) })),
        ("close", about(ToRoom::Close)),
        ("presence", about(ToRoom::Presence(word(Hears::Others)))),
        ("presence, hearing all", about(ToRoom::Presence(word(Hears::All)))),
        ("presence, a sign of life", about(ToRoom::Presence(PresenceWord::default()))),
        ("register", about(ToRoom::Register { tag: 1, instance: 7, kinds, concurrency: 16 })),
        ("deregister", about(ToRoom::Deregister { tag: 1 })),
        ("archived?", about(ToRoom::Archived(question))),
        ("archived? all", about(ToRoom::Archived(of_all))),
        ("complete", about(ToRoom::Complete { tag: 1, number: 12, completion })),
    ]
}

/// One of every message that a server sends, and of every shape of its parts.
fn from_server() -> Vec<(&'static str, FromServer)> {
    let about = |body| FromServer::About { channel: Channel(5), body };
    let reason = || "why".to_owned();
    let origin = EntryId { journal: JournalId([1; 16]), life: Life([4; 16]), lsn: lsn(14) };
    let part = |origin, is_last| {
        about(FromRoom::Entry(EntryPart {
            range: LsnRange::new(lsn(42), lsn(43)),
            position: position(),
            db_pages: 9,
            origin,
            pages: pages().into(),
            is_predicted: false,
            hash: EntryHash([6; 32]),
            is_last,
        }))
    };
    let predicted = about(FromRoom::Entry(EntryPart {
        range: LsnRange::new(lsn(42), lsn(43)),
        position: position(),
        db_pages: 9,
        origin: Some(origin),
        pages: Vec::new().into(),
        is_predicted: true,
        hash: EntryHash([6; 32]),
        is_last: true,
    }));
    let who = |user, own| {
        let (client, user) = (ClientId([9; 16]), Option::<&str>::map(user, str::to_owned));
        Some(PresenceWho { user, client, own })
    };
    let present = |key, who| Present { key, who, state: state("{\"at\":1}") };
    let news = PresenceNews {
        elsewhere_count: 3,
        keys: Some([7, 8].into()),
        present: [present(7, who(Some("ada"), None)), present(8, who(None, Some(Attendee(2))))]
            .into(),
    };
    let more = PresenceNews { elsewhere_count: 3, keys: None, present: [present(7, None)].into() };
    let refused = |refusal| about(FromRoom::Refused(refusal));
    let bye = |reason| FromServer::Bye { reason };
    let (storage, wanted) = (position(), lsn(14));
    let undecided = |why| about(FromRoom::Undecided { lsn: lsn(14), why });
    let unknown = UndecidedReason::UnknownDoctype { reason: reason() };
    let no_room = UndecidedReason::NoRoomForVerdict { reason: reason() };
    let failed = UndecidedReason::VerdictFailed { reason: reason() };
    let event = |sequence, data| ArchivedEvent {
        sequence,
        aggregate: "order".to_owned(),
        stream: "o1".to_owned(),
        position: 2,
        name: "placed".to_owned(),
        version: 1,
        data,
        time_ms: 5_000,
        user: "ada".to_owned(),
        client: "09".repeat(16),
        cause: "command:8".to_owned(),
    };
    let events = vec![event(42, Some("{}".to_owned())), event(43, None)];
    let archived = |answer| about(FromRoom::Archived { number: 3, answer });
    let completed =
        |answer| about(FromRoom::Completed { tag: 1, number: 12, answer, time_ms: 5_000 });
    vec![
        ("admitted", FromServer::Admitted { subject: "ada".to_owned(), seconds_left: 3_600 }),
        ("not renewed", FromServer::NotRenewed),
        ("welcome", FromServer::Welcome),
        ("pong", FromServer::Pong),
        ("bye: version", bye(ByeReason::Version)),
        ("bye: shutdown", bye(ByeReason::Shutdown)),
        ("bye: unauthenticated", bye(ByeReason::Unauthenticated)),
        ("bye: protocol", bye(ByeReason::Protocol { reason: reason() })),
        ("bye: slow", bye(ByeReason::Slow)),
        ("bye: origin", bye(ByeReason::Origin)),
        ("opened", about(FromRoom::Opened { storage, from: lsn(1), wanted, lives: lives() })),
        ("allowed: read", about(FromRoom::Allowed { role: Role::Read })),
        ("allowed: send", about(FromRoom::Allowed { role: Role::Send })),
        ("allowed: admin", about(FromRoom::Allowed { role: Role::Admin })),
        ("seed wanted", about(FromRoom::SeedWanted)),
        ("seeded", about(FromRoom::Seeded { position: position() })),
        ("entry, a part", part(None, false)),
        ("entry, whole", part(Some(origin), true)),
        ("entry, predicted", predicted),
        ("acked", about(FromRoom::Acked { next: lsn(15) })),
        ("undecided: unknown doctype", undecided(unknown)),
        ("undecided: no room for the verdict", undecided(no_room)),
        ("undecided: the verdict failed", undecided(failed)),
        ("forbidden", about(FromRoom::Forbidden { lsn: lsn(14) })),
        ("probed", about(FromRoom::Probed { probe: ProbeId(77), next: lsn(43) })),
        ("refused: missing", refused(Refusal::Missing)),
        ("refused: exists", refused(Refusal::Exists)),
        ("refused: mismatch", refused(Refusal::DoctypeMismatch { reason: reason() })),
        ("refused: invalid", refused(Refusal::DoctypeInvalid { reason: reason() })),
        ("refused: access", refused(Refusal::Access { reason: reason() })),
        ("refused: protocol", refused(Refusal::Protocol { reason: reason() })),
        ("refused: storage", refused(Refusal::Storage { reason: reason() })),
        ("refused: parted", refused(Refusal::Parted)),
        ("refused: damaged", refused(Refusal::Damaged)),
        ("refused: doctype wanted", refused(Refusal::DoctypeWanted)),
        ("seed taken", about(FromRoom::SeedTaken { pages_count: 64 })),
        ("presence", about(FromRoom::Presence(news))),
        ("presence, of those who are seen already", about(FromRoom::Presence(more))),
        ("registered", about(FromRoom::Registered { tag: 1, instance: 7 })),
        ("not registered", about(FromRoom::NotRegistered { tag: 1, reason: reason() })),
        ("archived: events", archived(ArchiveAnswer::Events { events, up_to: 43 })),
        ("archived: elsewhere", archived(ArchiveAnswer::Elsewhere)),
        ("archived: failed", archived(ArchiveAnswer::Failed { reason: reason() })),
        ("completed: done", completed(CompletionAnswer::Done)),
        ("completed: late", completed(CompletionAnswer::Late)),
        ("completed: stale", completed(CompletionAnswer::Stale)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The lines `DIRECTION NAME = HEX` of a version.
fn golden(version: u16) -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(file(version)).expect("the golden file");
    let line = |line: &str| {
        let (name, bytes) = line.split_once(" = ").expect("a line of a name and bytes");
        (name.to_owned(), unhex(bytes))
    };
    text.lines().map(line).collect()
}

fn check<T>(golden: &BTreeMap<String, Vec<u8>>, direction: &str, messages: Vec<(&str, T)>)
where
    T: Serialize + DeserializeOwned + Debug + PartialEq,
{
    let of_direction = golden.keys().filter(|name| name.starts_with(direction)).count();
    assert_eq!(of_direction, messages.len(), "every message has its line");
    for (name, message) in messages {
        let bytes = &golden[&format!("{direction} {name}")];
        assert_eq!(decode_message::<T>(bytes).ok().as_ref(), Some(&message), "{name}");
        assert_eq!(hex(&plain(&message)), hex(bytes), "{name}");
        let written = encode_message(&message);
        assert_eq!(decode_message::<T>(&written).ok().as_ref(), Some(&message), "{name}");
    }
}

/// A message that is not compressed: whichever way an encoder takes, that is how it is read.
fn plain<T: Serialize>(message: &T) -> Vec<u8> {
    [&PROTOCOL_VERSION.to_le_bytes()[..], &codec::encode(message)].concat()
}

#[test]
fn every_message_is_read_and_written_as_it_was() {
    let golden = golden(PROTOCOL_VERSION);
    check(&golden, "to server:", to_server());
    check(&golden, "from server:", from_server());
}

#[test]
fn every_other_version_is_refused_by_its_number() {
    for mut bytes in golden(PROTOCOL_VERSION).into_values() {
        for other in [0, PROTOCOL_VERSION + 1, u16::MAX >> 1] {
            bytes[..2].copy_from_slice(&other.to_le_bytes());
            let answer = decode_message::<FromServer>(&bytes);
            assert!(matches!(answer, Err(MessageError::Version { theirs }) if theirs == other));
        }
    }
}

/// Run by `cargo xtask golden`.
#[test]
#[ignore = "writes the golden messages of the present version anew"]
fn write_the_golden_messages() {
    let sent = to_server().into_iter().map(|(name, it)| ("to server:", name, plain(&it)));
    let received = from_server();
    let received = received.iter().map(|(name, it)| ("from server:", *name, plain(it)));
    let lines = sent.chain(received);
    let lines = lines.map(|(way, name, bytes)| format!("{way} {name} = {}\n", hex(&bytes)));
    fs::write(file(PROTOCOL_VERSION), lines.collect::<String>()).expect("room");
}
