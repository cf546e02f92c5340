//! Between a simulated app and the core: the shipped `js/src/tab.ts` decides what is said when.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidelog_client::{
    Again, Call, CallFailure, Connection, FromCore, Handle, Memo, Mutate, OpenRequest, Request,
    Status, ToCore,
};
use tidelog_tab::{Answer, Effect, Error, Input, Machine, RowCount};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{ClientId, EntryId, ErrorCode, JournalId, Life, Lsn, Outcome};

use crate::doors::TabDoor;

/// A tab's way to its core, whichever core that is.
pub(crate) struct Port {
    machine: Machine,
    /// What was asked, by its call.
    asked: BTreeMap<Call, ToCore>,
    /// How each document was opened.
    opens: BTreeMap<Handle, Request>,
    /// What else was last told of each.
    told: BTreeMap<(Handle, &'static str), ToCore>,
    /// The token that was told last.
    token: Option<ToCore>,
    /// Documents that could not be opened anew, or have no core, and why, as the app was told.
    pub(crate) lost: BTreeMap<Handle, ErrorCode>,
    /// The core that it is connected to, by the number that it gave it, and the one that it looks
    /// for, if it does.
    pub(crate) core: u32,
    pub(crate) sought: Option<u32>,
    /// Whether that core is there and was told hello: before and after that all is lost.
    pub(crate) is_heard: bool,
    /// Whether it is told of the end of that core.
    pub(crate) is_watching: bool,
    /// When it wants to be woken: a later wish replaces an earlier one.
    wake_at_ms: Option<u64>,
    door: TabDoor,
}

/// What follows from something that happened to a tab.
#[derive(Default)]
pub(crate) struct Followed {
    /// For the core.
    pub(crate) posts: Vec<ToCore>,
    /// For the app, each with whether it is the last word of a call.
    pub(crate) told: Vec<(FromCore, bool)>,
    /// When it wants to be woken, if that has changed.
    pub(crate) wake_at_ms: Option<u64>,
    /// What concerns ports, locks and workers, to be done after what is for the core was sent.
    pub(crate) wants: Vec<Effect>,
    /// What must not follow.
    pub(crate) wrong: Option<String>,
}

impl Port {
    pub(crate) fn new() -> Self {
        Self {
            machine: Machine::new(),
            asked: BTreeMap::new(),
            opens: BTreeMap::new(),
            told: BTreeMap::new(),
            token: None,
            lost: BTreeMap::new(),
            core: 0,
            sought: None,
            is_heard: false,
            is_watching: false,
            wake_at_ms: None,
            door: TabDoor::default(),
        }
    }

    pub(crate) fn new_call(&self) -> Call {
        Call(self.machine.new_call())
    }

    pub(crate) fn new_handle(&self) -> Handle {
        Handle(self.machine.new_handle())
    }

