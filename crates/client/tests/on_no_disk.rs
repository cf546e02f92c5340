//! What a device writes down nowhere: tokens, and who is present.

use tidelog_client::{FromCore, Request, ToCore};
use tidelog_sync::{FromRoom, FromServer, PresenceNews, PresenceWho, Present, StateText};
use tidelog_sync::{ToRoom, ToServer};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::ClientId;
use tidelog_types::limits::LOG_AGE_MS_MAX;

const TOKEN: &str = "a-token-that-lets-ada-in";
const OWN_STATE: &str = r#"{"cursor":"at-the-first-line"}"#;
const OTHERS_STATE: &str = r#"{"cursor":"at-the-last-line"}"#;
const OTHERS_NAME: &str = "somebody-else-who-is-there";

/// Goal: no file of a device has a token, or what anybody says of being present. Method: a device
/// is let in by a token, says that it is present, hears of another one, and issues something
/// between; then a day passes, so that both files of the log and the page file are written, and all
/// of them are searched.
#[test]
fn neither_a_token_nor_who_is_present_is_on_a_devices_disk() {
    let (mut server, mut device) = (Server::default(), Device::new(1));
    server.subject = Some("ada".to_owned());
    device.server_is_up = true;
    let (_, mut open) = device.open_message(Some(SERVER), &todos());
    if let ToCore::Ask { request: Request::Open(open), .. } = &mut open {
        open.has_token = true;
    }
    device.ask(TAB, vec![open]);
    let wanted = |(_, it): &(_, FromCore)| match it {
        FromCore::TokenWanted { question, .. } => Some(*question),
        _ => None,
    };
    let question = device.told.iter().find_map(wanted).expect("it is asked for");
    device.ask(TAB, vec![ToCore::Token { question, token: Some(TOKEN.to_owned()) }]);
    let says_it =
        |it: &ToServer| matches!(it, ToServer::Hello { token: Some(it), .. } if it == TOKEN);
    assert!(device.sent.iter().any(says_it));
    talk(&mut server, &mut [&mut device]);

    device.ask(TAB, vec![ToCore::Presence { handle: HANDLE, state: Some(OWN_STATE.to_owned()) }]);
    device.pass(1_000);
    let is_presence =
        |it: &ToServer| matches!(it, ToServer::About { body: ToRoom::Presence(_), .. });
    assert!(device.sent.iter().any(is_presence), "it is said");
    talk(&mut server, &mut [&mut device]);
    let who =
        PresenceWho { user: Some(OTHERS_NAME.to_owned()), client: ClientId([9; 16]), own: None };
    let state = StateText::new(OTHERS_STATE).expect("short");
    let present = vec![Present { key: 4, who: Some(who), state }].into();
    let news = PresenceNews { elsewhere_count: 1, keys: Some([4].into()), present };
    let channel = server.channel_of(device.number);
    device.hear_server(&FromServer::About { channel, body: FromRoom::Presence(news) });
    let is_told = |(_, it): &(_, FromCore)| matches!(it, FromCore::Presence { count: 2, .. });
    assert!(device.told.iter().any(is_told), "it is heard");

    for (day, title) in ["oat milk", "rye bread"].into_iter().enumerate() {
        let call = device.mutate("add", &[("id", text(title)), ("title", text(title))]);
        talk(&mut server, &mut [&mut device]);
        assert!(device.fate(call).contains("confirmed"), "{day}");
        device.now_ms += LOG_AGE_MS_MAX;
        for _ in 0..60 {
            device.pass(1_000);
            talk(&mut server, &mut [&mut device]);
        }
    }
    assert!(device.has_on_disk(b"oat milk") && device.has_on_disk(b"rye bread"));
    for secret in [TOKEN, "at-the-first-line", "at-the-last-line", OTHERS_NAME] {
        assert!(!device.has_on_disk(secret.as_bytes()), "{secret}");
    }
}
