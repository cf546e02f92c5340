//! Random mutations on several devices, delivered in any order that the protocol allows.

mod common;

use common::*;
use tidelog_document::Doctype;
use tidelog_types::{Lsn, Value};

const DEVICES: u8 = 3;

struct World {
    numbers: Numbers,
    doctypes: [Doctype; 2],
    server: Server,
    devices: Vec<Device>,
    /// For each device: the newest doctype that it knows, and how many mutations it has issued.
    newest: Vec<usize>,
    issued: Vec<usize>,
}

impl World {
    fn new(seed: u64, pool: usize) -> Self {
        let doctypes = [items(), items_with_tags()];
        let server = Server::new(1, pool, &doctypes[0]);
        let devices = (0..DEVICES).map(|n| Device::new(n, pool, &doctypes[0])).collect();
        let count = usize::from(DEVICES);
        let (newest, issued) = (vec![0; count], vec![0; count]);
        Self { numbers: Numbers::new(seed), doctypes, server, devices, newest, issued }
    }

    fn below(&mut self, end: u64) -> usize {
        usize::try_from(self.numbers.below(end)).expect("small")
    }

    fn act(&mut self) {
        let index = self.below(u64::from(DEVICES));
        match self.below(12) {
            0..=4 => self.issue(index),
            5..=6 => self.deliver_up(index),
            7..=8 => self.deliver_down(index),
            9 => {
                self.devices[index].step();
            }
            10 => self.reopen(index),
            _ => self.learn(index),
        }
    }

    fn issue(&mut self, index: usize) {
        let id = format!("item-{}", self.below(12));
        let (n, which) = (integer(self.below(9) as i64), self.below(6));
        let by = integer(self.below(5) as i64 * 7);
        let used = self.below(self.newest[index] as u64 + 1);
        let doctype = self.doctypes[used].clone();
        let id = ("id", text(&id));
        let (name, args) = match which {
            0 => ("add", vec![id, ("n", n)]),
            1 => ("move", vec![id, ("n", n)]),
            2 => ("remove", vec![id]),
            3 => ("shift", vec![("by", n)]),
            4 if used == 1 => ("tag", vec![id, ("tag", text("t"))]),
            _ => ("bump", vec![("by", by)]),
        };
        let device = &mut self.devices[index];
        let before = device.image();
        match device.try_issue(&doctype, name, &args) {
            Ok(_) => self.issued[index] += 1,
            Err(_) => assert!(device.image() == before, "a local rejection left something"),
        }
    }

    /// Sends the server some of what it lacks.
    fn deliver_up(&mut self, index: usize) {
        let count = self.below(4);
        let timeline = self.devices[index].replica.timeline();
        let view = self.server.authority.view().clone();
        let applied = || self.server.authority.applied(timeline);
        let wanted = self.server.rest.serve(&view, applied).expect("it reads").wanted;
        let frames: Vec<_> = self.devices[index]
            .frames
            .iter()
            .filter(|frame| frame.lsn >= wanted)
            .cloned()
            .collect();
        if !frames.is_empty() {
            let newest = self.doctypes[self.newest[index]].clone();
            self.server.learn(&newest);
        }
        for frame in frames.iter().take(count) {
            let origin = self.devices[index].replica.origin(frame.lsn);
            self.server.take(origin, frame);
        }
    }

    /// Sends a device some of what it lacks, each entry by itself or all as one.
    fn deliver_down(&mut self, index: usize) {
        let (count, as_one) = (self.below(5), self.below(4) == 0);
        let held = self.devices[index].replica.sync_request().map_or(Lsn::FIRST, |held| held.next);
        let entries = self.server.entries.iter().filter(|entry| entry.range.start() >= held);
        let entries: Vec<_> = match as_one {
            true if held < self.server.authority.position().next => {
                vec![self.server.coalesced(held)]
            }
            _ => entries.take(count).cloned().collect(),
        };
        for entry in entries {
            self.devices[index].hear(entry);
        }
    }

    fn reopen(&mut self, index: usize) {
        let newest = self.newest[index];
        let known: Vec<&Doctype> = self.doctypes[..=newest].iter().collect();
        self.devices[index].reopen(&known);
    }

    fn learn(&mut self, index: usize) {
        if self.below(4) == 0 {
            self.newest[index] = 1;
            self.devices[index].replica.learn(self.doctypes[1].clone());
            self.devices[index].settle();
        }
    }

    fn end(mut self, seed: u64) {
        for index in 0..self.devices.len() {
            self.reopen(index);
            follow(&self.server, &mut self.devices[index]);
            let frames = self.devices[index].frames.clone();
            let newest = self.doctypes[self.newest[index]].clone();
            self.server.learn(&newest);
            let undecided = self.devices[index].replica.undecided();
            let sent = frames.iter().filter(|frame| undecided.contains(frame.lsn));
            for frame in sent {
                let origin = self.devices[index].replica.origin(frame.lsn);
                self.server.take(origin, frame);
            }
        }
        for (index, device) in self.devices.iter_mut().enumerate() {
            follow(&self.server, device);
            assert_same(&self.server, device);
            assert_eq!(device.decided.len(), self.issued[index], "seed {seed}: a verdict too few");
            let lsns: Vec<u64> = device.verdicts().iter().map(|(lsn, _)| *lsn).collect();
            let all: Vec<u64> = (1..=self.issued[index] as u64).collect();
            assert_eq!(lsns, all, "seed {seed}: each has one verdict, in their order");
        }
        let rejections = "select timeline, lsn, reason from _tidelog_rejection";
        for row in self.server.query_system(rejections) {
            let [Value::Blob(timeline), Value::Integer(lsn), Value::Text(reason)] = &row[..] else {
                panic!("{row:?}")
            };
            let is_its = |device: &&Device| device.replica.timeline().0[..] == timeline[..];
            let device = self.devices.iter().find(is_its).expect("its device");
            let verdict = rejected(u64::try_from(*lsn).expect("an LSN"), reason);
            assert!(device.verdicts().contains(&verdict), "seed {seed}: {verdict:?} was not told");
        }
    }
}

fn run(seeds: std::ops::Range<u64>, pool: usize) {
    for seed in seeds {
        let mut world = World::new(seed, pool);
        for _ in 0..120 {
            world.act();
        }
        world.end(seed);
    }
}

/// Goal: whatever the order of mutations, deliveries, restarts and migrations, all sides end with
/// the same bytes and every mutation with one verdict. Method: 120 random steps, then all is
/// delivered.
#[test]
fn three_devices_and_an_authority_converge_byte_for_byte() {
    run(0..30, usize::MAX);
}

#[test]
fn they_converge_with_a_pool_of_16_pages() {
    run(100..110, 16);
}

#[test]
fn they_converge_with_no_page_in_memory() {
    run(200..205, 0);
}