    /// The app says something.
    pub(crate) fn say(&mut self, now_ms: u64, message: ToCore) -> Followed {
        let input = match &message {
            ToCore::Ask { call, handle, request } => {
                let (call, handle) = (call.0, handle.0);
                let content = match request {
                    Request::Open(open) => {
                        self.opens.insert(Handle(handle), request.clone());
                        let OpenRequest { document, user, .. } = &**open;
                        json!({
                            "call": call, "handle": handle, "document": document, "user": user,
                        })
                    }
                    Request::Mutate(Mutate { name, .. }) => {
                        json!({ "call": call, "handle": handle, "name": name })
                    }
                    _ => json!({ "call": call, "handle": handle }),
                };
                let limited = !matches!(
                    request,
                    Request::Sync
                        | Request::Handle(_)
                        | Request::Complete(_)
                        | Request::Outcome(_)
                        | Request::Records(_)
                );
                Input::Call { kind: kind_of(&message), message: content, limited }
            }
            ToCore::Destroy { call, document, user, .. } => {
                let content = json!({ "call": call.0, "document": document, "user": user });
                Input::Call { kind: "destroy", message: content, limited: true }
            }
            ToCore::GiveUp { call } => Input::GiveUp { call: call.0 },
            ToCore::SetConnected { handle, word } => {
                let message = json!({ "handle": handle.0, "word": word });
                Input::Tell { kind: "setConnected", message }
            }
            ToCore::ListenRejections { handle } | ToCore::RejectionHandled { handle, .. } => {
                self.told.insert((*handle, kind_of(&message)), message.clone());
                Input::Tell { kind: kind_of(&message), message: json!({ "handle": handle.0 }) }
            }
            ToCore::Token { question, .. } => {
                self.token = Some(message.clone());
                Input::Tell { kind: "token", message: json!({ "question": question }) }
            }
            ToCore::Device { .. } | ToCore::Nudge | ToCore::Heard { .. } => {
                unreachable!("BUG: the tab says that by itself")
            }
            ToCore::Presence { .. } => unreachable!("BUG: no app says who is present"),
        };
        self.door.comes(&message, now_ms);
        if let ToCore::Ask { call, .. } | ToCore::Destroy { call, .. } = &message {
            self.asked.insert(*call, message);
        }
        self.step(now_ms, &input, None)
    }

    /// The core, or the page server past it, says something.
    pub(crate) fn hear(&mut self, now_ms: u64, message: FromCore) -> Followed {
        self.door.hears(&message);
        match answer_of(&message) {
            Some((call, answer)) => {
                let input = Input::Answer { call: call.0, answer };
                self.step(now_ms, &input, Some(message))
            }
            None => {
                let news = news_of(self.core, &message);
                self.step(now_ms, &news, Some(message))
            }
        }
    }

    /// A list of messages of the core was heard, of so many bytes.
    pub(crate) fn heard_list(&mut self, now_ms: u64, size: usize) -> Followed {
        let input = Input::Heard { core: self.core, size };
        self.take(now_ms, &input)
    }

    /// When a core has served this tab first: see [`TabDoor::loaded_ms`].
    pub(crate) fn loaded_ms(&self) -> Option<u64> {
        self.door.loaded_ms()
    }

    /// The browser brings something.
    pub(crate) fn take(&mut self, now_ms: u64, input: &Input) -> Followed {
        self.step(now_ms, input, None)
    }

    /// This time has come, for which it asked once.
    pub(crate) fn wake(&mut self, at_ms: u64, now_ms: u64) -> Followed {
        if self.wake_at_ms != Some(at_ms) {
            return Followed::default();
        }
        self.wake_at_ms = None;
        self.step(now_ms, &Input::Wake, None)
    }

