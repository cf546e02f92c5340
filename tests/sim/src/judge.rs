//! What has to hold: while a world runs, and when everything is over.

mod access;
mod runs;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tidelog_types::Value;
use tidelog_types::limits::{Limits, PAGE_SIZE};

use crate::app::{Wish, claim_name};
use crate::docs::Doc;
use crate::reference::{Found, Issued};
use crate::swarm::Swarm;
use crate::tab::News;
use crate::world::Applied;
use tasks::TaskLedger;
pub(crate) use tasks::{SENDING, Sent, sending_in};

/// What was said of every mutation that any tab ever issued.
#[derive(Default)]
pub(crate) struct Judge {
    fates: BTreeMap<String, Fate>,
    /// How many were issued.
    count: u64,
    /// What was said of commands, and how much.
    tasks: TaskLedger,
    tasks_count: u64,
    /// Claims that were taken in a history which was lost since, and those that were given up.
    lost_claims: BTreeMap<Doc, BTreeSet<String>>,
    /// What copies of documents hold that somebody wants deleted, and has not been told of, unless
    /// that is not known for sure.
    may_go: BTreeMap<(Doc, usize), Vec<String>>,
    /// Until when tabs may go on with a copy that one of them wants deleted everywhere: what they
    /// issue before they are told goes with it.
    closing_until_ms: BTreeMap<(Doc, usize), u64>,
    /// Whether there are several states of one device, or it may forget what it has done.
    devices_part: bool,
    /// What a mutation may take, and whether any one may find its document full.
    limits: Limits,
    fills: bool,
    /// Whether so few rejections are kept that some are forgotten.
    forgets_rejections: bool,
    /// Lives that a document's pages remember of each timeline.
    timeline_lives_kept_max: usize,
    /// Devices whose tokens did not allow to write for a while, and how many mutations had been
    /// issued when their cores knew that they do again.
    demoted: BTreeMap<usize, Option<u64>>,
}

/// Who issued a mutation, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) doc: Doc,
    pub(crate) device: usize,
    /// Which of all tabs that the device ever had.
    pub(crate) tab: u64,
}

#[derive(Debug)]
struct Fate {
    origin: Origin,
    issued: Issued,
    /// Its place among all mutations.
    nth: u64,
    durable: bool,
    confirmed: bool,
    /// By the server, with this reason.
    rejected: Option<String>,
    /// When a tab heard of that first.
    rejected_ms: u64,
    /// A listener has returned for its rejection: nobody need be told again.
    handled: bool,
    /// When, if its device has surely written that down, or does so now: nobody may be told again.
    handled_ms: Option<u64>,
    /// It left nothing behind, its caller was told.
    failed: bool,
    /// So it was since it was rejected where it was issued.
    was_refused: bool,
    /// Its copy was deleted before it was decided: it may be there or not.
    dropped: bool,
    /// Whether its device has deleted its copy since: it comes back from the server.
    deleted: bool,
    /// Its server went back to a time at which it had no verdict: it may get another one.
    reopened: bool,
    /// Its app closed the document meanwhile, and may have opened it again at once.
    left: bool,
}

impl Fate {
    /// The name that it claims.
    fn claimed(&self) -> Option<&String> {
        if self.issued.wish.mutation == "renounce" {
            return None;
        }
        self.issued.wish.args.iter().find_map(|(arg, value)| match value {
            Value::Text(text) if arg == "name" => Some(text),
            _ => None,
        })
    }
}

/// Where and when something was heard, and when something went wrong there last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub(crate) device: usize,
    pub(crate) now_ms: u64,
    pub(crate) trouble_ms: u64,
}

