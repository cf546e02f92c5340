//! The core in a worker, with this test as its host and a store in memory.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Object, Reflect, Uint8Array};
use serde_bytes::ByteBuf;
use tidelog_browser::{Core, Host};
use tidelog_client::{
    Call, FromCore, Handle, Input, Mutate, OpenRequest, PageServerId, Params, Query, Request,
    Storage, TabId, ToCore,
};
use tidelog_disk::{MemoryDisk, StoreFiles};
use tidelog_document::{Doctype, MutationDefinition};
use tidelog_pages::{OwnerId, PageServer, Seed, StoreReply, StoreRequest, Ticket};
use tidelog_sync::codec::port;
use tidelog_types::{CallId, Value};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::*;

const NOW_MS: f64 = 1_700_000_000_000.0;
const TAB: u32 = 5;
const PAGE_SERVER: u32 = 6;

/// What becomes of a message to somebody.
type Hear = dyn Fn(&mut Said, Vec<u8>);

#[derive(Default)]
struct Said {
    to_tab: Vec<FromCore>,
    to_page_server: Vec<StoreRequest>,
    notices: Vec<(Ticket, u32, ByteBuf)>,
}

/// A core, and a host that carries out what it wants.
struct Bench {
    core: Core,
    said: Rc<RefCell<Said>>,
    store: PageServer<MemoryDisk>,
}

impl Bench {
    fn new() -> Self {
        let said = Rc::new(RefCell::new(Said::default()));
        let host = Object::new();
        let on = |name: &str, work: Box<Hear>| {
            let said = Rc::clone(&said);
            let call = Closure::<dyn Fn(u32, Uint8Array)>::new(move |_, bytes: Uint8Array| {
                work(&mut said.borrow_mut(), bytes.to_vec());
            });
            Reflect::set(&host, &name.into(), &call.into_js_value()).expect("an object");
        };
        on("toTab", Box::new(|said, bytes| said.to_tab.extend::<Vec<_>>(read(&bytes))));
        let to_page_server = |said: &mut Said, bytes: Vec<u8>| {
            let (requests, notices): (Vec<_>, Vec<(Ticket, u32, ByteBuf)>) = read(&bytes);
            said.to_page_server.extend::<Vec<_>>(requests);
            said.notices.extend(notices);
        };
        on("toPageServer", Box::new(to_page_server));
        let nothing = js_sys::Function::new_no_args("");
        Reflect::set(&host, &"wakeAt".into(), &nothing).expect("an object");
        let core = Core::new([7; 32], host.unchecked_into::<Host>());
        let (store, _) =
            PageServer::open(StoreFiles::in_memory(), Seed(1)).expect("an empty store");
        let mut bench = Self { core, said, store };
        let server = PageServerId(PAGE_SERVER);
        let storage = Storage::Opfs;
        bench.core.step(NOW_MS, Input::PageServerLent { server, settled_at_ms: 0, storage });
        bench.settle();
        bench
    }

    /// Carries messages between core and store until neither has more to say.
    fn settle(&mut self) {
        loop {
            let requests = std::mem::take(&mut self.said.borrow_mut().to_page_server);
            if requests.is_empty() && !self.store.wants_poll() {
                return;
            }
            for request in requests {
                self.store.serve(OwnerId(1), request);
            }
            self.store.flush();
            let replies: Vec<StoreReply> =
                self.store.poll().into_iter().map(|(_, reply)| reply).collect();
            self.core.page_server_replies(NOW_MS, PAGE_SERVER, &port::encode(&replies));
        }
    }

    fn ask(&mut self, messages: Vec<ToCore>) -> Vec<FromCore> {
        assert!(self.core.tab_messages(NOW_MS, TAB, &port::encode(&messages)));
        self.settle();
        std::mem::take(&mut self.said.borrow_mut().to_tab)
    }
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
    port::decode(bytes).expect("a list of messages")
}

fn open() -> ToCore {
    let add = MutationDefinition {
        name: "add".to_owned(),
        params: vec![],
        sql: vec!["insert into note values (:now)".to_owned()],
    };
    ToCore::Ask {
        call: Call(1),
        handle: Handle(1),
        request: Request::Open(Box::new(OpenRequest {
            document: "notes".to_owned(),
            user: String::new(),
            server: None,
            doctype: Doctype {
                name: "notes".to_owned(),
                migrations: vec!["create table note (at integer)".to_owned()],
                mutations: vec![add],
                streams: Vec::new(),
                workflows: Vec::new(),
            },
            has_token: false,
            word: 0,
        })),
    }
}

fn add(call: Call) -> ToCore {
    ToCore::Ask {
        call,
        handle: Handle(1),
        request: Request::Mutate(Mutate {
            id: CallId([1; 16]),
            name: "add".to_owned(),
            args: vec![],
            now_ms: 42,
            again: None,
        }),
    }
}

#[wasm_bindgen_test]
fn a_local_document_is_opened_changed_and_read() {
    let mut bench = Bench::new();
    let told = bench.ask(vec![
        open(),
        add(Call(2)),
        ToCore::Ask {
            call: Call(3),
            handle: Handle(1),
            request: Request::Query(Query {
                sql: "select at from note".to_owned(),
                params: Params::NONE,
            }),
        },
    ]);
    assert!(told.iter().any(|it| matches!(it, FromCore::Opened { call: Call(1), .. })), "{told:?}");
    assert!(told.iter().any(|it| matches!(it, FromCore::Durable { call: Call(2), .. })));
    let rows = told.iter().find_map(|it| match it {
        FromCore::Rows { call: Call(3), rows } => Some(rows.decode()),
        _ => None,
    });
    assert_eq!(rows, Some(vec![vec![Value::Integer(42)]]));
}

#[wasm_bindgen_test]
fn what_a_reached_tab_waits_for_goes_to_the_page_server_as_a_notice() {
    let mut bench = Bench::new();
    bench.ask(vec![open()]);
    let server = PageServerId(PAGE_SERVER);
    bench.core.step(NOW_MS, Input::TabReached { tab: TabId(TAB), server });
    let told = bench.ask(vec![add(Call(2))]);
    assert!(!told.iter().any(|it| matches!(it, FromCore::Durable { .. })), "{told:?}");
    let said = bench.said.borrow();
    let [(_, TAB, messages)] = said.notices.as_slice() else { panic!("{:?}", said.notices) };
    let messages: Vec<FromCore> = read(messages);
    assert!(matches!(messages.first(), Some(FromCore::Durable { call: Call(2), .. })));
}

#[wasm_bindgen_test]
fn bytes_that_are_no_messages_are_left_to_who_serves_the_tab() {
    let mut bench = Bench::new();
    assert!(!bench.core.tab_messages(NOW_MS, TAB, &[1, 2, 3]));
    let told = std::mem::take(&mut bench.said.borrow_mut().to_tab);
    assert_eq!(told, [], "nobody knows what was asked");
    let told = bench.ask(vec![open()]);
    assert!(matches!(told.first(), Some(FromCore::Opened { .. })), "and the core goes on");
}
