//! TLS by files, through the binary: what is agreed on, what is not, and another certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tidelog_sync::{FromServer, ToServer, decode_message, encode_message};
use tidelog_testing::server::PATIENCE;
use tidelog_types::ClientId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::common::{ROLES, SECRET, ask, now_s, token};
use crate::process::{Running, comes};

/// A certificate of tests, or its key: they hold until 2126, for localhost, but for
/// `expired`.
pub fn tls_file(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A server that shows the certificate in `cert.pem` of this folder, the first of those of tests.
fn start(folder: &Path) -> Running {
    show(folder, "one");
    let path = |name: &str| folder.join(name).to_str().expect("a text").to_owned();
    std::fs::write(path("secret"), SECRET).expect("written");
    let [secret, cert, key] = ["secret", "cert.pem", "cert.key"].map(path);
    let args = ["--token-secret-file", &secret, "--tls-cert", &cert, "--tls-key", &key];
    Running::start(&folder.join("data"), &args, &folder.join("log"))
}

/// Puts one of the certificates of tests where the server reads it.
fn show(folder: &Path, name: &str) {
    for kind in ["pem", "key"] {
        let to = folder.join(format!("cert.{kind}"));
        std::fs::copy(tls_file(&format!("{name}.{kind}")), to).expect("copied");
    }
}

/// Agrees on TLS as somebody who trusts this certificate alone and speaks these protocols.
async fn agree(
    at: SocketAddr,
    certificate: &str,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::from_pem_file(tls_file(&format!("{certificate}.pem")));
    roots.add(pem.expect("a certificate")).expect("it can be trusted");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(at).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// What it answers to a request for this path; what comes before it has ended is all there is.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let token = token(ROLES[6].1);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends").expect("whole");
    String::from_utf8(answer).expect("a text")
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn hear(socket: &mut Socket) -> FromServer {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.expect("something is said");
        match message.expect("it is up").expect("whole") {
            Message::Binary(bytes) => return decode_message(&bytes).expect("a message"),
            Message::Close(_) => panic!("closed"),
            _ => {}
        }
    }
}

async fn say(socket: &mut Socket, message: &ToServer) {
    socket.send(Message::Binary(encode_message(message).into())).await.expect("it is up");
}

/// A connection by wss that was let in.
async fn join(at: SocketAddr, certificate: &str) -> Socket {
    let stream = agree(at, certificate, &["http/1.1"]).await.expect("agreed");
    let upgraded = client_async("wss://localhost/v1/sync", stream).await;
    let (mut socket, _) = upgraded.expect("upgraded");
    let token = Some(token(ROLES[6].1));
    say(&mut socket, &ToServer::Hello { client: ClientId([1; 16]), token }).await;
    assert!(matches!(hear(&mut socket).await, FromServer::Admitted { .. }));
    assert_eq!(hear(&mut socket).await, FromServer::Welcome);
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_speaks_https_and_wss() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(folder.path());
    for protocols in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
        let mut stream = agree(running.at, "one", protocols).await.expect("agreed");
        let expected = (!protocols.is_empty()).then_some(&b"http/1.1"[..]);
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected, "{protocols:?}");
        let answer = get(&mut stream, "/v1/documents").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("{\"documents\":[]}"), "{answer}");
    }
    let refused = agree(running.at, "one", &["h2"]).await.expect_err("nobody speaks that");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    let mut socket = join(running.at, "one").await;
    say(&mut socket, &ToServer::Ping).await;
    assert_eq!(hear(&mut socket).await, FromServer::Pong);
}

/// Goal: doors hold within TLS too. Method: one is upgraded and says more than a Hello may have.
#[tokio::test(flavor = "multi_thread")]
async fn within_tls_a_hello_has_its_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(folder.path());
    let stream = agree(running.at, "one", &[]).await.expect("agreed");
    let (mut socket, _) = client_async("wss://localhost/v1/sync", stream).await.expect("upgraded");
    // Whoever is cut off may notice as it speaks.
    let _ = socket.send(Message::Binary(vec![0; 64 * 1024].into())).await;
    let heard = timeout(Duration::from_secs(5), socket.next()).await.expect("at once");
    assert!(!matches!(heard, Some(Ok(Message::Binary(_)))), "{heard:?}");
}

