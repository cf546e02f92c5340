//! What the live queries of a tab show.

use std::collections::BTreeSet;

use tidelog_client::{Call, Handle, Request, ToCore};
use tidelog_types::{Rows, Value};

use super::{Heard, News, Tab, handle_of, query};
use crate::app::{
    ALL_CELLS, BADGED, CLAIMS, ENDS, ENTRIES, FRAGILE, MARKED, Release, SOME_CELLS, WATCHED_CELLS,
};
use crate::docs::Doc;

/// What a live query shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Live {
    Entries,
    Claims,
    Cells,
    Ends,
    /// Fails for what is in the document, and shows the same whenever it does not.
    Fragile,
}

/// Stands for the rows of what fails for what is in the document.
pub(super) const MALFORMED: &str = "malformed";

/// Since when a live query has not shown what a query did, and what is known of that.
#[derive(Clone, Copy)]
pub(super) struct Outdated {
    pub(super) since_ms: u64,
    pub(super) looked: Looked,
}

/// How often a query showed what a live query did not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    Once,
    /// Once, and it was asked again.
    Again,
    Twice,
}

impl Live {
    pub(super) fn sql(self, release: Release) -> &'static str {
        match self {
            Self::Entries => match release {
                Release::First => ENTRIES,
                Release::Second => MARKED,
                Release::Fork => BADGED,
            },
            Self::Claims => CLAIMS,
            Self::Cells => SOME_CELLS,
            Self::Ends => ENDS,
            Self::Fragile => FRAGILE,
        }
    }

    /// A query by which an app looks at the same, and more.
    pub(super) fn look(self, release: Release) -> &'static str {
        match self {
            Self::Cells => ALL_CELLS,
            live => live.sql(release),
        }
    }

    /// What is looked at by a query.
    pub(super) fn of_look(message: &ToCore, release: Release) -> Option<Self> {
        let ToCore::Ask { request: Request::Query(query), .. } = message else { return None };
        let all = [Self::Entries, Self::Claims, Self::Cells, Self::Ends, Self::Fragile];
        all.into_iter().find(|it| it.look(release) == query.sql)
    }

    /// What it has to show of what was found by looking.
    pub(crate) fn part_of(self, names: &[String]) -> &[String] {
        match self {
            Self::Cells => &names[..names.len().min(WATCHED_CELLS)],
            Self::Entries | Self::Claims | Self::Ends | Self::Fragile => names,
        }
    }
}

impl Tab {
    pub(super) fn watch(&mut self, doc: Doc, live: Live, handle: Handle) -> ToCore {
        let call = self.next_call();
        // The one of a handle that is about to be closed may be told something until then.
        self.let_go.extend(self.watches.extract_if(.., |_, it| *it == (doc, live)).map(|it| it.0));
        self.watches.insert(call, (doc, live));
        ToCore::Ask { call, handle, request: Request::Watch(query(live.sql(self.release))) }
    }

    /// Ends its live queries, so that it waits for nothing.
    pub(crate) fn stop_watching(&mut self) -> Vec<ToCore> {
        self.live.clear();
        self.outdated.clear();
        let watches = std::mem::take(&mut self.watches).into_keys();
        watches.map(|call| ToCore::GiveUp { call }).collect()
    }

