//! Events on their way to the archive, over a page server whose power is cut.

use tidelog_document::{
    AppendedEvent, ArchivedEvents, CommandDefinition, Completion, Erasable, ErasedUpTo,
    EventDefinition, FoundEvents, NewSnapshot, Outcome, StreamDefinition, StreamRef, WantedEvents,
    sending,
};
use tidelog_types::limits::LOG_AGE_MS_MAX;

use super::erasing::{NOW_MS, SECRET};
use super::*;
use crate::{ARCHIVE, archive_of};

/// Events of the stream that can leave: more than one part has.
const COUNT: u64 = 300;

/// For longer than that no command is remembered.
const TASKS_LAST_MS: u64 = Limits::DEFAULT.command_failed_ms + 1_000;

fn shop() -> Doctype {
    let fields = vec![Param { name: "by".to_owned(), kind: ParamKind::Text, optional: false }];
    let event = EventDefinition {
        name: "placed".to_owned(),
        fields: fields.clone(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "place".to_owned(),
        fields,
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
    /// A stream with a state of all its events, all by one, and another one between.
    fn new() -> Self {
        let mut scene = Scene::new();
        scene.room.set_time(1_000_000);
        scene.open_as(ANN, &shop(), None, Intent::Follow);
        let archive = archive_room(100, &scene.ways);
        let mut both = Self { scene, archive };
        both.happen(0, &[("a", SECRET), ("b", "Babbage")]);
        both
    }

    /// More events of these streams, by these. What those of the first come to is kept, with a
    /// command.
    fn happen(&mut self, nth: u64, streams: &[(&str, &str)]) {
        let scene = &mut self.scene;
        scene.room.set_time(1_000_000 + nth * TASKS_LAST_MS);
        let event = |(stream, by): &(&str, &str)| AppendedEvent {
            aggregate: "order".to_owned(),
            stream: (*stream).to_owned(),
            name: "placed".to_owned(),
            data: format!(r#"{{"by":"{by}"}}"#),
            version: None,
            time_ms: None,
            user: None,
            position: None,
        };
        let events = (0..=COUNT).flat_map(|_| streams.iter().map(event));
        let append = Ask::Append { events: events.collect(), by: "root".to_owned() };
        let answer = scene.ask(append);
        assert!(matches!(answer, Answer::Appended(Ok(_))), "{answer:?}");
        let (name, key) = (sending("order", "place"), format!("{SECRET} {nth}"));
        let args = format!(r#"{{"by":"{SECRET}"}}"#);
        let sent = frame(&shop(), &name, &[("stream", "a"), ("args", &args), ("key", &key)]);
        let (number, tag) = (1 + nth, 1 + u32::try_from(nth).expect("a few"));
        scene.frames(ANN, number, vec![sent]);
        let kinds = vec![("order".to_owned(), "place".to_owned())];
        scene.say(ANN, ToRoom::Register { tag, instance: 0, kinds, concurrency: 1 });
        let snapshot = Some(NewSnapshot { name: "v1".to_owned(), state: "1".to_owned() });
        let (events, sends, starts) = (Vec::new(), Vec::new(), Vec::new());
        let outcome = Outcome::Completed { events, sends, starts, snapshot };
        let position = number * (COUNT + 1);
        let completion = Completion { task: number, attempt: 1, position, outcome }.encode();
        scene.say(ANN, ToRoom::Complete { tag, number: tag, completion });
        let told = format!("completed {number}: Done");
        assert_eq!(brief(&scene.heard(ANN)).last(), Some(&told));
        scene.say(ANN, ToRoom::Deregister { tag });
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

    /// Erases the stream in the document, and then in the archive, as a server does. Says how many
    /// events and commands that were.
    fn erase(&mut self) -> [u64; 2] {
        let StreamRef { aggregate, stream } = order();
        let what = Erasable::Stream { aggregate, stream };
        let (mut after, mut is_archive, mut all) = (ErasedUpTo::default(), false, [0, 0]);
        loop {
            let ask = Ask::Erase { what: what.clone(), after };
            let answer = if is_archive { self.ask_archive(ask) } else { self.ask(ask) };
            let Some(Answer::Erased(Ok(erased))) = answer else { panic!("{answer:?}") };
            all = [all[0] + erased.events, all[1] + erased.commands];
            match erased.next {
                Some(next) => after = next,
                None if is_archive => return all,
                None => (after, is_archive) = (ErasedUpTo::default(), true),
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

/// Goal: no file of a server has a byte of what was erased once its log is a day old, where most of
/// it had left the document, and with what was wanted of the stream. Method: what is said lies in
/// the page file and in the log, of the document and of its archive; all files are searched.
#[test]
fn no_byte_of_what_was_erased_is_left_in_an_archive_a_day_later() {
    let mut both = Both::new();
    both.scene.store_at(NOW_MS);
    assert_eq!(both.archive(), Some(COUNT));
    both.scene.store_at(NOW_MS + LOG_AGE_MS_MAX);
    assert!(both.scene.leaks(SECRET) > 0);
    // A key counts for a day.
    both.scene.room.set_time(1_000_000 + TASKS_LAST_MS);
    assert_eq!(both.erase(), [COUNT + 1, 1]);
    both.scene.store_at(NOW_MS + 2 * LOG_AGE_MS_MAX);
    assert_eq!(both.scene.leaks(SECRET), 0);
    assert!(both.scene.leaks("Babbage") > 0, "what else was said");
    let all: Vec<u64> = (1..=2 * COUNT + 2).collect();
    assert_eq!(both.told(), all, "all of them have their places");
}

/// Goal: a document of which the events leave, and which forgets its commands, grows no more, for
/// as long as more happens in it. Method: as many events and a command again and again, each time
/// when no former one is remembered.
#[test]
fn a_document_whose_events_leave_it_grows_no_more() {
    let mut both = Both::new();
    assert_eq!(both.archive(), Some(COUNT));
    let mut pages = Vec::new();
    for nth in 1..12 {
        both.happen(nth, &[("a", SECRET)]);
        assert_eq!(both.archive(), Some(COUNT + 1));
        pages.push(both.scene.export().len());
    }
    let (early, later) = pages.split_at(3);
    let largest = early.iter().max().expect("some");
    assert!(later.iter().all(|count| *count <= largest + largest / 10), "{pages:?}");
}
