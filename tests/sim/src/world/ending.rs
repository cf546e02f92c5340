//! The end of a run: all settles, all sides are compared, and work goes on.

use std::fmt::Write as _;

use tidelog_client::TabId;

use super::{SETTLE_MS, World};
use crate::app::Wish;
use crate::device::Device;
use crate::docs::Doc;
use crate::doors::WRITTEN_AGAIN_MS;
use crate::tab::{Asked, Live, Tab};

/// How often all sides are compared before they are said to differ.
const COMPARISONS_MAX: u32 = 5;
/// How often a local document is handed over before that is said not to work: on a line that gave
/// up several connections a dead one is known for that only after three minutes.
const HAND_OVERS_MAX: u32 = 10;
/// Simulated milliseconds between that: a device whose page server says nothing needs a minute.
const HAND_OVER_MS: u64 = 15_000;
/// Mutations that are issued while one device is cut off still.
const WORK_MAX: u32 = 12;
/// Mutations that a device has to send when it comes back.
const DRAINED: usize = 60;
/// Simulated milliseconds in which it is rid of one of them.
const DRAIN_MS: u64 = 4;
/// How often copies of a document that its server has lost are deleted.
const DELETIONS_MAX: u32 = 5;
/// Simulated milliseconds in which that is done, and the document made again.
const BEGIN_ANEW_MS: u64 = 15_000;
/// Simulated milliseconds after which a server that has refused a document is asked again.
const ASKED_AGAIN_MS: u64 = 31_000;
/// Simulated milliseconds in which documents are closed, and their copies deleted.
const LEFT_MS: u64 = 10_000;
/// Simulated milliseconds in which a core hears what it is asked.
const HEARD_MS: u64 = 8;
/// Simulated milliseconds in which a core that has begun is lent a page server, whatever became of
/// the one before.
const LENT_MS: u64 = 75_000;
/// Simulated milliseconds in which tabs are told how their documents stand.
const TOLD_MS: u64 = 2_000;
/// Simulated milliseconds in which a tab that listens is told what there is, and live queries show
/// it.
const LISTENED_MS: u64 = 1_000;
/// Simulated milliseconds in which nothing happens, when nobody does anything.
const REST_MS: u64 = 60_000;
/// Messages over the net that this may take, other than signs of life.
const REST_MESSAGES_MAX: u64 = 60;
/// Milliseconds in which what was to be flushed is, and its core knows it.
const FLUSHED_MS: u64 = 650;