/// Simulated milliseconds in which a device writes down what a tab has said, if nothing goes wrong.
const WRITTEN_MS: u64 = 5_000;
/// Simulated milliseconds within which two rejections may be told in another order than they came.
const TOLD_MS: u64 = 5_000;
/// Steps that each row of a heavy mutation counts, at most, and pages that one changes beside those
/// of its body.
const STEPS_PER_ROW_MAX: i64 = 26;
const PAGES_BESIDE_MAX: usize = 10;
/// Bytes over the net at most: of a world in which nothing is issued, for each mutation, and for
/// each byte that apps put into one.
const NET_SIZE_MAX: u64 = 2 << 20;
const NET_SIZE_PER_MUTATION_MAX: u64 = 150_000;
const NET_SIZE_PER_BYTE_MAX: u64 = 40;

/// How much work a world took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// How often one undecided mutation was run again at most, in hundredths of the reasons that
    /// its devices had.
    pub runs_percent: u64,
    /// Bytes over the net in hundredths of what they may be.
    pub net_percent: u64,
}

impl Work {
    /// The most of both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            runs_percent: self.runs_percent.max(other.runs_percent),
            net_percent: self.net_percent.max(other.net_percent),
        }
    }

    /// # Errors
    ///
    /// If it is out of proportion.
    fn judge(self) -> Result<Self, String> {
        let is_in_proportion = self.runs_percent <= 100 && self.net_percent <= 100;
        if is_in_proportion { Ok(self) } else { Err(format!("work is out of proportion: {self}")) }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs_percent, net_percent } = self;
        write!(f, "{runs_percent} % of the runs of a mutation, {net_percent} % of the bytes sent")
    }
}

/// The reason with which a mutation is rejected whose fate nobody can know.
pub(crate) const UNKNOWN: &str = "nobody can tell";

impl Judge {
    /// Of a world of these features.
    pub(crate) fn new(swarm: &Swarm) -> Self {
        let forgets_rejections =
            swarm.limits.rejections_kept_max < Limits::DEFAULT.rejections_kept_max;
        Self {
            devices_part: swarm.devices_part() || swarm.logs_rot,
            limits: swarm.limits,
            fills: swarm.fills,
            forgets_rejections,
            timeline_lives_kept_max: swarm.limits.timeline_lives_kept_max,
            ..Self::default()
        }
    }

    pub(crate) fn issued(&mut self, name: &str, origin: Origin, issued: Issued, now_ms: u64) {
        self.count += 1;
        let copy = (origin.doc, origin.device);
        let is_closing = self.closing_until_ms.get(&copy).is_some_and(|until| now_ms < *until);
        if let Some(names) = self.may_go.get_mut(&copy).filter(|_| is_closing) {
            names.push(name.to_owned());
        }
        let fate = Fate {
            origin,
            issued,
            nth: self.count,
            durable: false,
            confirmed: false,
            rejected: None,
            rejected_ms: 0,
            handled: false,
            handled_ms: None,
            failed: false,
            was_refused: false,
            dropped: is_closing,
            deleted: false,
            reopened: false,
            left: false,
        };
        let known = self.fates.insert(name.to_owned(), fate);
        assert!(known.is_none(), "BUG: {name} was issued twice by the simulator");
    }

