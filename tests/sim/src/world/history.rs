//! Stores that go back to an earlier state, are copied, rot, or begin anew.
//!
//! What a store has lost then may be gone, and what another copy of it has gone on with is not: the
//! judge is told of each mutation that was there before and is not there after.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::TabId;
use tidelog_disk::CrashDevice;
use tidelog_room::{Answer, ConnId};
use tidelog_sync::{Channel, Intent, ToRoom, ToServer, codec};
use tidelog_types::{ClientId, DocumentKey, JournalId};

use super::World;
use super::event::Event;
use super::meeting::GLANCE_MS;
use super::sockets::Muted;
use crate::app::{Release, doctype};
use crate::device::{Device, crash, damage_log, file_in, kill, rot};
use crate::docs::Doc;
use crate::reference::Found;
use crate::swarm::History;
use crate::tab::Tab;

/// One who is on no device.
const NEWCOMER: ConnId = ConnId(u64::MAX - 1);

/// Names from here on are claimed in one moment only.
const CLAIMED_ONCE: u64 = 1_000_000;

/// Milliseconds in which a core notices that its data were cleared, once it has a page server.
const CLEARED_KNOWN_MS: u64 = 5_000;
/// Milliseconds in which a tab lends another page server, though a worker that says nothing is
/// waited for before that, and others fail.
const LENT_AGAIN_MS: u64 = 50_000;
/// Milliseconds after which a page is loaded anew whose core has noticed that, at most.
const LOADED_ANEW_MS: u64 = 3_050;

/// Mutations that a device issues before its server goes back, and those that it has to send then.
const ISSUED: u32 = 3;
/// Milliseconds in which they are decided, or kept, and in which all are back after a power cut.
const DECIDED_MS: u64 = 2_000;
const KEPT_MS: u64 = 800;
const BACK_MS: u64 = 8_000;
/// Milliseconds in which some of what devices have just issued is at its server, and bytes of that.
const SENT_MS_MAX: u64 = 60;
const LARGE: u64 = 30_000;

/// A copy of a device's store, and how many mutations had been issued when it was made.
pub(super) struct DeviceCopy {
    device: usize,
    disk: CrashDevice,
    issued: u64,
}

impl World {
    /// What is due before this action.
    pub(super) fn make_history(&mut self, action: u64) -> Result<(), String> {
        for (at, history) in self.swarm.history.clone() {
            if at == action {
                self.happen_to_store(history)?;
            }
        }
        Ok(())
    }

    fn happen_to_store(&mut self, history: History) -> Result<(), String> {
        match history {
            History::BackUpServer { rots } => self.back_up_server(rots)?,
            History::RestoreServer => self.restore_server()?,
            History::ReplaceServer => {
                let host = self.any_used_host();
                self.note(&format!("server {host}: begins anew with an empty store"));
                self.give_server(host, CrashDevice::new())?;
            }
            History::CopyDevice => {
                self.contend()?;
                let device = self.rng.index(self.devices.len());
                self.note(&format!("device {device}: its store is copied"));
                self.cut_power_of(device);
                let disk = kill(&self.devices[device].disk, &self.swarm);
                let issued = self.judge.issued_count();
                self.device_copy = Some(DeviceCopy { device, disk, issued });
            }
            History::RollDeviceBack => self.roll_device_back()?,
            History::CloneDevice => {
                let device = self.rng.index(self.devices.len());
                self.contend()?;
                self.clone_device(device);
            }
            History::FillDocument => self.fill_document()?,
            History::MoveTwice => self.move_twice()?,
            History::SyncBehind => self.sync_behind()?,
            History::LoseSeeded => self.lose_seeded()?,
            History::Rivals => self.hand_over_rivals()?,
            History::ExportAmid => self.export_amid()?,
            History::FailUnheard => self.fail_unheard()?,
            History::CloseOffering => self.close_offering()?,
            History::BreakOffering => self.break_offering()?,
            History::FailAmid => self.fail_amid()?,
            History::ReleaseAmid => self.release_amid()?,
            History::SayAgain => self.say_again()?,
            History::LoseAcked => self.lose_acked()?,
            History::PutMachineBack => self.put_machine_back()?,
            History::ForgetCalls => self.forget_calls()?,
            History::DeleteTwice => self.delete_twice()?,
            History::SleepOnDeletion => self.sleep_on_deletion()?,
            History::MeetNamesake => self.meet_namesake()?,
            History::PartCopies => self.part_copies()?,
            History::RejectCopies => self.reject_copies()?,
            History::BarOut => self.bar_out()?,
            History::RefuseToken => self.refuse_a_token()?,
            History::TurnAway => self.turn_away()?,
            History::OpenBehindDeletion => self.open_behind_deletion()?,
            History::BlockNext => self.block_next()?,
            History::ForkReleases => self.fork_releases()?,
            History::Demote => self.demote()?,
            History::Expire => self.expire()?,
            History::Revoke => self.revoke()?,
            History::OtherUser => self.other_user()?,
            History::ClockOff => self.clock_is_off()?,
            History::BeginOffline => self.begin_offline()?,
            History::DeleteOnServer => self.delete_on_server()?,
            History::ClearDevice => self.clear_device()?,
            History::RotDevice => self.rot_device()?,
        }
        Ok(())
    }

