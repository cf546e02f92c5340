//! Events on their way to the archive, over a page server whose power is cut.

use tidelog_document::{
    AppendedEvent, ArchivedEvents, CommandDefinition, Completion, EventDefinition, FoundEvents,
    NewSnapshot, Outcome, StreamDefinition, StreamRef, WantedEvents, sending,
};

use super::*;
use crate::{ARCHIVE, archive_of};

/// Events of the stream that can leave: more than one part has.
const COUNT: u64 = 300;

fn shop() -> Doctype {
    let event = EventDefinition {
        name: "placed".to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "place".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 1,
        timeout_ms: 60_000,
    };
    let (name, events, commands) = ("order".to_owned(), vec![event], vec![command]);
    Doctype { streams: vec![StreamDefinition { name, events, commands }], ..notes() }
}

fn order() -> StreamRef {
    StreamRef { aggregate: "order".to_owned(), stream: "a".to_owned() }
}

/// The room of the document, and that of its archive, which share a store.
struct Both {
    scene: Scene,
    archive: Room,
}

fn archive_room(seed: u8, ways: &Arc<Ways>) -> Room {
    let document = archive_of(&DocumentKey::new("notebook", "").expect("a name"));
    assert_eq!(document.user, ARCHIVE);
    let settings = RoomSettings { doctypes: Doctypes::any(), ..RoomSettings::default() };
    Room::new(document, settings, [seed; 32], Arc::clone(ways) as Arc<dyn Outlets>)
}

impl Both {
    /// A stream with a state of all its events, and another one between.
    fn new() -> Self {
        let mut scene = Scene::new();
        scene.room.set_time(1_000_000);
        scene.open_as(ANN, &shop(), None, Intent::Follow);
        let event = |stream: &str| AppendedEvent {
            aggregate: "order".to_owned(),
            stream: stream.to_owned(),
            name: "placed".to_owned(),
            data: "{}".to_owned(),
            version: None,
            time_ms: None,
            user: None,
            position: None,
        };
        let events = (0..=COUNT).flat_map(|_| [event("a"), event("b")]);
        let append = Ask::Append { events: events.collect(), by: "root".to_owned() };
        assert_eq!(scene.ask(append), Answer::Appended(Ok(2 * COUNT + 2)));
        let name = sending("order", "place");
        let sent = frame(&shop(), &name, &[("stream", "a"), ("args", "{}"), ("key", "k")]);
        scene.frames(ANN, 1, vec![sent]);
        let kinds = vec![("order".to_owned(), "place".to_owned())];
        scene.say(ANN, ToRoom::Register { tag: 1, instance: 0, kinds, concurrency: 1 });
        let snapshot = Some(NewSnapshot { name: "v1".to_owned(), state: "1".to_owned() });
        let (events, sends, starts) = (Vec::new(), Vec::new(), Vec::new());
        let outcome = Outcome::Completed { events, sends, starts, snapshot };
        let completion = Completion { task: 1, attempt: 1, position: COUNT + 1, outcome }.encode();
        scene.say(ANN, ToRoom::Complete { tag: 1, number: 1, completion });
        assert_eq!(brief(&scene.heard(ANN)).last().expect("told"), "completed 1: Done");
        let archive = archive_room(100, &scene.ways);
        Self { scene, archive }
    }

    /// The server begins anew over these files.
    fn restart(&mut self, disk: &CrashDevice) {
        self.scene.restore(disk);
        self.archive = archive_room(100 + self.scene.openings, &self.scene.ways);
    }

    /// What a room answers; `None` once there is no power.
    fn ask(&mut self, ask: Ask) -> Option<Answer> {
        self.scene.step(RoomInput::Ask { request: 1, ask });
        self.scene.answers.pop()
    }

    fn ask_archive(&mut self, ask: Ask) -> Option<Answer> {
        std::mem::swap(&mut self.scene.room, &mut self.archive);
        self.scene.owner.0 += 1_000;
        let answer = self.ask(ask);
        self.scene.owner.0 -= 1_000;
        std::mem::swap(&mut self.scene.room, &mut self.archive);
        answer
    }

