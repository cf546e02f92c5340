//! The stories in `tests/scripts`: what is done, and after `----` what is seen then.
//!
//! Devices have names of one letter; only those are shown that have changed. After a change that
//! is meant, `TIDELOG_UPDATE_SCRIPTS=1` writes what is seen into the scripts: read the difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use tidelog_client::{Call, Input, Storage};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;

struct Stage {
    server: Server,
    server_is_up: bool,
    devices: BTreeMap<String, Actor>,
}

struct Actor {
    device: Device,
    lends: bool,
    /// Each mutation by the id of its todo.
    calls: Vec<(String, Call)>,
    shown: Vec<String>,
}

impl Stage {
    fn new() -> Self {
        Self { server: Server::default(), server_is_up: true, devices: BTreeMap::new() }
    }

    fn act(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "opens", ..] => self.open(name),
            [name, "adds", id] => self.add(name, id, id),
            [name, "adds", id, "titled", title] => self.add(name, id, title),
            ["hold", "the", "flushes", "of", name] => self.device(name).disk.hold_flushes(true),
            ["flush", name] => {
                let device = self.device(name);
                device.disk.hold_flushes(false);
                device.flushed();
            }
            ["close", "the", "tab", "that", "lends", "the", "disk", "of", name] => {
                self.actor(name).lends = false;
                self.device(name).lose_page_server();
            }
            ["lend", "a", "disk", "to", name] => {
                self.actor(name).lends = true;
                let device = self.device(name);
                device.disk.hold_flushes(false);
                device.lend();
            }
            ["kill", "the", "core", "of", name] => self.device(name).kill_core(),
            ["cut", "the", "power", "of", name] => self.device(name).cut_power(),
            ["fill", "the", "disk", "of", name] => self.device(name).fill_disk(),
            ["make", "room", "on", "the", "disk", "of", name] => {
                self.device(name).disk.set_full(false);
            }
            ["stop", "the", "server"] => self.stop_server(),
            ["start", "the", "server"] => self.start_server(),
            ["replace", "the", "document", "of", "the", "server"] => {
                self.server.lose_document();
                self.server.create(&todos());
            }
            ["settle"] => self.settle(),
            _ => panic!("what is this: {line}"),
        }
    }

    fn open(&mut self, name: &str) {
        let is_up = self.server_is_up;
        let number = u8::try_from(self.devices.len() + 1).expect("few");
        let actor = self.devices.entry(name.to_owned()).or_insert_with(|| Actor {
            device: Device::new(number),
            lends: true,
            calls: Vec::new(),
            shown: Vec::new(),
        });
        actor.device.server_is_up = is_up;
        let call = actor.device.start_open(TAB, Some(SERVER), &todos());
        actor.device.opened(call);
    }

    fn add(&mut self, name: &str, id: &str, title: &str) {
        let actor = self.actor(name);
        let call = titled(&mut actor.device, id, title);
        actor.calls.push((id.to_owned(), call));
    }

    fn stop_server(&mut self) {
        self.server_is_up = false;
        for actor in self.devices.values_mut() {
            actor.device.server_is_up = false;
            if actor.device.socket.is_some() {
                actor.device.lose_socket();
            }
        }
    }

    fn start_server(&mut self) {
        self.server_is_up = true;
        for actor in self.devices.values_mut() {
            actor.device.server_is_up = true;
        }
    }

    fn settle(&mut self) {
        // What was said goes to the disk within a second.
        for passed_ms in [15_000, 1_000] {
            for actor in self.devices.values_mut() {
                actor.device.pass(passed_ms);
            }
            let devices = self.devices.values_mut().map(|actor| &mut actor.device);
            talk(&mut self.server, &mut devices.collect::<Vec<_>>());
        }
    }

    fn actor(&mut self, name: &str) -> &mut Actor {
        self.devices.get_mut(name).unwrap_or_else(|| panic!("nobody is called {name}"))
    }

    fn device(&mut self, name: &str) -> &mut Device {
        &mut self.actor(name).device
    }

    /// What has changed since it was last shown.
    fn show(&mut self) -> String {
        let mut seen = String::new();
        for (name, actor) in &mut self.devices {
            let now = actor.lines();
            for line in now.iter().filter(|line| !actor.shown.contains(line)) {
                let _ = writeln!(seen, "{name}: {line}");
            }
            actor.shown = now;
        }
        seen
    }
}

impl Actor {
    fn lines(&mut self) -> Vec<String> {
        let device = &mut self.device;
        // A core that was started just now has told nobody anything.
        device.step(Input::Wake);
        if device.told.is_empty() {
            return vec!["closed".to_owned()];
        }
        let mut lines = vec![device.positions()];
        let status = device.status().clone();
        let error = status.error.map(|error| format!(", {:?}", error.code)).unwrap_or_default();
        lines.push(format!("{:?}{error}", status.connection).to_lowercase());
        lines.push(match status.storage {
            Storage::Waiting => "no disk".to_owned(),
            _ => "a disk".to_owned(),
        });
        for (id, call) in &self.calls {
            let fate = device.fate(*call);
            if !fate.is_empty() {
                lines.push(format!("{id} {fate}"));
            }
        }
        let rows = device.query("select id from todo order by id");
        let ids = rows.iter().map(|row| format!("{:?}", row[0]).replace("Text", ""));
        lines.push(format!("sees [{}]", ids.collect::<Vec<_>>().join(" ")));
        lines
    }
}

/// Plays a script; gives what it should say.
fn play(script: &str) -> String {
    let mut stage = Stage::new();
    let mut played = String::new();
    for block in script.trim().split("\n\n") {
        if block.starts_with('#') {
            played.push_str(block);
        } else {
            let deeds = block.split("\n----").next().unwrap_or_default();
            deeds.lines().for_each(|line| stage.act(line));
            let _ = write!(played, "{deeds}\n----\n{}", stage.show().trim_end());
        }
        played.push_str("\n\n");
    }
    played.trim_end().to_owned() + "\n"
}

fn story(name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts");
    let path = folder.join(name).with_extension("txt");
    let script = std::fs::read_to_string(&path).expect("the script is there");
    let played = play(&script);
    if std::env::var_os("TIDELOG_UPDATE_SCRIPTS").is_some() {
        std::fs::write(&path, played).expect("it can be written");
    } else {
        assert!(played == script, "{name} goes otherwise now:\n\n{played}");
    }
}

#[test]
fn lending_tab_closes() {
    story("lending_tab_closes");
}

#[test]
fn power_cut_before_the_flush() {
    story("power_cut_before_the_flush");
}

#[test]
fn two_took_the_same_title_offline() {
    story("two_took_the_same_title_offline");
}

#[test]
fn document_replaced_on_the_server() {
    story("document_replaced_on_the_server");
}

#[test]
fn disk_is_full() {
    story("disk_is_full");
}
