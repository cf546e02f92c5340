//! What a tab is told, and what follows from that.

use std::collections::BTreeSet;

use tidelog_client::{
    Call, CallFailure, Connection, FromCore, Handle, Memo, Request, Status, ToCore,
};
use tidelog_document::is_reserved;
use tidelog_types::{DocumentKey, ErrorCode, Outcome, Remedy, Value};

use super::live::MALFORMED;
use super::{Asked, HEARD_MS, Live, Tab, TaskNews, deleted_by, handle_of};
use crate::docs::Doc;
use crate::judge::{UNKNOWN, sending_in};

/// Milliseconds after which an app whose listener has thrown has another one.
const LISTENS_ANEW_MS: u64 = 300;
/// Cores that have to die over a live query before its tab gives it up.
const DEATHS_MAX: u32 = 3;

/// What a tab was told.
pub(crate) enum News {
    Durable(String),
    Confirmed(String),
    Rejected(String, String),
    /// Nothing was recorded; with the reason if it was rejected where it was issued.
    Failed(String, Option<String>),
    /// The same since its device might not issue it.
    Forbidden(String),
    /// It may be recorded or not.
    Unknown(String),
    /// Its document was closed before this was said.
    Left(String),
    /// A listener is told of its rejection, which its device keeps.
    Kept(String),
    /// A listener has returned for it.
    Handled(String),
    /// Of tasks.
    Task(TaskNews),
    /// A query was answered.
    Rows {
        doc: Doc,
        names: Vec<String>,
        must: BTreeSet<String>,
        tab: u64,
    },
}

/// What follows from what a tab was told.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) news: Vec<News>,
    pub(crate) answers: Vec<ToCore>,
    /// What it asks once more after a while.
    pub(crate) again: Vec<ToCore>,
    /// A document that is synced from now on.
    pub(crate) moved: Option<Doc>,
    /// A document that its server has already, and another one as it says.
    pub(crate) taken: Option<Doc>,
    /// A document that it was given as a file.
    pub(crate) exported: Option<Doc>,
    /// A document whose copy was deleted, and one of which nothing was.
    pub(crate) destroyed: Option<DocumentKey>,
    pub(crate) stays: Option<DocumentKey>,
}