    /// Every device claims one name: one that is copied now may have a mutation under way that is
    /// rejected later, of which only one of its two copies is told.
    fn contend(&mut self) -> Result<(), String> {
        let name = CLAIMED_ONCE + self.last_name;
        for device in 0..self.devices.len() {
            let doc = Doc(0);
            let mut tabs = self.devices[device].tabs.iter();
            let tab = tabs.find(|(_, tab)| tab.held.contains_key(&doc)).map(|(tab, _)| *tab);
            if let Some(tab) = tab {
                let claim = self.claim(device, tab, doc, name);
                self.send_to_core(device, tab, vec![claim]);
            }
        }
        for _ in 0..self.rng.below(40) {
            self.next_event()?;
        }
        Ok(())
    }

    /// Gives the number of the clone.
    fn clone_device(&mut self, device: usize) -> usize {
        let clone = self.devices.len();
        self.note(&format!("device {device}: its store is cloned as device {clone}"));
        self.cut_power_of(device);
        let mut other = Device::new(&self.swarm, &mut self.rng);
        other.disk = kill(&self.devices[device].disk, &self.swarm);
        self.devices.push(other);
        if self.rotten.contains(&device) {
            self.rotten.insert(clone);
        }
        self.devices[clone].has_damaged_log = self.devices[device].has_damaged_log;
        let delay = self.rng.below(3_000);
        self.schedule(delay, Event::StartDevice { device: clone });
        clone
    }

    /// A server is restored, and restored again when a device has just begun to send what it had to
    /// send all along, from the same backup, or from a later one that is the right one: so that
    /// moves to another timeline twice. A clone of the device, which comes last, has it where it
    /// was first.
    fn move_twice(&mut self) -> Result<(), String> {
        let (host, device) = (0, self.rng.index(self.devices.len()));
        self.note(&format!("device {device}: has something to send while its server goes back"));
        let backup = crash(&self.hosts[host].disk, &self.swarm, &mut self.rng);
        self.issue_some(device)?;
        self.pass(DECIDED_MS)?;
        self.cut_device_off(device);
        let later = crash(&self.hosts[host].disk, &self.swarm, &mut self.rng);
        self.issue_some(device)?;
        self.pass(KEPT_MS)?;
        let clone = self.clone_device(device);
        self.cut_off.insert(clone);
        self.give_server(host, kill(&backup, &self.swarm))?;
        self.cut_off.remove(&device);
        self.muted = Some(Muted { device, frames_left: 1 });
        self.pass(BACK_MS)?;
        let second = if self.rng.once_in(2) { later } else { backup };
        self.give_server(host, second)?;
        self.muted = None;
        self.pass(BACK_MS)?;
        self.cut_off.remove(&clone);
        Ok(())
    }