impl World {
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.heal()?;
        self.outlive_short_tokens()?;
        self.load_cleared_anew()?;
        if self.close_wanted_until_ms > self.now_ms {
            self.pass(self.close_wanted_until_ms - self.now_ms)?;
            (0..self.devices.len()).for_each(|device| self.open_all(device));
        }
        self.begin_anew()?;
        self.settle_opens("after the faults")?;
        self.join_releases()?;
        self.open_everything()?;
        self.connect_all();
        self.hand_over_all()?;
        // Of what was handed over, its device may have heard only now.
        self.begin_anew()?;
        if self.swarm.fills {
            self.make_room()?;
        }
        self.finish_tasks()?;
        if self.swarm.heals_late {
            self.heal_all_but_one()?;
            if self.swarm.fills {
                self.make_room()?;
            }
        }
        self.settle("after the faults")?;
        // A document that was opened anew meanwhile is away if it was when it was left.
        self.connect_all();
        // What was sent there is received only now.
        self.finish_tasks()?;
        self.converge("after the faults")?;
        if self.swarm.goes_on {
            self.go_on()?;
            self.rest()?;
        }
        self.judge_listeners()?;
        self.judge_statuses()?;
        if self.swarm.is_cut_last {
            self.cut_all()?;
        }
        self.judge_all()?;
        if self.swarm.is_left_last { self.leave_all() } else { Ok(()) }
    }

    /// Whatever happened before, nobody holds what all have closed: its copy can be deleted, and is
    /// on no disk then.
    fn leave_all(&mut self) -> Result<(), String> {
        let everybody = |world: &Self, device: usize| -> Vec<TabId> {
            world.devices[device].tabs.keys().copied().collect()
        };
        let mut in_two_steps = Vec::new();
        for device in 0..self.devices.len() {
            let tabs = everybody(self, device);
            tabs.iter().for_each(|tab| self.tab(device, *tab).is_leaving = true);
            match tabs[..] {
                [tab] if self.rng.once_in(2) => self.leave_at_once(device, tab)?,
                _ => in_two_steps.push(device),
            }
            for tab in tabs {
                for doc in self.docs.of(device) {
                    let now_ms = self.now_ms;
                    let messages = self.tab(device, tab).close(doc, now_ms).unwrap_or_default();
                    self.send_to_core(device, tab, messages);
                }
            }
        }
        self.pass(LEFT_MS)?;
        for device in in_two_steps {
            for doc in self.docs.of(device) {
                let tab = self.any_tab(device)?;
                self.destroy(device, tab, doc, true);
            }
        }
        self.pass(LEFT_MS)?;
        self.must_be_answered()?;
        if self.delete_what_is_left()? {
            // Whose core died of that, or has no store yet, was told so.
            self.pass(LENT_MS)?;
            self.must_be_answered()?;
            self.delete_what_is_left()?;
            self.pass(LEFT_MS)?;
        }
        (0..self.devices.len()).try_for_each(|device| self.must_be_deleted(device))
    }

    /// Whoever wants anything deleted was told whether that is done.
    fn must_be_answered(&self) -> Result<(), String> {
        for device in 0..self.devices.len() {
            let tab = self.any_tab(device)?;
            let keys = self.docs.of(device).into_iter().map(|doc| &self.docs.spec(doc).key);
            let mut left = keys.filter(|key| self.devices[device].tabs[&tab].deletes(key));
            if let Some(key) = left.next() {
                return Err(format!("device {device}: {key} is not deleted"));
            }
        }
        Ok(())
    }

    /// Says whether there was any copy that was not said to be deleted.
    fn delete_what_is_left(&mut self) -> Result<bool, String> {
        let mut is_any = false;
        for device in 0..self.devices.len() {
            let mut left = self.docs.of(device);
            left.retain(|doc| !self.devices[device].deleted.contains(doc));
            is_any |= !left.is_empty();
            let tab = self.any_tab(device)?;
            left.into_iter().for_each(|doc| self.destroy(device, tab, doc, true));
        }
        Ok(is_any)
    }

    fn must_be_deleted(&self, device: usize) -> Result<(), String> {
        let durable = self.devices[device].disk.crash(&mut |_| 0);
        for doc in self.docs.of(device) {
            if !self.devices[device].deleted.contains(&doc) {
                return Err(format!("device {device}: {doc:?} cannot be deleted"));
            }
            if self.names_on(&durable, doc)?.is_some_and(|found| found.is_there()) {
                return Err(format!("device {device}: {doc:?} was deleted, and is on its disk"));
            }
        }
        Ok(())
    }

    /// The only tab of a device closes all and deletes it, of which its core may die.
    fn leave_at_once(&mut self, device: usize, tab: TabId) -> Result<(), String> {
        for doc in self.docs.of(device) {
            self.destroy(device, tab, doc, true);
        }
        let heard_ms = self.rng.below(HEARD_MS);
        self.pass(heard_ms)?;
        let page_server_lives = self.rng.once_in(2);
        self.kill_core(device, page_server_lives);
        Ok(())
    }

    /// What converged must also be what is on the disks.
    fn cut_all(&mut self) -> Result<(), String> {
        for device in 0..self.devices.len() {
            self.note(&format!("device {device}: power cut at the end"));
            self.trouble(device);
            self.cut_sockets(device);
            self.devices[device].cut_power(&mut self.rng);
            self.start_device(device)?;
        }
        self.converge("after a last power cut")?;
        // Until then a page server may say nothing.
        self.pass(LENT_MS)?;
        self.judge_statuses()
    }

    /// Lets everything settle and compares all sides byte for byte.
    ///
    /// More than once, and not at once: a device may bring in the first round what others see in
    /// the second, or learn only now that its disk had no room a while ago, and fetch again what it
    /// had shown; live queries take turns with what is asked; a server that had lost a document is
    /// asked again after a while.
    fn converge(&mut self, when: &str) -> Result<(), String> {
        // Every tab is given its documents before it asks anything of them.
        self.settle(when)?;
        let mut compared = Err(String::new());
        for _ in 0..COMPARISONS_MAX {
            self.sync_all(when)?;
            compared = self.compare(when);
            if compared.is_ok() {
                break;
            }
            let mut tabs = self.devices.iter().flat_map(|device| device.tabs.values());
            let is_refused = tabs.any(Tab::is_refused_any);
            self.pass(if is_refused { ASKED_AGAIN_MS } else { LISTENED_MS })?;
        }
        compared
    }

    /// Where a server has lost a document, and nobody has brought it along since, a device deletes
    /// its copy, so that it can be made again: nothing else does that.
    fn begin_anew(&mut self) -> Result<(), String> {
        let mut lost = Vec::new();
        for host in self.went_back.clone() {
            for doc in self.docs_of_host(host) {
                if self.host_of(doc) == Some(host) && !self.is_on_server(host, doc)? {
                    lost.push((host, doc));
                }
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        self.pass(BEGIN_ANEW_MS)?;
        self.connect_all();
        for (host, doc) in lost {
            for nth in 0..DELETIONS_MAX {
                if self.is_on_server(host, doc)? {
                    break;
                }
                let devices = self.devices_of(doc);
                let device = self.rng.pick(&devices).expect("BUG: a document of nobody");
                if nth > 0 {
                    // A tab that closed it may have been heard too late.
                    self.let_all_close(device, doc)?;
                }
                let tab = self.any_tab(device)?;
                self.note(&format!("device {device}: begins {doc:?} anew"));
                self.destroy(device, tab, doc, true);
                self.pass(BEGIN_ANEW_MS)?;
                self.open_all(device);
                self.pass(BEGIN_ANEW_MS)?;
            }
        }
        // Those who were refused ask again after a while.
        self.pass(ASKED_AGAIN_MS)
    }

    /// One device is cut off still. The others come together without it, and it works on for
    /// itself.
    fn heal_all_but_one(&mut self) -> Result<(), String> {
        let cut_off = self.rng.index(self.devices.len());
        self.note(&format!("device {cut_off}: is cut off still"));
        self.cut_device_off(cut_off);
        for _ in 0..WORK_MAX {
            let device = self.rng.index(self.devices.len());
            let tab = self.any_tab(device)?;
            let held: Vec<Doc> = self.tab(device, tab).held.keys().copied().collect();
            if let Some(doc) = self.rng.pick(&held) {
                let message = self.mutate(device, tab, doc);
                self.send_to_core(device, tab, vec![message]);
            }
            for _ in 0..self.rng.below(30) {
                self.next_event()?;
            }
        }
        self.converge("while a device is cut off")?;
        if self.swarm.drains {
            for _ in 0..DRAINED {
                self.add(cut_off)?;
            }
        }
        self.cut_off.clear();
        if self.swarm.drains { self.drain(cut_off) } else { Ok(()) }
    }

    /// A device reaches no server from now on.
    pub(super) fn cut_device_off(&mut self, device: usize) {
        self.cut_off.insert(device);
        let conns = self.conns.iter().filter(|(_, conn)| conn.device == device);
        let conns: Vec<u64> = conns.map(|(conn, _)| *conn).collect();
        conns.into_iter().for_each(|conn| self.cut(conn));
    }

    /// The device that was cut off has much to send, and the others go on while it drains.
    fn drain(&mut self, device: usize) -> Result<(), String> {
        let is_back = |world: &Self| {
            let mut conns = world.conns.values();
            conns.any(|conn| conn.device == device && conn.host == 0)
        };
        let deadline = self.now_ms + SETTLE_MS;
        while !is_back(self) && !self.queue.is_empty() {
            if self.now_ms > deadline {
                return Err(format!("device {device} does not come back to its server"));
            }
            self.next_event()?;
        }
        for nth in 0..DRAINED {
            self.add((device + 1 + nth % (self.devices.len() - 1)) % self.devices.len())?;
            self.pass(DRAIN_MS)?;
        }
        Ok(())
    }

    /// A device adds to the document that everybody has.
    fn add(&mut self, device: usize) -> Result<(), String> {
        let tab = self.any_tab(device)?;
        self.last_name += 1;
        let name = format!("m{}", self.last_name);
        let message = self.issue(device, tab, Doc(0), Wish::new("add", &name, 0), &name);
        self.send_to_core(device, tab, vec![message]);
        Ok(())
    }

    /// The server that has a document now.
    pub(super) fn host_of(&self, doc: Doc) -> Option<usize> {
        let spec = self.docs.spec(doc);
        let is_moved = || self.devices.iter().any(|device| device.moved.contains(&doc));
        spec.host.or(spec.moves_to.filter(|_| is_moved()))
    }

    fn devices_of(&self, doc: Doc) -> Vec<usize> {
        (0..self.devices.len()).filter(|device| self.docs.of(*device).contains(&doc)).collect()
    }

    fn connected_devices_of(&self, doc: Doc) -> Vec<usize> {
        let mut devices = self.devices_of(doc);
        devices.retain(|device| !self.cut_off.contains(device));
        devices
    }

    /// A tab that closed a draft while it handed it over, in vain, does not hold it any more. One
    /// that holds it still opens it as the server's, as often as its device fails meanwhile.
    fn open_everything(&mut self) -> Result<(), String> {
        let holds_any = |here: &Device| {
            let mut tabs = here.tabs.values();
            tabs.any(|tab| here.moved.iter().any(|doc| tab.holds_locally(*doc)))
        };
        for _ in 0..HAND_OVERS_MAX {
            (0..self.devices.len()).for_each(|device| self.open_all(device));
            self.settle_opens("when what was not handed over was opened")?;
            if !self.devices.iter().any(holds_any) {
                break;
            }
            self.pass(HAND_OVER_MS)?;
        }
        Ok(())
    }

    /// What somebody began to hand over is handed over, by somebody: the server may have taken
    /// a draft whose device does not know that yet, and refuse the others of its name.
    fn hand_over_all(&mut self) -> Result<(), String> {
        for _ in 0..HAND_OVERS_MAX {
            for (device, doc) in self.not_handed_over().collect::<Vec<_>>() {
                if self.is_moved(doc) && !self.is_elsewhere(device, doc) {
                    continue;
                }
                let tab = self.any_tab(device)?;
                let is_held = self.tab(device, tab).held.contains_key(&doc);
                if self.rng.once_in(2) && is_held && !self.is_elsewhere(device, doc) {
                    // The server may have what it was at an earlier offer.
                    let message = self.mutate(device, tab, doc);
                    self.send_to_core(device, tab, vec![message]);
                    self.pass(HAND_OVER_MS)?;
                }
                let (docs, now_ms) = (self.docs.clone(), self.now_ms);
                let open = self.tab(device, tab).hand_over(&docs, doc, now_ms);
                self.send_to_core(device, tab, vec![open]);
                self.settle_opens("when a document was to be handed over")?;
                self.pass(HAND_OVER_MS)?;
            }
        }
        match self.not_handed_over().next() {
            Some((device, doc)) => Err(format!("device {device} cannot hand {doc:?} over")),
            None => Ok(()),
        }
    }

    /// What somebody began to hand over, and nobody of that name has.
    fn not_handed_over(&self) -> impl Iterator<Item = (usize, Doc)> + '_ {
        let offered = self.devices.iter().enumerate();
        let offered =
            offered.flat_map(|(device, it)| it.offered.iter().map(move |doc| (device, *doc)));
        offered.filter(|(device, doc)| !self.is_moved(*doc) || self.is_elsewhere(*device, *doc))
    }

    /// Whether a draft, or another one of its name, is the server's.
    fn is_moved(&self, doc: Doc) -> bool {
        let key = &self.docs.spec(doc).key;
        let mut moved = self.devices.iter().flat_map(|device| &device.moved);
        moved.any(|moved| self.docs.spec(*moved).key == *key)
    }

    fn sync_all(&mut self, when: &str) -> Result<(), String> {
        for doc in self.docs.all() {
            if self.host_of(doc).is_none() {
                continue;
            }
            for device in self.connected_devices_of(doc) {
                let tab = self.any_tab(device)?;
                let (must, now_ms) = (self.judge.confirmed(doc), self.now_ms);
                let sync = self.tab(device, tab).sync(doc, must, now_ms);
                self.send_to_core(device, tab, vec![sync]);
            }
        }
        self.settle(when)
    }

    fn compare(&mut self, when: &str) -> Result<(), String> {
        for doc in self.docs.all() {
            let Some(host) = self.host_of(doc) else {
                for device in self.connected_devices_of(doc) {
                    let ours = self.export(device, doc, when)?;
                    self.compare_live(doc, &ours, when)?;
                }
                continue;
            };
            let devices = self.connected_devices_of(doc);
            // The one device that makes it may be cut off still: no server has heard of it.
            if devices.is_empty() {
                continue;
            }
            let theirs = self.export_host(host, doc, when)?;
            self.note_bytes(&theirs);
            for device in devices {
                let ours = self.export(device, doc, when)?;
                if ours != theirs {
                    let first = ours.iter().zip(&theirs).position(|(a, b)| a != b);
                    return Err(format!(
                        "{when}, device {device} differs from the server in {}: {} and {} bytes, \
                         first difference at {first:?}",
                        self.docs.spec(doc).key,
                        ours.len(),
                        theirs.len(),
                    ));
                }
            }
            self.compare_live(doc, &theirs, when)?;
        }
        Ok(())
    }

    /// What live queries show is what there is, but in tabs that do not know yet that their core is
    /// gone, or have not got the document back from the next one.
    fn compare_live(&mut self, doc: Doc, file: &[u8], when: &str) -> Result<(), String> {
        let found = self.found.open(doc, file)?;
        let claims = found.claims.iter().map(|(name, id)| format!("{name} {id}"));
        let cells = Live::Cells.part_of(&found.cells).to_vec();
        let there = [
            (Live::Entries, found.names.clone()),
            (Live::Claims, claims.collect()),
            (Live::Cells, cells),
            (Live::Ends, found.ends.clone()),
        ];
        for device in self.connected_devices_of(doc) {
            let tabs = self.devices[device].tabs.iter();
            for (tab, here) in tabs.filter(|(_, here)| here.is_told_of(doc)) {
                for (live, rows) in &there {
                    if let Some(shown) = here.live.get(&(doc, *live)).filter(|it| *it != rows) {
                        return Err(format!(
                            "{when}, a live query of {device}.{} shows {shown:?}, and {live:?} \
                             of {doc:?} are {rows:?}",
                            tab.0,
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// When all is well again, work goes on: what tabs issue is confirmed, or there is no room.
    fn go_on(&mut self) -> Result<(), String> {
        // What a store refused while it lacked room is told once that is on the disk, and what is
        // issued before is refused with it.
        if self.devices.iter().any(|it| it.disk.has_held_flushes()) {
            self.pass(FLUSHED_MS)?;
        }
        // Until a worker that says nothing is given up, little may wait for the next one's store.
        if self.devices.iter().any(|it| it.lending.hangs()) {
            self.pass(LENT_MS)?;
        }
        self.note("work goes on");
        let mut names = Vec::new();
        for device in 0..self.devices.len() {
            let tab = self.any_tab(device)?;
            for doc in self.docs.of(device) {
                for mutation in ["fold", "add"] {
                    self.last_name += 1;
                    let name = format!("m{}", self.last_name);
                    let wish = Wish::new(mutation, &name, self.rng.next());
                    let message = self.issue(device, tab, doc, wish, &name);
                    self.send_to_core(device, tab, vec![message]);
                    names.push(name);
                }
            }
        }
        self.converge("when work went on")?;
        let is_good = |name: &String| match self.swarm.fills {
            true => self.judge.is_decided(name),
            false => self.judge.is_confirmed(name),
        };
        match names.iter().find(|name| !is_good(name)) {
            Some(name) => Err(format!("{name} was issued when all was well, and is not confirmed")),
            None => Ok(()),
        }
    }

    /// When nobody does anything, nothing is sent to and fro.
    fn rest(&mut self) -> Result<(), String> {
        let before = self.net_messages;
        self.pass(REST_MS)?;
        let sent = self.net_messages - before;
        if sent > REST_MESSAGES_MAX {
            return Err(format!("{sent} messages went over the net, and nobody did anything"));
        }
        Ok(())
    }

    /// Whoever has listened all along was told of every rejection, whatever became of its cores.
    fn judge_listeners(&mut self) -> Result<(), String> {
        // A tab may have found its next core just now.
        self.settle("before listeners are judged")?;
        self.pass(LISTENED_MS)?;
        if self.swarm.servers_go_back() {
            let applied = self.applied_at_servers()?;
            self.judge.decided_anew(&applied);
        }
        for doc in self.docs.all() {
            for device in self.devices_of(doc) {
                let tabs = self.devices[device].tabs.values();
                for tab in tabs.filter(|tab| tab.held.contains_key(&doc) && tab.port.is_heard) {
                    if let Some(told) = tab.told_rejections(doc, self.now_ms) {
                        self.judge.judge_rejections(device, doc, &told)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Everybody is told that all is in step, and by all devices the same, once each device has its
    /// store: a page server may just have broken, or say nothing.
    fn judge_statuses(&mut self) -> Result<(), String> {
        // A server that is asked anew wants a token.
        let devices = 0..self.devices.len();
        let of_all = |device| self.docs.of(device).into_iter().map(move |doc| (device, doc));
        let token_ms = devices.flat_map(of_all).map(|(device, doc)| self.token_ms(device, doc));
        let token_ms = token_ms.max().unwrap_or(0);
        let until_ms = self.now_ms + LENT_MS + token_ms;
        let is_at_rest = |it: &Device, now_ms| {
            let refused_lately = it.refused_ms + WRITTEN_AGAIN_MS + token_ms > now_ms;
            let waits = |tab: &Tab| {
                tab.waits_for_store(refused_lately) || tab.is_ahead_of_store() || !tab.is_told()
            };
            it.is_lent() && !it.tabs.values().any(waits)
        };
        let mut was_at_rest = false;
        while self.now_ms < until_ms {
            // What was on its way may have been refused meanwhile.
            let all_are = self.devices.iter().all(|it| is_at_rest(it, self.now_ms));
            if all_are && was_at_rest {
                break;
            }
            was_at_rest = all_are;
            self.pass(TOLD_MS)?;
        }
        for doc in self.docs.all() {
            let is_synced = self.host_of(doc).is_some();
            let mut first = None;
            for device in self.devices_of(doc) {
                let tabs = self.devices[device].tabs.iter();
                let tabs = tabs.filter(|(_, it)| it.held.contains_key(&doc) && it.port.is_heard);
                for (tab, here) in tabs {
                    let say = |what| format!("{device}.{}: {what}", tab.0);
                    let storage = here.judge_status(doc, is_synced).map_err(say)?;
                    if *first.get_or_insert(storage) != storage && is_synced {
                        let what = format!("{doc:?} ends at {storage:?}, and at {first:?}");
                        return Err(say(what));
                    }
                }
            }
        }
        Ok(())
    }

    fn judge_all(&mut self) -> Result<(), String> {
        for doc in self.docs.all() {
            let host = self.host_of(doc);
            let devices = self.devices_of(doc);
            let file = match (host, devices.first()) {
                (Some(host), _) => self.export_host(host, doc, "at the end")?,
                (None, Some(device)) => self.export(*device, doc, "at the end")?,
                (None, None) => continue,
            };
            let found = self.found.open(doc, &file).map_err(|what| format!("{doc:?}: {what}"))?;
            let names = self.judge.judge_end(doc, host.is_none(), found)?;
            if let Some(tasks) = found.tasks()? {
                let is_over = host.is_some();
                let judged = self.judge.judge_tasks(doc, &tasks, is_over);
                judged.map_err(|what| format!("tasks of {doc:?}: {what}"))?;
            }
            if let Some(runs) = found.runs(self.swarm.has_runs())? {
                let judged = self.judge.judge_runs(doc, &runs, host.is_some());
                judged.map_err(|what| format!("runs of {doc:?}: {what}"))?;
            }
            for device in devices {
                let tabs = self.devices[device].tabs.iter();
                // A release that does not go with the document has none of it.
                for (tab, here) in tabs.filter(|(_, here)| here.is_told_of(doc)) {
                    if let Some(told) = here.told_rejections(doc, self.now_ms) {
                        self.judge.judge_rejections(device, doc, &told)?;
                    }
                    let live = here.live.get(&(doc, Live::Entries));
                    if let Some(shown) = live.filter(|live| **live != names) {
                        return Err(format!(
                            "a live query of {device}.{} shows {shown:?}, and there are {names:?} \
                             in {doc:?}",
                            tab.0,
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn export(&mut self, device: usize, doc: Doc, when: &str) -> Result<Vec<u8>, String> {
        let tab = self.any_tab(device)?;
        let now_ms = self.now_ms;
        let export = self.tab(device, tab).export(doc, now_ms);
        self.send_to_core(device, tab, vec![export]);
        self.settle(when)?;
        let file = self.tab(device, tab).exported.get(&doc).cloned();
        file.ok_or_else(|| format!("{when}, device {device} gives no file"))
    }

    fn any_tab(&self, device: usize) -> Result<TabId, String> {
        let mut tabs = self.devices[device].tabs.keys();
        tabs.next().copied().ok_or_else(|| format!("device {device} has no tab"))
    }

    fn settle(&mut self, when: &str) -> Result<(), String> {
        let deadline = self.now_ms + SETTLE_MS;
        while !self.is_settled() {
            if self.now_ms > deadline || self.queue.is_empty() {
                return Err(format!("{when}, something is stuck: {}", self.unsettled()));
            }
            self.next_event()?;
        }
        Ok(())
    }

    /// The same of what has to be open. What waits for a verdict of a document that is the server's
    /// by now, and that nobody knows to be, waits until it is handed over once more.
    pub(super) fn settle_opens(&mut self, when: &str) -> Result<(), String> {
        let deadline = self.now_ms + SETTLE_MS;
        let opens = |device: &Device| {
            let mut tabs = device.tabs.values();
            tabs.any(|tab| tab.unsettled.values().any(Asked::is_open))
        };
        while self.devices.iter().any(opens) {
            if self.now_ms > deadline || self.queue.is_empty() {
                return Err(format!("{when}, something is not open: {}", self.unsettled()));
            }
            self.next_event()?;
        }
        Ok(())
    }

    pub(super) fn is_settled(&self) -> bool {
        let devices = self.devices.iter().enumerate();
        let connected = devices.filter(|(device, _)| !self.cut_off.contains(device));
        let mut tabs = connected.flat_map(|(_, device)| device.tabs.values());
        tabs.all(|tab| {
            let is_lost = tab.held.values().any(|handle| tab.port.lost.contains_key(handle));
            !is_lost && tab.unsettled.is_empty() && tab.confirming.is_empty()
        })
    }

    fn unsettled(&self) -> String {
        let mut text = String::new();
        for (device, here) in self.devices.iter().enumerate() {
            for (id, tab) in &here.tabs {
                for asked in tab.unsettled.values() {
                    let message = format!("{:?}", asked.message);
                    let message: String = message.chars().take(60).collect();
                    let _ = write!(text, "[device {device} tab {}: {message}]", id.0);
                }
                for handle in tab.port.lost.keys() {
                    let _ = write!(text, "[device {device} tab {} lost {handle:?}]", id.0);
                }
            }
        }
        text
    }

    pub(super) fn export_host(
        &mut self,
        host: usize,
        doc: Doc,
        when: &str,
    ) -> Result<Vec<u8>, String> {
        let document = self.docs.spec(doc).key.clone();
        self.exported = None;
        let deadline = self.now_ms + SETTLE_MS;
        let mut is_asked = false;
        while self.exported.is_none() && self.now_ms < deadline {
            // A disk that was to fail soon may do so now, and then the room answers nobody.
            let is_broken = self.hosts[host].is_broken();
            if !is_asked && !is_broken {
                let done = self.hosts[host].export(&document);
                self.host_did(host, done);
            }
            is_asked = !is_broken;
            self.next_event()?;
        }
        self.exported.take().ok_or_else(|| format!("{when}, server {host} gives no file"))
    }
}