impl Tab {
    /// Takes what the core says, and whether it is the last word of a call; with when something
    /// went wrong last, up to when what was shown may go again, and up to when there may be no
    /// store that takes anything.
    ///
    /// # Errors
    ///
    /// It may not say that.
    pub(crate) fn hear(
        &mut self,
        message: FromCore,
        last: bool,
        now_ms: u64,
        [trouble_ms, shown_ms, unserved_ms]: [u64; 3],
    ) -> Result<Heard, String> {
        let mut heard = Heard::default();
        match message {
            FromCore::Opened { call, status, memo } => {
                self.opened(call, status, memo, &mut heard, now_ms);
            }
            FromCore::Failed { call, .. } if self.is_about_tasks(call) => {
                self.task_call_failed(call, last);
            }
            FromCore::Failed { call, failure } if !last => {
                heard.news.extend(self.left(call));
                self.late(call, &failure, now_ms)?;
            }
            FromCore::Failed { call, failure } => {
                self.failed(call, failure, &mut heard, [now_ms, unserved_ms])?;
            }
            FromCore::Durable { call, entry } => {
                // The page server's word may come after the core's verdict.
                if self.unsettled.contains_key(&call) {
                    self.confirming.insert(call, entry.journal);
                }
                heard.news.extend(self.left(call));
                heard.news.push(News::Durable(self.name(call)?));
            }
            FromCore::Confirmed { call, .. } => {
                heard.news.extend(self.left(call));
                self.end(call)?;
                heard.news.push(News::Confirmed(self.name(call)?));
            }
            FromCore::Rejected { call, failure, .. } => {
                let asked = self.unsettled.get(&call);
                if let Some(handle) = asked.and_then(|asked| handle_of(&asked.message)) {
                    heard.answers.extend(self.look(handle, now_ms));
                }
                self.end(call)?;
                let outcome = failure.outcome;
                let reason = failure.reason.unwrap_or(failure.message);
                if reason.starts_with(UNKNOWN) != (outcome == Outcome::Unknown) {
                    return Err(format!("the outcome of a rejection is {outcome:?}: {reason}"));
                }
                heard.news.push(News::Rejected(self.name(call)?, reason));
            }
            FromCore::Rows { call, rows } if self.is_about_tasks(call) => {
                heard.news.push(News::Task(self.task_rows(call, &rows)?));
                heard.answers.extend(self.give_up_runs());
            }
            FromCore::Rows { call, rows } => {
                self.rows(call, &rows, &mut heard, now_ms, shown_ms)?;
            }
            FromCore::Exported { call, file } => {
                if let Some(doc) = self.unsettled.remove(&call).and_then(|it| self.doc_of(&it)) {
                    self.exported.insert(doc, file);
                    heard.exported = Some(doc);
                }
            }
            FromCore::Done { call } => self.done(call, &mut heard, now_ms, shown_ms)?,
            FromCore::HandingOver { .. } => unreachable!("BUG: the tab tells that nobody"),
            FromCore::Status { handle, status, memo } => {
                let doc = self.docs.get(&handle);
                let away_ms = doc.and_then(|doc| self.away.get(doc));
                if status.connection == Connection::Online
                    && let Some(away_ms) = away_ms
                    && now_ms >= *away_ms
                    && now_ms >= trouble_ms + HEARD_MS
                {
                    return Err(format!("{doc:?} is online, and is to stay away since {away_ms}"));
                }
                if status.connection == Connection::Local
                    && let Some(doc) = doc.filter(|doc| self.held.get(doc) == Some(&handle))
                    && self.online.contains(doc)
                    && !self.devices_part
                    && !self.servers_go_back
                {
                    return Err(format!("{doc:?} is its server's, and local again"));
                }
                let ordered = status.timeline.is_sorted() && status.storage_lsns.is_sorted();
                let [start, .., issued] = status.timeline;
                if !ordered || status.pending != issued - start {
                    return Err(format!("watermarks out of order: {status:?}"));
                }
                if let Some(failure) = status.error.as_ref().filter(|it| !self.passes(it.code)) {
                    return Err(format!("the status says {failure:?}"));
                }
                let is_refused = |it: &CallFailure| it.code == ErrorCode::Storage;
                if status.error.as_ref().is_some_and(is_refused)
                    && let Some(doc) = doc.copied()
                {
                    self.is_read_anew(doc);
                }
                self.stands(handle, status, memo);
                let is_due = |at_ms: &mut u64| *at_ms + LISTENS_ANEW_MS <= now_ms;
                let threw = self.threw.get_mut(&handle).is_some_and(is_due);
                if threw && self.holds(handle) {
                    // It is told again of what came before those that it has dealt with.
                    self.threw.remove(&handle);
                    let told = self.told_rejections.entry(handle).or_default();
                    told.retain(|_, is_handled| *is_handled);
                    self.listens_anew.insert(handle, now_ms);
                    heard.answers.push(ToCore::ListenRejections { handle });
                }
            }
            FromCore::RejectionNews { handle, id, mutation, args, lsn, reason } => {
                let Some((_, Value::Text(name))) = args.first() else {
                    return Err(format!("news of a rejection without a name: {args:?}"));
                };
                // Of what sends a command nobody knows the name again.
                let name = match is_reserved(&mutation) {
                    true => &format!("{}{id:?}", sending_in(self.docs[&handle])),
                    false => name,
                };
                heard.news.push(News::Rejected(name.clone(), reason));
                heard.news.push(News::Kept(name.clone()));
                let is_held = self.holds(handle);
                let is_anew = self.listens_anew.contains_key(&handle);
                let is_handled = is_held && (lsn % 3 == 0 || lsn % 3 == 1 && is_anew);
                let told = self.told_rejections.entry(handle).or_default();
                told.insert(name.clone(), is_handled);
                if is_handled {
                    heard.answers.push(ToCore::RejectionHandled { handle, id });
                    heard.news.push(News::Handled(name.clone()));
                } else if is_held && lsn % 3 == 1 {
                    self.threw.entry(handle).or_insert(now_ms);
                }
            }
            FromCore::TokenWanted { question, .. } => {
                self.tokens_asked += 1;
                let is_here = !self.is_token_flaky || self.tokens_asked.is_multiple_of(2);
                let token = is_here.then(|| self.token());
                heard.answers.push(ToCore::Token { question, token });
            }
            FromCore::Presence { .. } => unreachable!("BUG: nobody is present"),
            FromCore::CloseWanted { handle } => {
                let doc = self.docs.get(&handle).copied();
                let is_held = |doc: &Doc| self.held.get(doc) == Some(&handle);
                let messages = doc.filter(is_held).and_then(|doc| self.close(doc, now_ms));
                heard.answers.extend(messages.into_iter().flatten());
            }
        }
        Ok(heard)
    }