    /// A device and its clone go on apart: what the device has issued moves to another timeline,
    /// and so does what a second clone has of it. The server hears the first of it from the device,
    /// the rest from that clone, and then all of it once more. The first clone had claimed that,
    /// and may give it up amid all this.
    fn part_copies(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.note(&format!("device {device}: its copies part"));
        let claimant = self.clone_device(device);
        self.cut_device_off(device);
        self.pass(BACK_MS)?;
        let first = CLAIMED_ONCE + self.last_name;
        for claiming in [claimant, device] {
            for nth in 0..u64::from(ISSUED) {
                self.wish(claiming, Doc(0), "claim", first + nth);
            }
            self.pass(DECIDED_MS)?;
        }
        let clone = self.clone_device(device);
        self.cut_off.insert(clone);
        self.cut_off.remove(&device);
        self.muted = Some(Muted { device, frames_left: 1 });
        self.pass(BACK_MS)?;
        self.muted = None;
        self.cut_device_off(device);
        if self.rng.once_in(2) {
            // What was rejected would be applied from now on.
            for nth in 0..u64::from(ISSUED) {
                self.judge.gave_up(Doc(0), first + nth);
                self.wish(claimant, Doc(0), "renounce", first + nth);
            }
            self.pass(DECIDED_MS)?;
        }
        self.cut_off.remove(&clone);
        self.pass(BACK_MS)?;
        self.cut_off.remove(&device);
        Ok(())
    }

    /// A device and its clone have the same to send, which is rejected. The device hears why, and
    /// says with what it sends next that it has; its clone, which comes then, is told that nobody
    /// knows any more.
    fn reject_copies(&mut self) -> Result<(), String> {
        let doc = Doc(0);
        let device = self.rng.index(self.devices.len());
        self.note(&format!("device {device}: something is rejected that its clone has too"));
        self.cut_device_off(device);
        let name = CLAIMED_ONCE + self.last_name;
        for other in (0..self.devices.len()).filter(|other| *other != device) {
            self.wish(other, doc, "claim", name);
        }
        self.pass(DECIDED_MS)?;
        if self.holders(device, doc).is_empty() {
            return Ok(());
        }
        self.wish(device, doc, "claim", name);
        let claim = format!("m{}", self.last_name);
        self.pass(KEPT_MS)?;
        let is_kept = self.judge.is_durable(&claim);
        let clone = self.clone_device(device);
        self.cut_off.insert(clone);
        self.cut_off.remove(&device);
        self.pass(BACK_MS)?;
        if let Some(tab) = self.holders(device, doc).first().copied() {
            self.add_in((device, tab), doc);
        }
        self.pass(DECIDED_MS)?;
        self.cut_off.remove(&clone);
        self.pass(BACK_MS)?;
        let mut tabs = self.devices[clone].tabs.values();
        let now_ms = self.now_ms;
        let forgot = |tab: &Tab| {
            let told = tab.told_rejections(doc, now_ms);
            tab.is_in_step(doc) && told.is_some_and(|told| !told.contains(&claim))
        };
        if is_kept && self.judge.is_rejected(&claim) && tabs.any(forgot) {
            return Err(format!("device {clone} was not told that {claim} was rejected"));
        }
        Ok(())
    }

    fn issue_some(&mut self, device: usize) -> Result<(), String> {
        for _ in 0..ISSUED {
            let doc = Doc(0);
            let mut tabs = self.devices[device].tabs.iter();
            let tab = tabs.find(|(_, tab)| tab.held.contains_key(&doc)).map(|(tab, _)| *tab);
            if let Some(tab) = tab {
                let message = self.mutate(device, tab, doc);
                self.send_to_core(device, tab, vec![message]);
            }
            self.next_event()?;
        }
        Ok(())
    }

    // --- servers -------------------------------------------------------------------------------

    fn back_up_server(&mut self, rots: bool) -> Result<(), String> {
        let host = self.any_used_host();
        self.note(&format!("server {host}: is backed up"));
        let backup = crash(&self.hosts[host].disk, &self.swarm, &mut self.rng);
        self.backup = Some((host, backup));
        if !rots || !self.hosts[host].is_up() {
            return Ok(());
        }
        self.cut_power_of_server(host);
        let here = &mut self.hosts[host];
        if self.swarm.logs_rot {
            if let Some(damaged) = damage_log(&here.disk, &self.swarm, &mut self.rng) {
                (here.disk, here.has_damaged_log) = (damaged, true);
                self.note(&format!("server {host}: its log is damaged"));
            }
        } else if rot(&here.disk, &mut self.rng) {
            self.note(&format!("server {host}: a page rots"));
        }
        self.find_rotten((0..self.devices.len()).collect())?;
        if self.hosts[host].has_damaged_log { self.come_anew(host) } else { Ok(()) }
    }

