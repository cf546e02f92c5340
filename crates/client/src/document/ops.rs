//! Calls of tabs, run in the order in which they were made; `opening.rs` has the first of them.

use tidelog_document::{Doctype, DoctypeHash, Mutation};
use tidelog_pages::Urgency;
use tidelog_sqlite::{Failure, Params, Run};
use tidelog_types::limits::MUTATION_SIZE_MAX;
use tidelog_types::{CallId, Lsn, Pgid, Value};

use super::{Attempt, Context, Document, Fault, Role, Settle, SyncWait, Then, Watch};
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore, Handle, QueryParams};

/// Times that one call may wait for pages before something must be wrong with them.
const FAULTS_MAX: u32 = 4096;

/// A call that waits for its turn.
pub(crate) struct Op {
    pub(crate) tab: TabId,
    pub(crate) call: Call,
    pub(crate) kind: OpKind,
}

pub(crate) enum OpKind {
    Open(Box<OpenCall>),
    Mutate {
        handle: Handle,
        id: CallId,
        name: String,
        args: Vec<(String, Value)>,
        now_ms: u64,
        again: Option<u64>,
    },
    Query {
        handle: Handle,
        sql: String,
        params: QueryParams,
    },
    Watch {
        handle: Handle,
        sql: String,
        params: QueryParams,
    },
    Sync {
        handle: Handle,
    },
    Export {
        handle: Handle,
    },
    Close {
        handle: Handle,
    },
}

/// What a tab wants to open.
pub(crate) struct OpenCall {
    pub(crate) handle: Handle,
    pub(crate) server: Option<String>,
    pub(crate) doctype: Doctype,
    pub(crate) hash: DoctypeHash,
    pub(crate) has_token: bool,
}

/// How a run of the call in front ended.
pub(super) enum Ran {
    Done,
    Fault(Pgid),
    /// Several pages are needed, none in particular.
    Needs(Vec<Pgid>),
    Waits,
    Failed(CallFailure),
}

impl Op {
    pub(crate) fn fail(self, failure: CallFailure, out: &mut Outbox) {
        out.tell(self.tab, FromCore::Failed { call: self.call, failure });
    }

    pub(super) fn is_watch(&self, tab: TabId, call: Call) -> bool {
        self.tab == tab && self.call == call && matches!(self.kind, OpKind::Watch { .. })
    }
}

impl Document {
    /// Runs the call in front.
    pub(super) fn run_front(&mut self, ctx: &mut Context<'_>) -> Attempt {
        let kth = match &self.front_fault {
            Some(fault) if self.reads.contains_key(&fault.request) => return Attempt::Waits,
            Some(fault) => fault.kth + 1,
            None => 0,
        };
        if !self.loaded {
            return Attempt::Waits;
        }
        let Some(op) = self.ops.pop_front() else { return Attempt::Idle };
        let ran = self.run(&op, ctx);
        match ran {
            Ran::Done => {}
            Ran::Failed(failure) => op.fail(failure, ctx.out),
            Ran::Waits => {
                self.ops.push_front(op);
                return Attempt::Waits;
            }
            Ran::Fault(_) | Ran::Needs(_) => {
                let pgids = match ran {
                    Ran::Fault(pgid) => self.to_fetch(pgid, kth),
                    Ran::Needs(pgids) => pgids,
                    _ => Vec::new(),
                };
                let fault = if kth < FAULTS_MAX {
                    self.fetch(Urgency::User, pgids, kth, ctx)
                } else {
                    None
                };
                if fault.is_some() {
                    self.front_fault = fault;
                    self.ops.push_front(op);
                    return Attempt::Waits;
                }
                op.fail(CallFailure::absent_page(), ctx.out);
            }
        }
        self.front_fault = None::<Fault>;
        Attempt::Done
    }

    pub(super) fn to_fetch(&self, pgid: Pgid, kth: u32) -> Vec<Pgid> {
        self.view().map(|view| view.to_fetch(pgid, kth)).unwrap_or_default()
    }

