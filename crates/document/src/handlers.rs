//! Those who handle tasks, as the authority knows them: what it decides next of them by the
//! clock, and whom it may give tasks to.

use std::collections::BTreeMap;
use std::mem;

use tidelog_types::ClientId;
use tidelog_types::limits::INSTANCE_SILENT_MS;

use crate::operator::Intervened;
use crate::tasks::{Change, Changed, Free, InstanceId, TaskKind, Work};

/// After which time commands are given that could not be.
const PUT_OFF_MS: u64 = 10_000;

/// Those who handle tasks of one document. `P` is where one is: what its host knows it by.
#[derive(Clone, Debug)]
pub struct Handlers<P> {
    instances: BTreeMap<InstanceId, Instance<P>>,
    has_to_dispatch: bool,
    due_ms: Option<u64>,
    /// What the time was when something was to be decided last.
    looked_at_ms: u64,
}

#[derive(Clone, Debug)]
struct Instance<P> {
    client: ClientId,
    kinds: Vec<TaskKind>,
    concurrency: u32,
    whereabouts: Whereabouts<P>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Whereabouts<P> {
    At(P),
    /// Not since then: it may come back for a while.
    Away {
        since_ms: u64,
    },
}

impl<P> Default for Handlers<P> {
    fn default() -> Self {
        Self { instances: BTreeMap::new(), has_to_dispatch: false, due_ms: None, looked_at_ms: 0 }
    }
}

impl<P: Copy + PartialEq> Handlers<P> {
    /// Those whom the document knows, all of them away as of now.
    #[must_use]
    pub fn of(work: Work, now_ms: u64) -> Self {
        let instance = |client| Instance {
            client,
            kinds: Vec::new(),
            concurrency: 0,
            whereabouts: Whereabouts::Away { since_ms: now_ms },
        };
        let instances = work.instances.into_iter().map(|(id, client)| (id, instance(client)));
        let instances = instances.collect();
        Self { instances, has_to_dispatch: work.is_pending, ..Self::default() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.instances.len()
    }

    /// Whether a client may come back as that one.
    #[must_use]
    pub fn may_resume(&self, id: InstanceId, client: ClientId) -> bool {
        self.instances.get(&id).is_some_and(|it| it.client == client)
    }

    /// It is there, new or again, and handles these from now on.
    pub fn register(
        &mut self,
        id: InstanceId,
        place: P,
        client: ClientId,
        kinds: Vec<TaskKind>,
        concurrency: u32,
    ) {
        let whereabouts = Whereabouts::At(place);
        self.instances.insert(id, Instance { client, kinds, concurrency, whereabouts });
        self.has_to_dispatch = true;
    }

    /// Who is there.
    #[must_use]
    pub fn at(&self, place: P) -> Option<InstanceId> {
        let is_it = |it: &Instance<P>| it.whereabouts == Whereabouts::At(place);
        self.instances.iter().find(|(_, it)| is_it(it)).map(|(id, _)| *id)
    }

    /// Where they are that are there.
    pub fn places(&self) -> impl Iterator<Item = P> {
        self.instances.values().filter_map(|it| match it.whereabouts {
            Whereabouts::At(place) => Some(place),
            Whereabouts::Away { .. } => None,
        })
    }

    /// What those handle who are there.
    pub fn handled(&self) -> impl Iterator<Item = &TaskKind> {
        let present = self.instances.values();
        let present = present.filter(|it| matches!(it.whereabouts, Whereabouts::At(_)));
        present.flat_map(|it| &it.kinds)
    }

    /// Nobody is where that is so any longer.
    pub fn leave(&mut self, is_left: impl Fn(P) -> bool, now_ms: u64) {
        for instance in self.instances.values_mut() {
            if let Whereabouts::At(place) = instance.whereabouts
                && is_left(place)
            {
                instance.whereabouts = Whereabouts::Away { since_ms: now_ms };
            }
        }
    }

    /// There may be something to give, or somebody to give it to.
    pub fn note(&mut self) {
        self.has_to_dispatch = true;
    }

    /// When something is to be decided by the clock, if ever.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        let gone = self.instances.values().filter_map(Instance::gone_at_ms).min();
        let due = self.due_ms.filter(|_| self.has_somebody());
        gone.into_iter().chain(due).min()
    }

