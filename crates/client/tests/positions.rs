//! Copies that part: a server that is restored, profiles that are cloned or restored, an offer
//! whose answer is lost.

use std::collections::BTreeMap;

use tidelog_client::{Call, Connection, FromCore, ToCore};
use tidelog_document::{Authority, Committed, public_entry, public_life};
use tidelog_pages::{StorageEntry, StoreReply};
use tidelog_sqlite::View;
use tidelog_sync::{EntryPart, FromRoom, FromServer, ToRoom, ToServer};
use tidelog_testing::client::core::Core;
use tidelog_testing::client::server::{Server, alone, back_online, connect, offline, online, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::TIMELINE_LIVES_KEPT_MAX;
use tidelog_types::{
    EntryId, ErrorCode, JournalId, Life, Lineage, Lsn, LsnRange, Page, Pgid, Position,
};

fn ids(device: &mut Device) -> String {
    let rows = device.query("select id from todo order by id");
    let id = |row: Vec<tidelog_types::Value>| match &row[0] {
        tidelog_types::Value::Text(id) => id.clone(),
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(id).collect::<Vec<_>>().join(" ")
}

/// All of them have what the server has, nothing is pending, and nobody complains.
#[track_caller]
fn agree(server: &mut Server, devices: &mut [&mut Device], expected: &str) {
    for device in devices.iter_mut() {
        device.pass(15_000);
    }
    talk(server, devices);
    for device in devices {
        assert_eq!(ids(device), expected, "device {}", device.number);
        assert!(device.image() == server.image(), "device {}", device.number);
        let status = device.status();
        assert_eq!((status.pending, &status.error), (0, &None), "device {}", device.number);
    }
}

/// Goal: nothing that either copy issued is lost, applied twice, or called confirmed without having
/// been sent. Method: a profile with an undecided mutation is copied while closed; both copies go
/// on, offline, and come back one after the other.
#[test]
fn what_each_copy_of_a_cloned_profile_issued_is_applied_once() {
    let mut server = Server::default();
    let mut first = online(1, &mut server);
    add(&mut first, "a");
    talk(&mut server, &mut [&mut first]);
    offline(&mut first);
    add(&mut first, "both");
    let mut second = first.clone_profile(2);
    for id in ["f1", "f2"] {
        add(&mut first, id);
    }
    second.start_open(TAB, Some(SERVER), &todos());
    let theirs = ["s1", "s2", "s3", "s4"].map(|id| add(&mut second, id));
    connect(&mut server, &mut first);
    assert_eq!(ids(&mut first), "a both f1 f2");

    connect(&mut server, &mut second);
    agree(&mut server, &mut [&mut first, &mut second], "a both f1 f2 s1 s2 s3 s4");
    for call in theirs {
        assert!(matches!(second.answers(call).last(), Some(FromCore::Confirmed { .. })));
    }
    // And it lasts.
    second.kill_core();
    connect(&mut server, &mut second);
    add(&mut second, "s5");
    agree(&mut server, &mut [&mut first, &mut second], "a both f1 f2 s1 s2 s3 s4 s5");
}

/// The same while both copies are connected all the time: the second one's frames come where the
/// first one's are.
#[test]
fn two_copies_of_a_profile_can_be_online_at_once() {
    let mut server = Server::default();
    let mut first = online(1, &mut server);
    add(&mut first, "a");
    talk(&mut server, &mut [&mut first]);
    let mut second = first.clone_profile(2);
    connect(&mut server, &mut second);
    first.take_sent();
    for round in 0..4 {
        add(&mut first, &format!("f{round}"));
        add(&mut second, &format!("s{round}"));
        talk(&mut server, &mut [&mut first, &mut second]);
    }
    agree(&mut server, &mut [&mut first, &mut second], "a f0 f1 f2 f3 s0 s1 s2 s3");
}

/// Goal: an acknowledgement of a frame that two copies have, which is one of all that the other
/// copy has sent since, ends nothing. Method: the first copy's frame is held back until the second
/// one's are applied.
#[test]
fn an_acknowledgement_of_another_copys_frames_breaks_no_protocol() {
    let mut server = Server::default();
    let mut first = online(1, &mut server);
    offline(&mut first);
    add(&mut first, "both");
    let mut second = first.clone_profile(2);
    first.server_is_up = true;
    first.pass(15_000);
    let mut held = Vec::new();
    while held.is_empty() {
        for message in first.take_sent() {
            if matches!(message, ToServer::About { body: ToRoom::Frames { .. }, .. }) {
                held.push(message);
                continue;
            }
            for answer in server.hear(first.number, message) {
                first.hear_server(&answer);
            }
        }
    }
    second.start_open(TAB, Some(SERVER), &todos());
    for id in ["s1", "s2"] {
        add(&mut second, id);
    }
    connect(&mut server, &mut second);
    for message in held {
        for answer in server.hear(first.number, message) {
            first.hear_server(&answer);
        }
    }
    let error = first.status().error.clone();
    assert!(error.is_none_or(|error| error.code != ErrorCode::Protocol));
    add(&mut first, "f");
    first.pass(5_000);
    agree(&mut server, &mut [&mut first, &mut second], "both f s1 s2");
}

/// Goal: what a profile issued after the backup it was restored from stays, and what it issues now
/// is not taken for that. Method: the disk is put back to where a mutation was undecided.
#[test]
fn a_restored_profile_issues_nothing_under_an_lsn_that_was_given() {
    for issued_offline in [0, 1, 5] {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        offline(&mut device);
        add(&mut device, "a");
        let backup = device.disk.kill();
        add(&mut device, "b");
        add(&mut device, "c");
        connect(&mut server, &mut device);

        device.restore_profile(&backup);
        device.server_is_up = false;
        device.start_open(TAB, Some(SERVER), &todos());
        for number in 0..issued_offline {
            add(&mut device, &format!("x{number}"));
        }
        connect(&mut server, &mut device);
        add(&mut device, "y");
        let offline: Vec<String> = (0..issued_offline).map(|n| format!("x{n} ")).collect();
        agree(&mut server, &mut [&mut device], &format!("a b c {}y", offline.concat()));
    }
}

/// Goal: who had seen what a restored server lost takes what it has now, and loses nothing that was
/// not confirmed; who had not goes on. Method: two devices, one of which saw a mutation that the
/// server loses, and has others that are undecided.
#[test]
fn after_a_restore_of_the_server_everybody_goes_on_from_what_is_left() {
    let mut server = Server::default();
    let (mut ahead, mut behind) = (online(1, &mut server), online(2, &mut server));
    add(&mut ahead, "a");
    talk(&mut server, &mut [&mut ahead, &mut behind]);
    let backup = server.position().next;
    offline(&mut behind);
    add(&mut ahead, "lost");
    talk(&mut server, &mut [&mut ahead]);
    offline(&mut ahead);
    add(&mut ahead, "x");
    add(&mut behind, "y");
    server.restore(backup);

    connect(&mut server, &mut behind);
    assert_eq!(ids(&mut behind), "a y");
    // By now other entries stand where the lost one stood.
    add(&mut behind, "z");
    talk(&mut server, &mut [&mut behind]);
    connect(&mut server, &mut ahead);
    agree(&mut server, &mut [&mut ahead, &mut behind], "a x y z");
    // What is on the disk is that too.
    ahead.kill_core();
    connect(&mut server, &mut ahead);
    agree(&mut server, &mut [&mut ahead, &mut behind], "a x y z");
}

/// Carries what a device says, and the answers, but no entries. Each answer may be changed.
fn talk_without_entries(
    server: &mut Server,
    device: &mut Device,
    change: &mut dyn FnMut(&mut FromServer),
) {
    loop {
        let sent = device.take_sent();
        if sent.is_empty() {
            break;
        }
        for message in sent {
            for mut answer in server.hear(device.number, message) {
                change(&mut answer);
                device.hear_server(&answer);
            }
        }
    }
}

/// Goal: a `sync` that was asked for shows what the server has now, not what it has lost, however
/// far that came. Method: a restored server has gone on to where it stood before, and its answers
/// come before the document does.
#[test]
fn sync_waits_for_the_document_that_takes_the_place_of_a_lost_one() {
    let mut server = Server::default();
    let (mut ahead, mut behind) = (online(1, &mut server), online(2, &mut server));
    let backup = server.position().next;
    offline(&mut behind);
    add(&mut ahead, "lost");
    talk(&mut server, &mut [&mut ahead]);
    offline(&mut ahead);
    server.restore(backup);
    connect(&mut server, &mut behind);
    add(&mut behind, "theirs");
    talk(&mut server, &mut [&mut behind]);

    let sync = ahead.sync();
    ahead.server_is_up = true;
    ahead.pass(15_000);
    talk_without_entries(&mut server, &mut ahead, &mut |_| {});
    assert_eq!(ahead.status().connection, Connection::Online);
    assert_eq!((ahead.answers(sync).len(), ids(&mut ahead)), (0, "lost".to_owned()));
    talk(&mut server, &mut [&mut ahead]);
    assert!(matches!(ahead.answer(sync), FromCore::Done { .. }));
    assert_eq!(ids(&mut ahead), "theirs");
}

/// Goal: a server that is put back, and forward again, is followed as if it had never been away.
/// Method: it says that it has lost what the device holds, and goes before it sends what it has.
#[test]
fn a_server_that_has_again_what_it_had_lost_is_followed_on() {
    let mut server = Server::default();
    let (mut device, mut other) = (online(1, &mut server), online(2, &mut server));
    add(&mut device, "a");
    talk(&mut server, &mut [&mut device, &mut other]);
    device.lose_socket();
    device.pass(15_000);
    talk_without_entries(&mut server, &mut device, &mut |answer| {
        if let FromServer::About { body: FromRoom::Opened { from, .. }, .. } = answer {
            *from = Lsn::FIRST;
        }
    });
    let error = device.status().error.as_ref().map(|error| error.code);
    assert_eq!(error, Some(ErrorCode::DocumentReplaced));
    device.lose_socket();
    device.pass(15_000);
    talk(&mut server, &mut [&mut device, &mut other]);
    add(&mut other, "b");
    agree(&mut server, &mut [&mut other, &mut device], "a b");
}

/// Goal: an acknowledgement holds as long as the server has what it acknowledged. Method: the
/// acknowledgement of a mutation comes, its entry does not, and the server is restored to before
/// it.
#[test]
fn what_a_restored_server_had_acknowledged_and_lost_is_sent_again() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "a");
    talk(&mut server, &mut [&mut device]);
    let backup = server.position().next;
    add(&mut device, "b");
    let mut acks = 0;
    for message in device.take_sent() {
        for answer in server.hear(device.number, message) {
            if let FromServer::About { body: FromRoom::Acked { .. }, .. } = answer {
                acks += 1;
                device.hear_server(&answer);
            }
        }
    }
    assert_eq!((acks, device.status().pending), (1, 1));
    offline(&mut device);
    server.restore(backup);
    connect(&mut server, &mut device);
    agree(&mut server, &mut [&mut device], "a b");
}

