//! Two releases of the app that both succeed the first one, and neither of them the other: whoever
//! brings its own to a document's server first has it. What is written by the other one stays where
//! it is, undecided and shown, until its app is mended; nobody else is held up by it.

use tidelog_client::TabId;
use tidelog_types::limits::CALL_SETTLES_MS;

use super::{SETTLE_MS, World};
use crate::app::Release;
use crate::docs::Doc;

/// Milliseconds in which a tab is open, in which a mutation is recorded, and in which a device is
/// back.
const OPEN_MS: u64 = 2_000;
const DONE_MS: u64 = 1_000;
const BACK_MS: u64 = 8_000;
/// Milliseconds after which a server that has refused a document has been asked again.
const ASKED_AGAIN_MS: u64 = 31_000;
/// Milliseconds in which a core is lent a page server, and tabs are told how documents stand.
const TOLD_MS: u64 = 75_000;
/// Milliseconds after which a core asks for a token by the next handle of a tab: a connection waits
/// for one, and the next is made after a pause.
const NEXT_TOKEN_MS: u64 = 19_000;
/// How often a tab is asked that has a token each second time, until each of two servers has one.
const TOKENS_ASKED_MAX: u64 = 3;
/// Milliseconds in which a copy is deleted, and a document made again; and how often that is tried.
const ANEW_MS: u64 = 15_000;
const DELETIONS_MAX: u32 = 5;

/// A copy of a device that is of another release than its server's document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lost {
    device: usize,
    doc: Doc,
    release: Release,
    /// That of the server.
    theirs: Release,
}

impl World {
    /// Two devices get a release each, and write by it and by the older one, online or not; or the
    /// second one only looks.
    pub(super) fn fork_releases(&mut self) -> Result<(), String> {
        let one = self.rng.index(self.devices.len());
        let other = (one + 1) % self.devices.len();
        self.pass(OPEN_MS)?;
        let (away, looks) = (self.rng.once_in(2), self.rng.once_in(2));
        if away {
            self.cut_device_off(other);
        }
        for (device, release) in [(one, Release::Second), (other, Release::Fork)] {
            self.note(&format!("device {device}: gets release {release:?}"));
            self.forked.insert(device, release);
            self.open_tab_of(device, release);
            let ms = self.rng.below(OPEN_MS);
            self.pass(ms)?;
            if device == one || !looks {
                self.write_by_all(device);
            }
        }
        self.pass(DONE_MS)?;
        for (device, release) in [(one, Release::Fork), (other, Release::Second)] {
            if self.rng.once_in(2) {
                self.open_beside(device, release)?;
            }
        }
        if self.rng.once_in(3) {
            let page_server_lives = self.rng.once_in(2);
            self.kill_core(other, page_server_lives);
        }
        self.pass(DONE_MS)?;
        if away {
            self.cut_off.remove(&other);
        }
        self.pass(BACK_MS)?;
        self.write_by_all(one);
        if !looks {
            self.write_by_all(other);
        }
        self.pass(BACK_MS)
    }

    fn write_by_all(&mut self, device: usize) {
        for doc in self.docs.of(device) {
            for tab in self.holders(device, doc) {
                let mutation = if self.rng.once_in(2) { "bump" } else { "add" };
                self.wish_in((device, tab), doc, mutation, 0);
            }
        }
    }

    /// A tab of a release that does not go with the one by which its device has all that it has is
    /// given nothing of that.
    fn open_beside(&mut self, device: usize, release: Release) -> Result<(), String> {
        let docs = self.docs.of(device);
        let here = &self.devices[device];
        let has_all = |tab: &TabId| {
            let tab = &here.tabs[tab];
            !tab.release.goes_with(release) && docs.iter().all(|doc| tab.held.contains_key(doc))
        };
        let Some(holder) = here.tabs.keys().copied().find(has_all) else { return Ok(()) };
        let core = here.tabs[&holder].port.core;
        let Some(beside) = self.open_tab_of(device, release) else { return Ok(()) };
        self.pass(OPEN_MS)?;
        let tabs = &self.devices[device].tabs;
        let (Some(holder), Some(tab)) = (tabs.get(&holder), tabs.get(&beside)) else {
            return Ok(());
        };
        // Each tab counts its cores for itself. One of a core that is gone has nothing by it.
        let both_hear = holder.port.is_heard && holder.port.core == core && tab.port.is_heard;
        if let Some(doc) = docs.iter().find(|doc| tab.held.contains_key(doc))
            && both_hear
        {
            return Err(format!("device {device} has {doc:?} by two releases that part"));
        }
        self.close_this_tab(device, beside);
        Ok(())
    }

