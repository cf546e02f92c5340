//! How much mutations write, and how much of them travels.

use tidelog_client::Call;
use tidelog_document::{
    Doctype, EventDefinition, MutationDefinition, Param, ParamKind, StreamDefinition,
};
use tidelog_sync::{Channel, CodedPage, ToRoom, ToServer, encode_message};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{Page, Pgid, Value};

const BLOCK: usize = 4096;

fn items() -> Doctype {
    let mutation = |name: &str, params: &[(&str, ParamKind)], sql: &str| MutationDefinition {
        name: name.to_owned(),
        params: params.iter().map(|(name, kind)| param(name, *kind)).collect(),
        sql: vec![sql.to_owned()],
    };
    let [id, title] = ["id", "title"].map(|name| (name, ParamKind::Text));
    Doctype {
        name: "items".to_owned(),
        migrations: vec![
            "create table item (id text primary key, title text not null, at integer not null)"
                .to_owned(),
        ],
        mutations: vec![
            mutation(
                "fill",
                &[("count", ParamKind::Integer)],
                "with recursive n(n) as (select 1 union all select n + 1 from n where n < :count)
                 insert into item (id, title, at)
                 select printf('%08x-row', (n * 2654435761) % 4294967296), 'title of ' || n, n
                 from n",
            ),
            mutation(
                "add",
                &[id, title],
                "insert into item (id, title, at) values (:id, :title, :now)",
            ),
            mutation("rename", &[id, title], "update item set title = :title where id = :id"),
            mutation("remove", &[id], "delete from item where id = :id"),
        ],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

/// The same, where an item has events of its own, with some forty bytes of data.
fn eventful_items() -> Doctype {
    let mut doctype = items();
    doctype.mutations.push(MutationDefinition {
        name: "note".to_owned(),
        params: ["id", "text"].map(|name| param(name, ParamKind::Text)).into(),
        sql: vec![
            "insert into tidelog_events (aggregate, stream, type, data)
             values ('item', :id, 'noted', json_object('text', :text))"
                .to_owned(),
        ],
    });
    let events = vec![EventDefinition {
        name: "noted".to_owned(),
        fields: vec![param("text", ParamKind::Text)],
        upcasts: Vec::new(),
        project: Vec::new(),
    }];
    let (name, commands) = ("item".to_owned(), Vec::new());
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

fn row(number: u64) -> Value {
    text(&format!("{:08x}-row", (number * 2_654_435_761) % (1 << 32)))
}

/// Bytes of the log files that are not zeros at the end of their block.
fn used(device: &Device) -> usize {
    let files = ["log-a", "log-b"].map(|name| device.disk.bytes_of(name).unwrap_or_default());
    let blocks = files.iter().flat_map(|bytes| bytes.chunks(BLOCK).skip(2));
    let used = |block: &[u8]| block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    blocks.map(used).sum()
}

fn filled(server: Option<&mut Server>, doctype: &Doctype) -> Device {
    let mut device = Device::new(1);
    device.log_size_max = 1 << 30;
    device.server_is_up = server.is_some();
    device.lose_page_server();
    device.lend();
    let call = device.start_open(TAB, server.is_some().then_some(SERVER), doctype);
    device.opened(call);
    let fill = device.mutate("fill", &[("count", integer(10_000))]);
    if let Some(server) = server {
        talk(server, &mut [&mut device]);
    }
    assert!(device.fate(fill).starts_with("durable"), "{}", device.fate(fill));
    device
}

/// What a thousand mutations of one kind come to, each issued once the one before has its verdict.
struct Cost {
    /// Bytes of log each, without the zeros up to the end of a block.
    bytes: usize,
    appends: usize,
}

/// What they cost that add a row, change one and remove one, in a document of 10,000 rows.
fn costs(server: Option<Server>) -> [Cost; 3] {
    let mut costs = costs_of(server, &items(), &[&added, &renamed, &removed]).into_iter();
    [(); 3].map(|()| costs.next().expect("three"))
}

type Mutate<'m> = &'m dyn Fn(&mut Device, u64) -> Call;

fn costs_of(mut server: Option<Server>, doctype: &Doctype, mutates: &[Mutate<'_>]) -> Vec<Cost> {
    const COUNT: u64 = 1000;
    let mut device = filled(server.as_mut(), doctype);
    let cost = |mutate: &Mutate<'_>| {
        device.pass(1_000);
        let (before, appends) = (used(&device), device.appends());
        for n in 0..COUNT {
            let call = mutate(&mut device, n);
            if let Some(server) = &mut server {
                talk(server, &mut [&mut device]);
            }
            assert!(device.fate(call).contains("confirmed"), "{}", device.fate(call));
        }
        let bytes = (used(&device) - before) / COUNT as usize;
        Cost { bytes, appends: device.appends() - appends }
    };
    mutates.iter().map(cost).collect()
}

fn added(device: &mut Device, n: u64) -> Call {
    device.mutate("add", &[("id", row(20_000 + n)), ("title", text("a new one"))])
}

/// A row of some four hundred bytes.
fn added_wide(device: &mut Device, n: u64) -> Call {
    let title = format!("{n} {}", "a longer text, as a note has of this and that; ".repeat(8));
    device.mutate("add", &[("id", row(40_000 + n)), ("title", text(&title))])
}

fn renamed(device: &mut Device, n: u64) -> Call {
    device.mutate("rename", &[("id", row(1 + n * 7)), ("title", text("renamed"))])
}

fn removed(device: &mut Device, n: u64) -> Call {
    device.mutate("remove", &[("id", row(1 + n * 7))])
}

/// An event of one of two hundred items in turn.
fn noted(device: &mut Device, n: u64) -> Call {
    let said = format!("what was noted of an item, by number {n}");
    device.mutate("note", &[("id", row(1 + n % 200)), ("text", text(&said))])
}

fn mean(costs: &[Cost]) -> usize {
    costs.iter().map(|cost| cost.bytes).sum::<usize>() / costs.len()
}

/// Goal: what a mutation writes is about as much as it changes.
#[test]
fn a_mutation_of_a_row_writes_some_hundred_bytes_with_one_append() {
    let costs = costs(None);
    costs.iter().for_each(|cost| assert_eq!(cost.appends, 1000));
    println!("{} bytes for a local mutation", mean(&costs));
    assert!(mean(&costs) <= 470, "{} bytes", mean(&costs));
}

/// Goal: the same where a server decides: its entry goes to the disk with the next mutation.
#[test]
fn a_synced_mutation_writes_little_more_and_takes_as_many_appends() {
    let costs = costs(Some(Server::default()));
    costs.iter().for_each(|cost| assert!(cost.appends <= 1001, "{} appends", cost.appends));
    println!("{} bytes for a synced mutation", mean(&costs));
    assert!(mean(&costs) <= 800, "{} bytes", mean(&costs));
}

/// Goal: what SQLite puts in another order on a page, to make room for a row, is not written again.
/// Method: long rows, for nearly each of which it does.
#[test]
fn a_long_row_writes_little_more_than_itself() {
    let costs = costs_of(None, &items(), &[&added_wide]);
    println!("{} bytes for a long row", mean(&costs));
    assert!(mean(&costs) <= 530, "{} bytes", mean(&costs));
}

/// Goal: an event takes little more than what is said of it. Method: a thousand of two hundred
/// streams, one by one, in a local document and in one that a server decides.
#[test]
fn an_event_writes_little_more_than_what_is_said_of_it() {
    for (server, place, bytes_max) in
        [(None, "local", 680), (Some(Server::default()), "synced", 1030)]
    {
        let costs = costs_of(server, &eventful_items(), &[&noted]);
        println!("{} bytes for an event of a {place} document", mean(&costs));
        assert!(mean(&costs) <= bytes_max, "{place}: {} bytes", mean(&costs));
    }
}

/// Goal: what travels of a mutation is about as much as it changes, to those who follow too.
/// Method: one device issues what the others cost, and one follows it.
#[test]
fn a_mutation_of_a_row_travels_in_some_hundred_bytes() {
    const COUNT: u64 = 300;
    let mut server = Server::default();
    let mut device = filled(Some(&mut server), &items());
    let mut follower = Device::new(2);
    follower.server_is_up = true;
    follower.lose_page_server();
    follower.lend();
    follower.start_open(TAB, Some(SERVER), &items());
    talk(&mut server, &mut [&mut device, &mut follower]);
    let means = [added, renamed, removed].map(|mutate| {
        let (mut up, mut down, mut back) = (0, 0, 0);
        for n in 0..COUNT {
            mutate(&mut device, n);
            let sent = device.take_sent();
            let is_frames =
                |it: &&ToServer| matches!(it, ToServer::About { body: ToRoom::Frames { .. }, .. });
            up += sent.iter().filter(is_frames).map(|it| encode_message(it).len()).sum::<usize>();
            let answers = sent.into_iter().flat_map(|it| server.hear(device.number, it));
            answers.collect::<Vec<_>>().iter().for_each(|answer| device.hear_server(answer));
            let news = server.news(follower.number);
            down += news.iter().map(|it| encode_message(it).len()).sum::<usize>();
            news.iter().for_each(|it| follower.hear_server(it));
            let news = server.news(device.number);
            back += news.iter().map(|it| encode_message(it).len()).sum::<usize>();
            news.iter().for_each(|it| device.hear_server(it));
            talk(&mut server, &mut [&mut device, &mut follower]);
        }
        [up, down, back].map(|bytes| bytes / COUNT as usize)
    });
    println!("bytes up, down, and back, of adding, changing and removing a row: {means:?}");
    let [up, down, back] = [0, 1, 2].map(|it| means.iter().map(|mean| mean[it]).sum::<usize>() / 3);
    assert!(up <= 230 && down <= 400 && back <= 250, "{up} bytes up, {down} down, {back} back");
    assert!(follower.image() == server.image(), "the two sides differ");
}

/// Goal: what travels together is compressed. Method: all pages of a document of ten thousand rows,
/// in messages of as many as a room sends in one.
#[test]
fn a_document_travels_in_less_than_two_thirds_of_its_bytes() {
    let mut server = Server::default();
    let _device = filled(Some(&mut server), &items());
    let image = server.image();
    let pages = image.chunks(PAGE_SIZE).map(|bytes| Page::new(bytes).expect("a page"));
    let pages: Vec<CodedPage> =
        (1..).zip(pages).map(|(pgid, page)| CodedPage::new(Pgid(pgid), &page, None)).collect();
    let travels = |pages: &[CodedPage]| {
        let (position, pages) = (server.position(), pages.to_vec());
        let body = ToRoom::Seed { position, db_pages: 0, pages, last: false };
        encode_message(&ToServer::About { channel: Channel(1), body }).len()
    };
    let down: usize = pages.chunks(Limits::DEFAULT.message_pages_max).map(travels).sum();
    println!("{down} bytes for a document of {}", image.len());
    assert!(down * 3 < image.len() * 2, "{down} bytes for {}", image.len());
}