/// Goal: what went on locally, since nobody heard that the server has the document, is not lost.
/// Method: the answer to the seed is not delivered, the offer fails, the device goes on and offers
/// again.
#[test]
fn work_after_a_lost_answer_to_an_offer_is_the_servers_too() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "a");
    device.server_is_up = true;
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    while server.document.is_none() {
        for message in device.take_sent() {
            // The last answers come from the seed: nobody hears them.
            let answers = server.hear(device.number, message);
            if server.document.is_none() {
                answers.iter().for_each(|answer| device.hear_server(answer));
            }
        }
    }
    offline(&mut device);
    server.forget(device.number);
    device.pass(20_000);
    assert_eq!(device.status().connection, Connection::Local, "the offer has failed");
    add(&mut device, "b");
    device.kill_core();
    device.open(&todos());
    add(&mut device, "c");
    device.server_is_up = true;
    device.start_open(TAB, Some(SERVER), &todos());
    talk(&mut server, &mut [&mut device]);
    assert_eq!(server.position().next, Lsn::FIRST.plus(4));
    add(&mut device, "d");
    agree(&mut server, &mut [&mut device], "a b c d");
}

/// A server of one document that is told by hand what to do, before a core.
struct Played {
    core: Core,
    authority: Authority,
}

impl Played {
    /// The core follows a document that the server has just made.
    fn new() -> Self {
        let mut core = Core::default();
        core.open_new(Call(1), HANDLE, "list", Some(SERVER));
        core.welcome(SERVER);
        let start = Position::start_of(JournalId([9; 16]));
        let view = View::new(usize::MAX, 0);
        let authority = Authority::new(view, start, Lineage::default(), Life([77; 16]));
        let mut played = Self { core, authority };
        let created = played.authority.migrate(&todos()).unwrap().expect("it was empty");
        played.opened(Lsn::FIRST);
        played.entry(created, None);
        played
    }