/// Goal: whoever mistakes the address learns what is wrong, and who speaks neither is let go.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_no_tls_is_told_to_or_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(folder.path());
    let answer = ask(running.at, "GET", "/v1/documents", Some("sesame"), &"x".repeat(4096)).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text(), "this server speaks TLS: ask by https\n");
    // The beginning of a greeting as long as one may be, which does not end.
    let record = |begin: &[u8]| {
        let rest = vec![7; 16 * 1024 - begin.len()];
        [b"\x16\x03\x01\x40\x00", begin, &rest].concat()
    };
    let greeting = [record(b"\x01\x00\xff\xff\x03\x03"), record(b""), record(b"")].concat();
    for odd in [&b"\x80sesame"[..], b"\x16sesame and more", b"\n", &greeting] {
        let mut stream = TcpStream::connect(running.at).await.expect("it listens");
        // It may be closed before all of it is said.
        let _ = stream.write_all(odd).await;
        let ends = async {
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            heard.len()
        };
        let heard = timeout(Duration::from_secs(5), ends).await.expect("it is let go at once");
        assert!(heard < 16, "no more than an alert");
    }
    let log = std::fs::read_to_string(folder.path().join("log")).expect("a text");
    assert!(!log.contains("sesame"), "{log}");
}

/// Goal: whoever comes in does not wait for those who have not agreed yet.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_before_tls_is_agreed_on_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(folder.path());
    let mut silent = Vec::new();
    for number in 0..64 {
        let mut stream = TcpStream::connect(running.at).await.expect("it listens");
        if number % 2 == 0 {
            stream.write_all(b"\x16\x03\x01").await.expect("sent");
        }
        silent.push(stream);
    }
    let began = Instant::now();
    let mut stream = agree(running.at, "one", &[]).await.expect("agreed");
    assert!(get(&mut stream, "/healthz").await.ends_with("ok\n"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Goal: a certificate is renewed, and nobody notices. Method: other files, a broken one among
/// them, and SIGHUP; one connection lives through all of it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_has_the_certificate_read_again_and_connections_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(folder.path());
    let mut socket = join(running.at, "one").await;
    let shows = async |name: &str| agree(running.at, name, &[]).await.is_ok();
    assert!(shows("one").await && !shows("two").await);
    show(folder.path(), "two");
    assert!(shows("one").await, "nobody has said so");
    running.signal("-HUP");
    assert!(comes(async || shows("two").await).await);
    assert!(!shows("one").await);

    std::fs::write(folder.path().join("cert.pem"), "sesame").expect("written");
    running.signal("-HUP");
    let logged = || std::fs::read_to_string(folder.path().join("log")).expect("a text");
    assert!(comes(async || logged().contains("stay as they were")).await, "{}", logged());
    assert!(logged().contains("cert.pem for TLS: it has no certificate"), "{}", logged());
    assert!(!logged().contains("sesame"), "{}", logged());
    assert!(shows("two").await && !shows("one").await);

    say(&mut socket, &ToServer::Ping).await;
    assert_eq!(hear(&mut socket).await, FromServer::Pong);
}

/// Goal: an operator sees when a certificate ends, before browsers do, and is told of one that has.
/// Method: one of each, the latter by SIGHUP; who has come in before asks for both.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_how_long_the_certificate_is_good_yet() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(folder.path());
    let mut before = agree(running.at, "one", &[]).await.expect("agreed");
    let left_s = async |stream: &mut TlsStream<TcpStream>| {
        let answer = get(stream, "/metrics").await;
        let value =
            answer.lines().find_map(|it| it.strip_prefix("tidelog_certificate_left_seconds "));
        value.unwrap_or_else(|| panic!("{answer}")).parse::<i64>().expect("a number")
    };
    let now_s = now_s().cast_signed();
    let left = left_s(&mut agree(running.at, "one", &[]).await.expect("agreed")).await;
    assert!((4_949_437_516 - now_s - left).abs() < 60, "{left}");
    let logged = || std::fs::read_to_string(folder.path().join("log")).expect("a text");
    assert!(!logged().contains("has expired"), "{}", logged());

    show(folder.path(), "expired");
    running.signal("-HUP");
    assert!(comes(async || logged().contains("the certificate has expired")).await, "{}", logged());
    let left = left_s(&mut before).await;
    assert!((1_609_459_200 - now_s - left).abs() < 60, "{left}");
}

/// Goal: an operator learns that tokens travel readable.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_beyond_this_machine_without_tls_is_warned_of() {
    let [cert, key] = ["one.pem", "one.key"].map(tls_file);
    let cases: [(&[&str], bool); 4] = [
        (&["--listen", "0.0.0.0:0"], true),
        (&["--listen", "0.0.0.0:0", "--trusted-proxy", "10.0.0.1"], false),
        (&["--listen", "0.0.0.0:0", "--tls-cert", &cert, "--tls-key", &key], false),
        (&["--listen", "127.0.0.1:0"], false),
    ];
    for (args, is_warned) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let _running = Running::start_anywhere(&folder.path().join("data"), args, &log);
        let log = std::fs::read_to_string(log).expect("a text");
        assert_eq!(log.contains("can be read on their way"), is_warned, "{args:?}: {log}");
    }
}