    /// # Errors
    ///
    /// If it cannot be true, after what was said before.
    pub(crate) fn hear(&mut self, news: News, when: When) -> Result<(), String> {
        if news.is_of_sending() {
            return self.hear_of_sending(news, when);
        }
        match news {
            News::Task(news) => self.hear_of_task(news)?,
            News::Durable(name) => {
                let fate = self.fate(&name)?;
                if fate.failed {
                    return Err(format!("{name} failed and is durable: {fate:?}"));
                }
                fate.durable = true;
            }
            News::Confirmed(name) => {
                let fate = self.fate(&name)?;
                if fate.failed || (fate.rejected.is_some() && !fate.reopened) {
                    return Err(format!("{name} is confirmed after its end: {fate:?}"));
                }
                fate.dropped |= fate.rejected.is_some();
                fate.confirmed = true;
            }
            News::Rejected(name, reason) => {
                let devices_part = self.devices_part;
                self.judge_access(&name, &reason)?;
                let fate = self.fate(&name)?;
                if devices_part && reason.starts_with(UNKNOWN) {
                    fate.dropped = true;
                    return Ok(());
                }
                if fate.failed || (fate.confirmed && !fate.reopened) {
                    return Err(format!("{name} is rejected after its end: {fate:?}"));
                }
                fate.dropped |= fate.confirmed;
                if fate.rejected.replace(reason).is_none() {
                    fate.rejected_ms = when.now_ms;
                }
            }
            News::Kept(name) => {
                let fate = self.fate(&name)?;
                let is_late = |at_ms| when.now_ms > at_ms + WRITTEN_MS;
                if fate.handled_ms.is_some_and(is_late) && fate.origin.device == when.device {
                    return Err(format!("{name} was rejected and handled, and is told again"));
                }
            }
            News::Handled(name) => {
                let fate = self.fate(&name)?;
                fate.handled = true;
                if when.now_ms > when.trouble_ms && fate.origin.device == when.device {
                    fate.handled_ms.get_or_insert(when.now_ms);
                }
            }
            News::Failed(name, reason) => {
                let was_refused = reason.is_some();
                if let Some(reason) = reason {
                    self.judge_failure(&name, &reason)?;
                }
                let fate = self.fate(&name)?;
                if fate.durable || fate.confirmed || fate.rejected.is_some() {
                    return Err(format!("{name} failed after it was durable: {fate:?}"));
                }
                (fate.failed, fate.was_refused) = (true, was_refused);
            }
            News::Forbidden(name) => self.is_forbidden(&name)?,
            News::Unknown(name) => self.fate(&name)?.dropped = true,
            News::Left(name) => self.fate(&name)?.left = true,
            News::Rows { doc, names, must, tab } => self.judge_rows(doc, &names, &must, tab)?,
        }
        Ok(())
    }

    /// Whether work stayed in proportion to what there was to run again, and to what was issued.
    pub(crate) fn judge_work(&self, runs_percent: u64, net_size: u64) -> Result<Work, String> {
        let body = |fate: &Fate| {
            let sizes = fate.issued.wish.args.iter().map(|(_, value)| match value {
                Value::Blob(bytes) => bytes.len() as u64,
                _ => 0,
            });
            sizes.sum::<u64>()
        };
        let bodies: u64 = self.fates.values().map(body).sum();
        let net_size_max = NET_SIZE_MAX
            + NET_SIZE_PER_MUTATION_MAX * (self.count + self.tasks_count)
            + NET_SIZE_PER_BYTE_MAX * bodies;
        Work { runs_percent, net_percent: net_size * 100 / net_size_max }.judge()
    }