    fn tell(&mut self, body: FromRoom) {
        let opened = self.core.sent.iter().rev().find_map(|(_, message)| match message {
            ToServer::About { channel, body: ToRoom::Open { .. } } => Some(*channel),
            _ => None,
        });
        let channel = opened.expect("it has opened the document");
        self.core.hear(SERVER, &FromServer::About { channel, body });
    }

    /// Answers the last `Open`: of the timeline that it names nothing is applied.
    fn opened(&mut self, from: Lsn) {
        let (storage, wanted) = (self.authority.position(), Lsn::FIRST);
        self.tell(FromRoom::Opened { storage, from, wanted, lives: Lineage::default() });
    }

    fn entry(&mut self, committed: Committed, origin: Option<EntryId>) {
        let Committed { entry, hash, coded } = committed;
        let StorageEntry { range, position, set, .. } = entry;
        let (db_pages, is_last) = (set.db_pages, true);
        let part = EntryPart {
            range,
            position,
            db_pages,
            origin,
            pages: coded.expect("few pages"),
            is_predicted: false,
            hash,
            is_last,
        };
        self.tell(FromRoom::Entry(part));
    }

    /// The timelines by which the server was asked for the document.
    fn timelines(&self) -> Vec<JournalId> {
        let opens = self.core.sent.iter().filter_map(|(_, message)| match message {
            ToServer::About { body: ToRoom::Open { timeline, .. }, .. } => Some(*timeline),
            _ => None,
        });
        opens.collect()
    }

