//! Every kind of token with every message and endpoint, on documents of its own, on foreign ones,
//! and on those that are not there; what the server has is compared before and after.

use tidelog_access::Role;
use tidelog_document::{Completion, Outcome};
use tidelog_sync::{
    ArchiveQuestion, Attendee, ByeReason, FromRoom, FromServer, Hears, PresenceWord, ProbeId,
    Refusal, StateText, ToRoom, ToServer, codec,
};
use tidelog_testing::room::{frame_of, lsn, offer_of_a_life, open, seed_of};
use tidelog_testing::server::Client;
use tidelog_types::{ClientId, CopySecret, JournalId, Life};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{
    PUBLIC_KEY, PUBLIC_KEY_ID, ROLES, SECRET, Scene, ask, ask_with, escaped, invalid_tokens, join,
    now_s, token, token_by, token_headed, token_of_subject, with_passwords,
};
use crate::doctypes::{json_of, notes};
use crate::ends::log_in;

const OWN: &str = "lists/own";
const FOREIGN: &str = "other/own";
const ABSENT: &str = "lists/absent";
const FOREIGN_ABSENT: &str = "other/absent";
const DOCUMENTS: [(&str, bool); 4] =
    [(OWN, true), (FOREIGN, true), (ABSENT, false), (FOREIGN_ABSENT, false)];

const ROOT: &str = ROLES[6].1;

/// The built-in users, and roles by the same names for what they may.
const USERS: [(&str, Role); 3] =
    [("reader", Role::Read), ("writer", Role::Write), ("admin", Role::Admin)];

/// A server with a doctype, a document of each folder, and a file to make others of.
struct Stage {
    scene: Scene,
    file: Vec<u8>,
}

/// One whose token is taken.
struct Somebody {
    role: &'static str,
    subject: &'static str,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        let passwords = USERS.map(|(user, role)| (role, user));
        let scene = Scene::with(&[OWN, FOREIGN], with_passwords(&passwords)).await;
        let doctype = json_of(&notes());
        let put = ask(scene.at, "PUT", "/v1/doctypes/notes", Some(&token(ROOT)), &doctype).await;
        assert_eq!(put.status, 201, "{}", put.text());
        let file = scene.bytes_of(OWN).await;
        Self { scene, file }
    }

    async fn all(&self) -> Vec<(String, Vec<u8>)> {
        all_of(&self.scene).await
    }

    /// Those whom the app lets in, one of each role, and the built-in users.
    async fn everybody(&self) -> Vec<Somebody> {
        let of_app = |(role, grants)| Somebody { role, subject: "ada", token: token(grants) };
        let mut all: Vec<_> = ROLES.map(of_app).into();
        for (user, _) in USERS {
            let token = log_in(self.scene.at, user, user).await;
            let role = if user == "admin" { "root" } else { user };
            all.push(Somebody { role, subject: user, token });
        }
        all
    }

    /// Asks over HTTP, with any bytes. Gives the status and all that was answered but the date.
    async fn ask(
        &self,
        (method, path): (&str, &str),
        token: Option<&str>,
        body: &[u8],
    ) -> (u16, String) {
        let mut stream = TcpStream::connect(self.scene.at).await.expect("the server listens");
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let (token, at, size) = (token.unwrap_or_default(), self.scene.at, body.len());
        // `/metrics` asks nobody on this machine, but whoever comes through a proxy.
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\
             X-Forwarded-For: 192.0.2.7\r\nContent-Length: {size}\r\n{token}\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        // It may answer before it has read all.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        let lines = answer.lines().filter(|line| !line.starts_with("date:"));
        (status, lines.collect::<Vec<_>>().join("\n"))
    }

    /// What can be asked of a document.
    fn requests(&self, document: &str) -> [(&'static str, String, &[u8]); 4] {
        let path = format!("/v1/documents/{}", escaped(document));
        [
            ("GET", path.clone(), b""),
            ("GET", format!("{path}/export"), b""),
            ("PUT", format!("{path}?doctype=notes"), &self.file),
            ("DELETE", path, b""),
        ]
    }

    /// Puts a document back that was deleted, or deletes one that was made.
    async fn undo(&self, document: &str, is_there: bool) {
        let [.., put, delete] = self.requests(document);
        let (request, expected) = if is_there { (put, 201) } else { (delete, 204) };
        let (method, path, body) = request;
        let (status, said) = self.ask((method, &path), Some(&token(ROOT)), body).await;
        assert_eq!(status, expected, "{said}");
    }

    /// Somebody hands a document over, with all pages behind the question whether they are wanted,
    /// also where they are not. Nothing comes of it but where there is none and it may begin one.
    async fn hands_over(&self, document: &str, is_there: bool, role: &str, token: &str) {
        let [.., creates, _] = rights(role, document);
        let before = self.all().await;
        let mut client = self.joined(token).await;
        let asked = ToRoom::Open {
            document: document.to_owned(),
            doctype: codec::encode(&notes()).into(),
            timeline: JournalId([9; 16]),
            secret: CopySecret::NONE,
            have: None,
            intent: offer_of_a_life(),
        };
        client.tell(asked).await.expect("up");
        let answer = heard(&mut client).await;
        assert_eq!(is_refused_access(&answer), !creates, "{role} {document} {answer:?}");
        let is_wanted = creates && !is_there;
        assert_eq!(answer == FromRoom::SeedWanted, is_wanted, "{role} {document} {answer:?}");
        for part in seed_of(&self.file, 2) {
            client.tell(part).await.expect("up");
        }
        if is_wanted {
            let mut heard_last = heard(&mut client).await;
            while let FromRoom::SeedTaken { .. } = heard_last {
                heard_last = heard(&mut client).await;
            }
            let is_there = matches!(heard_last, FromRoom::Seeded { .. });
            assert!(is_there, "{role} {document} {heard_last:?}");
        }
        has_heard_all(&mut client).await;
        assert_eq!(self.all().await != before, is_wanted, "{role} {document}");
    }

    async fn joined(&self, token: &str) -> Client {
        join(self.scene.at, Some(token)).await.expect("welcome")
    }

    async fn invalid_tokens(&self) -> Vec<(&'static str, Option<String>)> {
        invalid_tokens_of(&self.scene).await
    }
}

