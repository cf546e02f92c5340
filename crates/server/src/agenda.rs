//! Which documents have tasks that are due, or when, without opening any of them.
//!
//! Rooms tell as that changes, and leave it in their records in the store as they close. The store
//! is read when somebody asks for the first time; a document that was open as an earlier server
//! died is looked at then, since its record may be older than what was done to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tidelog_document::DueTasks;
use tidelog_room::{Answer, Ask, recorded_due};
use tidelog_types::DocumentKey;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::rooms::Rooms;

/// Documents that are looked at at once.
const LOOKS_AT_ONCE: usize = 4;
/// After which time the store is read again, or documents are looked at that could not be, and the
/// longest.
const TRIES_AFTER: Duration = Duration::from_secs(1);
const TRIES_AFTER_MAX: Duration = Duration::from_secs(60);

/// The names of aggregates and workflows that are due; `None` where it can be any.
pub(crate) type Names = Option<BTreeSet<String>>;

/// When tasks are due, of all documents that have any.
#[derive(Default)]
pub(crate) struct Agenda {
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
    /// Whether the store is being read, or was.
    is_read: AtomicBool,
}

#[derive(Default)]
struct Known {
    rows: BTreeMap<String, DueTasks>,
    /// When the first task of each is due.
    by_time: BTreeSet<(u64, String)>,
    /// Those in which runs wait for code that fits.
    stopped: BTreeSet<String>,
    /// What rooms have told before the store was read, which knows it later.
    told: HashSet<String>,
    has_read: bool,
    listeners: BTreeSet<u64>,
    listeners_ever: u64,
}

/// What is due at some time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Documents, and of what.
    pub(crate) documents: BTreeMap<String, Names>,
    /// When there may be more, if ever.
    pub(crate) next_ms: Option<u64>,
}