    fn step(&mut self, now_ms: u64, input: &Input, mut heard: Option<FromCore>) -> Followed {
        let mut followed = Followed::default();
        if let Some(FromCore::Failed { call, .. }) = &heard {
            self.door.has_failed(*call);
        }
        self.door.takes(input, now_ms);
        if matches!(input, Input::Gone { .. }) {
            self.door.core_is_gone();
            self.door.core_died();
        }
        let effects = self.machine.step(now_ms, input);
        let gives_up = TabDoor::gives_up(input, &effects);
        for effect in effects {
            match effect {
                Effect::Post { kind, message } => {
                    let message = self.post(&kind, &message);
                    let wrong = self.door.leaves(&message, now_ms).err();
                    followed.wrong = followed.wrong.take().or(wrong);
                    followed.posts.extend(self.is_heard.then_some(message));
                }
                Effect::Settle { call, answer, last } => {
                    let call = Call(call);
                    if let Answer::Failed { error } = &answer {
                        let wrong = self.door.blames_call(call, &error.message).err();
                        followed.wrong = followed.wrong.take().or(wrong);
                    }
                    followed.told.push((settled(call, &answer, &mut heard), last));
                    if let Some(asked) = last.then(|| self.asked.remove(&call)).flatten() {
                        self.door.is_settled(&asked);
                    }
                }
                #[expect(clippy::cast_possible_truncation, reason = "simulated times are small")]
                #[expect(clippy::cast_sign_loss, reason = "simulated times are small")]
                Effect::Wake { at } => {
                    self.wake_at_ms = Some(at.ceil() as u64);
                    followed.wake_at_ms = self.wake_at_ms;
                }
                Effect::News { handle } => {
                    self.lost.remove(&Handle(handle));
                    let news = news_in(&mut heard, Handle(handle));
                    followed.told.extend(news.map(|message| (message, true)));
                }
                Effect::Lost { handle, error } => {
                    let handle = Handle(handle);
                    let wrong = self.door.blames_document(handle, &error.message).err();
                    followed.wrong = followed.wrong.take().or(wrong);
                    self.lost.insert(handle, code(&error.code));
                }
                // An open document has its status from elsewhere.
                Effect::Look => {}
                effect => {
                    self.door.wants(&effect, now_ms);
                    followed.wants.push(effect);
                }
            }
        }
        let rests = self.door.rests().and_then(|()| self.door.sleeps(self.wake_at_ms));
        let rests = rests.and_then(|()| match gives_up {
            true => TabDoor::has_given_up(self.asked.values()),
            false => Ok(()),
        });
        followed.wrong = followed.wrong.take().or(rests.err());
        followed
    }

    /// What the tab wants said, as the core understands it.
    fn post(&self, kind: &str, message: &Value) -> ToCore {
        let number = |name: &str| {
            let number = message[name].as_u64().and_then(|number| u32::try_from(number).ok());
            number.unwrap_or_else(|| panic!("BUG: {kind} without {name}: {message}"))
        };
        match kind {
            "open" => {
                let (call, handle) = (Call(number("call")), Handle(number("handle")));
                let mut request = self.opens[&handle].clone();
                if let (Request::Open(open), Some(word)) = (&mut request, message["word"].as_u64())
                {
                    open.word = word;
                }
                ToCore::Ask { call, handle, request }
            }
            "close" => ToCore::Ask {
                call: Call(number("call")),
                handle: Handle(number("handle")),
                request: Request::Close,
            },
            "giveUp" => ToCore::GiveUp { call: Call(number("call")) },
            "setConnected" => ToCore::SetConnected {
                handle: Handle(number("handle")),
                word: message["word"].as_u64().expect("BUG: no word"),
            },
            "listenRejections" => ToCore::ListenRejections { handle: Handle(number("handle")) },
            "token" => self.token.clone().expect("BUG: nobody gave one"),
            "rejectionHandled" => {
                let handle = Handle(number("handle"));
                let said = self.told.iter().find(|((of, name), _)| *of == handle && *name == kind);
                said.expect("BUG: nobody said that").1.clone()
            }
            "nudge" => ToCore::Nudge,
            "heard" => ToCore::Heard { lists: number("lists") },
            _ => {
                let mut asked = self.asked[&Call(number("call"))].clone();
                if let ToCore::Ask { request: Request::Mutate(mutate), .. } = &mut asked {
                    mutate.again = again_of(&message["again"]);
                    if mutate.again.is_some() {
                        reached(Probe::TabAskedAgain);
                    }
                }
                asked
            }
        }
    }
}

fn kind_of(message: &ToCore) -> &'static str {
    match message {
        ToCore::Ask { request, .. } => match request {
            Request::Open(_) => "open",
            Request::Mutate(_) => "mutate",
            Request::Query(_) => "query",
            Request::Watch(_) => "watch",
            Request::Events(_) => "events",
            Request::Sync => "sync",
            Request::Export => "export",
            Request::Close => "close",
            Request::Outcome(_) => "outcome",
            Request::Handle(_) => "handle",
            Request::Complete(_) => "complete",
            Request::Records(_) => "records",
        },
        ToCore::GiveUp { .. } => "giveUp",
        ToCore::Destroy { .. } => "destroy",
        ToCore::SetConnected { .. } => "setConnected",
        ToCore::ListenRejections { .. } => "listenRejections",
        ToCore::RejectionHandled { .. } => "rejectionHandled",
        ToCore::Token { .. } => "token",
        ToCore::Device { .. } => "device",
        ToCore::Nudge => "nudge",
        ToCore::Heard { .. } => "heard",
        ToCore::Presence { .. } => "presence",
    }
}

