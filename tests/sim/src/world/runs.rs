//! Tabs that start runs of a workflow and cancel them, and tabs that go on with them. What is drawn
//! for that is drawn from a source of its own, so that worlds without runs are what they would be.

use std::collections::BTreeSet;

use tidelog_client::TabId;

use super::World;
use super::event::Event;
use crate::docs::Doc;
use crate::judge::Sent;
use crate::rng::Rng;
use crate::tab::{FarEnd, RunNews, Versions, Work};

/// Milliseconds after which a handler goes on with what it has been answered, at most.
const GOES_ON_MS: u64 = 30;
/// Milliseconds within which a core dies that has just asked somebody else for something.
const DIES_MS: u64 = 50;

/// What a world has of runs.
pub(super) struct Runs {
    rng: Rng,
    far_end: FarEnd,
    last_id: u64,
    /// Tabs that handle runs since all is well: what has stopped goes on with those who come.
    anew: BTreeSet<(usize, TabId, Doc)>,
}

impl Runs {
    pub(super) fn new(seed: u64) -> Self {
        let rng = Rng::new(seed.rotate_left(14) ^ !seed);
        Self { rng, far_end: FarEnd::new(), last_id: 0, anew: BTreeSet::new() }
    }
}

impl World {
    pub(super) fn act_on_runs(&mut self, device: usize, tab: TabId) {
        let held: Vec<Doc> = self.devices[device].tabs[&tab].held.keys().copied().collect();
        let rng = &mut self.tasks.runs.rng;
        let Some(doc) = rng.pick(&held) else { return };
        let here = self.devices[device].tabs.get_mut(&tab).expect("BUG: it is there");
        let mut messages = Vec::new();
        if self.tasks.finishes {
            for doc in held {
                if self.tasks.runs.anew.insert((device, tab, doc)) {
                    messages.extend(here.end_handling(doc, Work::Runs));
                }
                if !here.handles(doc, Work::Runs) {
                    messages.extend(here.begin_handling(doc, Work::Runs, 8, Versions::All));
                }
            }
        } else if !here.handles(doc, Work::Runs) && rng.once_in(3) {
            let concurrency = 1 + u32::try_from(rng.below(3)).unwrap_or(0);
            let versions = if rng.once_in(4) { Versions::Own } else { Versions::UpToOwn };
            messages.extend(here.begin_handling(doc, Work::Runs, concurrency, versions));
        } else if rng.once_in(16) {
            messages.extend(here.end_handling(doc, Work::Runs));
        }
        if !self.tasks.finishes && !self.is_elsewhere(device, doc) {
            let rng = &mut self.tasks.runs.rng;
            if rng.once_in(4) {
                messages.push(self.start_run(device, tab, doc));
            } else if rng.once_in(16) && self.tasks.runs.last_id > 0 {
                messages.push(self.cancel_run(device, tab, doc));
            }
        }
        self.send_to_core(device, tab, messages);
        self.go_on_with_runs(device, tab);
    }

    /// A tab starts a run: a new one, the same once more, or another one by the same id.
    fn start_run(&mut self, device: usize, tab: TabId, doc: Doc) -> tidelog_client::ToCore {
        let rng = &mut self.tasks.runs.rng;
        let is_new = self.tasks.runs.last_id == 0 || !rng.once_in(4);
        if is_new {
            self.tasks.runs.last_id += 1;
        }
        let last = self.tasks.runs.last_id;
        let nth = if is_new { last } else { 1 + rng.below(last) };
        let other = if !is_new && rng.once_in(4) { "other" } else { "" };
        let key = format!("{}r{nth}", doc.0);
        let sent = Sent { stream: key.clone(), id: format!("{key}{other}"), key, is_run: true };
        let name = self.judge.sends(doc, &sent);
        let times = [self.now_ms, self.devices[device].clock(self.now_ms)];
        self.tab(device, tab).send_command(doc, &sent, &name, times)
    }

    fn cancel_run(&mut self, device: usize, tab: TabId, doc: Doc) -> tidelog_client::ToCore {
        let nth = 1 + self.tasks.runs.rng.below(self.tasks.runs.last_id);
        let key = format!("{}r{nth}", doc.0);
        let name = self.judge.cancels(doc, &key);
        let times = [self.now_ms, self.devices[device].clock(self.now_ms)];
        self.tab(device, tab).cancel_run(doc, key, &name, times)
    }

    /// A tab was told something of runs: it goes on with them, soon or at its next turn.
    pub(super) fn runs_go_on_soon(&mut self, device: usize, tab: TabId) {
        let rng = &mut self.tasks.runs.rng;
        if self.tasks.finishes || !rng.once_in(4) {
            let delay = rng.below(GOES_ON_MS);
            self.schedule(delay, Event::RunsGoOn { device, tab });
        }
    }

    /// A tab goes on with what it was given.
    pub(super) fn go_on_with_runs(&mut self, device: usize, tab: TabId) {
        let is_away =
            self.busy.contains_key(&(device, tab)) || self.hidden.contains(&(device, tab));
        let Some(here) = self.devices[device].tabs.get_mut(&tab).filter(|_| !is_away) else {
            return;
        };
        let finishes = self.tasks.finishes;
        let runs = &mut self.tasks.runs;
        let (messages, news) = here.go_on_with_runs(&mut runs.rng, &mut runs.far_end, finishes);
        for news in news {
            let (RunNews::Tells { doc, .. }
            | RunNews::Asks { doc, .. }
            | RunNews::Says { doc, .. }) = &news;
            let clock_ms = self.furthest_clock(*doc);
            if matches!(news, RunNews::Asks { .. }) && self.faults && self.tasks.runs.rng.once_in(8)
            {
                let (life, delay) = (self.devices[device].life, self.tasks.runs.rng.below(DIES_MS));
                self.schedule(delay, Event::KillCore { device, life });
            }
            self.note_with(|| format!("{device}.{}: {news:?}", tab.0));
            if let Err(what) = self.judge.hear_of_run(news, clock_ms) {
                self.wrong.get_or_insert(format!("{device}.{}: {what}", tab.0));
            }
        }
        self.send_to_core(device, tab, messages);
    }

    /// The furthest that the clock was by which the time of a document goes.
    fn furthest_clock(&self, doc: Doc) -> u64 {
        let spec = self.docs.spec(doc);
        match spec.host {
            Some(host) => self.tasks.furthest_ms[host],
            None => {
                let devices = self.devices.iter().map(|it| it.clock(self.now_ms));
                devices.chain(self.tasks.furthest_ms).max().unwrap_or(self.now_ms)
            }
        }
    }
}
