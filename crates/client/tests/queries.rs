//! Queries, budgets and live queries.

use tidelog_client::{
    Call, ClientSettings, FromCore, Input, Mutate, Query, Request, Stopwatch, TimeLeft, ToCore,
};
use tidelog_testing::client::core::Core;
use tidelog_testing::client::server::{Server, online, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, ErrorCode, Params};

const X: &str = "ws://x";

fn open() -> Device {
    let mut device = Device::new(1);
    device.open(&todos());
    titled(&mut device, "a", "first");
    device
}

fn rows_told(device: &Device, call: tidelog_client::Call) -> usize {
    device.answers(call).len()
}

#[test]
fn an_endless_query_ends_and_the_next_one_is_answered() {
    let mut device = open();
    let endless = "with recursive c(n) as (select 1 union all select n + 1 from c)
                   select count(*) from c";
    let failure = device.try_query(endless).expect_err("it has no end");
    assert_eq!(failure.code, ErrorCode::BudgetExceeded);
    assert_eq!(device.query("select id from todo"), [[text("a")]]);
}

/// Says that whatever it measures has taken too long.
#[derive(Debug)]
struct Over;

impl Stopwatch for Over {
    fn start(&self) {}

    fn time_left(&self) -> TimeLeft {
        TimeLeft::NoneEver
    }
}

/// Goal: a query that takes too long ends, and no clock has a word in what becomes of a mutation.
/// Method: all that is measured has.
#[test]
fn a_query_has_a_budget_of_time_and_a_mutation_has_none() {
    let settings = ClientSettings { query_stopwatch: Some(&Over), ..ClientSettings::default() };
    let mut core = Core::with_settings(settings);
    core.open_new(Call(1), HANDLE, "list", None);
    let args = ["id", "title"].map(|name| (name.to_owned(), text("milk"))).to_vec();
    let (id, name) = (call_id(Call(2)), "add".to_owned());
    let mutate = Mutate { id, name, args, now_ms: 1_000, again: None };
    core.ask(Call(2), HANDLE, Request::Mutate(mutate));
    assert_eq!(core.failure_of(Call(2)), None);
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    let query = Query { sql, params };
    for (call, request) in
        [(Call(3), Request::Query(query.clone())), (Call(4), Request::Watch(query))]
    {
        core.ask(call, HANDLE, request);
        let failure = core.failure_of(call).expect("it is told");
        assert_eq!(failure.code, ErrorCode::BudgetExceeded);
    }
}

#[test]
fn an_endless_mutation_is_rejected_and_leaves_nothing() {
    let mut device = open();
    let endless = device.mutate("endless", &[]);
    assert!(device.failure(endless).message.contains("over the budget"));
    assert_eq!(device.query("select count(*) from note"), [[integer(0)]]);
    let after = device.mutate("note", &[("title", text("x"))]);
    assert!(device.fate(after).contains("confirmed"));
}

#[test]
fn wrong_queries_and_mutations_fail_with_their_codes() {
    let mut device = open();
    let code = |device: &mut Device, sql: &str| device.try_query(sql).expect_err(sql).code;
    assert_eq!(code(&mut device, "delete from todo"), ErrorCode::ReadOnly);
    assert_eq!(code(&mut device, "select nothing from todo"), ErrorCode::Query);
    assert_eq!(code(&mut device, "select 1; select 2"), ErrorCode::Query);
    assert_eq!(code(&mut device, "select * from _tidelog_meta"), ErrorCode::Query);

    let unknown = device.mutate("nothing", &[]);
    assert_eq!(device.code(unknown), ErrorCode::UnknownMutation);
    let missing = device.mutate("add", &[("id", text("b"))]);
    assert_eq!(device.code(missing), ErrorCode::MutationArgument);
    let wrong = device.mutate("remove", &[("id", integer(1))]);
    assert_eq!(device.code(wrong), ErrorCode::MutationArgument);
    let rejected = device.mutate("remove", &[("id", text("nobody"))]);
    assert_eq!(device.failure(rejected).reason.as_deref(), Some("no such todo"));
    assert_eq!(device.query("select count(*) from todo"), [[integer(1)]]);
}

#[test]
fn a_doctype_that_cannot_work_is_refused_at_open_and_nothing_is_made() {
    let mut device = Device::new(1);
    let mut broken = todos();
    broken.mutations[0].sql = vec!["insert into todo values (:id, :title, 0, random())".to_owned()];
    let refused = device.start_open(TAB, None, &broken);
    assert_eq!(device.code(refused), ErrorCode::Doctype);
    assert_eq!(device.appends(), 0);
    device.open(&todos());
}

#[test]
fn a_watch_runs_again_only_when_a_page_that_it_read_has_changed() {
    let mut device = open();
    // It says something else each time that it runs.
    let todos = device.watch("select count(*), random() from todo");
    let notes = device.watch("select count(*), random() from note");
    assert_eq!((rows_told(&device, todos), rows_told(&device, notes)), (1, 1));
    for _ in 0..5 {
        device.mutate("note", &[("title", text("x"))]);
    }
    assert_eq!((rows_told(&device, todos), rows_told(&device, notes)), (1, 6));
    titled(&mut device, "b", "second");
    assert_eq!((rows_told(&device, todos), rows_told(&device, notes)), (2, 6));
}