    /// One who has nothing asks a server for all that it has: what it is shown is for the server's
    /// doors to judge.
    fn come_anew(&mut self, host: usize) -> Result<(), String> {
        let life = self.hosts[host].life;
        let hello = ToServer::Hello { client: ClientId([1; 16]), token: None };
        let opens = self.docs_of_host(host).into_iter().map(|doc| ToRoom::Open {
            document: self.docs.spec(doc).key.document.clone(),
            doctype: codec::encode(&doctype(Release::First, self.swarm.kind)).into(),
            timeline: JournalId([1; 16]),
            secret: tidelog_types::CopySecret::NONE,
            have: None,
            intent: Intent::Follow,
        });
        let about = (1..).zip(opens);
        let about = about.map(|(at, body)| ToServer::About { channel: Channel(at), body });
        for message in [hello].into_iter().chain(about).collect::<Vec<_>>() {
            let done = self.hosts[host].hear(NEWCOMER, message);
            self.host_did(host, done);
        }
        self.pass(DECIDED_MS)?;
        if self.hosts[host].life == life {
            let done = self.hosts[host].left(NEWCOMER);
            self.host_did(host, done);
        }
        Ok(())
    }

    /// A server that has a document, or may be handed one.
    fn any_used_host(&mut self) -> usize {
        let mut hosts: Vec<usize> = (0..self.hosts.len()).collect();
        hosts.retain(|host| !self.docs_of_host(*host).is_empty());
        self.rng.pick(&hosts).expect("BUG: a world without a server")
    }

    /// An operator deletes a document that clients have. What they go on to send for it is kept by
    /// them, and one of them makes it again in the end.
    fn delete_on_server(&mut self) -> Result<(), String> {
        let host = self.any_used_host();
        let mut docs = self.docs_of_host(host);
        // What was a draft of somebody would be offered again.
        docs.retain(|doc| self.docs.spec(*doc).host == Some(host));
        let Some(doc) = self.rng.pick(&docs) else { return Ok(()) };
        self.pass(DECIDED_MS)?;
        let before = self.names_on(&self.hosts[host].disk, doc)?;
        let Some(before) = before.filter(Applied::is_there) else { return Ok(()) };
        if !self.hosts[host].is_up() || self.hosts[host].is_broken() {
            return Ok(());
        }
        self.note(&format!("server {host}: {doc:?} is to be deleted"));
        let document = self.docs.spec(doc).key.clone();
        if self.rng.once_in(2) {
            // What comes before it may be on its way to the disk, and not get there.
            self.fill_server(host);
            for device in 0..self.devices.len() {
                self.wish(device, doc, "large", LARGE);
            }
            if self.rng.once_in(3) {
                let sent_ms = self.rng.below(SENT_MS_MAX);
                self.pass(sent_ms)?;
            } else {
                self.let_append_fail(host, &document)?;
            }
        }
        self.deleting = Some((doc, before));
        let done = self.hosts[host].destroy(&document);
        self.host_did(host, done);
        self.pass(DECIDED_MS)?;
        if self.not_deleted.take() == Some(doc) && !self.is_on_server(host, doc)? {
            return Err(format!("server {host}: {doc:?} was not deleted, and is gone"));
        }
        Ok(())
    }

    /// Lets things happen until a full store has refused an append to this document, of which the
    /// room has not heard yet. Then there is room again.
    fn let_append_fail(&mut self, host: usize, document: &DocumentKey) -> Result<(), String> {
        let until = self.now_ms + DECIDED_MS;
        for is_writing in [false, true] {
            while self.next_at().is_some_and(|at| at <= until)
                && self.hosts[host].is_writing(document) == is_writing
            {
                self.next_event()?;
            }
        }
        self.hosts[host].disk.set_full(false);
        Ok(())
    }

    /// What a server says of the document that was to be deleted there.
    pub(super) fn deleted(&mut self, host: usize, answer: Option<Answer>) {
        match answer {
            None => {}
            Some(Answer::Destroyed) => {
                let Some((doc, before)) = self.deleting.take() else { return };
                let durable = self.hosts[host].disk.crash(&mut |_| 0);
                match self.names_on(&durable, doc) {
                    Ok(Some(found)) if found.journal == before.journal => {
                        let what =
                            format!("server {host}: {doc:?} was deleted, and is on its disk");
                        self.wrong.get_or_insert(what);
                    }
                    Ok(Some(found)) => self.is_gone(host, doc, before.claims, found),
                    _ => self.is_gone(host, doc, before.claims, Applied::default()),
                }
            }
            Some(Answer::Unknown { .. }) => self.look_for_deleted(host),
            Some(_) => self.not_deleted = self.deleting.take().map(|(doc, _)| doc),
        }
    }

