//! Roles on the socket.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidelog_server::Server;
use tidelog_sync::{ByeReason, FromRoom, FromServer, Refusal, ToRoom, ToServer};
use tidelog_testing::room::{
    CHANNEL, Copy, burner, frame_of, lsn, notes, offer_of_a_life, open, seed_of,
};
use tidelog_testing::server::{Client, settings};
use tidelog_types::limits::{CONNECTION_RENEWAL_MS, CONNECTION_RENEWALS_AHEAD_MAX};
use tidelog_types::{ClientId, JournalId, Life, Position, Role};

use crate::common::{
    ROLES, Scene, ask, bye, invalid_tokens, join, start, token, token_of_subject,
    token_that_ends_in,
};
use crate::doctypes::json_of;

const OWN: &str = "lists/own";
const ABSENT: &str = "lists/absent";

/// The first answer about the document that is no entry.
async fn heard(client: &mut Client) -> FromRoom {
    loop {
        match client.hear_of().await.expect("an answer") {
            FromRoom::Entry(_) => {}
            other => return other,
        }
    }
}

fn access(answer: FromRoom) -> Option<String> {
    match answer {
        FromRoom::Refused(Refusal::Access { reason }) => Some(reason),
        _ => None,
    }
}

async fn joined(scene: &Scene, grants: &str) -> Client {
    join(scene.at, Some(&token(grants))).await.expect("welcome")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_token_is_welcome() {
    let scene = Scene::new(&[]).await;
    for (what, token) in invalid_tokens() {
        let refused = join(scene.at, token.as_deref()).await.err();
        assert_eq!(refused, Some(ByeReason::Unauthenticated), "{what}");
    }
    for (role, grants) in ROLES {
        assert!(join(scene.at, Some(&token(grants))).await.is_ok(), "{role}");
    }
    scene.stop().await;
}

/// Goal: each role may do what it says, and who may not change a document changes no byte of it.
/// Method: every role opens what is there and what is not, hands one over, and sends frames.
#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_says() {
    let scene = Scene::new(&[OWN]).await;
    for (number, (role, grants)) in (10..).zip(ROLES) {
        let (reads, writes, creates) = match role {
            "none" | "other" => (false, false, false),
            "read" => (true, false, false),
            "write" => (true, true, false),
            _ => (true, true, true),
        };
        let before = scene.bytes_of(OWN).await;
        let mut client = joined(&scene, grants).await;
        client.open(OWN, number, None).await.expect("up");
        let opened = heard(&mut client).await;
        assert_eq!(matches!(opened, FromRoom::Opened { .. }), reads, "{role} {opened:?}");
        assert_eq!(access(opened).is_none(), reads, "{role}");
        client.frames(1, vec![frame_of("ada", &notes(), "add", role)]).await.expect("up");
        if reads {
            let answer = heard(&mut client).await;
            assert_eq!(matches!(answer, FromRoom::Acked { .. }), writes, "{role} {answer:?}");
            assert_eq!(matches!(answer, FromRoom::Forbidden { .. }), !writes, "{role} {answer:?}");
        }
        // What comes behind is heard of no more, until it is opened again.
        client
            .frames(2, vec![frame_of("ada", &notes(), "add", &format!("{role} 2"))])
            .await
            .expect("up");
        client.say(&ToServer::Ping).await.expect("up");
        while client.hear().await.expect("up") != FromServer::Pong {}
        let after = scene.bytes_of(OWN).await;
        assert_eq!(after != before, writes, "{role}");

        let mut client = joined(&scene, grants).await;
        client.open(ABSENT, number, None).await.expect("up");
        let absent = heard(&mut client).await;
        // No doctype is deployed: whoever might begin it gets as far as that.
        let is_begun = matches!(absent, FromRoom::Refused(Refusal::DoctypeMismatch { .. }));
        assert_eq!(is_begun, creates, "{role} {absent:?}");
        assert_eq!(access(absent).is_none(), creates, "{role}");
        assert!(access_to_offer(&scene, grants, ABSENT).await == creates, "{role}");
        assert!(access_to_offer(&scene, grants, OWN).await == creates, "{role}");
    }
    let answer = ask(scene.at, "GET", "/v1/documents", Some(&token(ROLES[6].1)), "").await;
    assert_eq!(answer.text(), "{\"documents\":[\"lists/own\"]}");
    scene.stop().await;
}

/// Whether a local document may be offered there, whatever becomes of it.
async fn access_to_offer(scene: &Scene, grants: &str, document: &str) -> bool {
    let mut client = joined(scene, grants).await;
    client.tell(open(document, 9, offer_of_a_life())).await.expect("up");
    access(heard(&mut client).await).is_none()
}

