//! What a simulation holds against a replica: the same made once more, from nothing.

use std::collections::BTreeSet;

use tidelog_sqlite::{Reader, Run, Writer};
use tidelog_types::{Lsn, PageSet};

use super::Replica;
use super::rebase::Rebase;
use crate::program::{self, done};
use crate::{Doctype, Verdict};

impl Replica {
    /// What is wrong with what readers see, if all that it is made of is in memory: it is to be
    /// what a rebase from nothing makes of the authority's pages. For simulations: that takes as
    /// long as a rebase, and is not sliced.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        if let Some(what) = self.gap().or_else(|| self.left_history()) {
            return Some(what);
        }
        if let Some(what) = self.undecided.doubt() {
            return Some(what);
        }
        let limits = self.view.limits();
        let layers = self.undecided.iter().filter_map(|it| it.layer.as_ref());
        if !self.own_layers.counts(layers, limits) {
            return Some(format!("layers count {:?}", self.own_layers));
        }
        if let Some(what) = self.rebase.as_ref().and_then(|rebase| rebase.doubt(limits)) {
            return Some(what);
        }
        if self.is_rebased() && !self.built {
            return Some(
                "its layers are not built, and nothing is due that builds them".to_owned(),
            );
        }
        let is_built = self.built && !self.unrun && !self.stale && self.rebase.is_none();
        let is_whole = is_built && !self.is_short();
        match (is_whole, self.base) {
            (true, Some(_)) => match self.differs() {
                Run::Done(what) => what,
                Run::Fault(_) | Run::Failed(_) => None,
            },
            _ => None,
        }
    }

    /// Entries of a history that the authority does not have: whoever hears that forgets them, so
    /// that the whole document comes before all others.
    fn left_history(&self) -> Option<String> {
        let rebased = self.rebase.as_ref().and_then(Rebase::last_position);
        let held = rebased.or_else(|| self.staged.front().map(|it| it.position))?;
        let behind = self.staged.iter().skip(usize::from(rebased.is_none()));
        let comes_anew = self.anew || behind.map(|it| it.range).any(|it| it.start() == Lsn::FIRST);
        comes_anew.then(|| format!("{held} is held, and the whole document comes behind it"))
    }

    /// Entries that do not follow on each other.
    fn gap(&self) -> Option<String> {
        let mut next = match &self.rebase {
            Some(rebase) => rebase.last_position().or(self.base),
            None => self.base,
        };
        for entry in &self.staged {
            let range = entry.range;
            let follows = next.is_some_and(|next| {
                next.next == range.start() && next.journal == entry.position.journal
            });
            if range.start() != Lsn::FIRST && !follows {
                return Some(format!("entry {range} is held behind {next:?}"));
            }
            next = Some(entry.position);
        }
        None
    }

    fn differs(&self) -> Run<Option<String>> {
        let view = self.view.fork();
        let (mut writer, mut reader) = (Writer::new(&view), Reader::new(&view));
        let newest: &Doctype = &self.doctypes[&self.newest];
        let version = done!(program::version(&mut reader));
        let is_ahead = program::is_behind(version, newest);
        if is_ahead && self.migration_failure.is_none() {
            view.push(&done!(program::migrate(&mut writer, newest, version)));
        }
        for (nth, undecided) in self.undecided.iter().enumerate() {
            let origin = self.origin(self.first().plus(nth as u64));
            let doctype = self.doctypes.get(&undecided.mutation.doctype);
            let ran = program::run_frame(&mut writer, origin, &undecided.mutation, doctype);
            let (verdict, set) = match ran {
                Run::Done(ran) => ran,
                Run::Fault(pgid) => return Run::Fault(pgid),
                Run::Failed(failure) => {
                    let nothing = PageSet { db_pages: view.db_pages(), ..PageSet::default() };
                    (Verdict::Rejected { reason: failure.to_string() }, nothing)
                }
            };
            view.push(&set);
            if undecided.predicted.as_ref() != Some(&verdict) {
                let predicted = &undecided.predicted;
                return Run::Done(Some(format!(
                    "{origin:?} is {predicted:?}, and {verdict:?} anew"
                )));
            }
        }
        let (shown, anew) = (self.view.db_pages(), view.db_pages());
        if shown != anew {
            return Run::Done(Some(format!("{shown} pages are shown, and {anew} anew")));
        }
        let mut pgids: BTreeSet<_> = self.view.overlay_pages().into_iter().collect();
        pgids.extend(view.overlay_pages());
        let other = pgids.into_iter().find(|pgid| {
            let (shown, anew) = (self.view.page(*pgid), view.page(*pgid));
            shown.is_some() && anew.is_some() && shown != anew
        });
        Run::Done(other.map(|pgid| format!("page {pgid:?} is shown otherwise than it is anew")))
    }
}
