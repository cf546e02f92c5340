//! Who is present by the server's word, and who may be.

use tidelog_sync::{Attendee, FromRoom, FromServer, Hears, PresenceNews, PresenceWord};
use tidelog_sync::{StateText, ToRoom, ToServer};
use tidelog_testing::server::Client;
use tidelog_types::ClientId;

use crate::common::{ROLES, Scene, join, token};

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