/// Goal: without a grant nobody learns by the socket either which documents there are.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_existing_and_absent_documents_are_refused_in_the_same_words() {
    let scene = Scene::new(&[OWN]).await;
    for (_, grants) in [ROLES[0], ROLES[1]] {
        let mut words = Vec::new();
        for document in [OWN, ABSENT] {
            for have in [None, Some(Position::start_of(JournalId([7; 16])))] {
                let mut client = joined(&scene, grants).await;
                client.open(document, 2, have).await.expect("up");
                words.push(access(heard(&mut client).await).expect("refused"));
            }
        }
        words.dedup();
        assert_eq!(words.len(), 1, "{words:?}");
    }
    scene.stop().await;
}

/// Goal: pages of a document that is handed over are not taken from one who may not write. Method:
/// a reader says all of a seed at once, without being asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_seed_of_a_reader_is_refused() {
    let scene = Scene::new(&[OWN]).await;
    let before = scene.bytes_of(OWN).await;
    let mut client = joined(&scene, ROLES[2].1).await;
    client.open(OWN, 2, None).await.expect("up");
    assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
    for part in seed_of(&before, 2) {
        client.tell(part).await.expect("up");
    }
    assert!(access(heard(&mut client).await).is_some());
    assert_eq!(scene.bytes_of(OWN).await, before);
    scene.stop().await;
}

/// A reader is told of what others write, and opens again what it was sent away from.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_and_comes_back() {
    let scene = Scene::new(&[OWN]).await;
    let mut reader = joined(&scene, ROLES[2].1).await;
    let mut writer = joined(&scene, ROLES[3].1).await;
    let mut copies = [Copy::default(), Copy::default()];
    for (client, number) in [(&mut reader, 2), (&mut writer, 3)] {
        client.open(OWN, number, None).await.expect("up");
        assert!(matches!(heard(client).await, FromRoom::Opened { .. }));
    }
    writer.frames(1, vec![frame_of("ada", &notes(), "add", "second")]).await.expect("up");
    writer.acked(&mut copies[1], 2).await.expect("acknowledged");
    let frames = vec![frame_of("ada", &notes(), "add", "third")];
    let said = ToRoom::Frames { life: Life([2; 16]), first: lsn(1), frames };
    reader.tell(said).await.expect("up");
    assert_eq!(heard(&mut reader).await, FromRoom::Forbidden { lsn: lsn(1) });
    reader.open(OWN, 2, None).await.expect("up");
    assert!(matches!(heard(&mut reader).await, FromRoom::Opened { .. }));
    reader.sync(&mut copies[0]).await.expect("up");
    assert_eq!(copies[0].image(), scene.bytes_of(OWN).await);
    scene.stop().await;
}

/// Goal: a connection ends with its token, within a second, and the next one takes another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_token() {
    let scene = Scene::new(&[OWN]).await;
    let short = token_that_ends_in(ROLES[3].1, 3);
    let joined_at = Instant::now();
    let mut client = join(scene.at, Some(&short)).await.expect("welcome");
    client.open(OWN, 2, None).await.expect("up");
    assert_eq!(bye(&mut client).await, ByeReason::Unauthenticated);
    // The token's second may have begun when it was made.
    let lasted = joined_at.elapsed();
    let lasts = Duration::from_millis(1_500)..Duration::from_millis(4_500);
    assert!(lasts.contains(&lasted), "{lasted:?}");
    assert_eq!(join(scene.at, Some(&short)).await.err(), Some(ByeReason::Unauthenticated));
    assert!(join(scene.at, Some(&token(ROLES[3].1))).await.is_ok());
    scene.stop().await;
}