impl Agenda {
    /// The room of this document says what is due there that nobody handles.
    pub(crate) fn tell(&self, document: &str, due: DueTasks) {
        let mut known = self.known();
        if !known.has_read {
            known.told.insert(document.to_owned());
        }
        if known.set(document, due) {
            drop(known);
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// What is due by now of the documents that somebody wants to know of.
    pub(crate) fn due(&self, now_ms: u64, wants: impl Fn(&str) -> bool) -> Due {
        let known = self.known();
        let mut due = Due::default();
        for (at_ms, document) in &known.by_time {
            let later = |at_ms: u64| Some(due.next_ms.map_or(at_ms, |next: u64| next.min(at_ms)));
            if *at_ms > now_ms {
                due.next_ms = later(*at_ms);
                break;
            }
            let Some(row) = known.rows.get(document).filter(|_| wants(document)) else { continue };
            let times = row.at_ms.values().copied().chain(row.others_at_ms);
            if let Some(next) = times.filter(|at| *at > now_ms).min() {
                due.next_ms = later(next);
            }
            let names = row.at_ms.iter().filter(|(_, at)| **at <= now_ms);
            let names = names.map(|(kind, _)| kind.aggregate.clone()).collect();
            let is_any = row.others_at_ms.is_some_and(|at| at <= now_ms);
            due.documents.insert(document.clone(), (!is_any).then_some(names));
        }
        due
    }

    /// Documents in which tasks wait for code that fits, as somebody's may: of those that are
    /// wanted, by what is stopped there.
    pub(crate) fn stopped(
        &self,
        wants: impl Fn(&str, &BTreeMap<String, u64>) -> bool,
    ) -> BTreeMap<String, BTreeMap<String, u64>> {
        let known = self.known();
        let rows = known.stopped.iter().filter_map(|it| Some((it, &known.rows.get(it)?.stopped)));
        let wanted = rows.filter(|(document, stopped)| wants(document, stopped));
        wanted.map(|(document, stopped)| (document.clone(), stopped.clone())).collect()
    }

    /// Somebody wants to know, from now on.
    pub(crate) fn listen(self: &Arc<Self>, rooms: &Arc<Rooms>) -> Listener {
        if !self.is_read.swap(true, Ordering::Relaxed) {
            tokio::spawn(Arc::clone(self).read(Arc::clone(rooms)));
        }
        let mut known = self.known();
        known.listeners_ever += 1;
        let id = known.listeners_ever;
        known.listeners.insert(id);
        drop(known);
        Listener { agenda: Arc::clone(self), id, changes: self.changes.subscribe() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the store knows of all documents, and has those looked at of which it does not.
    async fn read(self: Arc<Self>, rooms: Arc<Rooms>) {
        let mut unknown = loop {
            match self.read_records(&rooms).await {
                Some(unknown) => break unknown,
                None => warn!("the store does not say which documents have tasks: trying again"),
            }
            sleep(TRIES_AFTER).await;
        };
        if !unknown.is_empty() {
            info!(count = unknown.len(), "looking which tasks are due in documents left open");
        }
        let mut after = TRIES_AFTER;
        loop {
            let looks = stream::iter(unknown).map(|key| {
                let rooms = Arc::clone(&rooms);
                async move {
                    let answer = rooms.ask(&key, Ask::Look).await;
                    (!matches!(answer, Answer::Looked | Answer::Missing)).then_some(key)
                }
            });
            let left = looks.buffer_unordered(LOOKS_AT_ONCE).filter_map(std::future::ready);
            unknown = left.collect().await;
            if unknown.is_empty() {
                return;
            }
            sleep(after).await;
            after = (2 * after).min(TRIES_AFTER_MAX);
        }
    }

    /// Gives the documents of which nobody knows; `None` if the store does not answer.
    async fn read_records(&self, rooms: &Rooms) -> Option<Vec<DocumentKey>> {
        let documents = rooms.store().documents().await?;
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        let each = |key: DocumentKey, record: Vec<u8>| match recorded_due(&record) {
            Some(due) if due.is_empty() => {}
            Some(due) => found.push((key.document, due)),
            None => unknown.push(key),
        };
        rooms.store().records(documents, each).await?;
        let mut known = self.known();
        known.has_read = true;
        let told = std::mem::take(&mut known.told);
        for (document, due) in found.into_iter().filter(|(name, _)| !told.contains(name)) {
            known.set(&document, due);
        }
        drop(known);
        unknown.retain(|key| !told.contains(&key.document));
        self.changes.send_modify(|count| *count += 1);
        Some(unknown)
    }
}

impl Known {
    /// Says whether that has changed anything.
    fn set(&mut self, document: &str, due: DueTasks) -> bool {
        let before = self.rows.get(document);
        if before == Some(&due) || (before.is_none() && due.is_empty()) {
            return false;
        }
        if let Some(at_ms) = before.and_then(DueTasks::first_ms) {
            self.by_time.remove(&(at_ms, document.to_owned()));
        }
        self.stopped.remove(document);
        if let Some(at_ms) = due.first_ms() {
            self.by_time.insert((at_ms, document.to_owned()));
        }
        if !due.stopped.is_empty() {
            self.stopped.insert(document.to_owned());
        }
        match due.is_empty() {
            true => self.rows.remove(document),
            false => self.rows.insert(document.to_owned(), due),
        };
        true
    }
}

/// Somebody who wants to know what is due, until it is dropped.
pub(crate) struct Listener {
    agenda: Arc<Agenda>,
    id: u64,
    changes: watch::Receiver<u64>,
}

impl Listener {
    /// Waits until something has changed.
    pub(crate) async fn changed(&mut self) {
        // The agenda stays for as long as this does.
        let _ = self.changes.changed().await;
    }

    /// Whether this one is told first of that document, so that several share them.
    pub(crate) fn is_first_of(&self, document: &str) -> bool {
        let hash = blake3::hash(document.as_bytes());
        let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("BUG: 8 bytes"));
        let known = self.agenda.known();
        let nth = number % (known.listeners.len() as u64).max(1);
        known.listeners.iter().nth(nth as usize) == Some(&self.id)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.agenda.known().listeners.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tidelog_document::TaskKind;

    use super::*;

    fn due(times: &[(&str, u64)], others_at_ms: Option<u64>) -> DueTasks {
        let kind =
            |aggregate: &str| TaskKind { aggregate: aggregate.to_owned(), name: "1".to_owned() };
        let at_ms = times.iter().map(|(name, at)| (kind(name), *at)).collect();
        DueTasks { at_ms, others_at_ms, ..DueTasks::default() }
    }

    fn brief(due: &Due) -> String {
        let names = |names: &Names| match names {
            Some(names) => names.iter().cloned().collect::<Vec<_>>().join(" "),
            None => "any".to_owned(),
        };
        let of = due.documents.iter().map(|(document, it)| format!("{document}: {}", names(it)));
        format!("{} | next {:?}", of.collect::<Vec<_>>().join(", "), due.next_ms)
    }

    #[test]
    fn each_document_is_due_at_its_time_by_the_names_that_are() {
        let agenda = Agenda::default();
        agenda.tell("b", due(&[("order", 20), ("bill", 50)], None));
        agenda.tell("a", due(&[("order", 30)], Some(60)));
        agenda.tell("c", due(&[("order", 10)], None));
        let at = |now_ms| brief(&agenda.due(now_ms, |document| document != "c"));
        assert_eq!(at(5), " | next Some(10)");
        assert_eq!(at(20), "b: order | next Some(30)");
        assert_eq!(at(30), "a: order, b: order | next Some(50)");
        assert_eq!(at(60), "a: any, b: bill order | next None");
        agenda.tell("b", due(&[("bill", 70)], None));
        assert_eq!(at(60), "a: any | next Some(70)");
        agenda.tell("a", DueTasks::default());
        agenda.tell("b", DueTasks::default());
        agenda.tell("c", DueTasks::default());
        assert_eq!(at(100), " | next None");
        assert!(agenda.known().rows.is_empty());
    }

    /// Goal: one look finds all that are due, however many, and asks about no others. Method: many
    /// that are due at one moment, before it, then, and once most of them are handled.
    #[test]
    fn one_look_finds_all_that_are_due_and_asks_about_no_others() {
        let agenda = Agenda::default();
        let tell = |nth: usize, due: DueTasks| agenda.tell(&format!("shops/{nth}"), due);
        (0..10_000).for_each(|nth| tell(nth, due(&[("steps", 5_000)], None)));
        let look = |now_ms| {
            let asked = Cell::new(0);
            let due = agenda.due(now_ms, |_| {
                asked.set(asked.get() + 1);
                true
            });
            (due.documents.len(), asked.get(), due.next_ms)
        };
        assert_eq!(look(4_999), (0, 0, Some(5_000)));
        assert_eq!(look(5_000), (10_000, 10_000, None));
        (10..10_000).for_each(|nth| tell(nth, DueTasks::default()));
        assert_eq!(look(5_000), (10, 10, None));
    }

    #[test]
    fn runs_that_wait_for_code_are_told_to_whoever_comes() {
        let agenda = Agenda::default();
        let stopped = BTreeMap::from([("fulfil".to_owned(), 7)]);
        agenda.tell("a", DueTasks { stopped: stopped.clone(), ..DueTasks::default() });
        assert_eq!(agenda.due(u64::MAX, |_| true), Due::default(), "no time has them go on");
        assert_eq!(agenda.stopped(|_, _| true), [("a".to_owned(), stopped)].into());
        assert!(agenda.stopped(|_, _| false).is_empty());
        agenda.tell("a", DueTasks::default());
        assert!(agenda.stopped(|_, _| true).is_empty());
    }
}