    /// All is well but that: those who have lost are told, keep what they have, and hold up nobody
    /// else. Then they let go of it, and go on from what the server has.
    pub(super) fn join_releases(&mut self) -> Result<(), String> {
        if self.forked.is_empty() {
            return Ok(());
        }
        // What was handed over while its device failed may be held without its server.
        (0..self.devices.len()).for_each(|device| self.open_all(device));
        self.settle_opens("when releases were to be joined")?;
        self.connect_all();
        self.pass(ASKED_AGAIN_MS)?;
        let lost = loop {
            let lost = self.lost_copies()?;
            lost.iter().try_for_each(|lost| self.must_be_told(*lost))?;
            self.judge_mismatches(&lost)?;
            if self.go_on_beside(&lost)? {
                break lost;
            }
        };
        for lost in &lost {
            self.must_be_kept(*lost)?;
        }
        for lost in lost {
            self.let_go_of(lost)?;
        }
        self.mend_who_was_refused()
    }

    /// Tabs of a release that the server does not take, and that were refused what they opened, are
    /// gone too.
    fn mend_who_was_refused(&mut self) -> Result<(), String> {
        for (device, release) in self.forked.clone() {
            for doc in self.docs.of(device) {
                let Some(host) = self.host_of(doc) else { continue };
                let there = self.names_on(&self.hosts[host].disk, doc)?;
                let there = there.and_then(|there| there.release);
                if there.is_some_and(|there| !there.goes_with(release)) {
                    self.close_tabs_of(device, release);
                }
            }
        }
        Ok(())
    }

    /// An app is mended: tabs of this release are closed, and there is one of the first.
    fn close_tabs_of(&mut self, device: usize, release: Release) -> Option<TabId> {
        let tab = self.open_tab_of(device, Release::First)?;
        let others = self.devices[device].tabs.iter();
        let others = others.filter(|(_, tab)| tab.release == release).map(|(tab, _)| *tab);
        for other in others.collect::<Vec<TabId>>() {
            self.close_this_tab(device, other);
        }
        Some(tab)
    }

    /// The copies that are of another release than what the server has.
    fn lost_copies(&self) -> Result<Vec<Lost>, String> {
        let mut lost = Vec::new();
        for (device, release) in self.forked.clone() {
            for doc in self.docs.of(device) {
                let Some(host) = self.host_of(doc) else { continue };
                let there = self.names_on(&self.hosts[host].disk, doc)?;
                let Some(theirs) = there.and_then(|there| there.release) else { continue };
                let mut tabs = self.devices[device].tabs.values();
                let has_it = tabs.any(|tab| {
                    let holds = tab.release == release && tab.held.contains_key(&doc);
                    holds || tab.is_mismatched(doc)
                });
                if !theirs.goes_with(release) && has_it {
                    lost.push(Lost { device, doc, release, theirs });
                }
            }
        }
        Ok(lost)
    }

    /// Whoever holds such a copy by that release is told so, or that it could not be opened again
    /// at all. Tabs of others are too as long as it is the newest that the copy was opened by.
    fn must_be_told(&mut self, Lost { device, doc, release, .. }: Lost) -> Result<(), String> {
        let until_ms = self.now_ms + TOLD_MS + self.token_ms(device, doc);
        let is_told = |world: &Self| {
            let mut tabs = world.devices[device].tabs.values();
            tabs.all(|tab| {
                let has_lost = tab.release == release && tab.held.contains_key(&doc);
                !has_lost || tab.is_mismatched(doc) || tab.is_shut(doc)
            })
        };
        while !is_told(self) {
            if self.now_ms >= until_ms {
                return Err(format!(
                    "device {device} has {doc:?} by a release that the server does not take, and \
                     a tab of it is not told"
                ));
            }
            self.pass(DONE_MS)?;
        }
        Ok(())
    }

    /// Milliseconds in which a core has a token for a document's server: all tabs may be asked by
    /// each of their documents there, some of them silent, until the one that answers has one.
    pub(super) fn token_ms(&self, device: usize, doc: Doc) -> u64 {
        if !self.swarm.silent_tabs && !self.swarm.flaky_tokens {
            return 0;
        }
        let host = self.host_of(doc);
        let docs = self.docs.of(device).into_iter().filter(|doc| self.host_of(*doc) == host);
        let handles_count = self.devices[device].tabs.len() * docs.count();
        NEXT_TOKEN_MS * TOKENS_ASKED_MAX * handles_count as u64
    }

    /// Nobody else is told that.
    fn judge_mismatches(&self, lost: &[Lost]) -> Result<(), String> {
        for (device, here) in self.devices.iter().enumerate() {
            for doc in self.docs.of(device) {
                let is_lost = lost.iter().any(|lost| (lost.device, lost.doc) == (device, doc));
                if !is_lost && here.tabs.values().any(|tab| tab.is_mismatched(doc)) {
                    return Err(format!("device {device} is told of a mismatch of {doc:?}"));
                }
            }
        }
        Ok(())
    }