    /// Archives all that can be, as a server does. Says how many events have left, or nothing where
    /// something failed amid it.
    fn archive(&mut self) -> Option<u64> {
        let mut events = 0;
        loop {
            let Some(Answer::Archivable(Ok(part))) = self.ask(Ask::Archivable(order())) else {
                return None;
            };
            let (archived, end, has_more) = (part.archived, part.end(), part.has_more);
            if part.events.is_empty() {
                return Some(events);
            }
            let Some(Answer::TakenIn(Ok(archive))) = self.ask_archive(Ask::TakeIn(part.into()))
            else {
                return None;
            };
            let ask = Ask::Archive { stream: order(), archive, archived, end };
            let Some(Answer::Archived(Ok(count))) = self.ask(ask) else { return None };
            events += count;
            if !has_more {
                return Some(events);
            }
        }
    }

    /// The sequence numbers of all events, page by page.
    fn told(&mut self) -> Vec<u64> {
        let (mut wanted, mut told) = (WantedEvents::default(), Vec::new());
        loop {
            let mut answer = self.ask(Ask::Events(wanted.clone(), None));
            if let Some(Answer::Events(FoundEvents::Archived(place))) = answer {
                let ask = Ask::Archived(wanted.clone(), place.archive);
                let Some(Answer::Events(found)) = self.ask_archive(ask) else {
                    panic!("the archive has it not")
                };
                let archived = ArchivedEvents::of(found, wanted.after, place.count);
                answer = self.ask(Ask::Events(wanted.clone(), Some(archived.into())));
            }
            match answer {
                Some(Answer::Events(FoundEvents::Some(rows))) => {
                    for row in rows.decode() {
                        let Value::Integer(sequence) = row[0] else { panic!("{row:?}") };
                        wanted.after = sequence.unsigned_abs();
                        told.push(wanted.after);
                    }
                }
                Some(Answer::Events(FoundEvents::NoneUpTo(seen))) => wanted.after = seen,
                Some(Answer::Events(FoundEvents::None(_))) => return told,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Goal: whatever of the disk is left by a power cut amid archiving, each event is told once, and
/// archiving goes on from there to its end. Method: the power is cut after each call of the disk by
/// which something may change, with all, none and some of what was not durable.
#[test]
fn the_power_cut_after_any_call_of_archiving_loses_no_event() {
    let all: Vec<u64> = (1..=2 * COUNT + 2).collect();
    let mut whole = Both::new();
    let before = whole.scene.device.calls();
    assert_eq!(whole.told(), all);
    assert_eq!(whole.archive(), Some(COUNT));
    assert_eq!(whole.told(), all);
    let calls = whole.scene.device.changing_calls().into_iter().filter(|call| *call >= before);
    let mut ends = BTreeSet::new();
    for call in calls {
        let mut cut = Both::new();
        assert_eq!(cut.told(), all);
        cut.scene.device.power_off_after(call);
        cut.archive();
        let mut odd = 0;
        let choosers: [&mut dyn FnMut(usize) -> usize; 3] =
            [&mut |_| 0, &mut |versions| versions - 1, &mut |versions| {
                odd += 1;
                if odd % 2 == 0 { 0 } else { versions - 1 }
            }];
        for (nth, choose) in choosers.into_iter().enumerate() {
            let when = format!("cut after call {call}, in way {nth}");
            let disk = cut.scene.device.crash(choose);
            let mut after = Both { scene: Scene::of(9), archive: archive_room(9, &cut.scene.ways) };
            after.restart(&disk);
            after.scene.room.set_time(1_000_000);
            assert_eq!(after.told(), all, "{when}");
            let left = after.archive().expect("it goes on");
            ends.insert(COUNT - left);
            assert_eq!(after.told(), all, "{when}, and once it was archived");
        }
    }
    assert_eq!(ends, BTreeSet::from([0, 256, COUNT]), "each part was the last one once");
}
