//! The copies of all documents of a user, that somebody wants gone.

use tidelog_client::{
    Call, FromCore, Handle, Input, Mutate, OpenRequest, PageServerFailure, PageServerId, Params,
    Query, Request, TabId, ToCore,
};
use tidelog_pages::{StoreReply, StoreRequest};
use tidelog_testing::client::core::{Core, key};
use tidelog_testing::client::*;
use tidelog_types::limits::CALL_SETTLES_MS;
use tidelog_types::{DocumentKey, ErrorCode, Life, Outcome, UnservedKind, Value};

/// A document of a user that a tab has open by this handle.
struct Copy {
    handle: Handle,
    document: &'static str,
    user: &'static str,
}

const ADAS_LIST: Copy = Copy { handle: Handle(11), document: "list", user: "ada" };
const ADAS_NOTES: Copy = Copy { handle: Handle(12), document: "notes", user: "ada" };
const BENS_LIST: Copy = Copy { handle: Handle(13), document: "list", user: "ben" };
const OWN_LIST: Copy = Copy { handle: Handle(14), document: "list", user: "" };
const ALL: [&Copy; 4] = [&ADAS_LIST, &ADAS_NOTES, &BENS_LIST, &OWN_LIST];

fn ask(device: &mut Device, tab: TabId, copy: &Copy, request: Request) -> Call {
    let call = device.next_call();
    device.ask(tab, vec![ToCore::Ask { call, handle: copy.handle, request }]);
    call
}

#[track_caller]
fn open(device: &mut Device, tab: TabId, copy: &Copy, server: Option<&str>) {
    let request = Request::Open(Box::new(OpenRequest {
        document: copy.document.to_owned(),
        user: copy.user.to_owned(),
        server: server.map(str::to_owned),
        doctype: todos(),
        has_token: false,
        word: 0,
    }));
    let call = ask(device, tab, copy, request);
    device.opened(call);
}

fn close(device: &mut Device, tab: TabId, copy: &Copy) {
    ask(device, tab, copy, Request::Close);
}

fn add_to(device: &mut Device, copy: &Copy) {
    let id = call_id(device.next_call());
    let args = [("id", "milk"), ("title", "milk")];
    let args = args.map(|(name, value)| (name.to_owned(), text(value))).to_vec();
    let now_ms = device.now_ms;
    let mutate = Mutate { id, name: "add".to_owned(), args, now_ms, again: None };
    let call = ask(device, TAB, copy, Request::Mutate(mutate));
    assert!(device.fate(call).starts_with("durable"), "{}", device.fate(call));
}

/// How many rows it has, opened anew and closed again.
#[track_caller]
fn rows(device: &mut Device, copy: &Copy) -> Value {
    open(device, TAB, copy, None);
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    let call = ask(device, TAB, copy, Request::Query(Query { sql, params }));
    let rows = device.rows_told(call);
    close(device, TAB, copy);
    rows[0][0][0].clone()
}

/// Two documents of a user, one of another, and one of the device, with a row in each; all are
/// closed, and a core that has never heard of them is there.
fn filled() -> Device {
    let mut device = Device::new(1);
    for copy in ALL {
        open(&mut device, TAB, copy, None);
        add_to(&mut device, copy);
        close(&mut device, TAB, copy);
    }
    device.kill_core();
    device
}

fn destroy(device: &mut Device, user: &str, (force, everywhere): (bool, bool)) -> Call {
    let call = device.next_call();
    let (document, user) = (None, user.to_owned());
    device.ask(OTHER_TAB, vec![ToCore::Destroy { call, document, user, force, everywhere }]);
    call
}

#[track_caller]
fn is_done(device: &Device, call: Call) {
    assert!(matches!(device.answer(call), FromCore::Done { .. }), "{:?}", device.answer(call));
}

fn told_to_close(device: &Device) -> Vec<(TabId, Handle)> {
    let wanted = device.told.iter().filter_map(|(tab, it)| match it {
        FromCore::CloseWanted { handle } => Some((*tab, *handle)),
        _ => None,
    });
    wanted.collect()
}

#[test]
fn a_users_copies_are_destroyed_and_those_of_others_stay() {
    let mut device = filled();
    let destroyed = destroy(&mut device, "ada", (false, false));
    is_done(&device, destroyed);
    device.cut_power();
    let left = ALL.map(|copy| rows(&mut device, copy));
    assert_eq!(left, [0, 0, 1, 1].map(integer));

    let destroyed = destroy(&mut device, "", (false, false));
    is_done(&device, destroyed);
    assert_eq!(rows(&mut device, &OWN_LIST), integer(0), "the device's own are those of nobody");
    assert_eq!(rows(&mut device, &BENS_LIST), integer(1));
}