/// What a message says of a call, as far as the tab looks at it.
fn answer_of(message: &FromCore) -> Option<(Call, Answer)> {
    Some(match message {
        FromCore::Opened { call, status, memo } => {
            (*call, Answer::Opened { status: status_value(status), memo: memo_text(memo) })
        }
        FromCore::Failed { call, failure } => (*call, Answer::Failed { error: error(failure) }),
        FromCore::Rejected { call, failure, .. } => {
            (*call, Answer::Rejected { error: error(failure) })
        }
        FromCore::Durable { call, entry } => (*call, Answer::Durable { entry: entry_value(entry) }),
        FromCore::Confirmed { call, lsn, .. } => (*call, Answer::Confirmed { lsn: *lsn }),
        FromCore::Rows { call, rows } => {
            (*call, Answer::Rows { rows: RowCount { count: rows.count } })
        }
        FromCore::Exported { call, .. } => (*call, Answer::Exported),
        FromCore::Done { call } => (*call, Answer::Done),
        FromCore::HandingOver { call } => (*call, Answer::HandingOver),
        FromCore::Status { .. }
        | FromCore::RejectionNews { .. }
        | FromCore::TokenWanted { .. }
        | FromCore::CloseWanted { .. }
        | FromCore::Presence { .. } => return None,
    })
}

/// News of a document, as far as the tab looks at them.
fn news_of(core: u32, message: &FromCore) -> Input {
    let (handle, news) = match message {
        FromCore::Status { handle, status, memo } => {
            let (status, memo) = (status_value(status), memo_text(memo));
            (handle, json!({ "type": "status", "status": status, "memo": memo }))
        }
        FromCore::RejectionNews { handle, .. } => (handle, json!({ "type": "rejection" })),
        FromCore::TokenWanted { handle, question } => {
            (handle, json!({ "type": "tokenWanted", "question": question }))
        }
        FromCore::CloseWanted { handle } => (handle, json!({ "type": "closeWanted" })),
        _ => unreachable!("BUG: the answer to a call"),
    };
    Input::News { core, handle: handle.0, news }
}

// Of ids the tab knows only whether they are the same, part by part. As one text they are short.

fn id_text(id: [u8; 16]) -> String {
    format!("{:x}", u128::from_be_bytes(id))
}

fn id_of(text: &str) -> [u8; 16] {
    u128::from_str_radix(text, 16).expect("BUG: the tab has changed an id").to_be_bytes()
}

fn entry_value(EntryId { journal, life, lsn }: &EntryId) -> Value {
    let (journal, life) = (id_text(journal.0), id_text(life.0));
    json!({ "journal": [journal], "life": life, "lsn": lsn.get() })
}

fn entry_of(entry: &Value) -> Option<EntryId> {
    let journal = id_of(entry.get("journal")?[0].as_str()?);
    let life = id_of(entry["life"].as_str().expect("BUG: the tab has changed a life"));
    let lsn = entry["lsn"].as_u64().and_then(Lsn::new).expect("BUG: the tab has changed an LSN");
    Some(EntryId { journal: JournalId(journal), life: Life(life), lsn })
}

fn status_value(status: &Status) -> Value {
    json!({ "connection": if status.connection == Connection::Local { "local" } else { "" } })
}