    /// First LSN and writer of the frames that were sent since somebody looked last.
    fn frames(&mut self) -> Vec<(u64, Life)> {
        let sent = std::mem::take(&mut self.core.sent);
        let frames = sent.iter().filter_map(|(_, message)| match message {
            ToServer::About { body: ToRoom::Frames { life, first, .. }, .. } => {
                Some((first.get(), *life))
            }
            _ => None,
        });
        frames.collect()
    }
}

/// Goal: what becomes durable of a timeline says nothing of the one that took its place. Method:
/// while a mutation is on its way to the disk, the server tells that another copy of the profile
/// has gone on in the timeline; the older append becomes durable before the one that begins the
/// other.
#[test]
fn what_is_durable_of_a_timeline_is_not_durable_of_the_one_behind_it() {
    let mut it = Played::new();
    let [timeline] = it.timelines()[..] else { panic!("it has opened the document once") };
    let open = it.core.sent.clone();
    for number in 1..4 {
        let ticket = it.core.add(Call(number + 1), &number.to_string());
        it.core.reply(StoreReply::Durable { ticket });
        let frames = it.frames();
        let [(lsn, life)] = frames.as_slice() else { panic!("{frames:?}") };
        let origin =
            EntryId { journal: timeline, life: *life, lsn: Lsn::new(*lsn).expect("an LSN") };
        let applied = it.authority.reject(origin, None, "not today").unwrap();
        it.core.sent.clone_from(&open);
        it.entry(applied.committed, Some(public_entry(origin)));
        it.core.sent.clear();
    }
    let before = it.core.add(Call(9), "in flight");
    let origin = EntryId { journal: timeline, life: Life([8; 16]), lsn: Lsn::FIRST.plus(3) };
    let theirs = it.authority.reject(origin, None, "of the other copy").unwrap();
    it.core.sent.clone_from(&open);
    it.entry(theirs.committed, Some(public_entry(origin)));
    let after = it.core.last_ticket();
    assert!(after > before, "it goes on in another timeline");
    it.opened(it.authority.position().next);
    it.frames();
    it.core.reply(StoreReply::Durable { ticket: before });
    assert_eq!(it.frames(), []);
    it.core.reply(StoreReply::Durable { ticket: after });
    let firsts: Vec<u64> = it.frames().into_iter().map(|(first, _)| first).collect();
    assert_eq!(firsts, [1]);
}