    /// What all others issue is decided, in this document and others. Says whether nobody else has
    /// lost meanwhile: a device that had no token until then may have brought its release.
    fn go_on_beside(&mut self, lost: &[Lost]) -> Result<bool, String> {
        let mut names = Vec::new();
        for device in 0..self.devices.len() {
            for doc in self.docs.of(device) {
                let is_lost = lost.iter().any(|lost| (lost.device, lost.doc) == (device, doc));
                let holder = self.holders(device, doc).first().copied();
                let is_followed = self.host_of(doc).is_some() && self.names_server(device, doc);
                if let Some(tab) = holder.filter(|_| !is_lost && is_followed) {
                    self.wish_in((device, tab), doc, "bump", 0);
                    names.push(format!("m{}", self.last_name));
                }
            }
        }
        let deadline = self.now_ms + SETTLE_MS;
        while let Some(name) = names.iter().find(|name| !self.judge.is_decided(name)) {
            if self.now_ms > deadline || self.queue.is_empty() {
                let is_of_more = self.lost_copies()?.len() > lost.len();
                let stuck = format!("{name} waits for others that have another release");
                return if is_of_more { Ok(false) } else { Err(stuck) };
            }
            self.next_event()?;
        }
        Ok(true)
    }

    /// Whether a tab of a device holds a document with its server, which none may for the rest.
    fn names_server(&self, device: usize, doc: Doc) -> bool {
        let is_the_servers = self.docs.spec(doc).host.is_some();
        let mut tabs = self.devices[device].tabs.values();
        tabs.any(|tab| tab.held.contains_key(&doc) && (is_the_servers || !tab.holds_locally(doc)))
    }

    /// What such a device has issued is there, also after a power cut.
    fn must_be_kept(&mut self, Lost { device, doc, .. }: Lost) -> Result<(), String> {
        if self.rng.once_in(2) {
            self.note(&format!("device {device}: power cut with what nobody takes"));
            self.cut_power_of(device);
            self.start_device(device)?;
            self.pass(TOLD_MS)?;
        }
        let (must, now_ms) = (self.judge.kept(device, doc), self.now_ms);
        // Whose release gave way, since nothing waited by it, is shown nothing any more.
        let tabs = &self.devices[device].tabs;
        let is_open = |tab: &TabId| !tabs[tab].is_shut(doc);
        if let Some(tab) = self.holders(device, doc).into_iter().find(is_open) {
            let query = self.tab(device, tab).query(doc, must, now_ms);
            self.send_to_core(device, tab, vec![query]);
        }
        self.pass(CALL_SETTLES_MS)
    }

    /// Its app is mended: the release is gone, and so is the copy, unless nothing waits in that.
    fn let_go_of(&mut self, lost: Lost) -> Result<(), String> {
        let Lost { device, doc, release, .. } = lost;
        if self.devices[device].tabs.values().all(|tab| tab.has_nothing_to_send(doc)) {
            return self.go_on_with(lost);
        }
        self.note(&format!("device {device}: begins {doc:?} anew"));
        let Some(tab) = self.close_tabs_of(device, release) else { return Ok(()) };
        // Nothing is deleted before the core is lent a page server.
        self.pass(TOLD_MS)?;
        for nth in 0..DELETIONS_MAX {
            if nth > 0 {
                // A tab that closed it may have been heard too late.
                self.let_all_close(device, doc)?;
            }
            if !self.devices[device].tabs.contains_key(&tab) {
                break;
            }
            self.destroy(device, tab, doc, true);
            self.pass(ANEW_MS)?;
            self.open_all(device);
            self.pass(ANEW_MS + ASKED_AGAIN_MS)?;
            // A copy that is there still is refused once more, but not while it lacks a token.
            let here = &self.devices[device];
            let is_refused = here.tabs.values().any(|tab| tab.is_mismatched(doc));
            if here.deleted.contains(&doc) && !is_refused {
                return Ok(());
            }
        }
        Err(format!("device {device} does not get rid of its copy of {doc:?}"))
    }

    /// The same copy goes on by the release of the server.
    fn go_on_with(&mut self, Lost { device, doc, release, theirs }: Lost) -> Result<(), String> {
        self.note(&format!("device {device}: goes on with {doc:?}"));
        if !self.rng.once_in(4) {
            // The next one knows nothing of the refusal.
            let page_server_lives = self.rng.once_in(2);
            self.kill_core(device, page_server_lives);
        }
        let beside = self.open_tab_of(device, theirs);
        self.close_tabs_of(device, release);
        let until_ms = self.now_ms + TOLD_MS + ASKED_AGAIN_MS + self.token_ms(device, doc);
        let goes_on = |world: &Self| {
            let mut tabs = world.devices[device].tabs.values();
            tabs.any(|tab| tab.release == theirs && tab.is_in_step(doc))
        };
        while !goes_on(self) {
            if self.now_ms >= until_ms {
                return Err(format!("device {device} does not go on with {doc:?} by {theirs:?}"));
            }
            self.pass(DONE_MS)?;
        }
        // What is local here may be of the other release for good.
        if let Some(beside) = beside.filter(|tab| self.devices[device].tabs.contains_key(tab)) {
            self.close_this_tab(device, beside);
        }
        Ok(())
    }
}