/// Goal: a later token takes the place of the one before without a word lost, and what it allows
/// holds at once. Method: a writer's token is renewed to a reader's, to one that allows nothing of
/// the document, and back.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_on_the_same_connection() {
    let scene = Scene::new(&[OWN]).await;
    let mut client = Client::connect_silently(scene.at).await.expect("up");
    let token_of = |index: usize| token(ROLES[index].1);
    let (id, token) = (ClientId([1; 16]), Some(token_that_ends_in(ROLES[3].1, 100)));
    client.say(&ToServer::Hello { client: id, token }).await.expect("up");
    let admitted = client.hear().await.expect("up");
    assert!(is_admitted(&admitted, 30..=40), "{admitted:?}");
    assert_eq!(client.hear().await, Some(FromServer::Welcome));
    client.open(OWN, 2, None).await.expect("up");
    assert_eq!(client.hear().await, Some(allowed(Role::Write)));
    assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
    client.frames(1, vec![frame_of("ada", &notes(), "add", "a")]).await.expect("up");
    let mut copy = Copy::default();
    client.acked(&mut copy, 2).await.expect("acknowledged");
    // An entry may come behind what is said of it.
    client.sync(&mut copy).await.expect("up");
    let before = scene.bytes_of(OWN).await;

    for bad in ["sesame", &token_of_subject("bob", ROLES[6].1)] {
        client.say(&ToServer::Renew { token: bad.to_owned() }).await.expect("up");
        assert_eq!(client.hear().await, Some(FromServer::NotRenewed), "{bad}");
    }
    client.say(&ToServer::Renew { token: token_of(2) }).await.expect("up");
    let admitted = client.hear().await.expect("up");
    assert!(is_admitted(&admitted, 590..=600), "{admitted:?}");
    assert_eq!(client.hear().await, Some(allowed(Role::Read)));
    client.frames(2, vec![frame_of("ada", &notes(), "add", "b")]).await.expect("up");
    assert_eq!(heard(&mut client).await, FromRoom::Forbidden { lsn: lsn(2) });
    client.say(&ToServer::Renew { token: token_of(1) }).await.expect("up");
    assert!(matches!(client.hear().await, Some(FromServer::Admitted { .. })));
    assert!(access(heard(&mut client).await).is_some());
    client.open(OWN, 2, None).await.expect("up");
    assert!(access(heard(&mut client).await).is_some());
    assert_eq!(scene.bytes_of(OWN).await, before);

    client.say(&ToServer::Renew { token: token_of(5) }).await.expect("up");
    assert!(matches!(client.hear().await, Some(FromServer::Admitted { .. })));
    client.open(OWN, 2, None).await.expect("up");
    assert_eq!(client.hear().await, Some(allowed(Role::Admin)));
    assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
    client.frames(2, vec![frame_of("ada", &notes(), "add", "b")]).await.expect("up");
    // Whose token it is not, that one's mutation is refused, and nothing is wrong with it.
    client.frames(3, vec![frame_of("bob", &notes(), "add", "c")]).await.expect("up");
    let refused = loop {
        let answer = heard(&mut client).await;
        if !matches!(answer, FromRoom::Acked { .. }) {
            break answer;
        }
    };
    assert!(access(refused).is_some());
    client.open(OWN, 2, None).await.expect("up");
    client.frames(3, vec![frame_of("ada", &notes(), "add", "c")]).await.expect("up");
    let acked = loop {
        if let FromRoom::Acked { next } = heard(&mut client).await {
            break next;
        }
    };
    assert_eq!(acked, lsn(4));
    scene.stop().await;
}

/// Goal: whoever may not read a document any more is told nothing of it within a second, however
/// much its room has to do. Method: one follows what another one's mutations change, each of which
/// burns, and renews its token by one that says nothing of that document. Where the room hears of
/// that within a second, since the reader came late, it proves nothing, and is done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_grant_ends_what_is_told_before_the_room_hears_of_it() {
    for _ in 0..4 {
        if refused_amid_work().await > Duration::from_secs(1) {
            return;
        }
    }
    panic!("the room was too quick for this");
}

/// After how long the room has heard that a grant was withdrawn; from a second on nothing is told.
async fn refused_amid_work() -> Duration {
    let scene = Scene::new(&[]).await;
    let mut burner = burner();
    burner.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    let json = json_of(&burner);
    let deployed =
        ask(scene.at, "PUT", "/v1/doctypes/notes", Some(&token(ROLES[6].1)), &json).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    let mut writer = joined(&scene, ROLES[6].1).await;
    writer.open_as(OWN, &burner, 1, None).await.expect("up");
    let opened = heard(&mut writer).await;
    assert!(matches!(opened, FromRoom::Opened { .. }), "{opened:?}");
    let mut reader = joined(&scene, ROLES[2].1).await;
    reader.open_as(OWN, &burner, 2, None).await.expect("up");
    assert!(matches!(heard(&mut reader).await, FromRoom::Opened { .. }));
    let burn = |number: u64| frame_of("ada", &burner, "burn", &number.to_string());
    writer.frames(1, (0..24).map(burn).collect()).await.expect("up");
    let told = async |reader: &mut Client| loop {
        match reader.hear().await.expect("up") {
            FromServer::Pong | FromServer::About { body: FromRoom::Allowed { .. }, .. } => {}
            told => break told,
        }
    };
    // The room is at it.
    while !is_entry(&told(&mut reader).await) {}
    reader.say(&ToServer::Renew { token: token(ROLES[1].1) }).await.expect("up");
    while !matches!(told(&mut reader).await, FromServer::Admitted { .. }) {}
    let renewed_at = Instant::now();
    let refused_after = loop {
        match told(&mut reader).await {
            FromServer::About { body: FromRoom::Refused(Refusal::Access { .. }), .. } => {
                break renewed_at.elapsed();
            }
            _ => assert!(renewed_at.elapsed() < Duration::from_secs(1), "it reads on"),
        }
    };
    scene.stop().await;
    refused_after
}

