//! A tab: what it asked, what it was told, and what it asks again when its core has died.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, FromCore, Handle, QueryParams, ToCore};
use tidelog_document::{Doctype, MutationDefinition, Param, ParamKind};
use tidelog_types::{CallId, ErrorCode, Value};

/// The one document that everybody works on.
pub(crate) const DOCUMENT: &str = "ledger";
pub(crate) const SERVER: &str = "ws://server";
/// A document that each device has for itself, without a server.
const DIARY: &str = "diary";

/// The tab's numbers for the two.
pub(crate) const SHARED: Handle = Handle(1);
pub(crate) const OWN: Handle = Handle(2);

/// A tab of a device.
pub(crate) struct Tab {
    release: Release,
    /// The device's share of call ids, so that no two calls ever have the same.
    id_prefix: u64,
    next_call: u32,
    /// Calls that have not settled, in their order, as they would be asked again.
    pub(crate) unsettled: BTreeMap<Call, ToCore>,
    /// Mutations that wait for their verdict only.
    /// With their LSN.
    pub(crate) confirming: BTreeMap<Call, u64>,
    names: BTreeMap<Call, String>,
    /// Mutations of whose rejection a listener was told.
    pub(crate) told_rejections: BTreeSet<String>,
    /// Whether it has yet to see that its core has died.
    pub(crate) is_unaware: bool,
    pub(crate) exported: Option<Vec<u8>>,
    pub(crate) live_rows: u32,
}

/// What a tab was told of a mutation.
pub(crate) enum News {
    Durable(String),
    Confirmed(String),
    Rejected(String),
    /// Nothing was recorded.
    Failed(String),
    /// A mutation of this device, whichever tab issued it.
    Refused(String),
    /// A listener has returned for it.
    Handled(String),
}

/// What the app's releases know the documents by: the second succeeds the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    First,
    Second,
}

/// The doctype of both documents: every mutation leaves a row with its own name, so that a second
/// run would show.
fn doctype(release: Release) -> Doctype {
    let mut doctype = first_doctype();
    if release == Release::Second {
        doctype.migrations.push(
            "create table mark (id text not null, entries integer not null) strict;
             insert into mark select 'the release', count(*) from entry;
             create index entry_at on entry (at, id);"
                .to_owned(),
        );
        let bump = doctype.mutations.iter_mut().find(|mutation| mutation.name == "bump");
        bump.expect("BUG: it bumps")
            .sql
            .push("insert into mark select :id, count(*) from entry".to_owned());
    }
    doctype
}

fn first_doctype() -> Doctype {
    let text = |name: &str| Param { name: name.to_owned(), kind: ParamKind::Text, optional: false };
    let define = |name: &str, params: Vec<Param>, sql: &[&str]| MutationDefinition {
        name: name.to_owned(),
        params,
        sql: sql.iter().map(ToString::to_string).collect(),
    };
    Doctype {
        name: "ledger".to_owned(),
        migrations: vec![
            "create table entry (id text not null, at integer not null) strict;
             create table claim (name text primary key, id text not null) strict;
             create table total (one integer primary key, bumps integer not null) strict;
             insert into total values (1, 0);"
                .to_owned(),
        ],
        mutations: vec![
            define("add", vec![text("id")], &["insert into entry values (:id, :now)"]),
            define(
                "bump",
                vec![text("id")],
                &["update total set bumps = bumps + 1", "insert into entry values (:id, :now)"],
            ),
            define(
                "claim",
                vec![text("id"), text("name")],
                &[
                    "select reject('taken') where exists (select 1 from claim where name = :name)",
                    "insert into claim values (:name, :id)",
                    "insert into entry values (:id, :now)",
                ],
            ),
        ],
    }
}

impl Tab {
    pub(crate) fn new(id_prefix: u64, release: Release) -> Self {
        Self {
            release,
            id_prefix,
            next_call: 0,
            unsettled: BTreeMap::new(),
            confirming: BTreeMap::new(),
            names: BTreeMap::new(),
            told_rejections: BTreeSet::new(),
            is_unaware: false,
            exported: None,
            live_rows: 0,
        }
    }

    /// The first words to a core: open, watch, and listen for rejections.
    pub(crate) fn open(&mut self) -> Vec<ToCore> {
        let shared = self.open_one(SHARED, DOCUMENT, Some(SERVER));
        let own = self.open_one(OWN, DIARY, None);
        vec![shared, own, self.watch(SHARED), self.watch(OWN)]
    }

    fn open_one(&mut self, handle: Handle, document: &str, server: Option<&str>) -> ToCore {
        let call = self.next_call();
        let open = ToCore::Open {
            call,
            handle,
            document: document.to_owned(),
            user: String::new(),
            server: server.map(str::to_owned),
            doctype: doctype(self.release),
            has_token: false,
        };
        self.ask(call, open)
    }

    fn watch(&mut self, handle: Handle) -> ToCore {
        let call = self.next_call();
        ToCore::Watch {
            call,
            handle,
            sql: "select count(*) from entry".to_owned(),
            params: QueryParams::Positional(Vec::new()),
        }
    }

    /// Everything that is to be said to a new core after the old one died.
    pub(crate) fn open_again(&mut self) -> Vec<ToCore> {
        let pending: Vec<ToCore> = std::mem::take(&mut self.unsettled)
            .into_values()
            .filter(|message| !matches!(message, ToCore::Open { .. }))
            .collect();
        let mut messages = self.open();
        for mut message in pending {
            if let ToCore::Mutate { call, again, .. } = &mut message {
                *again = Some(self.confirming.remove(call).unwrap_or(0));
            }
            let call = call_of(&message);
            messages.push(self.ask(call, message));
        }
        messages
    }

