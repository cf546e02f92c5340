//! What a server has erased is erased at those who follow.

use tidelog_document::{
    Change, Changed, CommandDefinition, CommandRef, Doctype, Erasable, Erased, ErasedUpTo,
    EventDefinition, Intervened, Intervention, Param, ParamKind, StreamDefinition, sending,
};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::Value;
use tidelog_types::limits::{DEVICE_LOG_SIZE_MAX, LOG_AGE_MS_MAX};

const SECRET: &[u8] = b"Lovelace";

/// The todo list with notes on each todo, and one command.
fn noted_todos() -> Doctype {
    let mut doctype = todos();
    let insert = "insert into tidelog_events (aggregate, stream, type, data)
                  values ('todo', :id, 'noted', json_object('text', :text))";
    let params = [("id", ParamKind::Text), ("text", ParamKind::Text)];
    doctype.mutations.push(define("remark", &params, &[insert]));
    doctype.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    let fields = vec![Param { name: "text".to_owned(), kind: ParamKind::Text, optional: false }];
    let events = vec![EventDefinition {
        name: "noted".to_owned(),
        fields: fields.clone(),
        upcasts: Vec::new(),
        project: Vec::new(),
    }];
    let commands = vec![CommandDefinition {
        name: "note".to_owned(),
        fields,
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 60_000,
    }];
    let name = "todo".to_owned();
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

fn note(device: &mut Device, server: &mut Server, id: &str, said: &str) {
    let call = device.mutate("remark", &[("id", text(id)), ("text", text(said))]);
    talk(server, &mut [device]);
    assert!(device.fate(call).contains("confirmed"));
}

/// A command that has failed: what was wanted, and why it came to nothing, stay in the document.
fn refuse(device: &mut Device, server: &mut Server, [id, key]: [&str; 2], said: &str) {
    let args = text(&format!(r#"{{"text":"{said}"}}"#));
    let args = [("stream", text(id)), ("args", args), ("key", text(key))];
    device.mutate(&sending("todo", "note"), &args);
    talk(server, &mut [device]);
    let count = device.query("select count(*) from tidelog_commands");
    let [Value::Integer(number)] = count[0][..] else { panic!("{count:?}") };
    let cancel = Intervention::Cancel { reason: format!("no room for {said}") };
    let cancelled = server.intervene(CommandRef::Number(number.unsigned_abs()), cancel);
    assert_eq!(cancelled, Intervened::Done(number.unsigned_abs()));
    talk(server, &mut [device]);
}

/// The device slept for a day, and is online again.
fn day_passes(device: &mut Device, server: &mut Server) {
    device.now_ms += LOG_AGE_MS_MAX;
    for _ in 0..60 {
        device.pass(1_000);
        talk(server, &mut [device]);
    }
}

/// Says how many events and commands that are.
fn erase(server: &mut Server, id: &str) -> [u64; 2] {
    let what = Erasable::Stream { aggregate: "todo".to_owned(), stream: id.to_owned() };
    let erase = Change::Erase { what, after: ErasedUpTo::default() };
    match server.change(&erase) {
        Changed::Erased(Ok(Erased { events, commands, next: None, .. })) => [events, commands],
        other => panic!("{other:?}"),
    }
}

/// Goal: no file of a device has a byte of what was erased once its log is a day old and something
/// is written; what else was said is there. Method: a device whose page file and log have it, as
/// events, arguments and reasons, by its own mutations and the server's entries, hears of the
/// erasing; then a day passes, with and without a new core meanwhile, and all its files are
/// searched.
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
            for (id, name) in [("a", "Ada Lovelace"), ("b", "Charles Babbage")] {
                refuse(&mut device, &mut server, [id, &nth.to_string()], name);
            }
            // What came before is in the page file.
            if nth < 2 {
                day_passes(&mut device, &mut server);
            }
        }
        assert!(device.has_on_disk(SECRET));
        assert_eq!(erase(&mut server, "a"), [9, 3]);
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