    fn run(&mut self, op: &Op, ctx: &mut Context<'_>) -> Ran {
        let handle = match &op.kind {
            OpKind::Open(open) => return self.run_open(op.tab, op.call, open, ctx),
            OpKind::Mutate { handle, .. }
            | OpKind::Query { handle, .. }
            | OpKind::Watch { handle, .. }
            | OpKind::Sync { handle }
            | OpKind::Export { handle }
            | OpKind::Close { handle } => *handle,
        };
        if !self.handles.contains_key(&(op.tab, handle)) {
            return match op.kind {
                OpKind::Close { .. } => {
                    ctx.out.tell(op.tab, FromCore::Done { call: op.call });
                    Ran::Done
                }
                _ => Ran::Failed(CallFailure::closed()),
            };
        }
        if self.role.is_none() {
            self.create_again(ctx);
        }
        if self.unadopted {
            let ran = self.adopt_handles(ctx);
            if !matches!(ran, Ran::Done) {
                return ran;
            }
        }
        if let Some(Role::Synced(replica)) = &self.role
            && !replica.is_built()
        {
            return Ran::Waits;
        }
        match &op.kind {
            OpKind::Open(_) => unreachable!("BUG: opened above"),
            OpKind::Mutate { id, name, args, now_ms, again, .. } => {
                let issued = Issue { id: *id, name, args, now_ms: *now_ms, again: *again };
                self.run_mutate(op, handle, &issued, ctx)
            }
            OpKind::Query { sql, params, .. } => self.run_query(op, sql, params, ctx),
            OpKind::Watch { sql, params, .. } => self.run_watch(op, sql, params, ctx),
            OpKind::Sync { .. } => self.run_sync(op, ctx),
            OpKind::Export { .. } => self.run_export(op, ctx),
            OpKind::Close { .. } => {
                self.drop_handle(op.tab, handle);
                ctx.out.tell(op.tab, FromCore::Done { call: op.call });
                Ran::Done
            }
        }
    }

    // --- mutate --------------------------------------------------------------------------------

    #[inline(never)]
    fn run_mutate(
        &mut self,
        op: &Op,
        handle: Handle,
        issue: &Issue<'_>,
        ctx: &mut Context<'_>,
    ) -> Ran {
        if let Some(durable) = issue.again
            && self.settle_again(op, issue.id, Lsn::new(durable), ctx)
        {
            return Ran::Done;
        }
        let handle = &self.handles[&(op.tab, handle)];
        let Some(definition) = handle.doctype.mutation(issue.name) else {
            return Ran::Failed(CallFailure::unknown_mutation(issue.name, &handle.doctype.name));
        };
        let args = match definition.bind(issue.args) {
            Ok(args) => args,
            Err(error) => return Ran::Failed(CallFailure::argument(issue.name, &error)),
        };
        let record = self.record.as_ref().expect("BUG: open without a record");
        let mutation = Mutation {
            doctype: handle.hash,
            name: issue.name.to_owned(),
            args,
            now_ms: issue.now_ms,
            client: record.client,
            kept_rejections: record.kept,
        };
        if size_of_args(&mutation) > MUTATION_SIZE_MAX {
            return Ran::Failed(CallFailure::new(
                tidelog_types::ErrorCode::MutationArgument,
                format!("the arguments of {} are over {MUTATION_SIZE_MAX} bytes", issue.name),
            ));
        }
        let (tab, call, id) = (op.tab, op.call, issue.id);
        let failed = |failure: &Failure| Ran::Failed(CallFailure::of_mutation(issue.name, failure));
        match self.role.as_mut().expect("BUG: open without a role") {
            Role::Local(authority) => {
                let doctype = &handle.doctype;
                match authority.apply_local(id, &mutation, doctype) {
                    Run::Done(applied) => {
                        self.mark_dirty(&applied.changed);
                        self.settle(tab, call, id, applied.lsn, true);
                        Ran::Done
                    }
                    Run::Fault(pgid) => Ran::Fault(pgid),
                    Run::Failed(failure) => failed(&failure),
                }
            }
            Role::Synced(replica) => match replica.issue(id, mutation) {
                Run::Done(issued) => {
                    let lsn = issued.frame.lsn;
                    self.append.timeline.push(issued.frame);
                    self.mark_dirty(&issued.changed);
                    self.confirming.insert(id, (tab, call));
                    self.settle(tab, call, id, lsn, false);
                    Ran::Done
                }
                Run::Fault(pgid) => Ran::Fault(pgid),
                Run::Failed(failure) => failed(&failure),
            },
        }
    }

    /// The caller is told once the append that is being gathered is durable.
    fn settle(&mut self, tab: TabId, call: Call, id: CallId, lsn: Lsn, confirmed: bool) {
        self.recorded.insert(id, lsn);
        let noticed = false;
        self.then.push(Then::Settle(Settle { tab, call, id, lsn, confirmed, noticed }));
    }

    /// A tab asks again, of another core or on another port: says what became of the call, if it
    /// was recorded. `durable` is what the tab was told of it.
    fn settle_again(
        &mut self,
        op: &Op,
        id: CallId,
        durable: Option<Lsn>,
        ctx: &mut Context<'_>,
    ) -> bool {
        let (tab, call) = (op.tab, op.call);
        if let Some(Role::Synced(replica)) = &self.role
            && let Some(lsn) = replica.find_call(id)
        {
            self.confirming.insert(id, (tab, call));
            if lsn < self.durable {
                ctx.out.tell(tab, FromCore::Durable { call, lsn: lsn.get() });
            } else {
                self.settle(tab, call, id, lsn, false);
            }
            return true;
        }
        let Some(lsn) = durable.or(self.recorded.get(id)) else { return false };
        if matches!(self.role, Some(Role::Local(_))) && lsn >= self.storage_durable {
            self.settle(tab, call, id, lsn, true);
            return true;
        }
        ctx.out.tell(tab, FromCore::Durable { call, lsn: lsn.get() });
        let rejections = self.record.iter().flat_map(|record| &record.rejections);
        let verdict = match rejections.into_iter().find(|rejection| rejection.lsn == lsn) {
            Some(rejection) => FromCore::Rejected {
                call,
                failure: CallFailure::rejected(&rejection.mutation, &rejection.reason),
            },
            None => {
                let next = self.base_position().map_or(Lsn::FIRST, |position| position.next);
                FromCore::Confirmed { call, lsn: next.get() - 1 }
            }
        };
        ctx.out.tell(tab, verdict);
        true
    }

