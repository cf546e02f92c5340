//! Who is present by the server's word, and who may be.

use std::time::{Duration, Instant};

use tidelog_sync::{
    Attendee, ByeReason, Channel, FromRoom, FromServer, Hears, PresenceNews, PresenceWord,
    StateText, ToRoom, ToServer, encode_message,
};
use tidelog_testing::Rng;
use tidelog_testing::server::Client;
use tidelog_types::ClientId;
use tidelog_types::limits::{PRESENCE_SILENT_MS, PRESENCE_STATE_SIZE_MAX};

use crate::common::{ROLES, Scene, bye, join, token};

const OWN: &str = "lists/own";

async fn follows(scene: &Scene, grants: &str, timeline: u8) -> Client {
    let mut client = join(scene.at, Some(&token(grants))).await.expect("welcome");
    client.open(OWN, timeline, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    client
}

async fn say(client: &mut Client, state: Option<&str>) {
    let changes = vec![(Attendee(1), state.and_then(StateText::new))];
    let word = PresenceWord { hears: Hears::Others, heard: 0, changes };
    client.tell(ToRoom::Presence(word)).await.expect("up");
}

async fn hear(client: &mut Client) -> PresenceNews {
    loop {
        match client.hear_of().await.expect("up") {
            FromRoom::Presence(news) => return news,
            FromRoom::Entry(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_present_under_the_name_of_its_token_and_gone_with_its_connection() {
    let scene = Scene::new(&[OWN]).await;
    let (_, read) = ROLES[2];
    let before = scene.bytes_of(OWN).await;
    let mut reader = follows(&scene, read, 10).await;
    let mut other = follows(&scene, ROLES[3].1, 11).await;
    say(&mut other, None).await;
    say(&mut reader, Some("{\"at\":1}")).await;
    let news = hear(&mut other).await;
    let [it] = &*news.present else { panic!("unexpected: {news:?}") };
    let who = it.who.as_ref().expect("it is new");
    assert_eq!(who.user.as_deref(), Some("ada"));
    assert_eq!((&*it.state, news.elsewhere_count), ("{\"at\":1}", 1));
    drop(reader);
    let news = hear(&mut other).await;
    assert_eq!((news.keys.as_deref(), news.elsewhere_count), (Some(&[][..]), 0));
    assert_eq!(scene.bytes_of(OWN).await, before, "nothing of it is in the document");
    scene.stop().await;
}

/// Goal: nobody is present as somebody else. Method: one names itself by what it has heard another
/// one called.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_present_by_the_name_of_another_client() {
    let scene = Scene::new(&[OWN]).await;
    let (_, read) = ROLES[2];
    let mut other = follows(&scene, read, 10).await;
    say(&mut other, None).await;
    let mut known = ClientId([1; 16]);
    for timeline in [11, 12] {
        let mut client = Client::connect_silently(scene.at).await.expect("up");
        let token = Some(token(read));
        client.say(&ToServer::Hello { client: known, token }).await.expect("up");
        while client.hear().await.expect("up") != FromServer::Welcome {}
        client.open(OWN, timeline, None).await.expect("up");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        say(&mut client, Some("{}")).await;
        let seen = loop {
            let news = hear(&mut other).await;
            if let Some(who) = news.present.first().and_then(|it| it.who.clone()) {
                break who.client;
            }
        };
        assert_ne!(seen, known);
        known = seen;
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_present_where_it_may_not_follow() {
    let scene = Scene::new(&[OWN]).await;
    let mut other = follows(&scene, ROLES[2].1, 10).await;
    say(&mut other, None).await;
    let (_, none) = ROLES[1];
    let mut stranger = join(scene.at, Some(&token(none))).await.expect("welcome");
    stranger.open(OWN, 12, None).await.expect("up");
    assert!(matches!(stranger.hear_of().await, Some(FromRoom::Refused(_))));
    say(&mut stranger, Some("{\"at\":\"the door\"}")).await;
    let mut reader = follows(&scene, ROLES[2].1, 11).await;
    say(&mut reader, Some("{\"at\":\"the table\"}")).await;
    let news = hear(&mut other).await;
    assert_eq!((news.present.len(), news.elsewhere_count), (1, 1), "{news:?}");
    scene.stop().await;
}

/// Goal: whoever falls silent without a word is not seen after 12 seconds, and until then is.
/// Method: its connection stays, and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_falls_silent_is_not_seen_after_twelve_seconds() {
    let scene = Scene::new(&[OWN]).await;
    let mut silent = follows(&scene, ROLES[2].1, 10).await;
    let mut other = follows(&scene, ROLES[2].1, 11).await;
    say(&mut other, None).await;
    let said_at = Instant::now();
    say(&mut silent, Some("{}")).await;
    assert_eq!(hear(&mut other).await.elsewhere_count, 1);
    assert_eq!(hear(&mut other).await.elsewhere_count, 0);
    let seen_for = said_at.elapsed();
    let promised = Duration::from_millis(PRESENCE_SILENT_MS);
    assert!((promised..promised + Duration::from_secs(4)).contains(&seen_for), "{seen_for:?}");
    say(&mut silent, None).await;
    say(&mut silent, Some("{}")).await;
    assert_eq!(hear(&mut other).await.elsewhere_count, 1, "it is heard again");
    scene.stop().await;
}

/// Goal: nobody says more of themselves than may be. Method: the bytes of the longest text that may
/// be said, and one more.
#[tokio::test(flavor = "multi_thread")]
async fn one_who_says_too_much_of_itself_is_sent_away() {
    let scene = Scene::new(&[OWN]).await;
    let mut client = follows(&scene, ROLES[2].1, 10).await;
    // Which is not compressed on its way.
    let longest = Rng::new(7).letters(PRESENCE_STATE_SIZE_MAX);
    let changes = vec![(Attendee(1), StateText::new(&longest))];
    let word = PresenceWord { hears: Hears::Others, heard: 0, changes };
    let body = ToRoom::Presence(word);
    let bytes = encode_message(&ToServer::About { channel: Channel(1), body });
    client.say_bytes(bytes.clone()).await.expect("up");
    client.say(&ToServer::Ping).await.expect("up");
    while client.hear().await.expect("it may") != FromServer::Pong {}
    let at = bytes.windows(16).position(|it| it == &longest.as_bytes()[..16]).expect("the text");
    let size = (PRESENCE_STATE_SIZE_MAX as u16).to_le_bytes();
    assert_eq!(bytes[at - 2..at], size, "how long it is");
    let mut more = [&bytes[..at], b"x", &bytes[at..]].concat();
    more[at - 2] += 1;
    client.say_bytes(more).await.expect("up");
    assert!(matches!(bye(&mut client).await, ByeReason::Protocol { .. }));
    scene.stop().await;
}