#[test]
fn a_user_without_copies_has_none_to_destroy() {
    let mut device = filled();
    let destroyed = destroy(&mut device, "mallory", (false, false));
    is_done(&device, destroyed);
    assert_eq!(ALL.map(|copy| rows(&mut device, copy)), [1, 1, 1, 1].map(integer));
    let refused = destroy(&mut device, "a\nb", (true, true));
    assert_eq!(device.code(refused), ErrorCode::InvalidOption);
}

/// Goal: who is refused has lost nothing. Method: one of two copies has a mutation that its server
/// has not seen; a tab has the other one open, and is not told to close it for nothing.
#[test]
fn none_of_a_users_copies_goes_while_mutations_of_one_are_pending_unless_by_force() {
    let mut device = filled();
    let pending = Copy { handle: Handle(15), document: "shared", user: "ada" };
    open(&mut device, TAB, &pending, Some(SERVER));
    add_to(&mut device, &pending);
    close(&mut device, TAB, &pending);
    open(&mut device, TAB, &ADAS_LIST, None);
    for everywhere in [false, true] {
        let refused = destroy(&mut device, "ada", (false, everywhere));
        let failure = device.failure(refused);
        assert_eq!((failure.code, failure.outcome), (ErrorCode::Pending, Outcome::None));
        assert!(failure.message.contains("shared"), "{}", failure.message);
    }
    assert_eq!(told_to_close(&device), []);
    close(&mut device, TAB, &ADAS_LIST);
    let mut left = || [&ADAS_LIST, &ADAS_NOTES, &pending].map(|copy| rows(&mut device, copy));
    assert_eq!(left(), [1, 1, 1].map(integer));
    let destroyed = destroy(&mut device, "ada", (true, false));
    is_done(&device, destroyed);
    assert_eq!(rows(&mut device, &ADAS_LIST), integer(0));
    assert_eq!(rows(&mut device, &BENS_LIST), integer(1));
}

#[test]
fn none_of_a_users_copies_goes_while_a_tab_has_one_open() {
    let mut device = filled();
    open(&mut device, TAB, &ADAS_NOTES, None);
    let refused = destroy(&mut device, "ada", (true, false));
    assert_eq!(device.code(refused), ErrorCode::DocumentInUse);
    let refused = destroy(&mut device, "ada", (true, true));
    assert_eq!(told_to_close(&device), [(TAB, ADAS_NOTES.handle)]);
    device.pass(CALL_SETTLES_MS / 2);
    assert_eq!(device.code(refused), ErrorCode::DocumentInUse, "it did not close it");
    close(&mut device, TAB, &ADAS_NOTES);
    device.pass(CALL_SETTLES_MS);
    assert_eq!(ALL.map(|copy| rows(&mut device, copy)), [1, 1, 1, 1].map(integer));
}

#[test]
fn a_users_copies_are_destroyed_everywhere_once_all_tabs_have_closed_them() {
    let mut device = filled();
    open(&mut device, TAB, &ADAS_LIST, None);
    open(&mut device, OTHER_TAB, &ADAS_NOTES, None);
    open(&mut device, TAB, &BENS_LIST, None);
    let destroyed = destroy(&mut device, "ada", (false, true));
    let of_ada = [(TAB, ADAS_LIST.handle), (OTHER_TAB, ADAS_NOTES.handle)];
    assert_eq!(told_to_close(&device), of_ada, "and nobody who has another user's open");
    close(&mut device, TAB, &ADAS_LIST);
    assert!(device.answers(destroyed).is_empty(), "a tab holds the other one still");
    close(&mut device, OTHER_TAB, &ADAS_NOTES);
    is_done(&device, destroyed);
    close(&mut device, TAB, &BENS_LIST);
    assert_eq!(ALL.map(|copy| rows(&mut device, copy)), [0, 0, 1, 1].map(integer));
}

/// Goal: nobody waits for ever who asks as a page server goes. Method: it goes before it has said
/// which copies there are, and another one comes; or none can.
#[test]
fn the_next_page_server_is_asked_which_copies_there_are() {
    let mut device = filled();
    device.holds_replies = true;
    let destroyed = destroy(&mut device, "ada", (false, false));
    assert!(device.answers(destroyed).is_empty());
    device.lose_page_server();
    device.holds_replies = false;
    device.lend();
    while device.let_reply_through() {}
    is_done(&device, destroyed);

    device.lose_page_server();
    let waiting = destroy(&mut device, "ben", (false, false));
    let failure = PageServerFailure::new(UnservedKind::NewerFormat, "");
    device.step(Input::PageServerFailed { server: PageServerId(9), failure });
    assert_eq!(device.code(waiting), ErrorCode::NewerFormat);
    device.lend();
    assert_eq!(ALL.map(|copy| rows(&mut device, copy)), [0, 0, 1, 1].map(integer));
}