    // --- query, watch, sync, export -------------------------------------------------------------

    fn run_query(
        &mut self,
        op: &Op,
        sql: &str,
        params: &QueryParams,
        ctx: &mut Context<'_>,
    ) -> Ran {
        self.view().expect("BUG: open without a view").set_now(ctx.now_ms);
        let run = match self.role.as_mut().expect("BUG: open without a role") {
            Role::Local(authority) => authority.reader().query(sql, &to_params(params)),
            Role::Synced(replica) => replica.reader().query(sql, &to_params(params)),
        };
        match run {
            Run::Done(rows) => {
                ctx.out.tell(op.tab, FromCore::Rows { call: op.call, rows });
                Ran::Done
            }
            Run::Fault(pgid) => Ran::Fault(pgid),
            Run::Failed(failure) => Ran::Failed(CallFailure::of_query(&failure)),
        }
    }

    fn run_watch(
        &mut self,
        op: &Op,
        sql: &str,
        params: &QueryParams,
        ctx: &mut Context<'_>,
    ) -> Ran {
        let mut watch = Watch {
            sql: sql.to_owned(),
            params: params.clone(),
            read_set: None,
            rows: None,
            dirty: false,
        };
        match self.look(&mut watch, ctx) {
            Run::Done(news) => {
                if let Some(rows) = news {
                    ctx.out.tell(op.tab, FromCore::Rows { call: op.call, rows });
                }
                self.watches.insert((op.tab, op.call), watch);
                Ran::Done
            }
            Run::Fault(pgid) => Ran::Fault(pgid),
            Run::Failed(failure) => {
                self.watches.insert((op.tab, op.call), watch);
                Ran::Failed(CallFailure::of_query(&failure))
            }
        }
    }

    /// Runs a live query once; says its rows if they are others than before.
    pub(super) fn look(
        &mut self,
        watch: &mut Watch,
        ctx: &Context<'_>,
    ) -> Run<Option<tidelog_types::Rows>> {
        self.view().expect("BUG: watched without a view").set_now(ctx.now_ms);
        let params = to_params(&watch.params);
        let run = match self.role.as_mut().expect("BUG: watched without a role") {
            Role::Local(authority) => authority.reader().watch(&watch.sql, &params),
            Role::Synced(replica) => replica.reader().watch(&watch.sql, &params),
        };
        match run {
            Run::Done((rows, read_set)) => {
                watch.read_set = Some(read_set);
                watch.dirty = false;
                if watch.rows.as_ref() == Some(&rows) {
                    return Run::Done(None);
                }
                watch.rows = Some(rows.clone());
                Run::Done(Some(rows))
            }
            Run::Fault(pgid) => Run::Fault(pgid),
            Run::Failed(failure) => {
                watch.read_set = None;
                watch.rows = None;
                watch.dirty = false;
                Run::Failed(failure)
            }
        }
    }

    fn run_sync(&mut self, op: &Op, ctx: &mut Context<'_>) -> Ran {
        let Some(Role::Synced(replica)) = &self.role else {
            ctx.out.tell(op.tab, FromCore::Done { call: op.call });
            return Ran::Done;
        };
        let mut sync = SyncWait {
            tab: op.tab,
            call: op.call,
            timeline: replica.head(),
            storage: None,
            probe: None,
        };
        self.probe(&mut sync, ctx);
        self.syncs.push(sync);
        Ran::Done
    }

    fn run_export(&mut self, op: &Op, ctx: &mut Context<'_>) -> Ran {
        let view = self.view().expect("BUG: open without a view");
        match view.image() {
            Some(file) => {
                ctx.out.tell(op.tab, FromCore::Exported { call: op.call, file });
                Ran::Done
            }
            None => Ran::Needs(view.missing()),
        }
    }
}

/// A mutation as its tab asked for it.
struct Issue<'i> {
    id: CallId,
    name: &'i str,
    args: &'i [(String, Value)],
    now_ms: u64,
    again: Option<u64>,
}

fn to_params(params: &QueryParams) -> Params {
    match params {
        QueryParams::Positional(values) => Params::Positional(values.clone()),
        QueryParams::Named(values) => Params::Named(values.clone()),
    }
}

fn size_of_args(mutation: &Mutation) -> usize {
    let size = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 8,
    };
    mutation.args.iter().map(|(name, value)| name.len() + size(value) + 32).sum()
}