    fn fate(&mut self, name: &str) -> Result<&mut Fate, String> {
        self.fates.get_mut(name).ok_or_else(|| format!("news of {name}, which nobody issued"))
    }

    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let count = |which: fn(&Fate) -> bool| self.fates.values().filter(|f| which(f)).count();
        (count(|f| f.durable), count(|f| f.confirmed), count(|f| f.rejected.is_some()))
    }

    pub(crate) fn is_confirmed(&self, name: &str) -> bool {
        self.fates.get(name).is_some_and(|fate| fate.confirmed)
    }

    /// The same of one that was issued in this document.
    pub(crate) fn is_confirmed_in(&self, name: &str, doc: Doc) -> bool {
        self.fates.get(name).is_some_and(|fate| fate.confirmed && fate.origin.doc == doc)
    }

    /// Whether a device has anything of its own in a document on its disk.
    pub(crate) fn has_durable(&self, device: usize, doc: Doc) -> bool {
        let is_it = |fate: &Fate| fate.origin.device == device && fate.origin.doc == doc;
        self.fates.values().any(|fate| is_it(fate) && fate.durable)
    }

    /// Whether it was told to be on its device's disk.
    pub(crate) fn is_durable(&self, name: &str) -> bool {
        self.fates.get(name).is_some_and(|fate| fate.durable)
    }

    /// Whether it was told to be rejected, and why.
    pub(crate) fn is_rejected(&self, name: &str) -> bool {
        self.fates.get(name).is_some_and(|fate| fate.rejected.is_some())
    }

    /// Whether its tab was told what became of it.
    pub(crate) fn is_decided(&self, name: &str) -> bool {
        let is_decided = |fate: &Fate| fate.confirmed || fate.rejected.is_some() || fate.failed;
        self.fates.get(name).is_some_and(is_decided)
    }

    /// What whoever asks now, in this tab, has to see: what the tab issued itself, and what was
    /// confirmed on its device.
    pub(crate) fn own(&self, origin: Origin) -> BTreeSet<String> {
        let Origin { doc, device, tab } = origin;
        self.names(|fate| {
            let of = fate.origin;
            let is_sure = of.tab == tab && !self.may_be_rejected(fate);
            let is_here = of.doc == doc && of.device == device && !fate.deleted;
            is_here && (is_sure || fate.confirmed)
        })
    }

    /// What a device has on its disk of its own, undecided as far as anybody was told, and has to
    /// show whatever becomes of its tabs.
    pub(crate) fn kept(&self, device: usize, doc: Doc) -> BTreeSet<String> {
        self.names(|fate| {
            let is_here = fate.origin.device == device && fate.origin.doc == doc;
            is_here && !self.may_be_rejected(fate) && fate.durable && !fate.deleted
        })
    }

    /// Whether what the server has not decided may look rejected by now: others were first, or it
    /// finds more to do than it may.
    fn may_be_rejected(&self, fate: &Fate) -> bool {
        if self.may_lack_access(fate) {
            return true;
        }
        let (limits, whole) = (&self.limits, &Limits::DEFAULT);
        let is_tight = limits.mutation_pages_max < whole.mutation_pages_max
            || limits.statement_steps_max < whole.statement_steps_max;
        match fate.issued.wish.mutation {
            "claim" | "contest" | "take" | "large" | "heavy" => true,
            "prune" | "clear" => self.fills || is_tight,
            _ => self.fills,
        }
    }

    /// How many of one device were confirmed, of those that were issued after so many.
    pub(crate) fn confirmed_of(&self, doc: Doc, device: usize, issued: u64) -> u64 {
        let is_it = |fate: &Fate| (fate.origin.doc, fate.origin.device) == (doc, device);
        self.names(|fate| is_it(fate) && fate.nth > issued && fate.confirmed).len() as u64
    }

    /// What was confirmed to anybody.
    pub(crate) fn confirmed(&self, doc: Doc) -> BTreeSet<String> {
        self.names(|fate| fate.origin.doc == doc && fate.confirmed)
    }

    fn names(&self, which: impl Fn(&Fate) -> bool) -> BTreeSet<String> {
        let found = self.fates.iter().filter(|(_, fate)| which(fate));
        found.map(|(name, _)| name.clone()).collect()
    }

    /// A tab wants its device's copy of a document deleted, alone or while others do: what happens
    /// when that is done may have happened from now on.
    pub(crate) fn may_drop(&mut self, doc: Doc, device: usize, is_local: bool, is_alone: bool) {
        let before = self.names(|fate| fate.dropped);
        self.dropped(doc, device, is_local);
        if is_alone {
            let dropped = self.names(|fate| fate.dropped);
            let may_go = dropped.difference(&before).cloned().collect();
            self.may_go.insert((doc, device), may_go);
        }
    }

    /// All tabs are told to close it meanwhile, which they do by then.
    pub(crate) fn closes_everywhere(&mut self, doc: Doc, device: usize, until_ms: u64) {
        self.closing_until_ms.insert((doc, device), until_ms);
    }

    /// That has failed, and left everything behind.
    pub(crate) fn stays(&mut self, doc: Doc, device: usize) {
        self.closing_until_ms.remove(&(doc, device));
        for name in self.may_go.remove(&(doc, device)).unwrap_or_default() {
            let fate = self.fates.get_mut(&name).expect("BUG: it was issued");
            fate.dropped = false;
        }
    }

    /// A device has deleted its copy of a document: what was not decided may come to nothing. A
    /// local document is gone.
    pub(crate) fn dropped(&mut self, doc: Doc, device: usize, is_local: bool) {
        if is_local {
            self.tasks_may_be_lost(doc);
        }
        self.may_go.remove(&(doc, device));
        self.closing_until_ms.remove(&(doc, device));
        for fate in self.fates.values_mut() {
            let here = fate.origin.doc == doc && fate.origin.device == device;
            fate.dropped |= here && (is_local || !fate.confirmed);
            // Nobody can tell of it any more.
            fate.handled |= here;
            fate.handled_ms.take_if(|_| here);
            fate.deleted |= here;
        }
    }

    /// Something has gone wrong on a device: what it was told just now may not be written down.
    pub(crate) fn note_trouble(&mut self, device: usize, now_ms: u64) {
        for fate in self.fates.values_mut().filter(|fate| fate.origin.device == device) {
            fate.handled_ms.take_if(|at_ms| now_ms < *at_ms + WRITTEN_MS);
        }
    }

    /// How many were issued so far.
    pub(crate) fn issued_count(&self) -> u64 {
        self.count
    }

    /// A server has gone back from one state of a document to an earlier one: what was applied
    /// since then may be lost, and comes back where a device still has it. Whatever had no verdict
    /// then may get another one. `None` stands for what nobody can read.
    pub(crate) fn went_back(&mut self, doc: Doc, before: Option<Applied>, after: &Option<Applied>) {
        self.may_go.clear();
        let is_in = |state: &Option<Applied>, name: &String, else_is: bool| {
            state.as_ref().map_or(else_is, |state| state.names.contains(name))
        };
        for (name, fate) in self.fates.iter_mut().filter(|(_, fate)| fate.origin.doc == doc) {
            if !is_in(after, name, false) {
                fate.dropped |= is_in(&before, name, true);
                fate.reopened = true;
                fate.handled_ms = None;
            }
        }
        // Of a state that nobody can read, each claim may have been taken.
        let claimed = |fate: &Fate| fate.claimed().filter(|_| fate.origin.doc == doc).cloned();
        let claims = before.map(|state| state.claims);
        let claims = claims.unwrap_or_else(|| self.fates.values().filter_map(claimed).collect());
        self.lost_claims(doc, claims);
    }

    /// These claims may be gone, or be others' by now.
    pub(crate) fn lost_claims(&mut self, doc: Doc, claims: BTreeSet<String>) {
        self.lost_claims.entry(doc).or_default().extend(claims);
    }

    /// Somebody gives up a claim, so that others may have it.
    pub(crate) fn gave_up(&mut self, doc: Doc, number: u64) {
        self.lost_claims.entry(doc).or_default().insert(claim_name(number));
    }

    /// Of what is applied at servers that went back, something may have been rejected before: it
    /// has another verdict now, and no device tells of the first one that has forgotten it.
    pub(crate) fn decided_anew(&mut self, applied: &BTreeMap<Doc, BTreeSet<String>>) {
        for (name, fate) in self.fates.iter_mut().filter(|(_, it)| it.reopened) {
            let is_applied =
                applied.get(&fate.origin.doc).is_some_and(|names| names.contains(name));
            fate.dropped |= fate.rejected.is_some() && is_applied;
        }
    }

    /// A device has gone back to where it was when so many mutations had been issued. Of what it
    /// issued since, only what is applied at a server is sure to be there. What it was told of
    /// rejections since is forgotten.
    pub(crate) fn rolled_back(
        &mut self,
        device: usize,
        issued: u64,
        applied: &BTreeMap<Doc, BTreeSet<String>>,
    ) {
        self.may_go.clear();
        for (name, fate) in self.fates.iter_mut().filter(|(_, it)| it.origin.device == device) {
            let is_applied =
                applied.get(&fate.origin.doc).is_some_and(|names| names.contains(name));
            fate.dropped |= fate.nth > issued && !is_applied;
            fate.handled = true;
            fate.handled_ms = None;
            fate.deleted = true;
        }
    }

    /// What a query showed: each mutation once, none that came to nothing, and all that it must.
    fn judge_rows(
        &self,
        doc: Doc,
        names: &[String],
        must: &BTreeSet<String>,
        tab: u64,
    ) -> Result<(), String> {
        let mut shown = BTreeSet::new();
        for name in names {
            let Some(fate) = self.fates.get(name).filter(|fate| fate.origin.doc == doc) else {
                return Err(format!("{name} is shown in {doc:?} and was not issued there"));
            };
            if !shown.insert(name.as_str()) {
                return Err(format!("{name} is shown twice: {fate:?}"));
            }
            // Of others it may have heard late.
            if fate.failed && !fate.dropped && fate.origin.tab == tab {
                return Err(format!("{name} failed and is shown: {fate:?}"));
            }
        }
        let is_open = |fate: &Fate| {
            let may_go = fate.dropped || !fate.confirmed && self.may_lack_access(fate);
            !fate.failed && fate.rejected.is_none() && !may_go
        };
        let missing = |name: &&String| {
            !shown.contains(name.as_str()) && self.fates.get(*name).is_some_and(is_open)
        };
        match must.iter().find(missing) {
            Some(name) => Err(format!("{name} is not shown: {:?}", self.fates[name])),
            None => Ok(()),
        }
    }

    /// A file that was taken out at any time: what it shows is what a query may show, and what its
    /// mutations make of it.
    pub(crate) fn judge_export(&self, doc: Doc, found: &Found, tab: u64) -> Result<(), String> {
        self.judge_rows(doc, &found.names, &BTreeSet::new(), tab)?;
        found.compare(|name| self.fates.get(name).map(|fate| &fate.issued))
    }

    /// Whether a tab that listens only now has been told of every rejection of the document on its
    /// device for which no listener had returned.
    pub(crate) fn judge_rejections(
        &self,
        device: usize,
        doc: Doc,
        told: &BTreeSet<String>,
    ) -> Result<(), String> {
        let is_here = |fate: &Fate| fate.origin.device == device && fate.origin.doc == doc;
        let rejected = |fate: &Fate| is_here(fate) && fate.rejected.is_some();
        let mut rejected = self.fates.iter().filter(|(_, fate)| rejected(fate));
        let is_open = |fate: &Fate| !fate.handled && !fate.dropped;
        if self.forgets_rejections {
            let last_ms = rejected.clone().map(|(_, fate)| fate.rejected_ms).max().unwrap_or(0);
            let mut newest = rejected.filter(|(_, fate)| fate.rejected_ms + TOLD_MS >= last_ms);
            let is_lost = |(name, fate): (&String, &Fate)| is_open(fate) && !told.contains(name);
            // One of what sends a command may have taken the last place.
            let sending_ms = self.tasks.last_rejected_ms(device, doc, told);
            let has_place = sending_ms.is_some_and(|at_ms| at_ms + TOLD_MS >= last_ms);
            return match newest.next().filter(|_| !has_place) {
                Some(one) if is_lost(one) && newest.all(is_lost) => {
                    Err(format!("device {device} forgot the newest rejections, {} too", one.0))
                }
                _ => Ok(()),
            };
        }
        match rejected.find(|(name, fate)| is_open(fate) && !told.contains(*name)) {
            Some((name, _)) => Err(format!("device {device} forgot that {name} was rejected")),
            None => Ok(()),
        }
    }

    /// Compares what was said of a document with the rows that there are in the end. In a local one
    /// nothing is rejected that was durable. Gives what a live query has to show.
    pub(crate) fn judge_end(
        &self,
        doc: Doc,
        is_local: bool,
        found: &Found,
    ) -> Result<Vec<String>, String> {
        let fates: BTreeMap<&str, &Fate> = self
            .fates
            .iter()
            .filter(|(_, fate)| fate.origin.doc == doc)
            .map(|(name, fate)| (name.as_str(), fate))
            .collect();
        let mut rows: BTreeMap<&str, u32> = BTreeMap::new();
        for name in &found.names {
            if !fates.contains_key(name.as_str()) {
                return Err(format!("{name} is in {doc:?} and nobody issued it there"));
            }
            *rows.entry(name).or_default() += 1;
            let release = fates[name.as_str()].issued.release;
            if !release.goes_with(found.release) {
                let there = found.release;
                return Err(format!(
                    "{name} is of {release:?}, and in {doc:?}, which is of {there:?}"
                ));
            }
        }
        for (name, fate) in &fates {
            let rows = rows.get(name).copied().unwrap_or(0);
            if rows > 0 || !self.may_be_forgotten(fate) {
                judge_one(name, fate, rows)?;
            }
            self.judge_rejection(name, fate, is_local, found)?;
        }
        self.judge_order(&found.names)?;
        found.judge_system(self.timeline_lives_kept_max)?;
        found
            .compare(|name| fates.get(name).map(|fate| &fate.issued))
            .map_err(|what| format!("{doc:?}: {what}"))?;
        Ok(found.names.clone())
    }

    /// A rejection has its reason: whoever was told that a claim is taken, of a claim that is.
    fn judge_rejection(
        &self,
        name: &str,
        fate: &Fate,
        is_local: bool,
        found: &Found,
    ) -> Result<(), String> {
        let Some(reason) = &fate.rejected else { return Ok(()) };
        if is_local {
            return Err(format!("{name} was rejected after it was durable: {fate:?}"));
        }
        let lost_claims = self.lost_claims.get(&fate.origin.doc);
        let is_taken = |claimed: &String| {
            let was_taken = lost_claims.is_some_and(|claims| claims.contains(claimed));
            found.claims.contains_key(claimed) || was_taken
        };
        let is_just = match reason.starts_with("taken") {
            true => fate.claimed().is_some_and(is_taken),
            false => self.is_over_budget(fate, reason) || self.is_for_want_of_access(fate, reason),
        };
        if is_just { Ok(()) } else { Err(format!("{name} was rejected for no reason: {fate:?}")) }
    }

    /// The same of one that was rejected where it was issued: a claim that is taken there is one of
    /// which nobody was told that it came to nothing.
    fn judge_failure(&self, name: &str, reason: &str) -> Result<(), String> {
        let Some(fate) = self.fates.get(name) else { return Ok(()) };
        let (doc, claimed) = (fate.origin.doc, fate.claimed());
        let may_have_it = |(other, it): (&String, &Fate)| {
            let is_open = it.rejected.is_none() && !it.was_refused || it.dropped || it.reopened;
            other != name && it.origin.doc == doc && it.claimed() == claimed && is_open
        };
        let is_just = match reason.starts_with("taken") {
            true => claimed.is_some() && self.fates.iter().any(may_have_it),
            false => self.is_over_budget(fate, reason),
        };
        if is_just { Ok(()) } else { Err(format!("{name} failed for no reason: {reason}")) }
    }

    /// Whether a mutation takes more than it may, as it was told.
    fn is_over_budget(&self, fate: &Fate, reason: &str) -> bool {
        let Wish { mutation, args } = &fate.issued.wish;
        let Limits { statement_steps_max, mutation_pages_max, document_pages_max, .. } =
            self.limits;
        let is_it = |what: String| reason.starts_with(&format!("over the budget of {what}"));
        let takes = |(_, value): &(String, Value)| match value {
            Value::Integer(rows) if *mutation == "heavy" => {
                is_it(format!("{statement_steps_max} steps"))
                    && rows * STEPS_PER_ROW_MAX > statement_steps_max.cast_signed()
            }
            Value::Blob(body) => {
                is_it(format!("{mutation_pages_max} changed pages"))
                    && body.len().div_ceil(PAGE_SIZE) + PAGES_BESIDE_MAX > mutation_pages_max
            }
            _ => false,
        };
        // They delete as many rows as there are.
        let deletes_much = matches!(*mutation, "prune" | "clear")
            && (is_it(format!("{mutation_pages_max} changed pages"))
                || is_it(format!("{statement_steps_max} steps")));
        let is_full = self.fills && is_it(format!("{document_pages_max} pages in a document"));
        is_full || deletes_much || args.iter().any(takes)
    }

    /// Whether it may have been rejected when nobody listened, and that dropped for what its device
    /// was told of after it.
    fn may_be_forgotten(&self, fate: &Fate) -> bool {
        let Origin { doc, device, .. } = fate.origin;
        let is_beside = |it: &Fate| it.origin.doc == doc && it.origin.device == device;
        let mut beside = self.fates.values().filter(|it| is_beside(it));
        let may_be_rejected = fate.claimed().is_some() || self.may_lack_access(fate);
        let may_be_rejected = may_be_rejected && !fate.confirmed;
        self.forgets_rejections && may_be_rejected && beside.any(|it| it.rejected.is_some())
    }

    /// What one tab issued was applied in the order in which it was issued, but for what a server
    /// has forgotten that it had decided, and a copy of the device has brought again; and for what
    /// its app did not wait for when it closed the document and opened it again.
    fn judge_order(&self, names: &[String]) -> Result<(), String> {
        let mut last: BTreeMap<Origin, (u64, &str)> = BTreeMap::new();
        for name in names {
            let fate = &self.fates[name];
            let was_decided = fate.dropped || fate.rejected.is_some();
            if fate.left || self.devices_part && fate.reopened && was_decided {
                continue;
            }
            let (nth, before) = last.insert(fate.origin, (fate.nth, name)).unwrap_or((0, ""));
            if nth > fate.nth {
                return Err(format!("{before} was issued after {name} and applied before it"));
            }
        }
        Ok(())
    }
}

