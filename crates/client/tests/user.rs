//! What `:user` is in a mutation.

use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;

/// Goal: on a server that asks nobody who they are, as with `--dev`, `:user` is the empty text and
/// not null, on the device as on the server; on one that does it is the subject. Method: a mutation
/// that writes down what it is, before and after it is confirmed.
#[test]
fn without_tokens_the_user_is_the_empty_text() {
    for (subject, written) in [(None, "<> text"), (Some("ada"), "<ada> text")] {
        let sign = "insert into note values ('<' || :user || '> ' || typeof(:user))";
        let mut doctype = todos();
        doctype.mutations.push(define("sign", &[], &[sign]));
        doctype.mutations.sort_by(|one, other| one.name.cmp(&other.name));
        let (mut server, mut device) = (Server::default(), Device::new(1));
        server.subject = subject.map(str::to_owned);
        device.server_is_up = true;
        let call = device.start_open(TAB, Some(SERVER), &doctype);
        device.opened(call);
        talk(&mut server, &mut [&mut device]);
        let call = device.mutate("sign", &[]);
        assert_eq!(device.query("select text from note"), [[text(written)]], "at once");
        talk(&mut server, &mut [&mut device]);
        assert!(device.fate(call).contains("confirmed"));
        assert_eq!(device.query("select text from note"), [[text(written)]]);
        let image = server.image();
        let is_there = image.windows(written.len()).any(|it| it == written.as_bytes());
        assert!(is_there, "on the server, too");
    }
}