    /// Nobody is told whether the document that was to be deleted on a server is there, so its disk
    /// has to tell.
    pub(super) fn look_for_deleted(&mut self, host: usize) {
        let is_its = self.deleting.as_ref().is_some_and(|(doc, _)| self.has_doc(host, *doc));
        let Some((doc, before)) = self.deleting.take_if(|_| is_its) else { return };
        match self.names_on(&self.hosts[host].disk, doc) {
            Ok(Some(found)) if found.journal != before.journal => {
                self.is_gone(host, doc, before.claims, found);
            }
            Ok(_) => {}
            Err(what) => {
                self.wrong.get_or_insert(what);
            }
        }
    }

    /// A document was deleted on a server. Who opened it meanwhile may have made it again, with
    /// this in it.
    fn is_gone(&mut self, host: usize, doc: Doc, claims: BTreeSet<String>, anew: Applied) {
        // Anything may have come after the word, and before the deed.
        self.judge.went_back(doc, None, &Some(anew));
        self.judge.lost_claims(doc, claims);
        self.went_back.insert(host);
    }

    /// Puts the backup into the place of a server's store.
    pub(super) fn restore_server(&mut self) -> Result<(), String> {
        let Some((host, backup)) = self.backup.take() else { return Ok(()) };
        self.note(&format!("server {host}: is restored"));
        self.give_server(host, backup)
    }

    /// Another store takes the place of a server's: what is not in that is lost.
    pub(super) fn give_server(&mut self, host: usize, disk: CrashDevice) -> Result<(), String> {
        for doc in self.docs_of_host(host) {
            let before = self.names_on(&self.hosts[host].disk, doc)?;
            let after = self.names_on(&disk, doc)?;
            self.judge.went_back(doc, before, &after);
        }
        self.went_back.insert(host);
        self.cut_power_of_server(host);
        self.hosts[host].disk = kill(&disk, &self.swarm);
        self.hosts[host].has_damaged_log = false;
        Ok(())
    }

    pub(super) fn docs_of_host(&self, host: usize) -> Vec<Doc> {
        self.docs.all().filter(|doc| self.has_doc(host, *doc)).collect()
    }

    /// Whether a server has a document, or may be handed it.
    fn has_doc(&self, host: usize, doc: Doc) -> bool {
        let spec = self.docs.spec(doc);
        spec.host == Some(host) || spec.moves_to == Some(host)
    }

    /// Whether there is such a document in a server's store.
    pub(super) fn is_on_server(&self, host: usize, doc: Doc) -> Result<bool, String> {
        let applied = self.names_on(&self.hosts[host].disk, doc)?;
        Ok(applied.is_none_or(|applied| applied.is_there()))
    }

    /// The mutations that are applied in a document as it lies on a disk, and who has which claim;
    /// nothing if it cannot be read, since something has rotted.
    pub(super) fn names_on(&self, disk: &CrashDevice, doc: Doc) -> Result<Option<Applied>, String> {
        let document = &self.docs.spec(doc).key;
        let Some(file) = file_in(disk, document, &self.swarm)? else { return Ok(None) };
        if file.bytes.is_empty() {
            return Ok(Some(Applied::default()));
        }
        let found = Found::open(&file.bytes)?;
        let claims = found.claims.keys().cloned().collect();
        let names = found.names.iter().cloned().collect();
        let journal = Some(file.journal.ok_or("a document that has pages has no journal")?);
        Ok(Some(Applied { journal, names, claims, release: Some(found.release) }))
    }

    // --- devices -------------------------------------------------------------------------------

    fn roll_device_back(&mut self) -> Result<(), String> {
        let Some(DeviceCopy { device, disk, issued }) = self.device_copy.take() else {
            return Ok(());
        };
        self.note(&format!("device {device}: goes back to the copy of its store"));
        self.put_store_back(device, issued, &disk)
    }