fn memo_text(memo: &Memo) -> Value {
    let Memo { word, copy, head } = memo;
    let (copy, head) = (copy.map(|copy| id_text(copy.0)), head.as_ref().map(entry_value));
    json!({ "word": word, "copy": copy, "head": head })
}

/// What the tab knows of a mutation that it asks anew, if it does.
fn again_of(again: &Value) -> Option<Again> {
    if again.is_null() {
        return None;
    }
    Some(Again {
        durable: entry_of(&again["durable"]),
        copy: again["copy"].as_str().map(|copy| ClientId(id_of(copy))),
        since: [entry_of(&again["since"][0]), entry_of(&again["since"][1])],
    })
}

/// What was heard of a document that nobody asked for. That it is open anew says how it stands.
fn news_in(heard: &mut Option<FromCore>, handle: Handle) -> Option<FromCore> {
    let is_news = |it: &mut FromCore| it.call().is_none() || matches!(it, FromCore::Opened { .. });
    match heard.take_if(is_news)? {
        FromCore::Opened { status, memo, .. } => Some(FromCore::Status { handle, status, memo }),
        news => Some(news),
    }
}

/// The message that the app is told: the one that was heard, unless the tab says it by itself.
fn settled(call: Call, answer: &Answer, heard: &mut Option<FromCore>) -> FromCore {
    let is_own = heard.as_ref().and_then(FromCore::call) != Some(call);
    match (heard.take_if(|_| !is_own), answer) {
        (Some(FromCore::Failed { call, failure }), Answer::Failed { error }) => {
            FromCore::Failed { call, failure: CallFailure { outcome: outcome(error), ..failure } }
        }
        (Some(message), _) => message,
        (None, Answer::Failed { error }) => {
            reached(Probe::TabGaveCallUp);
            FromCore::Failed {
                call,
                failure: CallFailure {
                    code: code(&error.code),
                    outcome: outcome(error),
                    message: error.message.clone(),
                    mutation: None,
                    reason: None,
                    remedy: code(&error.code).remedy(),
                },
            }
        }
        // It closes what it could not open again, and what waited for the disk.
        (None, Answer::Done) => FromCore::Done { call },
        (None, answer) => panic!("BUG: a tab made {answer:?} up"),
    }
}

/// Codes that travel to the tab and back, by the names that they have there.
const CODES: [(ErrorCode, &str); 15] = [
    (ErrorCode::Rejected, "rejected"),
    (ErrorCode::ServerUnreachable, "server-unreachable"),
    (ErrorCode::Pending, "pending"),
    (ErrorCode::NotDurableYet, "not-durable-yet"),
    (ErrorCode::StorageFull, "storage-full"),
    (ErrorCode::Storage, "storage"),
    (ErrorCode::DocumentClosed, "document-closed"),
    (ErrorCode::InvalidOption, "invalid-option"),
    (ErrorCode::DocumentInUse, "document-in-use"),
    (ErrorCode::DocumentExists, "document-exists"),
    (ErrorCode::DocumentReplaced, "document-replaced"),
    (ErrorCode::DoctypeMismatch, "doctype-mismatch"),
    (ErrorCode::Protocol, "protocol"),
    (ErrorCode::Access, "access"),
    (ErrorCode::Engine, "engine"),
];

fn error(failure: &CallFailure) -> Error {
    let known = CODES.iter().find(|(code, _)| *code == failure.code);
    Error {
        // Others pass through as what the tab treats in the same way.
        code: known.map_or("query", |(_, name)| name).to_owned(),
        outcome: if failure.outcome == Outcome::None { "none" } else { "unknown" }.to_owned(),
        message: failure.message.clone(),
    }
}

fn code(name: &str) -> ErrorCode {
    let known = CODES.iter().find(|(_, known)| *known == name);
    known.unwrap_or_else(|| panic!("BUG: a tab says {name}")).0
}

fn outcome(error: &Error) -> Outcome {
    if error.outcome == "none" { Outcome::None } else { Outcome::Unknown }
}
