mod presence;

use std::collections::BTreeMap;

use tidelog_client::{
    Call, Connection, Handle, Mutate, OpenRequest, Params, Query, Request, Status,
};
use tidelog_testing::client::{text, todos};
use tidelog_types::{CallId, Value};

use super::*;

/// Somebody's tab, and what its core has told it.
struct Tab {
    tab: TabId,
    device: DeviceId,
    calls: u32,
    status: Option<Status>,
    answers: BTreeMap<Call, Vec<FromCore>>,
    /// The ids of rejected mutations that it was told of besides.
    rejected: Vec<String>,
    /// How many it was told are present, and who else, by their keys: what they say.
    present: (u32, BTreeMap<u64, String>),
}

const HANDLE: Handle = Handle(1);

/// A world with tabs that open the document of everybody.
struct Stage {
    world: World,
    tabs: Vec<Tab>,
}

const ADA: usize = 0;
const BOB: usize = 1;

impl Stage {
    /// Two devices that are online.
    fn new() -> Self {
        let mut stage = Self { world: World::new(1_000_000, 7), tabs: Vec::new() };
        for _ in 0..2 {
            let device = stage.world.add_device();
            stage.open(device);
        }
        stage
    }

    fn open(&mut self, device: DeviceId) {
        let tab = self.world.connect(device);
        let (answers, rejected, present) = (BTreeMap::new(), Vec::new(), (1, BTreeMap::new()));
        self.tabs.push(Tab { tab, device, calls: 0, status: None, answers, rejected, present });
        let request = Request::Open(Box::new(OpenRequest {
            document: "list".to_owned(),
            user: String::new(),
            server: Some(ADDRESS.to_owned()),
            doctype: todos(),
            has_token: false,
            word: 0,
        }));
        let opener = self.tabs.len() - 1;
        self.ask(opener, request);
        self.world.hear(tab, vec![ToCore::ListenRejections { handle: HANDLE }]);
        self.run();
    }

    fn ask(&mut self, of: usize, request: Request) -> Call {
        let tab = &mut self.tabs[of];
        tab.calls += 1;
        let call = Call(tab.calls);
        self.world.hear(tab.tab, vec![ToCore::Ask { call, handle: HANDLE, request }]);
        self.run();
        call
    }

    fn add(&mut self, of: usize, id: &str, title: &str) -> Call {
        let args = vec![("id".to_owned(), text(id)), ("title".to_owned(), text(title))];
        let mut call_id = CallId([of as u8; 16]);
        call_id.0[..8].copy_from_slice(&u64::from(self.tabs[of].calls).to_be_bytes());
        let (name, now_ms) = ("add".to_owned(), self.world.now_ms());
        self.ask(of, Request::Mutate(Mutate { id: call_id, name, args, now_ms, again: None }))
    }

