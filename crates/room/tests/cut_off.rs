//! Followers whose connections end at any message, and what they then hold.
//!
//! Goal: whoever takes in what comes, a part of an entry at a time, and comes back with the
//! position of the last whole one, holds the document's bytes at each position that it reaches:
//! pages of an entry that broke off never outlive the next whole one. The same holds of an export
//! amid it all. Method: random runs over a room with small limits, a store that says late what is
//! durable, and clients that read now and then; a witness who is never cut off says what the
//! document was like.

use std::collections::BTreeMap;

use tidelog_room::{Answer, Ask, ConnId, RoomInput};
use tidelog_sync::{FromRoom, Intent, ToRoom, codec};
use tidelog_testing::room::*;
use tidelog_testing::{Rng, runs};
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, JournalId, Lsn, Position};

const FOLLOWERS: usize = 3;
/// Frames in one run.
const FRAMES_MAX: u64 = 80;

fn limits(rng: &mut Rng) -> Limits {
    let catch_up_pages = 1 + rng.below(6);
    let slice = BudgetLimits { pages: 1 + rng.next() % 20, ..Limits::DEFAULT.slice };
    Limits {
        catch_up_pages,
        catch_up_pages_max: catch_up_pages + rng.below(12),
        message_pages_max: 1 + rng.below(4),
        read_chunk_pages: 1 + rng.below(4),
        entries_in_flight_max: 1 + rng.next() % 8,
        entries_in_flight_size_max: 4096 * (1 + rng.below(40)),
        pool_pages_max: 4 + rng.below(40),
        slice,
        ..Limits::DEFAULT
    }
}

fn open_at(timeline: u8, have: Option<Position>) -> ToRoom {
    ToRoom::Open {
        document: "notebook".to_owned(),
        doctype: codec::encode(&notes()).into(),
        timeline: JournalId([timeline; 16]),
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent: Intent::Follow,
    }
}

/// One who follows, on one connection after another.
struct Reader {
    /// `None` while it has none.
    conn: Option<ConnId>,
    copy: Copy,
}

struct Run {
    scene: Scene,
    conns_ever: u64,
    /// The next frame of the one who writes.
    next: u64,
    witness: Copy,
    /// What the document was like, by its end.
    images: BTreeMap<Lsn, Vec<u8>>,
    readers: Vec<Reader>,
    /// Positions that were compared.
    compared: u64,
}

impl Run {
    fn new(rng: &mut Rng) -> Self {
        let mut scene = Scene::new(limits(rng), 4096 * (1 + rng.below(20)));
        scene.open(ANN);
        let readers = (0..FOLLOWERS).map(|_| Reader { conn: None, copy: Copy::default() });
        let mut run = Self {
            scene,
            conns_ever: 10,
            next: 1,
            witness: Copy::default(),
            images: BTreeMap::new(),
            readers: readers.collect(),
            compared: 0,
        };
        run.look_on();
        run
    }

    fn new_conn(&mut self) -> ConnId {
        self.conns_ever += 1;
        ConnId(self.conns_ever)
    }

    /// The witness takes in all there is.
    fn look_on(&mut self) {
        while let Some(message) = self.scene.read(ANN) {
            let FromRoom::Entry(part) = message else { continue };
            let is_last = part.is_last;
            self.witness.take(part);
            if let Some(position) = self.witness.position.filter(|_| is_last) {
                self.images.insert(position.next, self.witness.image());
                self.scene.say(ANN, ToRoom::Received { next: position.next });
            }
        }
    }

    fn write(&mut self, rng: &mut Rng) {
        let text = |rng: &mut Rng| "x".repeat(1 + rng.below(3_000));
        let frames = (0..1 + rng.below(4)).map(|_| match rng.below(8) {
            0 => frame(&notes(), "keep", "nothing"),
            1 | 2 => frame(&notes(), "touch", &text(rng)),
            _ => frame(&notes(), "log", &text(rng)),
        });
        let frames: Vec<_> = frames.collect();
        let first = self.next;
        self.next += frames.len() as u64;
        self.scene.frames(ANN, first, frames);
    }

