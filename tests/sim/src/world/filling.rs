//! A document that is full, of verdicts too: those who come late wait there until others make room.

use super::World;
use crate::device::Device;
use crate::docs::Doc;
use crate::tab::Tab;

/// Names from here on are contested in such a document only.
const CONTESTED: u64 = 2_000_000;
/// How many of them, and mutations that fill the document meanwhile.
const CONTESTS: u64 = 4;
const FILLERS: u64 = 16;
/// Bytes of one of these at most: the last one that there is room for leaves little.
const FILLER_SIZE_MAX: u64 = 20_000;
/// Milliseconds in which all that is kept or decided, and in which all have come back.
const APART_MS: u64 = 2_000;
const TOGETHER_MS: u64 = 2_000;

/// How often room is made: what is decided then takes some of it again.
const CLEARED_TIMES: u32 = 4;
/// Milliseconds after which a server is asked again for a verdict.
const ASKED_AGAIN_MS: u64 = 31_000;

impl World {
    /// Devices that are apart claim the same names, and the one that reaches the server fills the
    /// document. The verdicts of the others need more room than there is.
    pub(super) fn fill_document(&mut self) -> Result<(), String> {
        let doc = Doc(0);
        let filler = self.rng.index(self.devices.len());
        self.note(&format!("device {filler}: fills {doc:?}, and the others are cut off"));
        let others: Vec<usize> = (0..self.devices.len()).filter(|it| *it != filler).collect();
        others.iter().for_each(|device| self.cut_device_off(*device));
        let first = CONTESTED + self.last_name;
        for nth in 0..CONTESTS {
            for device in 0..self.devices.len() {
                self.wish(device, doc, "contest", first + nth);
            }
        }
        for _ in 0..FILLERS {
            let number = self.rng.below(FILLER_SIZE_MAX);
            self.wish(filler, doc, "large", number);
        }
        self.pass(APART_MS)?;
        for device in &others {
            self.cut_off.remove(device);
        }
        self.pass(TOGETHER_MS)
    }

    /// Whoever can makes room in documents that are full, until nobody waits for any. Where
    /// verdicts have hardly a page of their own, all may wait for each other: then they are given
    /// the pages that they have at any server.
    pub(super) fn make_room(&mut self) -> Result<(), String> {
        let is_settled = self.clear_everywhere()?;
        let lacks_room = |device: &Device| device.tabs.values().any(Tab::lacks_room);
        if !is_settled && self.devices.iter().all(lacks_room) {
            for host in 0..self.hosts.len() {
                self.hosts[host].give_room_for_verdicts();
                self.stop_server(host);
            }
            self.clear_everywhere()?;
        }
        Ok(())
    }

    /// Says whether nobody waits for anything then.
    fn clear_everywhere(&mut self) -> Result<bool, String> {
        for _ in 0..CLEARED_TIMES {
            for device in 0..self.devices.len() {
                for doc in self.docs.of(device) {
                    self.wish(device, doc, "clear", 0);
                }
            }
            // Those who wait ask again after a while.
            self.pass(ASKED_AGAIN_MS)?;
            if self.is_settled() && self.all_is_sent() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether no core of a device that is connected has said last that something waits.
    fn all_is_sent(&self) -> bool {
        let devices = (0..self.devices.len()).filter(|device| !self.cut_off.contains(device));
        let mut there = devices.flat_map(|device| {
            let tabs = self.devices[device].tabs.values();
            tabs.flat_map(move |tab| self.docs.of(device).into_iter().map(move |doc| (tab, doc)))
        });
        there.all(|(tab, doc)| tab.has_nothing_to_send(doc))
    }

    /// A tab that holds the document, if there is one, issues a mutation.
    pub(super) fn wish(&mut self, device: usize, doc: Doc, mutation: &'static str, number: u64) {
        if let Some(tab) = self.holders(device, doc).first() {
            self.wish_in((device, *tab), doc, mutation, number);
        }
    }
}