    /// Titles, and when they were added.
    fn list(&mut self, of: usize) -> Vec<Vec<Value>> {
        let sql = "select title, at from todo order by title".to_owned();
        let call = self.ask(of, Request::Query(Query { sql, params: Params::NONE }));
        match self.last_answer(of, call) {
            Some(FromCore::Rows { rows, .. }) => rows.decode(),
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self) {
        self.world.run();
        while let Some((to, messages)) = self.world.take_told() {
            self.world.hear(to, vec![ToCore::Heard { lists: 1 }]);
            let tab = self.tabs.iter_mut().find(|it| it.tab == to).expect("a tab of ours");
            for message in messages {
                match message {
                    FromCore::Status { status, .. } => tab.status = Some(status),
                    FromCore::RejectionNews { reason, .. } => tab.rejected.push(reason),
                    FromCore::Presence { count, keys, others, .. } => {
                        let (told, seen) = &mut tab.present;
                        *told = count;
                        let stays = |key: &u64| keys.as_ref().is_none_or(|it| it.contains(key));
                        seen.retain(|key, _| stays(key));
                        seen.extend(others.iter().map(|it| (it.key, it.state.to_string())));
                    }
                    message => {
                        let call =
                            message.call().expect("an answer: nobody has a token, or deletes");
                        tab.answers.entry(call).or_default().push(message);
                    }
                }
            }
            self.world.run();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.world.pass(ms);
        self.run();
    }

    fn set_online(&mut self, of: usize, is_online: bool) {
        let Tab { tab, device, .. } = self.tabs[of];
        self.world.set_online(device, is_online);
        if is_online {
            self.world.hear(tab, vec![ToCore::Nudge]);
        }
        self.run();
    }

    fn last_answer(&self, of: usize, call: Call) -> Option<&FromCore> {
        self.tabs[of].answers.get(&call)?.last()
    }

    fn status(&self, of: usize) -> &Status {
        self.tabs[of].status.as_ref().expect("it was told")
    }
}

fn titles(rows: &[Vec<Value>]) -> Vec<Value> {
    rows.iter().map(|row| row[0].clone()).collect()
}

#[test]
fn two_devices_that_are_online_are_in_step_and_no_time_passes() {
    let mut stage = Stage::new();
    let call = stage.add(ADA, "1", "milk");
    assert!(matches!(stage.last_answer(ADA, call), Some(FromCore::Confirmed { .. })));
    let list = stage.list(BOB);
    assert_eq!(list, [[text("milk"), Value::Integer(1_000_000)]]);
    assert_eq!(stage.list(ADA), list);
    assert_eq!(stage.world.now_ms(), 1_000_000);
    assert_eq!(stage.status(BOB).connection, Connection::Online);
}

#[test]
fn what_a_device_does_offline_comes_to_the_other_one_once_it_is_online() {
    let mut stage = Stage::new();
    stage.set_online(ADA, false);
    let call = stage.add(ADA, "1", "milk");
    assert!(matches!(stage.last_answer(ADA, call), Some(FromCore::Durable { .. })));
    stage.pass(60_000);
    assert_eq!((stage.status(ADA).pending, stage.list(BOB).len()), (1, 0));
    assert_eq!(stage.status(ADA).connection, Connection::Offline);

    stage.set_online(ADA, true);
    assert!(matches!(stage.last_answer(ADA, call), Some(FromCore::Confirmed { .. })));
    assert_eq!(titles(&stage.list(BOB)), [text("milk")]);
    assert_eq!(stage.status(ADA).pending, 0);
}

#[test]
fn of_two_mutations_that_do_not_go_together_the_later_one_is_rejected_and_told() {
    let mut stage = Stage::new();
    stage.set_online(ADA, false);
    let late = stage.add(ADA, "1", "milk");
    stage.add(BOB, "2", "milk");
    stage.set_online(ADA, true);
    let rejected = stage.last_answer(ADA, late);
    assert!(matches!(rejected, Some(FromCore::Rejected { .. })), "{rejected:?}");
    assert_eq!(stage.tabs[ADA].rejected.len(), 1);
    assert!(stage.tabs[ADA].rejected[0].contains("todo.title"), "{:?}", stage.tabs[ADA].rejected);
    assert_eq!(titles(&stage.list(ADA)), titles(&stage.list(BOB)));
}

#[test]
fn a_core_that_ends_with_its_last_tab_leaves_its_store_to_the_next() {
    let mut stage = Stage::new();
    stage.set_online(ADA, false);
    stage.add(ADA, "1", "milk");
    let Tab { tab, device, .. } = stage.tabs[ADA];
    stage.world.leave(tab);
    stage.open(device);
    let again = stage.tabs.len() - 1;
    assert_eq!(titles(&stage.list(again)), [text("milk")]);
    stage.set_online(again, true);
    assert_eq!(titles(&stage.list(BOB)), [text("milk")]);
}

#[test]
fn a_second_tab_shares_the_core_of_its_device() {
    let mut stage = Stage::new();
    stage.set_online(ADA, false);
    stage.add(ADA, "1", "milk");
    stage.open(stage.tabs[ADA].device);
    let second = stage.tabs.len() - 1;
    assert_eq!(titles(&stage.list(second)), [text("milk")]);
    stage.world.leave(stage.tabs[ADA].tab);
    stage.run();
    assert_eq!(titles(&stage.list(second)), [text("milk")]);
}

#[test]
fn a_connection_that_is_idle_for_a_day_is_kept_and_the_clock_stands_where_it_was_put() {
    let mut stage = Stage::new();
    stage.pass(24 * 3_600_000);
    assert_eq!(stage.world.now_ms(), 1_000_000 + 24 * 3_600_000);
    assert_eq!(stage.world.last_conn, 2, "nobody had to connect again");
    stage.add(ADA, "1", "milk");
    let at = i64::try_from(stage.world.now_ms()).expect("a small number");
    assert_eq!(stage.list(BOB), [[text("milk"), Value::Integer(at)]]);
}

#[test]
fn a_document_that_was_deleted_on_the_server_is_told_to_those_who_follow_it() {
    let mut stage = Stage::new();
    stage.add(ADA, "1", "milk");
    let list = DocumentKey::new("list", "").expect("a good name");
    assert!(stage.world.delete(&list));
    assert!(!stage.world.delete(&list));
    stage.pass(60_000);
    assert!(stage.status(BOB).error.is_some(), "{:?}", stage.status(BOB));
}

#[test]
fn worlds_of_one_seed_draw_the_same() {
    let drawn = |seed| {
        let mut world = World::new(0, seed);
        world.add_device();
        world.draw()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