#[test]
fn a_watch_tells_rows_that_are_others_than_before_and_nothing_once_it_is_stopped() {
    let mut device = open();
    let count = device.watch("select count(*) from todo");
    device.mutate("toggle", &[("id", text("a"))]);
    assert_eq!(rows_told(&device, count), 1, "the same rows");
    titled(&mut device, "b", "second");
    assert_eq!(rows_told(&device, count), 2);
    device.ask(TAB, vec![ToCore::GiveUp { call: count }]);
    titled(&mut device, "c", "third");
    assert_eq!(rows_told(&device, count), 2);
}

#[test]
fn a_watch_that_fails_says_so_and_goes_on_once_it_can() {
    let mut device = open();
    let stars = device.watch("select star from todo");
    assert!(matches!(device.answer(stars), FromCore::Failed { .. }));
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    let opened = device.start_open(OTHER_TAB, None, &newer);
    device.opened(opened);
    let answers = device.answers(stars);
    assert!(matches!(answers[1], FromCore::Rows { rows, .. } if rows.count == 1), "{answers:?}");
}

/// Goal: what one document has to do keeps no other waiting for long. Method: two requests in one
/// message, each of which takes all steps that it may, far more than a step of the core.
#[test]
fn requests_that_take_long_are_carried_out_in_steps_of_their_own() {
    for server in [None, Some("https://one.example")] {
        let limits = Limits {
            statement_steps_max: 200_000,
            slice: BudgetLimits { steps: 100_000, ..Limits::DEFAULT.slice },
            ..Limits::DEFAULT
        };
        let mut core = Core::with_limits(limits);
        core.open_new(Call(1), HANDLE, "list", server);
        let endless = |call| {
            let (id, name, args) = (call_id(call), "endless".to_owned(), Vec::new());
            Request::Mutate(Mutate { id, name, args, now_ms: 1_000, again: None })
        };
        let query = |_| {
            let sql = "with recursive c (n) as (select 1 union all select n + 1 from c)
                       select n from c where n < 0";
            Request::Query(Query { sql: sql.to_owned(), params: Params::Positional(Vec::new()) })
        };
        let kinds: [&dyn Fn(Call) -> Request; 2] = [&endless, &query];
        for (request, first) in kinds.into_iter().zip([2, 4]) {
            let calls = [Call(first), Call(first + 1)];
            let ask = |call| ToCore::Ask { call, handle: HANDLE, request: request(call) };
            core.step(Input::FromTab { tab: TAB, messages: calls.map(ask).to_vec() });
            let failed = |core: &Core| calls.map(|call| core.has_failed(call));
            assert_eq!(failed(&core), [true, false], "one in a step");
            core.pass(0);
            assert_eq!(failed(&core), [true, true]);
        }
    }
}

/// Goal: whoever reads why a query failed finds it in the app, and a long one fills no message.
#[test]
fn a_query_that_fails_is_quoted_from_its_beginning() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", None);
    for (call, sql, quoted) in [
        (Call(2), "select\n  nope".to_owned(), ": select nope".to_owned()),
        (Call(3), format!("selec {}", "é".repeat(500)), format!(": selec {}…", "é".repeat(114))),
    ] {
        let params = Params::NONE;
        core.ask(call, HANDLE, Request::Query(Query { sql, params }));
        let failure = core.failure_of(call).expect("it fails");
        assert!(failure.message.ends_with(&quoted), "{}", failure.message);
    }
}