    fn has_somebody(&self) -> bool {
        self.instances.values().any(|it| matches!(it.whereabouts, Whereabouts::At(_)))
    }

    /// What is to be decided now: to be carried out next, and then [told](Self::decided).
    pub fn next_change(&mut self, now_ms: u64) -> Option<Change> {
        for instance in self.instances.values_mut() {
            if let Whereabouts::Away { since_ms } = &mut instance.whereabouts {
                // The clock may have been set back since.
                *since_ms = now_ms.min(*since_ms);
            }
        }
        self.has_to_dispatch |= now_ms < mem::replace(&mut self.looked_at_ms, now_ms);
        let is_gone = |it: &Instance<P>| it.gone_at_ms().is_some_and(|at| at <= now_ms);
        if let Some((id, _)) = self.instances.iter().find(|(_, it)| is_gone(it)) {
            return Some(Change::Deregister(*id));
        }
        let is_due = self.due_ms.is_some_and(|at| at <= now_ms);
        if !(self.has_to_dispatch || is_due) || !self.has_somebody() {
            return None;
        }
        self.has_to_dispatch = false;
        self.due_ms = None;
        let present = self.instances.iter();
        let present = present.filter(|(_, it)| matches!(it.whereabouts, Whereabouts::At(_)));
        let free = present.map(|(id, it)| Free {
            instance: *id,
            kinds: it.kinds.clone(),
            concurrency: it.concurrency,
        });
        Some(Change::Dispatch(free.collect()))
    }

    /// What of a planned change still holds, since whoever it is about may have come back or gone
    /// meanwhile.
    #[must_use]
    pub fn still(&self, change: &Change) -> Option<Change> {
        let is_there = |id: InstanceId| {
            self.instances.get(&id).map(|it| matches!(it.whereabouts, Whereabouts::At(_)))
        };
        match change {
            Change::Deregister(id) => (is_there(*id) == Some(false)).then_some(change.clone()),
            Change::Dispatch(free) => {
                let free = free.iter().filter(|it| is_there(it.instance) == Some(true));
                Some(Change::Dispatch(free.cloned().collect()))
            }
            Change::Register { .. }
            | Change::Complete { .. }
            | Change::Erase { .. }
            | Change::Upcast { .. }
            | Change::Replay(_)
            | Change::TakeIn(_)
            | Change::Archive { .. }
            | Change::Append { .. }
            | Change::Intervene(..) => Some(change.clone()),
        }
    }

    /// That cannot be decided: the document takes no more, say. It is tried again later.
    pub fn put_off(&mut self, change: &Change, now_ms: u64) {
        match change {
            Change::Deregister(id) => {
                if let Some(instance) = self.instances.get_mut(id) {
                    instance.whereabouts = Whereabouts::Away { since_ms: now_ms };
                }
            }
            Change::Dispatch(_) => self.due_ms = Some(now_ms.saturating_add(PUT_OFF_MS)),
            Change::Register { .. }
            | Change::Complete { .. }
            | Change::Erase { .. }
            | Change::Upcast { .. }
            | Change::Replay(_)
            | Change::TakeIn(_)
            | Change::Archive { .. }
            | Change::Append { .. }
            | Change::Intervene(..) => {}
        }
    }

    /// That was decided.
    pub fn decided(&mut self, change: &Change, changed: &Changed) {
        match (change, changed) {
            (Change::Deregister(id), _) => {
                self.instances.remove(id);
                self.has_to_dispatch = true;
            }
            (_, Changed::Dispatched { due_ms, again }) => {
                self.has_to_dispatch |= again;
                self.due_ms = *due_ms;
            }
            (
                _,
                Changed::Completed(_)
                | Changed::Remembered { leads_on: true, .. }
                | Changed::Intervened(Intervened::Done(_))
                | Changed::Appended(Ok(_)),
            ) => self.has_to_dispatch = true,
            _ => {}
        }
    }
}

impl<P> Instance<P> {
    fn gone_at_ms(&self) -> Option<u64> {
        match self.whereabouts {
            Whereabouts::At(_) => None,
            Whereabouts::Away { since_ms } => Some(since_ms.saturating_add(INSTANCE_SILENT_MS)),
        }
    }
}