    pub(super) fn opened(
        &mut self,
        call: Call,
        status: Status,
        memo: Memo,
        heard: &mut Heard,
        now_ms: u64,
    ) {
        let asked = self.unsettled.remove(&call);
        let Some(handle) = asked.and_then(|asked| handle_of(&asked.message)) else { return };
        let doc = self.docs[&handle];
        self.stands(handle, status, memo);
        heard.answers.push(ToCore::ListenRejections { handle });
        if self.handing_over.remove(&handle) {
            self.online.insert(doc);
            heard.moved = Some(doc);
        }
        // One that was handed over is used by this handle from now on.
        if let Some(local) = self.held.insert(doc, handle) {
            let call = self.next_call();
            let close = ToCore::Ask { call, handle: local, request: Request::Close };
            heard.answers.push(self.ask(call, close, now_ms, BTreeSet::new()));
        }
        for live in self.watched.clone() {
            heard.answers.push(self.watch(doc, live, handle));
        }
    }

    /// Whether the document of a mutation was closed since it was issued.
    pub(super) fn left(&self, call: Call) -> Option<News> {
        let asked = self.unsettled.get(&call)?;
        let (handle, name) = (handle_of(&asked.message)?, self.names.get(&call)?);
        let is_held = self.held.get(&self.docs[&handle]) == Some(&handle);
        (!is_held).then(|| News::Left(name.clone()))
    }

    /// A live query failed for now, or a mutation takes its time.
    pub(super) fn late(
        &mut self,
        call: Call,
        failure: &CallFailure,
        now_ms: u64,
    ) -> Result<(), String> {
        let is_let_go = self.let_go.contains(&call);
        if failure.code == ErrorCode::Query
            && let Some((doc, live @ Live::Fragile)) = self.watches.get(&call).copied()
        {
            self.shows(call, doc, live, &[MALFORMED.to_owned()], now_ms);
            return Ok(());
        }
        if self.must_be_there(call, failure.code) {
            return Err(format!("{call:?} watches what there is, and is told {failure:?}"));
        }
        if self.watches.contains_key(&call)
            || is_let_go
            || failure.code == ErrorCode::DocumentClosed
        {
            return Ok(());
        }
        let asked = self.unsettled.get_mut(&call).filter(|asked| asked.is_mutate());
        match (asked, failure.code) {
            (Some(asked), ErrorCode::NotDurableYet) => {
                asked.is_late = true;
                Ok(())
            }
            _ => Err(format!("{call:?} failed, and not for good: {failure:?}")),
        }
    }