    pub(super) fn rows(
        &mut self,
        call: Call,
        rows: &Rows,
        heard: &mut Heard,
        now_ms: u64,
        trouble_ms: u64,
    ) -> Result<(), String> {
        // What was given up may be answered yet, and be no query.
        if !self.unsettled.contains_key(&call) && !self.watches.contains_key(&call) {
            return Ok(());
        }
        let rows = rows.decode();
        let (all, mut names) = (rows.len(), Vec::with_capacity(rows.len()));
        for row in rows {
            let mut row = row.into_iter();
            let (name, count) = (row.next(), row.next());
            names.extend(name.and_then(|name| match name {
                Value::Text(name) => Some(name),
                _ => None,
            }));
            if let Some(Value::Integer(count)) = count
                && usize::try_from(count) != Ok(all)
            {
                return Err(format!("a query shows {all} rows, and pages that tell of {count}"));
            }
        }
        if let Some(mut asked) = self.unsettled.remove(&call) {
            if asked.is_fragile && asked.at_ms <= trouble_ms {
                asked.must.clear();
            }
            if let (Some(doc), Some(live)) =
                (self.doc_of(&asked), Live::of_look(&asked.message, self.release))
            {
                if self.is_damaged(doc) {
                    asked.must.clear();
                }
                self.compare_live(doc, live, &names, now_ms);
                if live != Live::Entries {
                    return Ok(());
                }
                // A core that comes later finds what was recorded, and is asked the query again.
                let is_first = !asked.is_again && asked.at_ms > trouble_ms;
                // And one that waits until its handle is open is overtaken by what another has.
                let handle = handle_of(&asked.message);
                let is_its = |later: &Call| self.issued_by.get(later).copied() == handle;
                let mut later =
                    self.names.range(call..).filter(|(later, _)| is_first && is_its(later));
                if let Some((_, name)) = later.find(|(_, name)| names.contains(name)) {
                    return Err(format!("a query shows {name}, which was issued after it"));
                }
                heard.news.push(News::Rows { doc, names, must: asked.must, tab: self.id_prefix });
            }
        } else if let Some((doc, live)) = self.watches.get(&call).copied() {
            self.shows(call, doc, live, &names, now_ms);
            if live != Live::Entries {
                return Ok(());
            }
            heard.news.push(News::Rows { doc, names, must: BTreeSet::new(), tab: self.id_prefix });
        }
        Ok(())
    }

    /// A live query shows this. The document may have gone on before it, and back to what the
    /// others show: they are looked at anew.
    pub(super) fn shows(
        &mut self,
        call: Call,
        doc: Doc,
        live: Live,
        names: &[String],
        now_ms: u64,
    ) {
        self.shown_by.insert(call, self.port.core);
        self.live.insert((doc, live), names.to_vec());
        self.outdated.remove(&(doc, live));
        let others = self.outdated.iter_mut().filter(|((of, _), _)| *of == doc);
        let anew = Outdated { since_ms: now_ms, looked: Looked::Once };
        others.for_each(|(_, outdated)| *outdated = anew);
    }

    /// A query has shown this: its document's live query does too, or soon.
    pub(super) fn compare_live(&mut self, doc: Doc, live: Live, names: &[String], now_ms: u64) {
        match self.live.get(&(doc, live)) {
            Some(shown) if shown != live.part_of(names) => {
                let first = Outdated { since_ms: now_ms, looked: Looked::Once };
                let outdated = self.outdated.entry((doc, live)).or_insert(first);
                if outdated.looked == Looked::Again {
                    *outdated = Outdated { since_ms: now_ms, looked: Looked::Twice };
                }
            }
            _ => drop(self.outdated.remove(&(doc, live))),
        }
    }

    /// A document whose live query still does not show what a query showed at that time, and again
    /// later.
    pub(crate) fn outdated_since(&self, ms: u64) -> Option<(Doc, Live)> {
        self.outdated_for(Looked::Twice, ms).next()
    }

    /// Looks again where a live query does not show what a query did at that time: what went back,
    /// as after a failed append, and came again was the same to who watches.
    pub(crate) fn look_again(&mut self, ms: u64, now_ms: u64) -> Vec<ToCore> {
        let outdated: Vec<(Doc, Live)> = self.outdated_for(Looked::Once, ms).collect();
        let held = outdated.into_iter().filter(|(doc, _)| self.held.contains_key(doc));
        let held: Vec<(Doc, Live)> = held.collect();
        let mut asks = Vec::with_capacity(held.len());
        for (doc, live) in held {
            self.outdated.get_mut(&(doc, live)).expect("BUG: found above").looked = Looked::Again;
            asks.push(self.query_for(live, doc, BTreeSet::new(), now_ms));
        }
        asks
    }

    pub(super) fn outdated_for(
        &self,
        looked: Looked,
        ms: u64,
    ) -> impl Iterator<Item = (Doc, Live)> {
        let is_known = self.port.is_heard;
        let so = move |it: &Outdated| is_known && it.looked == looked && it.since_ms < ms;
        self.outdated.iter().filter(move |(_, it)| so(it)).map(|(which, _)| *which)
    }
}