    fn connect(&mut self, index: usize) {
        let conn = self.new_conn();
        let have = self.readers[index].copy.position;
        self.readers[index].conn = Some(conn);
        let timeline = 20 + u8::try_from(index).expect("few");
        self.scene.say(conn, open_at(timeline, have));
    }

    /// Some of what is on its way is never read.
    fn cut_off(&mut self, index: usize) {
        let Some(conn) = self.readers[index].conn.take() else { return };
        self.scene.settle(RoomInput::Left { conn });
        self.scene.unread.remove(&conn);
    }

    /// Reads so many messages. Gives whether there were any.
    fn read(&mut self, index: usize, count: usize) -> bool {
        let Some(conn) = self.readers[index].conn else { return false };
        for read in 0..count {
            let Some(message) = self.scene.read(conn) else { return read > 0 };
            let FromRoom::Entry(part) = message else { continue };
            let is_last = part.is_last;
            let copy = &mut self.readers[index].copy;
            copy.take(part);
            if let Some(position) = copy.position.filter(|_| is_last) {
                let image = copy.image();
                self.compare(position.next, &image, "a reader");
                self.scene.say(conn, ToRoom::Received { next: position.next });
                self.look_on();
            }
        }
        true
    }

    /// The document as a file, while others write.
    fn export(&mut self, rng: &mut Rng) {
        let conn = self.new_conn();
        self.scene.settle(RoomInput::Ask { request: 1, ask: Ask::Export { conn } });
        let mut copy = Copy::default();
        while copy.position.is_none() {
            if rng.one_in(3) && self.next < FRAMES_MAX {
                self.write(rng);
                self.look_on();
            }
            match self.scene.read(conn) {
                Some(FromRoom::Entry(part)) => copy.take(part),
                Some(_) => {}
                None => self.hear_the_store(),
            }
        }
        assert_eq!(self.scene.answers.pop(), Some(Answer::Exporting));
        self.scene.settle(RoomInput::Left { conn });
        self.scene.unread.remove(&conn);
        self.look_on();
        let end = copy.position.expect("it is whole").next;
        self.compare(end, &copy.image(), "an export");
    }

    /// The witness, too, is sent one entry for several where it lags: then nobody knows.
    fn compare(&mut self, end: Lsn, image: &[u8], whose: &str) {
        let Some(known) = self.images.get(&end) else { return };
        assert!(known == image, "{whose} at {end}");
        self.compared += 1;
    }

    /// The store says what is durable by now.
    fn hear_the_store(&mut self) {
        self.scene.holds_durable = false;
        for reply in std::mem::take(&mut self.scene.held) {
            self.scene.settle(RoomInput::Store(reply));
        }
        self.look_on();
    }
}

#[test]
fn what_broke_off_leaves_no_page_behind() {
    let mut compared = 0;
    runs("cut off", 1_000, |rng| {
        let mut run = Run::new(rng);
        let operations = 200;
        for _ in 0..operations {
            let index = rng.below(FOLLOWERS);
            match rng.below(16) {
                0..=3 if run.next < FRAMES_MAX => run.write(rng),
                4..=8 => {
                    run.read(index, 1 + rng.below(6));
                }
                9 => run.cut_off(index),
                10 | 11 if run.readers[index].conn.is_none() => run.connect(index),
                12 => run.scene.holds_durable = true,
                13 => run.hear_the_store(),
                14 => run.scene.room.rest_deeply(),
                15 if rng.one_in(4) => run.export(rng),
                _ => {}
            }
            run.look_on();
        }
        run.hear_the_store();
        for index in 0..FOLLOWERS {
            if run.readers[index].conn.is_none() {
                run.connect(index);
            }
            while run.read(index, usize::MAX) {}
            let copy = &run.readers[index].copy;
            assert_eq!(copy.position, run.witness.position, "it has come to the end");
            assert!(copy.image() == run.witness.image());
        }
        compared += run.compared;
        operations
    });
    assert!(compared > 0, "nothing was compared");
}