/// Goal: whoever waits no longer loses nothing after that. Method: it is given up before the store
/// has said which copies there are.
#[test]
fn what_was_given_up_destroys_no_copy() {
    let mut device = filled();
    device.holds_replies = true;
    let call = destroy(&mut device, "ada", (true, true));
    device.ask(OTHER_TAB, vec![ToCore::GiveUp { call }]);
    device.holds_replies = false;
    while device.let_reply_through() {}
    device.pass(CALL_SETTLES_MS);
    assert_eq!(ALL.map(|copy| rows(&mut device, copy)), [1, 1, 1, 1].map(integer));
}

/// Goal: a copy that is begun as a user's are destroyed is one of them. Method: a tab opens one
/// once the store has been asked, and before it has answered.
#[test]
fn a_copy_that_was_begun_since_the_store_was_asked_counts() {
    let mut core = Core::open();
    core.ask(Call(2), HANDLE, Request::Close);
    let listing = destroy_all(&mut core, Call(3));
    core.ask_to_open(OTHER_TAB, Call(4), HANDLE, "begun", None);
    core.reply(StoreReply::Documents { request: listing, documents: vec![key("list")] });
    for name in ["begun", "list"] {
        core.reply(StoreReply::Opened { document: key(name), life: Life::NONE, state: None });
    }
    let failure = core.failure_of(Call(3)).expect("a tab has one open");
    assert_eq!(failure.code, ErrorCode::DocumentInUse);
    assert_eq!(destroyed_of(&core), []);
}

/// Goal: nobody is told that nothing is gone while something may be. Method: of two copies the disk
/// cannot destroy one.
#[test]
fn of_copies_that_could_not_all_be_destroyed_nothing_is_known() {
    let mut core = Core::open();
    core.ask(Call(2), HANDLE, Request::Close);
    let request = destroy_all(&mut core, Call(3));
    let documents = vec![key("list"), key("notes")];
    core.reply(StoreReply::Documents { request, documents: documents.clone() });
    for document in documents.clone() {
        core.reply(StoreReply::Opened { document, life: Life::NONE, state: None });
    }
    assert_eq!(destroyed_of(&core), documents);
    core.fail(core.last_destroy());
    let failure = core.failure_of(Call(3)).expect("it has failed");
    assert_eq!((failure.code, failure.outcome), (ErrorCode::StorageFull, Outcome::Unknown));
    assert!(failure.message.contains("may be gone"), "{}", failure.message);
}

/// Goal: copies that were only looked at, and stay, are kept in memory no longer. Method: a tab has
/// one of three open, or gives up before the last one was looked at; then it opens the first, which
/// is read from the store.
#[test]
fn copies_that_are_not_destroyed_after_all_are_let_go_of() {
    for gives_up in [false, true] {
        let mut core = Core::open();
        let request = destroy_all(&mut core, Call(2));
        let documents = ["list", "notes", "plans"].map(key).to_vec();
        core.reply(StoreReply::Documents { request, documents });
        core.reply(StoreReply::Opened { document: key("notes"), life: Life::NONE, state: None });
        if gives_up {
            core.say(ToCore::GiveUp { call: Call(2) });
        }
        core.reply(StoreReply::Opened { document: key("plans"), life: Life::NONE, state: None });
        assert_eq!(core.has_failed(Call(2)), !gives_up);
        let opens = core.opens();
        core.ask_to_open(TAB, Call(3), Handle(2), "notes", None);
        assert_eq!(core.opens(), opens + 1, "{gives_up}");
    }
}

/// Goal: as above, where all of them are gone. Method: another one is looked at meanwhile, for one
/// who gives up.
#[test]
fn a_copy_that_was_looked_at_while_others_were_destroyed_is_let_go_of() {
    let mut core = Core::open();
    core.ask(Call(2), HANDLE, Request::Close);
    let request = destroy_all(&mut core, Call(3));
    core.reply(StoreReply::Documents { request, documents: vec![key("list")] });
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.destroy(Call(4), "notes");
    core.say(ToCore::GiveUp { call: Call(4) });
    core.reply(StoreReply::Opened { document: key("notes"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_destroy() });
    assert!(core.is_done(Call(3)));
    let opens = core.opens();
    core.ask_to_open(TAB, Call(5), HANDLE, "notes", None);
    assert_eq!(core.opens(), opens + 1);
}

/// Wants the device's own copies gone, and says as what the store is asked which there are.
fn destroy_all(core: &mut Core, call: Call) -> tidelog_pages::RequestId {
    let (document, user) = (None, String::new());
    core.say(ToCore::Destroy { call, document, user, force: true, everywhere: false });
    match core.asked.last() {
        Some(StoreRequest::List { request }) => *request,
        other => panic!("{other:?}"),
    }
}

fn destroyed_of(core: &Core) -> Vec<DocumentKey> {
    let destroyed = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Destroy { document, .. } => Some(document.clone()),
        _ => None,
    });
    destroyed.collect()
}
