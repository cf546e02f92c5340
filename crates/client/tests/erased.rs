//! What a server has erased is erased at those who follow.

use tidelog_document::{
    Change, Changed, Doctype, Erasable, Erased, ErasedUpTo, EventDefinition, Param, ParamKind,
    StreamDefinition,
};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::Value;
use tidelog_types::limits::{DEVICE_LOG_SIZE_MAX, LOG_AGE_MS_MAX};

const SECRET: &[u8] = b"Lovelace";

/// The todo list with notes on each todo.
fn noted_todos() -> Doctype {
    let mut doctype = todos();
    let insert = "insert into tidelog_events (aggregate, stream, type, data)
                  values ('todo', :id, 'noted', json_object('text', :text))";
    let params = [("id", ParamKind::Text), ("text", ParamKind::Text)];
    doctype.mutations.push(define("remark", &params, &[insert]));
    doctype.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    let events = vec![EventDefinition {
        name: "noted".to_owned(),
        fields: vec![Param { name: "text".to_owned(), kind: ParamKind::Text, optional: false }],
        upcasts: Vec::new(),
        project: Vec::new(),
    }];
    let (name, commands) = ("todo".to_owned(), Vec::new());
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

fn note(device: &mut Device, server: &mut Server, id: &str, said: &str) {
    let call = device.mutate("remark", &[("id", text(id)), ("text", text(said))]);
    talk(server, &mut [device]);
    assert!(device.fate(call).contains("confirmed"));
}

/// The device slept for a day, and is online again.
fn day_passes(device: &mut Device, server: &mut Server) {
    device.now_ms += LOG_AGE_MS_MAX;
    for _ in 0..60 {
        device.pass(1_000);
        talk(server, &mut [device]);
    }
}

fn erase(server: &mut Server, id: &str) -> u64 {
    let what = Erasable::Stream { aggregate: "todo".to_owned(), stream: id.to_owned() };
    let erase = Change::Erase { what, after: ErasedUpTo::default() };
    match server.change(&erase) {
        Changed::Erased(Ok(Erased { events, next: None, .. })) => events,
        other => panic!("{other:?}"),
    }
}

/// Goal: no file of a device has a byte of what was erased once its log is a day old and something
/// is written; what else was said is there. Method: a device whose page file and log have it, by
/// its own mutations and the server's entries, hears of the erasing; then a day passes, with and
/// without a new core meanwhile, and all its files are searched.
#[test]
fn a_device_has_no_byte_of_what_was_erased_a_day_later() {
    for is_closed_meanwhile in [false, true] {
        let doctype = noted_todos();
        let (mut server, mut device) = (Server::default(), Device::new(1));
        device.log_size_max = DEVICE_LOG_SIZE_MAX;
        device.server_is_up = true;
        let call = device.start_open(TAB, Some(SERVER), &doctype);
        device.opened(call);
        talk(&mut server, &mut [&mut device]);
        for nth in 0..3 {
            for size in [1, 100, 1000] {
                note(&mut device, &mut server, "a", &"Ada Lovelace ".repeat(size));
                note(&mut device, &mut server, "b", &"Charles Babbage ".repeat(size));
            }
            // What came before is in the page file.
            if nth < 2 {
                day_passes(&mut device, &mut server);
            }
        }
        assert!(device.has_on_disk(SECRET));
        assert_eq!(erase(&mut server, "a"), 9);
        note(&mut device, &mut server, "b", "afterwards");
        let told = "select stream, sum(erased), count(data) from tidelog_events group by stream";
        let expected = [[text("a"), integer(9), integer(0)], [text("b"), integer(0), integer(10)]];
        assert_eq!(device.query(told), expected);
        assert!(device.has_on_disk(SECRET), "its log has it still");
        day_passes(&mut device, &mut server);
        if is_closed_meanwhile {
            device.kill_core();
            device.lend();
            let call = device.start_open(TAB, Some(SERVER), &doctype);
            device.opened(call);
            talk(&mut server, &mut [&mut device]);
        }
        note(&mut device, &mut server, "b", "the day after");
        assert!(!device.has_on_disk(SECRET));
        assert!(device.has_on_disk(b"Babbage"));
        assert_eq!(device.query("select count(data) from tidelog_events"), [[Value::Integer(11)]]);
    }
}