fn is_entry(told: &FromServer) -> bool {
    matches!(told, FromServer::About { body: FromRoom::Entry(_), .. })
}

/// Goal: who renews more often than it may is answered late, and that is all: nobody is sent away,
/// and what else it says is heard behind that. Method: it says good tokens and bad ones, and
/// frames; the time that passes is at least what it has to wait.
#[tokio::test(flavor = "multi_thread")]
async fn who_renews_its_token_again_and_again_is_answered_late() {
    const OVER: u32 = 2;
    let scene = Scene::new(&[OWN]).await;
    let mut client = joined(&scene, ROLES[3].1).await;
    client.open(OWN, 2, None).await.expect("up");
    assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
    let began = Instant::now();
    let count = CONNECTION_RENEWALS_AHEAD_MAX + OVER;
    for nth in 0..count {
        let good = || token(ROLES[3].1);
        let token = if nth % 2 == 0 { good() } else { "sesame".to_owned() };
        client.say(&ToServer::Renew { token }).await.expect("up");
    }
    client.frames(1, vec![frame_of("ada", &notes(), "add", "behind")]).await.expect("up");
    let mut answers = (0, 0);
    loop {
        match client.hear().await.expect("nobody is sent away") {
            FromServer::Admitted { .. } => answers.0 += 1,
            FromServer::NotRenewed => answers.1 += 1,
            FromServer::About { body: FromRoom::Acked { .. }, .. } => break,
            _ => {}
        }
    }
    assert_eq!(answers, (count / 2, count / 2));
    let waits = Duration::from_millis(u64::from(OVER) * CONNECTION_RENEWAL_MS);
    assert!(began.elapsed() >= waits, "{:?}", began.elapsed());
    scene.stop().await;
}

/// Goal: many links that are renewed together, as after a wake-up, are none that renews often.
/// Method: each renews as often as it may at once, while one of them has to wait by far longer than
/// all others are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn many_links_are_renewed_together() {
    const LINKS: usize = 200;
    let scene = Scene::new(&[OWN]).await;
    let mut hasty = joined(&scene, ROLES[3].1).await;
    for _ in 0..CONNECTION_RENEWALS_AHEAD_MAX + 1_000 {
        hasty.say(&ToServer::Renew { token: token(ROLES[3].1) }).await.expect("up");
    }
    let mut links = Vec::new();
    for _ in 0..LINKS {
        links.push(joined(&scene, ROLES[3].1).await);
    }
    let renewing = links.into_iter().map(|mut link| async move {
        link.say(&ToServer::Renew { token: token(ROLES[3].1) }).await.expect("up");
        assert!(matches!(link.hear().await, Some(FromServer::Admitted { .. })));
    });
    join_all(renewing).await;
    drop(hasty);
    scene.stop().await;
}

/// Goal: a connection lasts as long as the latest of its tokens, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_token_that_was_renewed_last() {
    let scene = Scene::new(&[]).await;
    let renewed_at = Instant::now();
    let mut client = joined(&scene, ROLES[3].1).await;
    let short = token_that_ends_in(ROLES[3].1, 3);
    client.say(&ToServer::Renew { token: short }).await.expect("up");
    let admitted = client.hear().await.expect("up");
    assert!(is_admitted(&admitted, 0..=0), "{admitted:?}");
    let bye = FromServer::Bye { reason: ByeReason::Unauthenticated };
    assert_eq!(client.hear().await, Some(bye));
    assert!(renewed_at.elapsed() < Duration::from_millis(4_500));
    scene.stop().await;
}

fn is_admitted(message: &FromServer, seconds: std::ops::RangeInclusive<u64>) -> bool {
    let FromServer::Admitted { subject, seconds_left } = message else { return false };
    subject == "ada" && seconds.contains(seconds_left)
}

fn allowed(role: Role) -> FromServer {
    FromServer::About { channel: CHANNEL, body: FromRoom::Allowed { role } }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_nobody_starts_and_refuses_everybody() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), tidelog_server::AccessSettings::default()).await;
    let token = token(ROLES[6].1);
    let refused = join(server.address(), Some(&token)).await.err();
    assert_eq!(refused, Some(ByeReason::Unauthenticated));
    let answer = ask(server.address(), "GET", "/v1/documents", Some(&token), "").await;
    assert_eq!(answer.status, 401);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_development_server_asks_nobody_for_a_token() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(&settings(data.path())).await.expect("a server");
    for token in [None, Some("sesame")] {
        let mut client = join(server.address(), token).await.expect("welcome");
        client.open(OWN, 1, None).await.expect("up");
        assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
        let answer = ask(server.address(), "GET", "/v1/documents", token, "").await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(ask(server.address(), "POST", "/v1/login", None, "{}").await.status, 404);
    server.stop().await;
    assert!(!data.path().join("access.json").exists());
}
