//! What a core says of who is present: how often, behind what, and on which connections.

use tidelog_client::{FromCore, ToCore};
use tidelog_sync::{
    Attendee, Channel, FromRoom, FromServer, Hears, PresenceNews, PresenceWho, PresenceWord,
    Present, StateText, ToRoom, ToServer,
};
use tidelog_testing::Rng;
use tidelog_testing::client::server::{Server, back_online, offline, online, talk};
use tidelog_testing::client::*;
use tidelog_types::ClientId;
use tidelog_types::limits::{
    PRESENCE_HEARD_MAX, PRESENCE_SIGN_MS, PRESENCE_STATE_SIZE_MAX, PRESENCE_TICK_MS,
};

fn set(device: &mut Device, state: Option<&str>) {
    let state = state.map(str::to_owned);
    device.ask(TAB, vec![ToCore::Presence { handle: HANDLE, state }]);
}

fn text_of(state: &str) -> StateText {
    StateText::new(state).expect("short")
}

/// A device that is online and has said all that it has to say.
fn quiet(server: &mut Server) -> Device {
    let mut device = online(1, server);
    talk(server, &mut [&mut device]);
    device
}

/// What it has said of who is present since it was last asked.
fn words(device: &mut Device) -> Vec<PresenceWord> {
    let sent = device.take_sent().into_iter();
    let words = sent.filter_map(|message| match message {
        ToServer::About { body: ToRoom::Presence(word), .. } => Some(word),
        _ => None,
    });
    words.collect()
}

fn states(words: &[PresenceWord]) -> Vec<Option<String>> {
    let changes = words.iter().flat_map(|word| &word.changes);
    changes.map(|(_, state)| state.as_ref().map(ToString::to_string)).collect()
}

fn some(state: &str) -> Option<String> {
    Some(state.to_owned())
}

#[test]
fn what_is_set_many_times_is_said_ten_times_a_second_and_the_last_of_it() {
    let mut server = Server::default();
    let mut device = quiet(&mut server);
    for number in 0..1_000 {
        set(&mut device, Some(&number.to_string()));
        device.pass(1);
    }
    device.pass(PRESENCE_TICK_MS);
    let said = states(&words(&mut device));
    assert!((10..=12).contains(&said.len()), "{said:?}");
    assert_eq!((said.first(), said.last()), (Some(&some("0")), Some(&some("999"))));
}

/// Time passes, in which the server answers. Gives what was said.
fn pass(server: &mut Server, device: &mut Device, ms: u64) -> Vec<PresenceWord> {
    for _ in 0..ms / PRESENCE_TICK_MS {
        device.pass(PRESENCE_TICK_MS);
        talk(server, &mut [&mut *device]);
    }
    std::mem::take(&mut server.presence_words)
}

#[test]
fn who_is_present_gives_signs_and_who_only_looks_gives_none() {
    let mut server = Server::default();
    let mut device = quiet(&mut server);
    assert_eq!(pass(&mut server, &mut device, 30_000), [], "nobody has asked");
    set(&mut device, None);
    let looks = PresenceWord { hears: Hears::Others, ..PresenceWord::default() };
    let said = pass(&mut server, &mut device, 30_000);
    assert_eq!(said, std::slice::from_ref(&looks));
    set(&mut device, Some("here"));
    let said = pass(&mut server, &mut device, 3 * PRESENCE_SIGN_MS + PRESENCE_TICK_MS);
    assert_eq!(states(&said), [some("here")]);
    assert_eq!(said[1..], [looks.clone(), looks.clone(), looks]);
    set(&mut device, None);
    assert_eq!(states(&pass(&mut server, &mut device, 30_000)), [None], "and no sign");
}

/// Goal: frames come first. Method: a mutation and a word in one turn; then so many frames that the
/// server is asked for a word behind them.
#[test]
fn presence_goes_behind_frames_and_waits_while_many_are_on_their_way() {
    let mut server = Server::default();
    let mut device = quiet(&mut server);
    let (_, mutate) = device.mutation("add", &[("id", text("1")), ("title", text("milk"))]);
    let presence = ToCore::Presence { handle: HANDLE, state: some("here") };
    device.ask(TAB, vec![presence, mutate]);
    device.pass(PRESENCE_TICK_MS);
    let sent = device.take_sent();
    let place = |is: fn(&ToRoom) -> bool| {
        sent.iter().position(|it| matches!(it, ToServer::About { body, .. } if is(body)))
    };
    let frames = place(|body| matches!(body, ToRoom::Frames { .. })).expect("a frame");
    let word = place(|body| matches!(body, ToRoom::Presence(_))).expect("a word");
    assert!(frames < word);

    titled(&mut device, "2", &Rng::new(1).letters(100_000));
    set(&mut device, Some("moved"));
    set(&mut device, Some("moved on"));
    device.pass(PRESENCE_TICK_MS);
    let sent = device.take_sent();
    let is_word = |it: &ToServer| matches!(it, ToServer::About { body: ToRoom::Presence(_), .. });
    assert!(!sent.iter().any(is_word));
    assert!(sent.contains(&ToServer::Ping));
    device.hear_server(&FromServer::Pong);
    assert_eq!(states(&words(&mut device)), [some("moved on")]);
}