/// Goal: a server that goes on where another copy of the profile has, is not taken for one that
/// breaks the protocol. Method: what tells of the other copy has come, but many mutations are
/// pending and the rebase over it is put off, when the server is asked anew where it stands.
#[test]
fn pages_that_are_held_and_not_visible_yet_tell_where_timelines_part() {
    let mut it = Played::new();
    let [timeline] = it.timelines()[..] else { panic!("it has opened the document once") };
    for number in 2..22 {
        let ticket = it.core.add(Call(number), &number.to_string());
        it.core.reply(StoreReply::Durable { ticket });
    }
    let origin = EntryId { journal: timeline, life: Life([8; 16]), lsn: Lsn::FIRST };
    let theirs = it.authority.reject(origin, None, "of the other copy").unwrap();
    it.entry(theirs.committed, Some(public_entry(origin)));
    for word in [1, 2] {
        it.core.say(ToCore::SetConnected { handle: HANDLE, word });
    }
    it.core.welcome(SERVER);
    let (storage, wanted) = (it.authority.position(), Lsn::FIRST.next());
    let mut lives = Lineage::default();
    lives.note(public_life(origin.life), origin.lsn);
    it.tell(FromRoom::Opened { storage, from: storage.next, wanted, lives });
    it.core.pass(50);
    it.core.reply(StoreReply::Durable { ticket: it.core.last_ticket() });
    let errors = it.core.told.iter().filter_map(|message| match message {
        FromCore::Status { status, .. } => status.error.clone(),
        _ => None,
    });
    assert_eq!(errors.collect::<Vec<_>>(), []);
    assert_ne!(it.timelines().last(), Some(&timeline), "it goes on in a timeline of its own");
}

/// Goal: whoever catches up is not sent all of it anew since something else becomes visible
/// meanwhile. Method: as above, but the pages that are held are of somebody else, and those that
/// tell where timelines part are on their way when the rebase over the others is complete.
#[test]
fn whoever_catches_up_does_not_ask_for_that_anew() {
    let mut it = Played::new();
    let [timeline] = it.timelines()[..] else { panic!("it has opened the document once") };
    for number in 2..22 {
        let ticket = it.core.add(Call(number), &number.to_string());
        it.core.reply(StoreReply::Durable { ticket });
    }
    let (life, lsn) = (Life([8; 16]), Lsn::FIRST);
    let other = EntryId { journal: JournalId([8; 16]), life, lsn };
    let of_other = it.authority.reject(other, None, "of somebody else").unwrap();
    let from = of_other.committed.entry.range.end();
    it.entry(of_other.committed, Some(public_entry(other)));
    for word in [1, 2] {
        it.core.say(ToCore::SetConnected { handle: HANDLE, word });
    }
    it.core.welcome(SERVER);
    let origin = EntryId { journal: timeline, life, lsn };
    let theirs = it.authority.reject(origin, None, "of the other copy").unwrap();
    let (storage, wanted) = (it.authority.position(), lsn.next());
    let mut lives = Lineage::default();
    lives.note(public_life(life), lsn);
    it.tell(FromRoom::Opened { storage, from, wanted, lives });
    let before = it.timelines();
    it.core.pass(50);
    assert_eq!(it.timelines(), before, "the rest is on its way");
    it.entry(theirs.committed, Some(public_entry(origin)));
    it.core.pass(50);
    it.core.reply(StoreReply::Durable { ticket: it.core.last_ticket() });
    assert_ne!(it.timelines().last(), Some(&timeline), "it goes on in a timeline of its own");
}