    pub(crate) fn mutate(
        &mut self,
        handle: Handle,
        mutation: &str,
        id: &str,
        name: u64,
        now_ms: u64,
    ) -> ToCore {
        let call = self.next_call();
        let text = |text: String| Value::Text(text);
        let mut args = vec![("id".to_owned(), text(id.to_owned()))];
        if mutation == "claim" {
            args.push(("name".to_owned(), text(format!("name-{name}"))));
        }
        self.names.insert(call, id.to_owned());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.id_prefix.to_le_bytes());
        bytes[8..12].copy_from_slice(&call.0.to_le_bytes());
        let message = ToCore::Mutate {
            call,
            handle,
            id: CallId(bytes),
            name: mutation.to_owned(),
            args,
            now_ms,
            again: None,
        };
        self.ask(call, message)
    }

    pub(crate) fn query(&mut self, handle: Handle) -> ToCore {
        let call = self.next_call();
        let query = ToCore::Query {
            call,
            handle,
            sql: "select bumps from total".to_owned(),
            params: QueryParams::Positional(Vec::new()),
        };
        self.ask(call, query)
    }

    pub(crate) fn sync(&mut self) -> ToCore {
        let call = self.next_call();
        self.ask(call, ToCore::Sync { call, handle: SHARED })
    }

    pub(crate) fn export(&mut self, handle: Handle) -> ToCore {
        let call = self.next_call();
        self.exported = None;
        self.ask(call, ToCore::Export { call, handle })
    }

    pub(crate) fn set_connected(&self, connected: bool) -> ToCore {
        ToCore::SetConnected { handle: SHARED, connected }
    }

    /// Takes what the core says. Says what is news of a mutation, and what to answer.
    pub(crate) fn hear(&mut self, message: FromCore) -> Result<(Vec<News>, Vec<ToCore>), String> {
        let mut news = Vec::new();
        let mut answers = Vec::new();
        match message {
            FromCore::Opened { call, .. } => {
                if let Some(ToCore::Open { handle, .. }) = self.unsettled.remove(&call) {
                    answers.push(ToCore::ListenRejections { handle });
                }
            }
            FromCore::Failed { call, failure } => {
                let asked = self.unsettled.remove(&call);
                match (asked, self.names.get(&call)) {
                    (Some(ToCore::Mutate { .. }), Some(name)) => {
                        let expected =
                            matches!(failure.code, ErrorCode::Rejected | ErrorCode::StorageFull);
                        if !expected {
                            return Err(format!("{name} failed: {failure:?}"));
                        }
                        news.push(News::Failed(name.clone()));
                    }
                    (Some(ToCore::Sync { .. }), _) => {}
                    (asked, _) => return Err(format!("{asked:?} failed: {failure:?}")),
                }
            }
            FromCore::Durable { call, lsn } => {
                // The page server's word may come after the core's verdict.
                if self.unsettled.contains_key(&call) {
                    self.confirming.insert(call, lsn);
                }
                news.push(News::Durable(self.names[&call].clone()));
            }
            FromCore::Confirmed { call, .. } => {
                self.unsettled.remove(&call);
                self.confirming.remove(&call);
                news.push(News::Confirmed(self.names[&call].clone()));
            }
            FromCore::Rejected { call, .. } => {
                self.unsettled.remove(&call);
                self.confirming.remove(&call);
                news.push(News::Rejected(self.names[&call].clone()));
            }
            FromCore::Rows { call, rows } => {
                if self.unsettled.remove(&call).is_none() {
                    self.live_rows += rows.count;
                }
            }
            FromCore::Exported { call, file } => {
                self.unsettled.remove(&call);
                self.exported = Some(file);
            }
            FromCore::Done { call } => {
                self.unsettled.remove(&call);
            }
            FromCore::Status { status, .. } => {
                let ordered = status.timeline.windows(2).all(|pair| pair[0] <= pair[1]);
                if !ordered {
                    return Err(format!("watermarks out of order: {status:?}"));
                }
                if let Some(failure) = status.error
                    && !matches!(
                        failure.code,
                        ErrorCode::ServerUnreachable | ErrorCode::StorageFull
                    )
                {
                    return Err(format!("the status says {failure:?}"));
                }
            }
            FromCore::RejectionNews { args, lsn, .. } => {
                let Some((_, Value::Text(name))) = args.first() else {
                    return Err(format!("news of a rejection without a name: {args:?}"));
                };
                self.told_rejections.insert(name.clone());
                news.push(News::Refused(name.clone()));
                if lsn % 3 == 0 {
                    answers.push(ToCore::RejectionHandled { handle: SHARED, lsn });
                    news.push(News::Handled(name.clone()));
                }
            }
            FromCore::TokenWanted { .. } => return Err("a token was asked for".to_owned()),
        }
        Ok((news, answers))
    }

    fn next_call(&mut self) -> Call {
        self.next_call += 1;
        Call(self.next_call)
    }

    fn ask(&mut self, call: Call, message: ToCore) -> ToCore {
        self.unsettled.insert(call, message.clone());
        message
    }
}

fn call_of(message: &ToCore) -> Call {
    match message {
        ToCore::Open { call, .. }
        | ToCore::Mutate { call, .. }
        | ToCore::Query { call, .. }
        | ToCore::Watch { call, .. }
        | ToCore::Unwatch { call }
        | ToCore::Sync { call, .. }
        | ToCore::Export { call, .. }
        | ToCore::Close { call, .. }
        | ToCore::Destroy { call, .. } => *call,
        ToCore::SetConnected { .. }
        | ToCore::ListenRejections { .. }
        | ToCore::RejectionHandled { .. }
        | ToCore::Token { .. }
        | ToCore::Device { .. } => Call(0),
    }
}
