//! Every kind of token with every endpoint and every message that is about events, commands and
//! archives, as [`matrix`](crate::matrix) has it for all others: on documents of its own, on
//! foreign ones, and on those that are not there.

use tidelog_document::sending;
use tidelog_sync::{CompletionAnswer, FromRoom, Refusal, ToRoom};
use tidelog_testing::server::Client;

use crate::common::{ROLES, Scene, ask, escaped, join, token};
use crate::handling::{brings, deploy_with, handled_with, registers};
use crate::matrix::{all_of, heard, invalid_tokens_of, of_events, rights};
use crate::operator::{completes, done, event, failed};

const OWN: &str = "lists/handled";
const FOREIGN: &str = "other/handled";
const DOCUMENTS: [(&str, bool); 4] =
    [(OWN, true), (FOREIGN, true), ("lists/absent", false), ("other/absent", false)];

const ROOT: &str = ROLES[6].1;

/// All roles, and a reader that may send commands, and one that may handle them.
fn roles() -> Vec<(&'static str, String)> {
    let read = ROLES[2].1;
    let mut roles = ROLES.map(|(role, grants)| (role, grants.to_owned())).to_vec();
    roles.push(("sends", read.replace("}]", r#","send":true}]"#)));
    roles.push(("handles", read.replace("}]", r#","handle":true}]"#)));
    roles
}

/// Whether such grants let somebody read a document, and administer it.
fn reads_and_administers(role: &str, document: &str) -> (bool, bool) {
    let role = if ["sends", "handles"].contains(&role) { "read" } else { role };
    let [reads, .., administers] = rights(role, document);
    (reads, administers)
}

/// A server with two documents, each with a command that has completed, one that has failed, and
/// one that somebody is at, who stays connected.
struct Stage {
    scene: Scene,
    handlers: Vec<Client>,
}

impl Stage {
    async fn new() -> Self {
        let scene = Scene::new(&["lists/a"]).await;
        deploy_with(&scene, &[], &[]).await;
        let doctype = handled_with(&[], &[]);
        let grants = ROOT.replace("}]", r#","handle":true}]"#);
        let mut handlers = Vec::new();
        for (timeline, document) in (1..).zip([OWN, FOREIGN]) {
            let mut client = join(scene.at, Some(&token(&grants))).await.expect("welcome");
            client.open_as(document, &doctype, timeline, None).await.expect("up");
            assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
            for number in 1..=3 {
                let stream = format!("s{number}");
                let args = [("stream", stream.as_str()), ("args", "{}"), ("key", "k")];
                brings(&mut client, &sending("log", "do"), &args, number).await;
            }
            assert!(registers(&mut client).await);
            assert_eq!(completes(&mut client, 1, 1, done()).await, "Done");
            assert_eq!(completes(&mut client, 2, 1, failed()).await, "Done");
            handlers.push(client);
        }
        Self { scene, handlers }
    }

    /// Nobody handles anything any more.
    async fn without_handlers(mut self) -> Self {
        for mut client in self.handlers.drain(..) {
            client.tell(ToRoom::Deregister { tag: 1 }).await.expect("up");
            assert_eq!(completes(&mut client, 3, 1, done()).await, "Late");
        }
        self
    }
}

/// Who may ask for something.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Reader,
    Admin,
    /// An admin, or who may handle commands.
    Handler,
}

/// What can be asked of a document: by whom, and whether something changes then.
fn requests() -> Vec<(&'static str, &'static str, String, Takes, bool)> {
    let of =
        |method, what, body: &str, takes, changes| (method, what, body.to_owned(), takes, changes);
    vec![
        of("GET", "events", "", Takes::Reader, false),
        of("GET", "commands", "", Takes::Reader, false),
        of("GET", "streams", "", Takes::Admin, false),
        of("POST", "events", &event("s4", 1, serde_json::json!({})), Takes::Admin, true),
        of("POST", "events/migrate", "{}", Takes::Admin, false),
        of("POST", "events/archive", r#"{"aggregate":"log"}"#, Takes::Admin, false),
        of("POST", "events/replay", r#"{"aggregate":"log","clear":["log"]}"#, Takes::Admin, true),
        of("POST", "commands/retry", r#"{"number":2}"#, Takes::Handler, true),
        of("POST", "commands/cancel", r#"{"number":2}"#, Takes::Handler, true),
        of("POST", "erase", r#"{"aggregate":"log","stream":"s4"}"#, Takes::Admin, true),
    ]
}

/// Goal: whoever has a valid token is answered what its grants say, and changes nothing else.
/// Method: all bytes are the same but behind what may change them, which does.
#[tokio::test(flavor = "multi_thread")]
async fn every_role_asks_for_what_happened_in_every_document() {
    let Stage { scene, .. } = Stage::new().await.without_handlers().await;
    let mut before = all_of(&scene).await;
    for (role, grants) in roles() {
        let token = token(&grants);
        for (document, is_there) in DOCUMENTS {
            let (reads, administers) = reads_and_administers(role, document);
            for (method, what, body, takes, changes) in requests() {
                let may = match takes {
                    Takes::Reader => reads,
                    Takes::Admin => administers,
                    Takes::Handler => administers || (reads && role == "handles"),
                };
                let expected = match may {
                    true if is_there => 200,
                    false if reads => 403,
                    _ => 404,
                };
                let path = format!("/v1/documents/{}/{what}", escaped(document));
                let answer = ask(scene.at, method, &path, Some(&token), &body).await;
                let said = format!("{role} {method} {path}: {}", answer.text());
                assert_eq!(answer.status, expected, "{said}");
                if expected == 404 {
                    assert_eq!(answer.text(), "no such document\n", "{said}");
                }
                let after = all_of(&scene).await;
                assert_eq!(after != before, changes && expected == 200, "{said}");
                before = after;
            }
        }
    }
    scene.stop().await;
}

/// Goal: a token that is none gives nothing, and tells nothing: it is answered alike, whatever is
/// asked.
#[tokio::test(flavor = "multi_thread")]
async fn no_invalid_token_asks_for_what_happened() {
    let Stage { scene, handlers } = Stage::new().await;
    let tokens = invalid_tokens_of(&scene).await;
    let before = all_of(&scene).await;
    for (role, token) in &tokens {
        let mut told = Vec::new();
        for (document, _) in DOCUMENTS {
            for (method, what, body, ..) in requests() {
                let path = format!("/v1/documents/{}/{what}", escaped(document));
                let answer = ask(scene.at, method, &path, token.as_deref(), &body).await;
                assert_eq!(answer.status, 401, "{role} {method} {path}: {}", answer.text());
                told.push((answer.head, answer.body));
            }
        }
        told.dedup();
        assert_eq!(told.len(), 1, "{role}: {told:?}");
    }
    assert_eq!(all_of(&scene).await, before);
    drop(handlers);
    scene.stop().await;
}

/// Goal: whoever has a valid token handles commands where its grants say so, and else changes
/// nothing by what it says of them. Method: each role says all that, of each document; one of the
/// commands is somebody else's at that time.
#[tokio::test(flavor = "multi_thread")]
async fn every_role_says_everything_of_commands() {
    let Stage { scene, handlers } = Stage::new().await;
    let doctype = handled_with(&[], &[]);
    for (number, (role, grants)) in (10..).zip(roles()) {
        let token = token(&grants);
        for document in [OWN, FOREIGN] {
            let (reads, _) = reads_and_administers(role, document);
            let handles = reads && role == "handles";
            let before = all_of(&scene).await;
            let mut client = join(scene.at, Some(&token)).await.expect("welcome");
            client.open_as(document, &doctype, number, None).await.expect("up");
            let opened = heard(&mut client).await;
            let is_open = matches!(opened, FromRoom::Opened { .. });
            assert_eq!(is_open, reads, "{role} {document} {opened:?}");
            let is_refused = matches!(opened, FromRoom::Refused(Refusal::Access { .. }));
            assert_eq!(is_refused, !is_open, "{role} {document} {opened:?}");
            let mut told = Vec::new();
            for message in of_events() {
                client.tell(message).await.expect("up");
            }
            client.say(&tidelog_sync::ToServer::Ping).await.expect("up");
            // The archive is asked meanwhile, so its answer may come later.
            let mut is_through = false;
            while !is_through || (is_open && told.len() < 4) {
                match client.hear().await.expect("up") {
                    tidelog_sync::FromServer::Pong => is_through = true,
                    tidelog_sync::FromServer::About { body, .. } => told.extend(word_of(body)),
                    other => panic!("unexpected: {other:?}"),
                }
            }
            told.sort_unstable();
            let registered = if handles { "registered" } else { "not registered" };
            let mut expected = match is_open {
                true => vec!["archived", "late", registered, "probed"],
                false => Vec::new(),
            };
            expected.sort_unstable();
            assert_eq!(told, expected, "{role} {document}");
            assert_eq!(all_of(&scene).await != before, handles, "{role} {document}");
        }
    }
    drop(handlers);
    scene.stop().await;
}

/// What an answer is in a word, if it is one to what is said of commands.
fn word_of(answer: FromRoom) -> Option<&'static str> {
    match answer {
        FromRoom::Registered { .. } => Some("registered"),
        FromRoom::NotRegistered { .. } => Some("not registered"),
        FromRoom::Completed { answer, .. } => {
            assert_eq!(answer, CompletionAnswer::Late);
            Some("late")
        }
        FromRoom::Probed { .. } => Some("probed"),
        FromRoom::Archived { .. } => Some("archived"),
        FromRoom::Entry(_) | FromRoom::Allowed { .. } => None,
        other => panic!("unexpected: {other:?}"),
    }
}
