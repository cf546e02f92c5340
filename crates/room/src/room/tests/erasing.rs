//! What is erased at the word of whoever runs the server.

use tidelog_document::{
    AppendRefusal, AppendedEvent, CommandDefinition, CommandRef, Erasable, EraseRefusal, Erased,
    ErasedUpTo, EventDefinition, Intervention, Replay, Replayed, ReplayedTable, StreamDefinition,
    sending,
};
use tidelog_types::limits::LOG_AGE_MS_MAX;

use super::*;

pub(super) const SECRET: &str = "Lovelace";
pub(super) const NOW_MS: u64 = 20_000 * LOG_AGE_MS_MAX;

fn journal_of_notes() -> Doctype {
    let text = Param { name: "text".to_owned(), kind: ParamKind::Text, optional: false };
    let event = EventDefinition {
        name: "noted".to_owned(),
        fields: vec![text.clone()],
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "note".to_owned(),
        fields: vec![text.clone()],
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 60_000,
    };
    let insert = "insert into tidelog_events (aggregate, stream, type, data)
                  values ('note', :id, 'noted', json_object('text', :text))";
    let id = Param { name: "id".to_owned(), ..text.clone() };
    let mut doctype = notes();
    doctype.mutations.push(MutationDefinition {
        name: "note".to_owned(),
        params: vec![id, text],
        sql: vec![insert.to_owned()],
    });
    let (name, events, commands) = ("note".to_owned(), vec![event], vec![command]);
    doctype.streams.push(StreamDefinition { name, events, commands });
    doctype
}

fn note(id: &str, said: &str) -> WireFrame {
    frame(&journal_of_notes(), "note", &[("id", id), ("text", said)])
}

/// A row that follows from no event.
fn add() -> WireFrame {
    frame(&journal_of_notes(), "add", &[("id", "n"), ("body", "")])
}

fn send(id: &str) -> WireFrame {
    let name = sending("note", "note");
    let args = format!("{{\"text\":\"{SECRET}\"}}");
    frame(&journal_of_notes(), &name, &[("stream", id), ("args", &args), ("key", "k")])
}

/// The first event of a stream.
fn append(id: &str) -> Ask {
    let event = AppendedEvent {
        aggregate: "note".to_owned(),
        stream: id.to_owned(),
        name: "noted".to_owned(),
        data: r#"{"text":"appended"}"#.to_owned(),
        version: None,
        time_ms: None,
        user: None,
        position: Some(1),
    };
    Ask::Append { events: [event].into(), by: "root".to_owned() }
}

fn replay(is_dry: bool) -> Ask {
    let (aggregate, tables) = ("note".to_owned(), vec!["note".to_owned()]);
    Ask::Replay(Replay { aggregate, tables, is_dry }.into())
}

fn erase(id: &str) -> Ask {
    let what = Erasable::Stream { aggregate: "note".to_owned(), stream: id.to_owned() };
    Ask::Erase { what, after: ErasedUpTo::default() }
}

impl Scene {
    fn with_notes() -> Self {
        let mut scene = Self::new();
        scene.room.set_time(NOW_MS);
        scene.open_as(ANN, &journal_of_notes(), None, Intent::Follow);
        scene.heard(ANN);
        scene
    }

    /// What files of the store have it.
    pub(super) fn leaks(&self, text: &str) -> usize {
        let files = StoreFiles::<()>::NAMES.into_iter().filter_map(|it| self.device.bytes_of(it));
        let has = |bytes: &Vec<u8>| bytes.windows(text.len()).any(|it| it == text.as_bytes());
        files.filter(has).count()
    }

    pub(super) fn store_at(&mut self, now_ms: u64) {
        self.store.set_time(now_ms);
        while self.store.wants_poll() {
            assert_eq!(self.store.poll(), [], "nobody waits");
        }
    }
}

/// Goal: the answer is told once what was erased is durable, and behind the entry that erases it at
/// those who follow.
#[test]
fn erasing_is_an_entry_and_answered_once_that_is_durable() {
    let mut scene = Scene::with_notes();
    scene.frames(ANN, 1, vec![note("a", SECRET), note("b", "Babbage")]);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.step(RoomInput::Ask { request: 1, ask: erase("a") });
    assert_eq!((scene.answers.len(), scene.heard(ANN).len()), (0, 0), "not before it is durable");
    scene.release();
    let erased = Erased { events: 1, ..Erased::default() };
    assert_eq!(scene.answers.pop(), Some(Answer::Erased(Ok(erased))));
    assert_eq!(brief(&scene.heard(ANN)), ["entry 4..5"]);
    let again = scene.ask(erase("a"));
    assert_eq!(again, Answer::Erased(Ok(Erased::default())));
    assert_eq!(brief(&scene.heard(ANN)), [""; 0], "nothing has changed");
    assert_eq!(scene.ask(erase("c")), Answer::Erased(Err(EraseRefusal::Unknown)));
}