    /// A device's store is what it was when so many mutations had been issued.
    pub(super) fn put_store_back(
        &mut self,
        device: usize,
        issued: u64,
        disk: &CrashDevice,
    ) -> Result<(), String> {
        self.cut_power_of(device);
        let applied = self.applied_at_servers()?;
        self.judge.rolled_back(device, issued, &applied);
        self.devices[device].disk = kill(disk, &self.swarm);
        self.note_what_moved(device)
    }

    fn rot_device(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.cut_power_of(device);
        let here = &mut self.devices[device];
        if self.swarm.logs_rot {
            let damaged = damage_log(&here.disk, &self.swarm, &mut self.rng);
            let Some(damaged) = damaged else { return Ok(()) };
            (here.disk, here.has_damaged_log) = (damaged, true);
            self.note(&format!("device {device}: its log is damaged"));
            // Of what is missing now anything may have been in it.
            let applied = self.applied_at_servers()?;
            self.judge.rolled_back(device, 0, &applied);
            self.note_what_moved(device)?;
        } else if rot(&here.disk, &mut self.rng) {
            self.note(&format!("device {device}: a page rots"));
        } else {
            return Ok(());
        }
        self.rotten.insert(device);
        self.find_rotten(vec![device])
    }

    /// Those who may meet what has rotted come to it.
    fn find_rotten(&mut self, devices: Vec<usize>) -> Result<(), String> {
        self.pass(BACK_MS)?;
        for device in devices {
            self.issue_some(device)?;
            for tab in self.devices[device].tabs.keys().copied().collect::<Vec<_>>() {
                let held = self.tab(device, tab).held.keys().copied().collect::<Vec<Doc>>();
                for doc in held {
                    let must = self.judge.own(self.origin(device, tab, doc));
                    let now_ms = self.now_ms;
                    let query = self.tab(device, tab).query(doc, must, now_ms);
                    self.send_to_core(device, tab, vec![query]);
                }
            }
            self.delete_damaged(device);
        }
        self.pass(DECIDED_MS)
    }

    /// A copy that cannot be deleted, since its log is damaged, is opened again meanwhile.
    fn delete_damaged(&mut self, device: usize) {
        let here = &self.devices[device];
        if !self.swarm.destroying || !here.has_damaged_log {
            return;
        }
        let held = here.tabs.iter().flat_map(|(tab, it)| it.held.keys().map(|doc| (*tab, *doc)));
        let is_own = |doc: Doc| self.docs.spec(doc).moves_to.is_none();
        let held: Vec<_> = held.filter(|(_, doc)| is_own(*doc)).collect();
        let Some((tab, doc)) = self.rng.pick(&held) else { return };
        let other = self.devices[device].tabs.keys().copied().find(|other| *other != tab);
        self.destroy(device, tab, doc, true);
        // Its own tab asks for it once it has heard that it stays.
        self.make_again(device, other.unwrap_or(tab), doc);
    }

    /// A device's data are cleared while it is used. Its core cannot go on with what it remembers,
    /// and another one begins anew.
    fn clear_device(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        if self.seed % 3 < 2 && self.rng.once_in(2) && self.may_be_cleared(device) {
            self.ask_to_delete_one(device)?;
        }
        if !self.may_be_cleared(device) {
            return Ok(());
        }
        self.note(&format!("device {device}: its data are cleared under it"));
        self.trouble(device);
        let applied = self.applied_at_servers()?;
        self.judge.rolled_back(device, 0, &applied);
        let here = &mut self.devices[device];
        here.owes_queries_nothing();
        here.part();
        self.break_worker(device);
        let here = &mut self.devices[device];
        here.disk = CrashDevice::new();
        here.disk.hold_flushes(!self.swarm.flushes_at_once);
        here.has_damaged_log = false;
        let life = here.life;
        here.cleared_in_life = Some(life);
        self.schedule(CLEARED_KNOWN_MS, Event::LooksCleared { device, life });
        Ok(())
    }

    fn may_be_cleared(&self, device: usize) -> bool {
        let here = &self.devices[device];
        let is_frozen = here.frozen_until_ms > self.now_ms;
        // A core that was lent its page server just now may hold nothing that could be missing.
        let is_new = here.trouble_ms + 1_000 > self.now_ms;
        here.core.is_some() && here.is_open() && !is_frozen && !is_new
    }