fn judge_one(name: &str, fate: &Fate, rows: u32) -> Result<(), String> {
    let wrong = match rows {
        0 if fate.dropped => return Ok(()),
        0 if fate.confirmed => "was confirmed and is not there",
        0 if fate.durable && fate.rejected.is_none() => "was durable and is gone without a word",
        0 => return Ok(()),
        // Another verdict may have come when nobody listened any more.
        1 if fate.rejected.is_some() && !fate.dropped && !fate.reopened => {
            "was rejected and is there"
        }
        1 if fate.failed => "failed and is there",
        1 => return Ok(()),
        _ => "was applied more than once",
    };
    Err(format!("{name} {wrong}: {fate:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Release;

    /// Goal: what sends a command and is rejected takes the last place from what was rejected
    /// before it, also once a listener has returned for it, and excuses nothing that was rejected
    /// later, nor in another document.
    #[test]
    fn an_older_rejection_of_a_command_takes_no_place() {
        const AT_MS: u64 = 10 * TOLD_MS;
        let (doc, other) = (Doc(0), Doc(1));
        let origin = Origin { doc, device: 0, tab: 0 };
        for (sending_ms, handled_in, is_excused) in [
            (TOLD_MS, None, false),
            (AT_MS, None, true),
            (TOLD_MS, Some(doc), false),
            (AT_MS, Some(doc), true),
            (AT_MS, Some(other), false),
        ] {
            let sending = format!("{}it", sending_in(handled_in.unwrap_or(doc)));
            let mut judge = Judge { forgets_rejections: true, ..Judge::default() };
            let wish = Wish { mutation: "claim", args: Vec::new() };
            judge.issued("one", origin, Issued { wish, now_ms: 0, release: Release::First }, 0);
            let rejected = |name: &str| News::Rejected(name.to_owned(), "taken".to_owned());
            let handled = handled_in.map(|_| (News::Handled(sending.clone()), sending_ms));
            let news = [(rejected("one"), AT_MS), (rejected(&sending), sending_ms)];
            for (news, now_ms) in news.into_iter().chain(handled) {
                judge.hear(news, When { device: 0, now_ms, trouble_ms: 0 }).expect("it may be so");
            }
            let told = BTreeSet::from_iter(handled_in.is_none().then(|| sending.clone()));
            assert_eq!(judge.judge_rejections(0, doc, &told).is_ok(), is_excused);
        }
    }
}
