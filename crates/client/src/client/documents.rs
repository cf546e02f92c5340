//! The documents of a core, and which of them a step looks at.
//!
//! A program may have a thousand documents open, and works on one of them at a time: a step that
//! walked over all would take as long as they are many. So a document that waits for nothing
//! *rests*. It is *awake*, and each step looks at it, while it waits for something, from when
//! something has happened to it, and once the time has come that it asked to be woken at. When
//! something changes that it shares with others, as the way to the page server or to a server, all
//! are.

use std::ops::Index;

use tidelog_types::{DocumentKey, SortedMap};

use crate::document::{Context, Document};
use crate::server_link::{LinkName, Need};

/// All documents that somebody holds, or that have something to write.
#[derive(Default)]
pub(super) struct Documents {
    slots: SortedMap<DocumentKey, Slot>,
    /// Those that a step looks at.
    awake: SortedMap<DocumentKey, ()>,
    /// When those that rest want to be woken, the first one first.
    alarms: SortedMap<(u64, DocumentKey), ()>,
    /// The ways on which documents want to be synced.
    links: SortedMap<LinkName, LinkUse>,
    /// How many pages of them are in memory that can be read again.
    pool_pages: usize,
}

struct Slot {
    document: Document,
    /// Whether something has happened to it since it was pumped, and whether it was in this step.
    is_touched: bool,
    is_pumped: bool,
    /// When it wants to be woken, as it said in this step, and as it has said in the last one that
    /// looked at it.
    asked_ms: Option<u64>,
    alarm_ms: Option<u64>,
    /// What of it counts in the sums.
    shares: Shares,
}

/// What a document has a share in.
#[derive(Default, PartialEq, Eq)]
struct Shares {
    pool_pages: usize,
    link: Option<LinkName>,
    waits: bool,
}

impl Shares {
    fn of(document: &Document) -> Self {
        Self {
            pool_pages: document.pool_pages(),
            link: document.wanted_link(),
            waits: document.waits_for_server(),
        }
    }
}

/// How many documents want to be synced on one way.
#[derive(Default, PartialEq, Eq)]
struct LinkUse {
    documents: usize,
    /// How many of them wait for what the server says.
    waiting: usize,
}