/// Goal: no live query waits for another one that has to run again and again. Method: a slice ends
/// with the run of one of three, and by the next one all of them have to run again.
#[test]
fn live_queries_take_turns() {
    let slice = BudgetLimits { pages: 1_000, steps: 9_000, bytes: 1_000_000 };
    let mut core = Core::with_limits(Limits { slice, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let watches = [Call(2), Call(3), Call(4)];
    for call in watches {
        let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
        core.ask(call, HANDLE, Request::Watch(Query { sql, params }));
    }
    let told = |core: &Core, watch: Call| {
        let is_its = |it: &&FromCore| matches!(it, FromCore::Rows { call, .. } if *call == watch);
        core.told.iter().filter(is_its).count()
    };
    assert_eq!(watches.map(|call| told(&core, call)), [1; 3]);
    for call in 10..16 {
        core.add(Call(call), &call.to_string());
    }
    assert_eq!(watches.map(|call| told(&core, call)), [3; 3]);
}

/// Goal: requests without end keep no live query waiting. Method: tabs ask so much at once that it
/// takes many slices, behind a mutation that a live query shows.
#[test]
fn a_live_query_does_not_wait_until_nobody_asks_anything() {
    let slice = BudgetLimits { steps: 9_000, ..Limits::DEFAULT.slice };
    let mut core = Core::with_limits(Limits { slice, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let query = || {
        let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
        Query { sql, params }
    };
    core.ask(Call(2), HANDLE, Request::Watch(query()));
    let told = |core: &Core, asked: Call| {
        let is_its = |it: &&FromCore| matches!(it, FromCore::Rows { call, .. } if *call == asked);
        core.told.iter().filter(is_its).count()
    };
    let add = Mutate {
        id: call_id(Call(3)),
        name: "add".to_owned(),
        args: vec![("id".to_owned(), text("a")), ("title".to_owned(), text("first"))],
        now_ms: 1_000,
        again: None,
    };
    let mut requests =
        vec![ToCore::Ask { call: Call(3), handle: HANDLE, request: Request::Mutate(add) }];
    requests.extend((4..40).map(|call| ToCore::Ask {
        call: Call(call),
        handle: HANDLE,
        request: Request::Query(query()),
    }));
    core.step(Input::FromTab { tab: TAB, messages: requests });
    while told(&core, Call(2)) < 2 {
        assert!(core.wakes_now(), "it waits for something else");
        core.pass(0);
    }
    assert_eq!(told(&core, Call(39)), 0, "others asked all the while");
}

/// Goal: nor does it wait until the server has nothing new. Method: there is always something new
/// whenever the core looks at requests, which are ever more.
#[test]
fn a_live_query_does_not_wait_until_nobody_asks_and_nobody_writes_anything() {
    let slice = BudgetLimits { steps: 100_000, ..Limits::DEFAULT.slice };
    let mut core = Core::with_limits(Limits { slice, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let count = || {
        let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
        Query { sql, params }
    };
    let told = |core: &Core, asked: Call| {
        let is_its = |it: &&FromCore| matches!(it, FromCore::Rows { call, .. } if *call == asked);
        core.told.iter().filter(is_its).count()
    };
    let mut last = Call(2);
    for round in 0..20 {
        add(&mut other, &round.to_string());
        talk(&mut server, &mut [&mut other]);
        for (_, message) in std::mem::take(&mut core.sent) {
            server.hear(1, message).iter().for_each(|answer| core.hear(X, answer));
        }
        server.news(1).iter().for_each(|news| core.hear(X, news));
        if round == 0 {
            core.ask(Call(2), HANDLE, Request::Watch(count()));
        }
        let calls = (last.0 + 1..).take(100).map(Call);
        let ask = |call| ToCore::Ask { call, handle: HANDLE, request: Request::Query(count()) };
        let messages = calls.map(ask).collect();
        core.step(Input::FromTab { tab: TAB, messages });
        assert_eq!(told(&core, Call(last.0 + 100)), 0, "others asked all the while");
        last = Call(last.0 + 100);
    }
    assert!(told(&core, Call(2)) > 5, "it was told {} times", told(&core, Call(2)));
}

/// Goal: whoever hands a document over, which can take as long as the line needs, stops no query of
/// the others. Method: another tab does, to a server that says nothing for a while, with all pages
/// in memory or none. What a tab has asked before its query is done before it.
#[test]
fn a_query_does_not_wait_until_the_document_is_handed_over() {
    for pool_pages_max in [0, 100] {
        let mut server = Server::default();
        let mut device = Device::with_pool(1, pool_pages_max);
        device.open(&todos());
        titled(&mut device, "a", "first");
        device.server_is_up = true;
        let offer = device.start_open(OTHER_TAB, Some(SERVER), &todos());
        assert_eq!(device.query("select id from todo"), [[text("a")]]);
        let live = device.watch("select count(*) from todo");
        assert_eq!(rows_told(&device, live), 1);
        assert!(device.try_query("select nonsense").is_err());

        let args = [("id", text("b")), ("title", text("second"))];
        let (added, message) = device.mutation("add", &args);
        let (count, query) = device.query_message("select count(*) from todo");
        device.ask(TAB, vec![message, query]);
        assert_eq!(device.fate(added), "", "what is handed over stays as it is");
        assert_eq!(rows_told(&device, count), 0, "it sees what its tab did before");
        assert!(device.answers(offer).is_empty());
        talk(&mut server, &mut [&mut device]);
        device.opened(offer);
        assert_eq!(rows_told(&device, count), 1);
        assert_eq!(device.query("select id from todo order by id"), [[text("a")], [text("b")]]);
        assert!(device.fate(added).starts_with("durable"), "{}", device.fate(added));
    }
}

/// The same where a core has just started. Method: the tabs come back to the next one, and the one
/// that hands the document over is there before the other one's query.
#[test]
fn a_query_does_not_wait_for_a_hand_over_that_a_core_begins_with() {
    for pool_pages_max in [0, 100] {
        let mut server = Server::default();
        let mut device = Device::with_pool(1, pool_pages_max);
        device.open(&todos());
        titled(&mut device, "a", "first");
        device.kill_core();
        device.server_is_up = true;
        device.open(&todos());
        let offer = device.start_open(OTHER_TAB, Some(SERVER), &todos());
        assert_eq!(device.query("select id from todo"), [[text("a")]]);
        assert!(device.answers(offer).is_empty());
        talk(&mut server, &mut [&mut device]);
        device.opened(offer);
    }
}