    /// Whether a document may be in want of something in this world, and say so.
    pub(super) fn passes(&self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::ServerUnreachable | ErrorCode::StorageFull | ErrorCode::Storage => true,
            // One that went back may offer what it has handed over already.
            ErrorCode::DocumentReplaced => self.servers_go_back || self.devices_part,
            ErrorCode::DocumentMissing => self.servers_go_back,
            ErrorCode::DocumentExists => self.meets_namesakes,
            ErrorCode::Access | ErrorCode::Protocol => self.may_be_barred,
            ErrorCode::BudgetExceeded => self.fills,
            ErrorCode::DoctypeMismatch => self.forks,
            _ => false,
        }
    }

    /// Whether who waits until all is in step may be told that it does not get there: what passes
    /// by itself is waited for, but for a store that has refused what the device alone decides.
    fn ends_a_wait(&self, failure: &CallFailure, asked: &Asked, unserved_ms: u64) -> bool {
        let is_its_servers = |doc| self.shared.contains(&doc) || self.online.contains(&doc);
        let is_local = !self.doc_of(asked).is_some_and(is_its_servers);
        let lasts = failure.remedy == Remedy::Mend;
        match failure.code {
            ErrorCode::Storage | ErrorCode::StorageFull | ErrorCode::Engine => {
                is_local || asked.at_ms <= unserved_ms || lasts && self.may_rot
            }
            code => lasts && self.passes(code),
        }
    }

    /// Whether a live query failed for its words, though all that it looks at has to be there.
    pub(super) fn must_be_there(&self, call: Call, code: ErrorCode) -> bool {
        code == ErrorCode::Query && self.watches.contains_key(&call)
    }

    /// Whether a server that is not there, or lets nobody in, may be the reason.
    pub(super) fn is_unreachable(&self, code: ErrorCode) -> bool {
        let bars = matches!(code, ErrorCode::Access | ErrorCode::Protocol);
        code == ErrorCode::ServerUnreachable || bars && self.may_be_barred
    }

    pub(super) fn failed(
        &mut self,
        call: Call,
        failure: CallFailure,
        heard: &mut Heard,
        [now_ms, unserved_ms]: [u64; 2],
    ) -> Result<(), String> {
        let full =
            matches!(failure.code, ErrorCode::StorageFull | ErrorCode::Storage | ErrorCode::Engine);
        let closed = failure.code == ErrorCode::DocumentClosed;
        // A live query that cores died of, as it seems: what it showed grows old from here on, and
        // it is asked anew.
        if failure.code == ErrorCode::Engine
            && let Some((doc, live)) = self.watches.get(&call).copied()
            && let Some(handle) = self.held.get(&doc).copied()
        {
            let died = self.shown_by.get(&call).map(|core| self.port.core - core);
            if died.is_some_and(|died| died < DEATHS_MAX) {
                return Err(format!("a live query of {doc:?} ends, and {died:?} cores died of it"));
            }
            self.live.remove(&(doc, live));
            self.outdated.remove(&(doc, live));
            heard.answers.push(self.watch(doc, live, handle));
            return Ok(());
        }
        if self.must_be_there(call, failure.code) {
            return Err(format!("{call:?} watches what there is, and ends with {failure:?}"));
        }
        // It has nothing to show at present, says so, and shows again what there is from then on.
        if full && let Some(which) = self.watches.get(&call) {
            self.outdated.remove(which);
        }
        let Some(asked) = self.unsettled.remove(&call) else {
            // A live query whose document was closed, or what is not listened to.
            let is_expected =
                self.watches.contains_key(&call) || closed || self.let_go.contains(&call);
            return if is_expected {
                Ok(())
            } else {
                Err(format!("{call:?} failed twice: {failure:?}"))
            };
        };
        self.confirming.remove(&call);
        let (handle, request) = match &asked.message {
            ToCore::Ask { handle, request, .. } => (*handle, request),
            message => {
                let is_forced = matches!(message, ToCore::Destroy { force: true, .. });
                let held = failure.code == ErrorCode::DocumentInUse
                    || failure.code == ErrorCode::Pending && !is_forced;
                // A store that is well deletes whatever it has.
                let is_unserved = asked.at_ms <= unserved_ms;
                // Of one that keeps few appends, too many may be on their way.
                let is_busy = self.may_be_busy
                    && failure.message.starts_with("too many appends are not durable yet");
                let may_fail = full && is_unserved || is_busy || held && !self.is_leaving;
                let expected = matches!(message, ToCore::Destroy { .. }) && may_fail;
                if failure.outcome == Outcome::None {
                    heard.stays = deleted_by(message);
                }
                return if expected { Ok(()) } else { Err(format!("not deleted: {failure:?}")) };
            }
        };
        if let Some(code) = asked.mistake {
            let is_told = failure.code == code && failure.outcome == Outcome::None;
            let has_given_way = failure.code == ErrorCode::DoctypeMismatch && self.forks;
            return match is_told || full || closed || has_given_way {
                true => Ok(()),
                false => Err(format!("a mistake is answered by {failure:?}")),
            };
        }
        if failure.code == ErrorCode::Query
            && let (Some(doc), Some(live @ Live::Fragile)) =
                (self.doc_of(&asked), Live::of_look(&asked.message, self.release))
        {
            self.compare_live(doc, live, &[MALFORMED.to_owned()], now_ms);
            return Ok(());
        }
        match request {
            Request::Mutate(_) => {
                let name = self.name(call)?;
                let is_too_much = self.few_undecided && failure.code == ErrorCode::BudgetExceeded;
                let is_forbidden = self.may_only_read && failure.code == ErrorCode::Access;
                let is_just = failure.code == ErrorCode::Rejected || is_too_much || is_forbidden;
                if !full && !closed && !is_just {
                    return Err(format!("{name} failed: {failure:?}"));
                }
                heard.news.extend(closed.then(|| News::Left(name.clone())));
                heard.news.push(match failure.outcome {
                    Outcome::None if is_forbidden => News::Forbidden(name),
                    Outcome::None => News::Failed(name, failure.reason),
                    Outcome::Unknown => News::Unknown(name),
                });
                heard.answers.extend(self.look(handle, now_ms));
                Ok(())
            }
            Request::Sync if closed || self.ends_a_wait(&failure, &asked, unserved_ms) => Ok(()),
            // Another tab has handed it over, and is gone.
            Request::Sync
                if failure.code == ErrorCode::InvalidOption
                    && self.doc_of(&asked).is_some_and(|doc| !self.online.contains(&doc)) =>
            {
                Ok(())
            }
            // A document that could not be handed over is tried again, by whoever wants that.
            Request::Open(_) if self.handing_over.remove(&handle) => {
                let is_taken = failure.code == ErrorCode::DocumentExists;
                heard.taken = self.docs.get(&handle).copied().filter(|_| is_taken);
                let expected = full || is_taken || self.is_unreachable(failure.code);
                if expected { Ok(()) } else { Err(format!("not handed over: {failure:?}")) }
            }
            // Nobody tries again what it has asked for in another way since.
            Request::Open(_)
                if (full || self.is_unreachable(failure.code))
                    && self.has_opened_since(call, handle) =>
            {
                Ok(())
            }
            Request::Open(_) if self.is_unreachable(failure.code) => {
                heard.again.push(asked.message.clone());
                self.unsettled.insert(call, asked);
                Ok(())
            }
            // Whoever tries again asks for something new: the one before may still come about.
            Request::Open(_) if full => {
                let doc = self.docs[&handle];
                let (call, handle) = (self.next_call(), self.port.new_handle());
                self.docs.insert(handle, doc);
                let message = ToCore::Ask { call, handle, request: request.clone() };
                heard.again.push(self.ask(call, message, now_ms, BTreeSet::new()));
                Ok(())
            }
            // Another release has the document, which this one does not go with.
            Request::Open(_) if failure.code == ErrorCode::DoctypeMismatch && self.forks => {
                match failure.outcome {
                    Outcome::None => Ok(()),
                    Outcome::Unknown => Err(format!("something came of it: {failure:?}")),
                }
            }
            // Its release gave way to the server's while nothing of this was durable by it.
            Request::Query(_) | Request::Export
                if failure.code == ErrorCode::DoctypeMismatch
                    && self.forks
                    && self.port.lost.get(&handle) == Some(&ErrorCode::DoctypeMismatch) =>
            {
                Ok(())
            }
            // Nobody closes a document twice: that failed, and is the end of it all the same.
            Request::Close if full => {
                self.let_go(handle, heard);
                Ok(())
            }
            _ if full => {
                heard.again.push(asked.message.clone());
                self.unsettled.insert(call, asked);
                Ok(())
            }
            _ if closed => Ok(()),
            request => Err(format!("{request:?} failed: {failure:?}")),
        }
    }

    pub(super) fn done(
        &mut self,
        call: Call,
        heard: &mut Heard,
        now_ms: u64,
        trouble_ms: u64,
    ) -> Result<(), String> {
        let Some(asked) = self.unsettled.remove(&call) else { return Ok(()) };
        match &asked.message {
            // What was confirmed before is visible now.
            ToCore::Ask { handle, request: Request::Sync, .. } => {
                let doc = self.docs[handle];
                let mut before = asked.before.iter();
                if let Some(open) = before.find(|call| self.unsettled.contains_key(call))
                    && self.shared.contains(&doc)
                {
                    return Err(format!("all is in step, but for {}", self.name(*open)?));
                }
                let is_held = self.held.get(&doc) == Some(handle);
                if is_held && asked.at_ms > trouble_ms {
                    let query = self.query(doc, asked.must, now_ms);
                    self.unsettled.values_mut().last().expect("BUG: asked").is_fragile = true;
                    heard.answers.push(query);
                }
            }
            ToCore::Ask { handle, request: Request::Close, .. } => {
                self.ends_with_verdicts(*handle)?;
                self.let_go(*handle, heard);
            }
            message => heard.destroyed = deleted_by(message),
        }
        Ok(())
    }

    fn stands(&mut self, handle: Handle, status: Status, memo: Memo) {
        self.statuses.insert(handle, (self.port.core, status));
        self.journals.extend(memo.head.map(|head| (handle, head.journal)));
    }

    /// What this device decides is confirmed with the same word that says that it is durable: the
    /// close of such a document does not come between. What is durable in another journal than the
    /// document had is for the server, that it was opened with before the tab was told.
    pub(super) fn ends_with_verdicts(&self, handle: Handle) -> Result<(), String> {
        let is_local = |(_, it): &(u32, Status)| it.connection == Connection::Local;
        if !self.statuses.get(&handle).is_some_and(is_local) {
            return Ok(());
        }
        let mut open = self.confirming.iter().filter(|(call, journal)| {
            let asked = self.unsettled.get(call);
            asked.and_then(|asked| handle_of(&asked.message)) == Some(handle)
                && self.journals.get(&handle) == Some(journal)
        });
        match open.next() {
            Some((call, _)) => Err(format!("the close says nothing of {}", self.name(*call)?)),
            None => Ok(()),
        }
    }

    /// Nothing more is expected of a document that was closed.
    pub(super) fn let_go(&mut self, handle: Handle, heard: &mut Heard) {
        let of_it = |asked: &Asked| handle_of(&asked.message) == Some(handle);
        let calls = self.unsettled.iter().filter(|(_, asked)| of_it(asked));
        let calls: Vec<Call> = calls.map(|(call, _)| *call).collect();
        for call in calls {
            heard.news.extend(self.left(call));
            self.unsettled.remove(&call);
            let is_durable = self.confirming.remove(&call).is_some();
            if let Some(name) = self.names.get(&call).filter(|_| !is_durable) {
                heard.news.push(News::Unknown(name.clone()));
            }
            self.let_go.insert(call);
        }
    }

    /// A mutation has its end, which is said once.
    pub(super) fn end(&mut self, call: Call) -> Result<(), String> {
        self.confirming.remove(&call);
        if self.unsettled.remove(&call).is_some() || self.let_go.contains(&call) {
            return Ok(());
        }
        Err(format!("{} has a second end", self.name(call)?))
    }

    pub(super) fn name(&self, call: Call) -> Result<String, String> {
        self.names.get(&call).cloned().ok_or_else(|| format!("{call:?} is no mutation"))
    }
}