#[test]
fn what_was_asked_is_unknown_where_the_store_fails_amid_it() {
    let cancel = Intervention::Cancel { reason: "no".to_owned() };
    let asks = [
        (erase("a"), true),
        (append("c"), true),
        (Ask::Upcast { aggregate: None, after: 0 }, true),
        (replay(false), true),
        (replay(true), false),
        (Ask::Intervene(CommandRef::Number(1), cancel), true),
        // It has done nothing.
        (Ask::Intervene(CommandRef::Number(2), Intervention::Retry), false),
    ];
    for (ask, is_in_doubt) in asks {
        let mut scene = Scene::with_notes();
        let frames = vec![note("a", SECRET), send("b"), add()];
        scene.frames(ANN, 1, frames);
        // What was noted is of an older version from now on.
        let mut newer = journal_of_notes();
        newer.streams[0].events[0].upcasts = vec![":data".to_owned()];
        scene.open_as(BOB, &newer, None, Intent::Follow);
        scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
        scene.step(RoomInput::Ask { request: 1, ask: ask.clone() });
        scene.held.clear();
        let reason = "unplugged".to_owned();
        let broken = StoreReply::Broken { error: AppendError::Device { reason } };
        scene.step(RoomInput::Store(broken));
        let answer = scene.answers.pop();
        let is_unknown = matches!(answer, Some(Answer::Unknown { .. }));
        assert_eq!(is_unknown, is_in_doubt, "{ask:?}: {answer:?}");
    }
}

/// Goal: what is recorded at a word is an entry, and answered once that is durable.
#[test]
fn recording_events_is_an_entry_and_answered_once_that_is_durable() {
    let mut scene = Scene::with_notes();
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.step(RoomInput::Ask { request: 1, ask: append("a") });
    assert_eq!((scene.answers.len(), scene.heard(ANN).len()), (0, 0), "not before it is durable");
    scene.release();
    assert_eq!(scene.answers.pop(), Some(Answer::Appended(Ok(1))));
    assert_eq!(brief(&scene.heard(ANN)), ["entry 2..3"]);
    let misplaced = AppendRefusal::Misplaced { nth: 0, length: 1 };
    assert_eq!(scene.ask(append("a")), Answer::Appended(Err(misplaced)));
    assert_eq!(brief(&scene.heard(ANN)), [""; 0], "nothing has changed");
}

/// Goal: what is made anew is one entry, answered once that is durable, and a dry run is none.
/// Method: a row that a mutation has added follows from no event.
#[test]
fn replaying_is_an_entry_and_answered_once_that_is_durable() {
    let mut scene = Scene::with_notes();
    scene.frames(ANN, 1, vec![add(), note("a", "b")]);
    let table = ReplayedTable { name: "note".to_owned(), rows_before: 1, rows_after: 0 };
    let replayed = |is_dry| {
        let tables = vec![table.clone()];
        Answer::Replayed(Ok(Replayed { events: 1, erased: 0, tables, is_dry }))
    };
    scene.heard(ANN);
    assert_eq!(scene.ask(replay(true)), replayed(true));
    assert_eq!(brief(&scene.heard(ANN)), [""; 0], "nothing has changed");
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.step(RoomInput::Ask { request: 1, ask: replay(false) });
    assert_eq!((scene.answers.len(), scene.heard(ANN).len()), (0, 0), "not before it is durable");
    scene.release();
    assert_eq!(scene.answers.pop(), Some(replayed(false)));
    assert_eq!(brief(&scene.heard(ANN)), ["entry 4..5"]);
}

#[test]
fn nothing_is_erased_while_a_command_is_not_over() {
    let mut scene = Scene::with_notes();
    scene.frames(ANN, 1, vec![send("a")]);
    let unfinished = EraseRefusal::Unfinished { number: 1 };
    assert_eq!(scene.ask(erase("a")), Answer::Erased(Err(unfinished)));
}

#[test]
fn a_document_that_is_not_there_has_nothing_to_erase() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(erase("a")), Answer::Missing);
    scene.open(ANN, None);
    assert_eq!(scene.ask(erase("a")), Answer::Erased(Err(EraseRefusal::HasNone)));
}

/// Goal: no file of a server has a byte of what was erased once its log is a day old. Method: what
/// is said lies in the page file and in the log, is erased, and all files are searched.
#[test]
fn a_server_has_no_byte_of_what_was_erased_a_day_later() {
    let mut scene = Scene::with_notes();
    scene.store_at(NOW_MS);
    for size in [1, 100, 1000, 5000] {
        let first = 1 + 2 * [1, 100, 1000, 5000].iter().position(|it| *it == size).unwrap() as u64;
        let (said, other) = (format!("{SECRET} ").repeat(size), "Babbage ".repeat(size));
        scene.frames(ANN, first, vec![note("a", &said), note("b", &other)]);
        if size == 100 {
            scene.store_at(NOW_MS + LOG_AGE_MS_MAX);
        }
    }
    assert_eq!(scene.leaks(SECRET), 2, "in the log and in the page file");
    let erased = Erased { events: 4, ..Erased::default() };
    assert_eq!(scene.ask(erase("a")), Answer::Erased(Ok(erased)));
    scene.store_at(NOW_MS + 2 * LOG_AGE_MS_MAX - 1);
    assert_eq!(scene.leaks(SECRET), 2, "until its log is changed over");
    scene.store_at(NOW_MS + 2 * LOG_AGE_MS_MAX);
    assert_eq!(scene.leaks(SECRET), 0);
    assert!(scene.leaks("Babbage") > 0);
    scene.restart();
    assert_eq!(scene.leaks(SECRET), 0);
}