/// Goal: where a server that has lost a timeline gets it back from another copy of the profile,
/// what this copy issued behind that is sent. Method: the server says that it knows nothing of the
/// timeline, and the pages that it sends then were made after the other copy had sent what both
/// have.
#[test]
fn what_comes_behind_what_another_copy_brought_back_is_sent() {
    let mut it = Played::new();
    let [timeline] = it.timelines()[..] else { panic!("it has opened the document once") };
    let ticket = it.core.add(Call(2), "both");
    it.core.reply(StoreReply::Durable { ticket });
    let sent = it.core.sent.clone();
    let frames = it.frames();
    let [(1, life)] = frames[..] else { panic!("{frames:?}") };
    let origin = EntryId { journal: timeline, life, lsn: Lsn::FIRST };
    let decided = it.authority.reject(origin, None, "not today").unwrap();
    it.core.sent = sent;
    it.entry(decided.committed, Some(public_entry(origin)));
    let ticket = it.core.add(Call(3), "behind it");
    it.core.reply(StoreReply::Durable { ticket });
    for word in [1, 2] {
        it.core.say(ToCore::SetConnected { handle: HANDLE, word });
    }
    it.core.welcome(SERVER);

    let start = Position::start_of(JournalId([10; 16]));
    let view = View::new(usize::MAX, 0);
    it.authority = Authority::new(view, start, Lineage::default(), Life([78; 16]));
    let created = it.authority.migrate(&todos()).unwrap().expect("it was empty");
    it.opened(Lsn::FIRST);
    let mut entry = it.authority.reject(origin, None, "not today").unwrap().committed.entry;
    let mut pages: BTreeMap<Pgid, Page> = created.entry.set.pages.into_iter().collect();
    pages.extend(entry.set.pages);
    entry.set.pages = pages.into_iter().collect();
    entry.range = LsnRange::new(Lsn::FIRST, entry.range.end());
    let before = it.timelines().len();
    it.entry(alone(entry), None);
    it.core.pass(50);
    assert_eq!(it.timelines()[before..], [timeline], "it asks what the server wants by now");

    let (storage, wanted) = (it.authority.position(), Lsn::FIRST.next());
    let mut lives = Lineage::default();
    lives.note(public_life(life), Lsn::FIRST);
    it.tell(FromRoom::Opened { storage, from: storage.next, wanted, lives });
    it.core.pass(50);
    assert!(it.frames().contains(&(2, life)));
}

/// Goal: whoever works offline for many sessions is followed on when the server is back. Method: so
/// many cores issue one mutation each, none of which the server has seen, that a timeline remembers
/// no more lives than theirs; nobody else has written meanwhile.
#[test]
fn what_many_cores_have_issued_offline_is_sent_when_the_server_is_back() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "0");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    for n in 1..=TIMELINE_LIVES_KEPT_MAX {
        device.kill_core();
        device.start_open(TAB, Some(SERVER), &todos());
        add(&mut device, &n.to_string());
    }
    back_online(&mut server, &mut device);
    agree(&mut server, &mut [&mut device], "0 1 10 11 12 13 14 15 16 2 3 4 5 6 7 8 9");
}