impl Documents {
    pub(super) fn get(&self, key: &DocumentKey) -> Option<&Document> {
        self.slots.get(key).map(|slot| &slot.document)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &DocumentKey> {
        self.slots.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&DocumentKey, &Document)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.document))
    }

    /// Those that this step looks at.
    pub(super) fn awake(&self) -> Vec<DocumentKey> {
        self.awake.keys().cloned().collect()
    }

    /// How many those are.
    pub(super) fn awake_count(&self) -> usize {
        self.awake.len()
    }

    /// How many pages of documents are in memory that can be read again.
    pub(super) fn pool_pages(&self) -> usize {
        self.pool_pages
    }

    /// A document gives back its pages that can be read again.
    pub(super) fn give_back_pages(&mut self, key: &DocumentKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let pages = slot.document.rest().min(slot.shares.pool_pages);
        slot.shares.pool_pages -= pages;
        self.pool_pages -= pages;
    }

    /// Forgets what was said of a document that nobody holds, and says whether all of it is on the
    /// disk.
    pub(super) fn let_go(&mut self, key: &DocumentKey) -> bool {
        let Some(Slot { document, .. }) = self.slots.get_mut(key) else { return false };
        if !document.is_let_go() {
            return false;
        }
        document.forget_what_was_said();
        document.is_drained() && document.is_loaded() && !document.owes_record()
    }

    /// The ways on which documents want to be synced.
    pub(super) fn links(&self) -> impl Iterator<Item = &LinkName> {
        self.links.keys()
    }

    /// How much this way is needed.
    pub(super) fn need_of(&self, name: &LinkName) -> Need {
        match self.links.get(name) {
            Some(link) if link.waiting > 0 => Need::Soon,
            Some(_) => Need::Some,
            None => Need::None,
        }
    }

    /// Something happens to a document: the next step looks at it too.
    pub(super) fn touch(&mut self, key: &DocumentKey) -> Option<&mut Document> {
        let slot = self.slots.get_mut(key)?;
        slot.is_touched = true;
        self.awake.get_or_insert_with(key.clone(), || ());
        Some(&mut slot.document)
    }

    pub(super) fn insert_if_new(&mut self, key: &DocumentKey, new: impl FnOnce() -> Document) {
        self.slots.get_or_insert_with(key.clone(), || Slot {
            document: new(),
            is_touched: true,
            is_pumped: false,
            asked_ms: None,
            alarm_ms: None,
            shares: Shares::default(),
        });
        self.awake.get_or_insert_with(key.clone(), || ());
    }

    pub(super) fn remove(&mut self, key: &DocumentKey) {
        self.count_shares(key, Shares::default());
        self.set_alarm(key, None);
        self.awake.remove(key);
        self.slots.remove(key);
    }

    /// Looks at all, in this step and the next one: something has changed that they share.
    pub(super) fn wake_all(&mut self) {
        self.wake(|_| true);
    }

    /// Looks at these, in this step and the next one.
    pub(super) fn wake(&mut self, is_one: impl Fn(&DocumentKey) -> bool) {
        for (key, slot) in self.slots.iter_mut().filter(|(key, _)| is_one(key)) {
            slot.is_touched = true;
            self.awake.get_or_insert_with(key.clone(), || ());
        }
    }

    /// Wakes those whose time has come.
    pub(super) fn wake_due(&mut self, now_ms: u64) {
        let due = self.alarms.keys().take_while(|(at_ms, _)| *at_ms <= now_ms);
        let due: Vec<DocumentKey> = due.map(|(_, key)| key.clone()).collect();
        for key in due {
            self.awake.get_or_insert_with(key, || ());
        }
    }

    /// Works on a document, and notes when it wants to be woken.
    pub(super) fn work_on<T>(
        &mut self,
        key: &DocumentKey,
        ctx: &mut Context<'_>,
        work: impl FnOnce(&mut Document, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let slot = self.slots.get_mut(key)?;
        let others_ms = ctx.out.wake_at_ms.take();
        let done = work(&mut slot.document, ctx);
        let asked_ms = std::mem::replace(&mut ctx.out.wake_at_ms, others_ms);
        slot.asked_ms = [slot.asked_ms, asked_ms].into_iter().flatten().min();
        Some(done)
    }

    /// A document was pumped: what its shares are counts.
    pub(super) fn pumped(&mut self, key: &DocumentKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        (slot.is_touched, slot.is_pumped) = (false, true);
        let shares = Shares::of(&slot.document);
        self.count_shares(key, shares);
    }

    fn set_alarm(&mut self, key: &DocumentKey, at_ms: Option<u64>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.alarm_ms == at_ms {
            return;
        }
        if let Some(before_ms) = std::mem::replace(&mut slot.alarm_ms, at_ms) {
            self.alarms.remove(&(before_ms, key.clone()));
        }
        if let Some(at_ms) = at_ms {
            self.alarms.insert((at_ms, key.clone()), ());
        }
    }

    fn count_shares(&mut self, key: &DocumentKey, shares: Shares) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.shares == shares {
            return;
        }
        let before = std::mem::replace(&mut slot.shares, shares);
        if let Some(name) = &slot.shares.link {
            let link = self.links.get_or_insert_with(name.clone(), LinkUse::default);
            link.documents += 1;
            link.waiting += usize::from(slot.shares.waits);
        }
        self.pool_pages = self.pool_pages + slot.shares.pool_pages - before.pool_pages;
        if let Some(name) = before.link {
            let link = self.links.get_mut(&name).expect("BUG: it counted there");
            link.documents -= 1;
            link.waiting -= usize::from(before.waits);
            if link.documents == 0 {
                self.links.remove(&name);
            }
        }
    }

    /// The step is over: those rest that wait for nothing, and to which nothing has happened since
    /// they were pumped. Says when the first of all wants to be woken.
    pub(super) fn rest(&mut self) -> Option<u64> {
        for (key, ()) in std::mem::take(&mut self.awake) {
            let slot = self.slots.get_mut(&key).expect("BUG: what is gone is awake");
            // Who was not pumped wants what it wanted before as well.
            let is_pumped = std::mem::take(&mut slot.is_pumped);
            let before_ms = slot.alarm_ms.filter(|_| !is_pumped);
            let asked_ms = [slot.asked_ms.take(), before_ms].into_iter().flatten().min();
            let stays = slot.is_touched || slot.document.is_restless();
            self.set_alarm(&key, asked_ms);
            if stays {
                self.awake.insert(key, ());
            }
        }
        self.alarms.keys().next().map(|(at_ms, _)| *at_ms)
    }

    /// What does not add up; for simulations.
    pub(super) fn doubt(&self) -> Option<String> {
        let mut at_rest = self.slots.iter().filter(|(key, _)| !self.awake.contains_key(*key));
        let other = at_rest.find(|(_, slot)| slot.shares != Shares::of(&slot.document));
        let miscounted = other.map(|(key, _)| format!("{key} counts for what it is not"));
        let mut links = SortedMap::new();
        for Slot { shares, .. } in self.slots.values() {
            let Some(name) = &shares.link else { continue };
            let link: &mut LinkUse = links.get_or_insert_with(name.clone(), LinkUse::default);
            link.documents += 1;
            link.waiting += usize::from(shares.waits);
        }
        let pool_pages: usize = self.slots.values().map(|slot| slot.shares.pool_pages).sum();
        let is_so = links == self.links && pool_pages == self.pool_pages;
        miscounted.or_else(|| (!is_so).then(|| "what documents share is miscounted".to_owned()))
    }
}

impl Index<&DocumentKey> for Documents {
    type Output = Document;

    fn index(&self, key: &DocumentKey) -> &Document {
        &self.slots[key].document
    }
}