    /// A tab asks for a copy to be deleted, which may be on its way to the disk by now.
    fn ask_to_delete_one(&mut self, device: usize) -> Result<(), String> {
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        let all = self.docs.of(device).into_iter();
        let docs: Vec<Doc> = all.filter(|doc| self.docs.spec(*doc).moves_to.is_none()).collect();
        if let (Some(tab), Some(doc)) = (self.rng.pick(&tabs), self.rng.pick(&docs)) {
            self.destroy(device, tab, doc, true);
            let ms = self.rng.below(GLANCE_MS);
            self.pass(ms)?;
        }
        Ok(())
    }

    /// The core whose data were cleared has noticed that.
    pub(super) fn looks_cleared(&mut self, device: usize, life: u64) -> Result<(), String> {
        let here = &self.devices[device];
        let is_quiet = here.trouble_ms + CLEARED_KNOWN_MS / 2 < self.now_ms;
        let goes_on = here.core.as_ref().is_some_and(|core| !core.is_lost());
        if here.life == life && here.is_lent() && is_quiet && goes_on {
            return Err(format!("device {device} works on over data that were cleared"));
        }
        Ok(())
    }

    /// Waits until pages are loaded anew where data were cleared: before that nothing can be kept
    /// there.
    pub(super) fn load_cleared_anew(&mut self) -> Result<(), String> {
        let until = self.now_ms + LENT_AGAIN_MS + CLEARED_KNOWN_MS + LOADED_ANEW_MS;
        let is_cleared = |here: &Device| here.cleared_in_life == Some(here.life);
        while self.devices.iter().any(is_cleared) && self.next_at().is_some_and(|at| at <= until) {
            self.next_event()?;
        }
        Ok(())
    }

    /// A page was loaded anew: the core whose data were cleared ends. What it has decided since, it
    /// could not write down.
    pub(super) fn lost_core_ends(&mut self, device: usize, life: u64) {
        if self.devices[device].life == life && self.devices[device].core.is_some() {
            self.judge.rolled_back(device, u64::MAX, &BTreeMap::new());
            self.devices[device].owes_queries_nothing();
            self.start_another_core(device, false);
        }
    }

    /// Whoever has a rotten page begins with nothing in the end.
    pub(super) fn clear_rotten(&mut self) -> Result<(), String> {
        for device in std::mem::take(&mut self.rotten) {
            self.note(&format!("device {device}: its data are cleared"));
            self.cut_power_of(device);
            let applied = self.applied_at_servers()?;
            self.judge.rolled_back(device, 0, &applied);
            self.devices[device].disk = CrashDevice::new();
            self.devices[device].disk.hold_flushes(!self.swarm.flushes_at_once);
            self.devices[device].has_damaged_log = false;
            self.note_what_moved(device)?;
        }
        Ok(())
    }

    /// What a server took over, though nobody here heard of that, is opened from there.
    fn note_what_moved(&mut self, device: usize) -> Result<(), String> {
        for doc in self.devices[device].offered.clone() {
            let host = self.docs.spec(doc).moves_to.expect("BUG: offered to nobody");
            if self.is_on_server(host, doc)? {
                self.devices[device].moved.insert(doc);
            }
        }
        self.devices[device].part();
        Ok(())
    }

    pub(super) fn applied_at_servers(&self) -> Result<BTreeMap<Doc, BTreeSet<String>>, String> {
        let mut applied = BTreeMap::new();
        for host in 0..self.hosts.len() {
            for doc in self.docs_of_host(host) {
                // What is not flushed could still be lost there too.
                let durable = self.hosts[host].disk.crash(&mut |_| 0);
                if let Some(there) = self.names_on(&durable, doc)? {
                    applied.insert(doc, there.names);
                }
            }
        }
        Ok(applied)
    }
}

/// What is applied in a document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// The journal that it has, if it is there.
    journal: Option<JournalId>,
    pub(crate) names: BTreeSet<String>,
    pub(crate) claims: BTreeSet<String>,
    /// The newest release that the document was brought to.
    pub(crate) release: Option<Release>,
}

impl Applied {
    pub(super) fn is_there(&self) -> bool {
        self.journal.is_some()
    }
}
