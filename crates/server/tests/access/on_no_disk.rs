//! What a server writes down nowhere: tokens, passwords, and who is present.

use std::path::Path;

use serde_json::{Value, json};
use tidelog_access::Role;
use tidelog_sync::{Attendee, FromRoom, FromServer, Hears, PresenceWord, StateText};
use tidelog_sync::{ToRoom, ToServer};
use tidelog_testing::room::{frame_of, notes};
use tidelog_testing::server::Client;

use crate::common::{ROLES, ask, begin, join, start, token, token_that_ends_in, with_passwords};

const OWN: &str = "lists/own";
const PASSWORD: &str = "correct horse battery staple";
const STATE: &str = r#"{"cursor":"at-the-first-line"}"#;

/// Whether these bytes are in any file of the folder, or in the name of one.
fn has(folder: &Path, text: &str) -> bool {
    let is_it = |bytes: &[u8]| bytes.windows(text.len()).any(|it| it == text.as_bytes());
    let mut entries = std::fs::read_dir(folder).expect("a folder").map(|it| it.expect("an entry"));
    entries.any(|entry| {
        let path = entry.path();
        let kind = entry.file_type().expect("it has one");
        let has_it = match kind.is_dir() {
            true => has(&path, text),
            false => kind.is_file() && is_it(&std::fs::read(&path).expect("a file")),
        };
        has_it || is_it(entry.file_name().as_encoded_bytes())
    })
}

pub async fn renewed(client: &mut Client, token: &str) {
    client.say(&ToServer::Renew { token: token.to_owned() }).await.expect("up");
    while !matches!(client.hear().await.expect("up"), FromServer::Admitted { .. }) {}
}

/// Goal: no file of a server has a token, a password, or what anybody says of being present.
/// Method: somebody logs in, is let in, renews, is present, writes, and logs out; another one's
/// tokens are revoked; then all files are searched, while the server runs and once it has stopped.
#[tokio::test(flavor = "multi_thread")]
async fn neither_tokens_nor_passwords_nor_who_is_present_are_on_a_servers_disk() {
    let data = tempfile::tempdir().expect("a folder");
    begin(data.path(), &[OWN]).await;
    let server = start(data.path(), with_passwords(&[(Role::Admin, PASSWORD)])).await;
    let at = server.address();
    let login = json!({ "user": "admin", "password": PASSWORD }).to_string();
    let login = ask(at, "POST", "/v1/login", None, &login).await;
    assert_eq!(login.status, 200);
    let login: Value = serde_json::from_slice(&login.body).expect("JSON");
    let minted = login["token"].as_str().expect("a text").to_owned();
    let (writer, later) = (token(ROLES[4].1), token_that_ends_in(ROLES[4].1, 300));

    let mut client = join(at, Some(&writer)).await.expect("welcome");
    client.open(OWN, 7, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    let changes = vec![(Attendee(1), StateText::new(STATE))];
    let word = PresenceWord { hears: Hears::Others, heard: 0, changes };
    client.tell(ToRoom::Presence(word)).await.expect("up");
    let mut other = join(at, Some(&later)).await.expect("welcome");
    other.open(OWN, 8, None).await.expect("up");
    let word = PresenceWord { hears: Hears::Others, heard: 0, changes: Vec::new() };
    other.tell(ToRoom::Presence(word)).await.expect("up");
    while !matches!(other.hear_of().await.expect("up"), FromRoom::Presence(_)) {}
    renewed(&mut client, &later).await;
    let frames = vec![frame_of("ada", &notes(), "add", "what-ada-has-written")];
    client.frames(1, frames).await.expect("up");
    let written = async {
        loop {
            match client.hear_of().await.expect("up") {
                FromRoom::Acked { next } if next.get() == 2 => break,
                _ => {}
            }
        }
    };
    written.await;
    let revoke = r#"{"subject":"eve"}"#;
    assert_eq!(ask(at, "POST", "/v1/revoke", Some(&minted), revoke).await.status, 204);
    assert_eq!(ask(at, "POST", "/v1/logout", Some(&minted), "").await.status, 204);
    assert_eq!(ask(at, "POST", "/v1/logout", Some(&later), "").await.status, 204);

    let signature = |token: &str| token.rsplit('.').next().expect("one").to_owned();
    let secrets = [&minted, &writer, &later].map(|it| signature(it));
    let is_clean = || {
        assert!(has(data.path(), "what-ada-has-written"), "it looks where that lies");
        for secret in secrets.iter().map(String::as_str).chain([PASSWORD, "at-the-first-line"]) {
            assert!(!has(data.path(), secret), "{secret}");
        }
    };
    is_clean();
    server.stop().await;
    is_clean();
}