#[test]
fn what_was_said_is_said_again_on_the_next_connection_and_not_what_was_taken_back() {
    let mut server = Server::default();
    let mut device = quiet(&mut server);
    set(&mut device, Some("here"));
    device.pass(PRESENCE_TICK_MS);
    assert_eq!(states(&words(&mut device)), [some("here")]);
    offline(&mut device);
    device.pass(1_000);
    back_online(&mut server, &mut device);
    let said = server.presence_words.clone();
    assert_eq!(states(&said), [some("here")]);
    offline(&mut device);
    set(&mut device, None);
    server.presence_words.clear();
    back_online(&mut server, &mut device);
    assert!(states(&server.presence_words).is_empty());
}

fn news(channel: Channel, elsewhere_count: u32, keys: &[u64], present: Vec<Present>) -> FromServer {
    let keys = Some(keys.into());
    let news = PresenceNews { elsewhere_count, keys, present: present.into() };
    FromServer::About { channel, body: FromRoom::Presence(news) }
}

fn present(key: u64, own: Option<Attendee>) -> Present {
    let who = PresenceWho { user: some("ada"), client: ClientId([9; 16]), own };
    Present { key, who: Some(who), state: text_of(&key.to_string()) }
}

/// What a tab was told last of who is present.
fn told(device: &Device) -> (u32, Vec<u64>, Vec<u64>) {
    let told = device.told.iter().rev().find_map(|(_, message)| match message {
        FromCore::Presence { count, keys, others, .. } => {
            let others = others.iter().map(|it| it.key).collect();
            Some((*count, keys.clone().unwrap_or_default(), others))
        }
        _ => None,
    });
    told.expect("it was told")
}

#[test]
fn a_tab_is_told_of_others_and_of_nobody_once_the_connection_is_gone() {
    let mut server = Server::default();
    let mut device = quiet(&mut server);
    set(&mut device, Some("here"));
    assert_eq!(told(&device), (1, vec![], vec![]), "first that it is alone");
    let channel = server.channel_of(device.number);
    device.hear_server(&news(channel, 2, &[4, 7], vec![present(4, None), present(7, None)]));
    assert_eq!(told(&device), (3, vec![4, 7], vec![4, 7]));
    // It may have been on the way of a channel that is left.
    let stale = PresenceNews { elsewhere_count: 9, keys: None, present: Vec::new().into() };
    let body = FromRoom::Presence(stale);
    let left = Channel(channel.0 + 98);
    device.hear_server(&FromServer::About { channel: left, body });
    assert_eq!(told(&device), (3, vec![4, 7], vec![4, 7]));
    offline(&mut device);
    assert_eq!(told(&device), (1, vec![], vec![]));
}

#[test]
fn a_client_says_what_it_has_heard() {
    let mut server = Server::default();
    let mut device = quiet(&mut server);
    set(&mut device, None);
    let first = words(&mut device);
    assert!(first.iter().all(|word| word.heard == 0));
    let channel = server.channel_of(device.number);
    for count in 0..PRESENCE_HEARD_MAX {
        device.pass(PRESENCE_TICK_MS);
        device.hear_server(&news(channel, count, &[], vec![]));
    }
    let heard: Vec<u32> = words(&mut device).iter().map(|word| word.heard).collect();
    assert_eq!(heard, [PRESENCE_HEARD_MAX]);
}

#[test]
fn what_is_too_long_is_not_said() {
    let mut server = Server::default();
    let mut device = quiet(&mut server);
    set(&mut device, Some(&"x".repeat(PRESENCE_STATE_SIZE_MAX)));
    assert_eq!(states(&words(&mut device)).len(), 1);
    set(&mut device, Some(&"x".repeat(PRESENCE_STATE_SIZE_MAX + 1)));
    device.pass(PRESENCE_TICK_MS);
    assert_eq!(states(&words(&mut device)), [None], "nobody is present by half a word");
}