/// All that a server has: which documents there are, and all bytes of each; which doctypes.
pub async fn all_of(scene: &Scene) -> Vec<(String, Vec<u8>)> {
    let root = token(ROOT);
    let mut all = Vec::new();
    for path in ["/v1/documents", "/v1/doctypes"] {
        let answer = ask(scene.at, "GET", path, Some(&root), "").await;
        assert_eq!(answer.status, 200, "{path}");
        all.push((path.to_owned(), answer.body));
    }
    let listed: serde_json::Value = serde_json::from_slice(&all[0].1).expect("JSON");
    for name in listed["documents"].as_array().expect("a list") {
        let name = name.as_str().expect("a text");
        all.push((name.to_owned(), scene.bytes_of(name).await));
    }
    all
}

/// Tokens that no server takes, all of somebody who could do everything: some of this one.
pub async fn invalid_tokens_of(scene: &Scene) -> Vec<(&'static str, Option<String>)> {
    let exp = now_s() + 600;
    let of = |claims: &str| token_by(SECRET, &format!(r#"{claims},"exp":{exp},"tidelog":{ROOT}"#));
    let revoked = of(r#""sub":"eve""#);
    let body = r#"{"subject":"eve"}"#;
    let revoking = ask(scene.at, "POST", "/v1/revoke", Some(&token(ROOT)), body).await;
    assert_eq!(revoking.status, 204);
    let logged_out = of(r#""sub":"mia","jti":"once""#);
    let leaving = ask(scene.at, "POST", "/v1/logout", Some(&logged_out), "").await;
    assert_eq!(leaving.status, 204);
    // One that may not have been issued yet, one that was never to end, and one of nobody.
    let soon = format!(r#""sub":"ada","nbf":{}"#, now_s() + 120);
    let endless = token_by(SECRET, &format!(r#""sub":"ada","tidelog":{ROOT}"#));
    let nobodys = token_by(SECRET, &format!(r#""exp":{exp},"tidelog":{ROOT}"#));
    let mut all = invalid_tokens();
    all.extend([
        ("revoked", Some(revoked)),
        ("logged out", Some(logged_out)),
        ("too early", Some(of(&soon))),
        ("endless", Some(endless)),
        ("nobody's", Some(nobodys)),
        ("unsigned", Some(unsigned())),
    ]);
    // A public key for a secret, a secret by the name of a public key, and what has to be known
    // to be read.
    let claims = format!(r#""sub":"ada","exp":{exp},"tidelog":{ROOT}"#);
    let named = format!(r#"{{"alg":"HS256","kid":"{PUBLIC_KEY_ID}"}}"#);
    let (plain, critical) = (r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","crit":["exp"]}"#);
    all.extend([
        ("confused", Some(token_headed(plain, PUBLIC_KEY.as_bytes(), &claims))),
        ("confused by name", Some(token_headed(&named, PUBLIC_KEY.as_bytes(), &claims))),
        ("of a key of another kind", Some(token_headed(&named, SECRET, &claims))),
        ("critical", Some(token_headed(critical, SECRET, &claims))),
    ]);
    all
}

/// A token that says that it needs no signature, and has none.
fn unsigned() -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let exp = now_s() + 600;
    let claims = format!(r#"{{"sub":"ada","exp":{exp},"tidelog":{ROOT}}}"#);
    format!("{}.{}.", encode(r#"{"alg":"none","typ":"JWT"}"#), encode(&claims))
}

/// What grants give of a document: whether it may be followed, changed, begun and deleted.
pub fn rights(role: &str, document: &str) -> [bool; 4] {
    let is_own = document.starts_with("lists/");
    match role {
        "root" => [true; 4],
        "other" => [!is_own; 4],
        "reader" => [true, false, false, false],
        "writer" => [true, true, true, false],
        _ if !is_own => [false; 4],
        "read" => [true, false, false, false],
        "write" => [true, true, false, false],
        "create" => [true, true, true, false],
        "admin" => [true; 4],
        _ => [false; 4],
    }
}

/// Goal: whoever has a valid token is answered what its grants say, of documents of its own, of
/// foreign ones and of those that are not there, and changes nothing else. Method: what did change
/// a document is undone, and then all bytes are what they were.
#[tokio::test(flavor = "multi_thread")]
async fn every_role_asks_for_every_document_over_http() {
    let stage = Stage::new().await;
    let before = stage.all().await;
    for Somebody { role, token, .. } in stage.everybody().await {
        for (document, is_there) in DOCUMENTS {
            let [reads, _, _, administers] = rights(role, document);
            let seen = if reads && is_there { 200 } else { 404 };
            let put = match (administers, reads) {
                (true, _) if is_there => 409,
                (true, _) => 201,
                (false, true) => 403,
                (false, false) => 404,
            };
            let delete = match (administers, reads) {
                (true, _) if is_there => 204,
                (true, _) | (false, false) => 404,
                (false, true) => 403,
            };
            let expected = [seen, seen, put, delete];
            for ((method, path, body), expected) in stage.requests(document).iter().zip(expected) {
                let (status, said) = stage.ask((method, path), Some(&token), body).await;
                assert_eq!(status, expected, "{role} {method} {path}: {said}");
                if [201, 204].contains(&status) {
                    assert_ne!(stage.all().await, before, "{role} {method} {path}");
                    stage.undo(document, is_there).await;
                }
                assert_eq!(stage.all().await, before, "{role} {method} {path}");
            }
        }
    }
    stage.scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_asks_for_what_is_of_no_document() {
    let stage = Stage::new().await;
    let before = stage.all().await;
    let doctype = json_of(&notes());
    let revoked = br#"{"subject":"nobody that was ever there"}"#;
    let requests: [(&str, &str, &[u8], u16); 7] = [
        ("GET", "/v1/doctypes", b"", 200),
        ("GET", "/v1/doctypes/notes", b"", 200),
        ("PUT", "/v1/doctypes/notes", doctype.as_bytes(), 200),
        ("PUT", "/v1/doctypes/notes?check", doctype.as_bytes(), 200),
        ("POST", "/v1/revoke", revoked, 204),
        ("POST", "/v1/forgive", revoked, 204),
        ("GET", "/metrics", b"", 200),
    ];
    for Somebody { role, token, subject } in stage.everybody().await {
        for (method, path, body, done) in requests {
            let (status, said) = stage.ask((method, path), Some(&token), body).await;
            let expected = if role == "root" { done } else { 403 };
            assert_eq!(status, expected, "{role} {method} {path}: {said}");
        }
        let (status, _) = stage.ask(("GET", "/v1/documents"), Some(&token), b"").await;
        assert_eq!(status, 200, "{role}");
        // Of the built-in users some handle all there is, and are told without end.
        let due = ("GET", "/v1/due?documents=lists/*");
        if subject == "ada" {
            assert_eq!(stage.ask(due, Some(&token), b"").await.0, 403, "{role} handles nothing");
        }
        // Whoever has a token may end it.
        let exp = now_s() + 600;
        let grants = ROLES.into_iter().find(|(name, _)| *name == role);
        let once = match grants.filter(|_| subject == "ada") {
            Some((_, grants)) => {
                let claims =
                    format!(r#""sub":"ada","jti":"of {role}","exp":{exp},"tidelog":{grants}"#);
                token_by(SECRET, &claims)
            }
            None => token,
        };
        for expected in [204, 401] {
            let (status, _) = stage.ask(("POST", "/v1/logout"), Some(&once), b"").await;
            assert_eq!(status, expected, "{role}");
        }
        assert_eq!(stage.all().await, before, "{role}");
    }
    stage.scene.stop().await;
}

/// Goal: a token that is none gives nothing, and tells nothing: whatever is asked, of whichever
/// document, it is answered alike.
#[tokio::test(flavor = "multi_thread")]
async fn no_invalid_token_asks_for_anything() {
    let stage = Stage::new().await;
    let tokens = stage.invalid_tokens().await;
    let before = (stage.all().await, stage.scene.revocations());
    assert!(before.1.is_some(), "some were ended");
    let doctype = json_of(&notes());
    for (what, token) in &tokens {
        let mut told = Vec::new();
        for (document, _) in DOCUMENTS {
            for (method, path, body) in stage.requests(document) {
                let (status, said) = stage.ask((method, &path), token.as_deref(), body).await;
                assert_eq!(status, 401, "{what} {method} {path}: {said}");
                told.push(said);
            }
        }
        for (method, path, body) in [
            ("GET", "/v1/documents", ""),
            ("GET", "/v1/doctypes", ""),
            ("GET", "/v1/doctypes/notes", ""),
            ("PUT", "/v1/doctypes/notes", doctype.as_str()),
            ("PUT", "/v1/doctypes/notes?check", doctype.as_str()),
            ("POST", "/v1/logout", ""),
            ("POST", "/v1/revoke", r#"{"subject":"ada"}"#),
            ("POST", "/v1/forgive", r#"{"subject":"ada"}"#),
            ("GET", "/metrics", ""),
            ("GET", "/v1/due?documents=*", ""),
        ] {
            let token = token.as_deref();
            let (status, said) = stage.ask((method, path), token, body.as_bytes()).await;
            assert_eq!(status, 401, "{what} {method} {path}: {said}");
        }
        told.dedup();
        assert_eq!(told.len(), 1, "{what}: {told:?}");
    }
    assert_eq!((stage.all().await, stage.scene.revocations()), before);
    let (status, _) = stage.ask(("GET", "/v1/documents"), Some(&token(ROOT)), b"").await;
    assert_eq!(status, 200, "nobody's tokens were revoked");
    stage.scene.stop().await;
}

/// The next answer about the document that is neither an entry nor a role.
pub async fn heard(client: &mut Client) -> FromRoom {
    loop {
        match client.hear_of().await.expect("an answer") {
            FromRoom::Entry(_) | FromRoom::Allowed { .. } => {}
            other => return other,
        }
    }
}

fn is_refused_access(answer: &FromRoom) -> bool {
    matches!(answer, FromRoom::Refused(Refusal::Access { .. }))
}

/// Waits until all that was said is taken in.
async fn has_heard_all(client: &mut Client) {
    client.say(&ToServer::Ping).await.expect("up");
    while client.hear().await.expect("up") != FromServer::Pong {}
}

/// What can be said of a document besides that it is opened: frames, a seed, a presence, and all
/// about events and commands.
fn messages(file: &[u8], user: &str, id: &str) -> Vec<ToRoom> {
    let frames = vec![frame_of(user, &notes(), "add", id)];
    let changes = vec![(Attendee(1), StateText::new("{}"))];
    let mut all = vec![ToRoom::Frames { life: Life([2; 16]), first: lsn(1), frames }];
    all.extend(seed_of(file, 2));
    all.push(ToRoom::Presence(PresenceWord { hears: Hears::Others, heard: 0, changes }));
    all.extend(of_events());
    all
}

/// What can be said of its events and commands.
pub fn of_events() -> [ToRoom; 6] {
    let kinds = vec![("log".to_owned(), "do".to_owned())];
    let outcome = Outcome::Failed { reason: "no".to_owned(), is_final: true };
    let (task, attempt) = (3, 1);
    let completion = Completion { task, attempt, position: 0, outcome }.encode();
    let archive = JournalId([7; 16]);
    let question = ArchiveQuestion {
        number: 1,
        archive,
        aggregate: None,
        stream: None,
        types: Vec::new(),
        after: 0,
    };
    [
        ToRoom::Received { next: lsn(1) },
        ToRoom::Complete { tag: 1, number: 1, completion },
        ToRoom::Register { tag: 1, instance: 0, kinds, concurrency: 1 },
        ToRoom::Archived(question),
        ToRoom::Deregister { tag: 1 },
        ToRoom::Probe { probe: ProbeId(1) },
    ]
}

/// Goal: whoever has a valid token opens, begins and changes by the socket what its grants say, and
/// nothing else. Method: each message to a document that was opened, and to one that was not.
#[tokio::test(flavor = "multi_thread")]
async fn every_role_says_everything_of_every_document() {
    let stage = Stage::new().await;
    for (number, Somebody { role, subject, token }) in (10..).zip(stage.everybody().await) {
        for (document, is_there) in DOCUMENTS {
            let [reads, writes, creates, _] = rights(role, document);
            let before = stage.all().await;
            let mut client = stage.joined(&token).await;
            client.open_as(document, &notes(), number, None).await.expect("up");
            let opened = heard(&mut client).await;
            let may_open = if is_there { reads } else { creates };
            let is_open = matches!(opened, FromRoom::Opened { .. });
            assert_eq!(is_open, may_open, "{role} {document} {opened:?}");
            assert_eq!(is_refused_access(&opened), !may_open, "{role} {document} {opened:?}");
            let id = format!("of {role}");
            let said = messages(&stage.file, subject, &id);
            client.tell(said[0].clone()).await.expect("up");
            if is_open {
                let answer = heard(&mut client).await;
                let is_taken = matches!(answer, FromRoom::Acked { .. });
                assert_eq!(is_taken, writes, "{role} {document} {answer:?}");
                let is_forbidden = matches!(answer, FromRoom::Forbidden { .. });
                assert_eq!(is_forbidden, !writes, "{role} {document} {answer:?}");
            }
            has_heard_all(&mut client).await;
            // What was begun and written is there, and else nothing is.
            let after = stage.all().await;
            assert_eq!(after != before, is_open && writes, "{role} {document}");
            drop(client);

            // One that nobody has asked for, by a connection that has opened nothing.
            let mut client = stage.joined(&token).await;
            for message in said {
                client.tell(message).await.expect("up");
            }
            has_heard_all(&mut client).await;
            assert_eq!(stage.all().await, after, "{role} {document}");

            stage.hands_over(document, is_there || is_open, role, &token).await;
            if is_open && !is_there {
                stage.undo(document, false).await;
                stage.hands_over(document, false, role, &token).await;
                stage.undo(document, false).await;
            }
            assert_eq!(stage.all().await == before, !is_there || !writes, "{role} {document}");
        }
    }
    stage.scene.stop().await;
}

/// Goal: by a token that is none nothing is said at all. Method: whoever has it does not wait for
/// an answer, and says all behind it; and a connection that is let in is told each of them as
/// its next one.
#[tokio::test(flavor = "multi_thread")]
async fn by_no_invalid_token_anything_is_said() {
    let stage = Stage::new().await;
    let tokens = stage.invalid_tokens().await;
    let before = stage.all().await;
    for (what, token) in &tokens {
        for (document, _) in DOCUMENTS {
            let mut client = Client::connect_silently(stage.scene.at).await.expect("up");
            let (id, token) = (ClientId([1; 16]), token.clone());
            client.say(&ToServer::Hello { client: id, token }).await.expect("up");
            let mut said = vec![open(document, 9, offer_of_a_life())];
            said.extend(messages(&stage.file, "ada", what));
            for message in said {
                // It may have hung up by then.
                if client.tell(message).await.is_none() {
                    break;
                }
            }
            let bye = FromServer::Bye { reason: ByeReason::Unauthenticated };
            assert_eq!(client.hear().await, Some(bye), "{what} {document}");
            assert_eq!(client.hear().await, None, "{what} {document}");
        }
    }
    let mut reader = stage.joined(&token(ROLES[2].1)).await;
    let of_others = ("another subject's", Some(token_of_subject("bob", ROOT)));
    for (what, token) in tokens.into_iter().chain([of_others]) {
        let Some(token) = token else { continue };
        reader.say(&ToServer::Renew { token }).await.expect("up");
        assert_eq!(reader.hear().await, Some(FromServer::NotRenewed), "{what}");
        for (number, (document, is_there)) in (20..).zip(DOCUMENTS) {
            reader.open_as(document, &notes(), number, None).await.expect("up");
            let opened = heard(&mut reader).await;
            let is_open = matches!(opened, FromRoom::Opened { .. });
            assert_eq!(is_open, is_there && document == OWN, "{what} {document}");
            reader.frames(1, vec![frame_of("ada", &notes(), "add", what)]).await.expect("up");
            reader.tell(ToRoom::Close).await.expect("up");
            has_heard_all(&mut reader).await;
        }
    }
    assert_eq!(stage.all().await, before);
    stage.scene.stop().await;
}

/// Goal: by another subject's token nothing of a copy is taken, whatever that one may do itself.
/// Method: that one has each role; it brings mutations of ada's copy, in the order in which they
/// were issued, beside its own, which are taken where it may write.
#[tokio::test(flavor = "multi_thread")]
async fn by_another_subjects_token_no_mutation_of_a_copy_is_taken() {
    let stage = Stage::new().await;
    for (number, (role, grants)) in (10..).zip(ROLES) {
        let token = token_of_subject("bob", grants);
        for (document, is_there) in DOCUMENTS {
            let [reads, writes, creates, _] = rights(role, document);
            let is_open = if is_there { reads } else { creates };
            let mut client = stage.joined(&token).await;
            client.open_as(document, &notes(), number, None).await.expect("up");
            let opened = heard(&mut client).await;
            assert_eq!(matches!(opened, FromRoom::Opened { .. }), is_open, "{role} {document}");
            let before = stage.all().await;
            client.frames(1, vec![frame_of("ada", &notes(), "add", "hers")]).await.expect("up");
            if is_open && writes {
                // Refused, and with no word on what becomes of it: it waits for its own token.
                let answer = heard(&mut client).await;
                assert!(is_refused_access(&answer), "{role} {document} {answer:?}");
            }
            has_heard_all(&mut client).await;
            assert_eq!(stage.all().await, before, "{role} {document}");
            client.open_as(document, &notes(), number, None).await.expect("up");
            let id = format!("{role}'s own");
            client.frames(1, vec![frame_of("bob", &notes(), "add", &id)]).await.expect("up");
            has_heard_all(&mut client).await;
            drop(client);
            assert_eq!(stage.all().await != before, is_open && writes, "{role} {document}");
            if is_open && !is_there {
                stage.undo(document, false).await;
            }
        }
    }
    stage.scene.stop().await;
}

/// Goal: what was under way as a token ended changes nothing. Method: the token is revoked, and
/// logged out; its connection says everything behind that, until it hears that it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_behind_the_end_of_a_token_changes_nothing() {
    let stage = Stage::new().await;
    let exp = now_s() + 600;
    for (number, by) in (10..).zip(["/v1/revoke", "/v1/logout"]) {
        let claims = format!(r#""sub":"eve{number}","exp":{exp},"tidelog":{ROOT}"#);
        let ended = token_by(SECRET, &claims);
        let mut client = stage.joined(&ended).await;
        client.open_as(OWN, &notes(), number, None).await.expect("up");
        assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
        let before = stage.all().await;
        let (token, body) = match by {
            "/v1/revoke" => (token(ROOT), format!(r#"{{"subject":"eve{number}"}}"#)),
            _ => (ended.clone(), String::new()),
        };
        assert_eq!(ask(stage.scene.at, "POST", by, Some(&token), &body).await.status, 204, "{by}");
        let user = format!("eve{number}");
        for (first, id) in (1..).zip(["a", "b", "c"]) {
            let frames = vec![frame_of(&user, &notes(), "add", id)];
            if client.frames(first, frames).await.is_none() {
                break;
            }
        }
        assert_eq!(crate::common::bye(&mut client).await, ByeReason::Unauthenticated, "{by}");
        assert_eq!(stage.all().await, before, "{by}");
        let lines = format!("Authorization: Bearer {ended}\r\n");
        let answer = ask_with(stage.scene.at, "GET", "/v1/documents", &lines, "").await;
        assert_eq!(answer.status, 401, "{by}");
    }
    stage.scene.stop().await;
}
