//! The binary: its environment, its files, and what it says of wrong ones.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tidelog_sync::{ByeReason, FromRoom, FromServer, ToServer};
use tidelog_testing::room::{frame_of, notes};
use tidelog_testing::server::{Client, command};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::common::{ROLES, ask, ask_with, begin, bye, join, now_s, token_by};
use crate::doctypes::json_of;
use crate::ends::log_in;
use crate::tls::tls_file;

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

fn serve(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let data = tempfile::tempdir().expect("a folder");
    let mut command = command(TIDELOG);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data.path()).args(args);
    command.envs(variables.iter().copied()).output().expect("it runs")
}

/// Flags, variables, and what is named of them.
type Case<'c> = (&'c [&'c str], &'c [(&'c str, &'c str)], &'c str);

#[test]
fn keys_and_passwords_that_cannot_be_used_are_wrong_usage_and_are_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    std::fs::write(&path, "sesame").expect("written");
    let path = path.to_str().expect("a text");
    let [cert, other_key] = ["one.pem", "two.key"].map(tls_file);
    let config = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a text").to_owned()
    };
    // Where people look for it in vain.
    let odd = config("odd.toml", "dev = true\nadmin_password = \"sesame\"\n");
    let torn = config("torn.toml", "admin_password = \"sesame");
    let cases: [Case<'_>; 20] = [
        (&["--token-secret-file", path], &[], path),
        (&["--token-key", path], &[], path),
        (&["--token-jwks-file", path], &[], path),
        (&["--token-key", "no/such/key"], &[], "no/such/key"),
        (&[], &[("TIDELOG_ADMIN_PASSWORD_HASH", "sesame")], "TIDELOG_ADMIN_PASSWORD_HASH"),
        (&[], &[("TIDELOG_READER_PASSWORD", "")], "TIDELOG_READER_PASSWORD"),
        (&[], &[("TIDELOG_ALLOW_ORIGINS", "https://a,https://b/")], "https://b/"),
        (&[], &[("TIDELOG_TRUSTED_PROXIES", "10.0.0.1,proxy")], "proxy"),
        (&["--log-format", "xml"], &[], "xml"),
        (&["--tls-cert", &cert], &[], "--tls-key is not"),
        (&[], &[("TIDELOG_TLS_KEY", &other_key)], "--tls-cert is not"),
        (&["--tls-cert", &cert, "--tls-key", &other_key], &[], &other_key),
        (&["--tls-cert", path, "--tls-key", &other_key], &[], path),
        (&["--dev"], &[("TIDELOG_ADMIN_PASSWORD", "sesame")], "--dev"),
        // Everybody on the machine reads what a process was started with.
        (&["--admin-password", "sesame"], &[], "--admin-password"),
        (&["--admin-password=sesame"], &[], "--admin-password"),
        (&["--writer-password", "sesame"], &[], "--writer-password"),
        (&["--reader-password-hash", "sesame"], &[], "--reader-password-hash"),
        (&["--config", &odd], &[], "odd.toml, line 2: unknown field `admin_password`"),
        (&["--config", &torn], &[], "torn.toml, line 1"),
    ];
    for (args, variables, named) in cases {
        let output = serve(args, variables);
        assert_eq!(output.status.code(), Some(2), "{args:?} {variables:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}

/// Goal: an operator hears before it matters that there is no room for as many connections as may
/// be. Method: a limit of open files below and above that.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_open_files_that_is_too_low_is_told_of() {
    for (files, is_told) in [("1500", true), ("2500", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let mut command = command("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), TIDELOG]);
        let args = ["--connections-max", "1000"];
        let running = Running::start_by(command, &path("data"), &args, &path("log"));
        assert_eq!(ask(running.at, "GET", "/readyz", None, "").await.status, 200);
        let log = std::fs::read_to_string(path("log")).expect("a text");
        assert_eq!(log.contains("LimitNOFILE"), is_told, "{files}: {log}");
    }
}

/// Goal: nobody opens to a net by mistake what asks nobody who they are.
#[test]
fn a_server_that_lets_everybody_in_serves_its_own_machine_alone() {
    let data = tempfile::tempdir().expect("a folder");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let mut command = command(TIDELOG);
        command.args(["serve", "--dev", "--listen", address, "--data"]).arg(data.path());
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{address}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("--dev") && said.contains(address), "{said}");
    }
}

/// Goal: who operates a server need not tell it a password. Method: one is hashed by the command
/// for that, and its user logs in.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_password_is_given_by_its_hash_logs_in() {
    use std::io::Write as _;

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut hashing = command(TIDELOG);
    hashing.args(["user", "hash"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hashing = hashing.spawn().expect("it runs");
    hashing.stdin.take().expect("a pipe").write_all(b"sesame\n").expect("it reads");
    let hashed = hashing.wait_with_output().expect("it ends");
    let hash = String::from_utf8(hashed.stdout).expect("a text");
    let mut command = command(TIDELOG);
    command.env("TIDELOG_WRITER_PASSWORD_HASH", hash.trim());
    let running = Running::start_by(command, &path("data"), &[], &path("log"));
    let token = log_in(running.at, "writer", "sesame").await;
    assert!(join(running.at, Some(&token)).await.is_ok());
    let wrong = serde_json::json!({ "user": "writer", "password": hash.trim() }).to_string();
    assert_eq!(ask(running.at, "POST", "/v1/login", None, &wrong).await.status, 401);
}

#[test]
fn the_help_names_every_setting() {
    let output = command(TIDELOG).args(["serve", "--help"]).output().expect("it runs");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in [
        "--token-secret-file",
        "--token-key",
        "--token-jwks-file",
        "--token-issuer",
        "--token-audience",
        "--allow-origin",
        "--trusted-proxy",
        "--metrics-open",
        "--log-format",
        "--tls-cert",
        "--tls-key",
        "TIDELOG_TRUSTED_PROXIES",
        "TIDELOG_LOG_FORMAT",
        "TIDELOG_TOKEN_KEYS",
        "TIDELOG_ALLOW_ORIGINS",
        "TIDELOG_ADMIN_PASSWORD",
    ] {
        assert!(help.contains(name), "{name}");
    }
}

/// The binary without `--dev`, running.
pub struct Running {
    child: Child,
    pub at: SocketAddr,
}

impl Running {
    pub fn start(data: &Path, args: &[&str], log: &Path) -> Self {
        Self::start_by(command(TIDELOG), data, args, log)
    }

    fn start_by(command: Command, data: &Path, args: &[&str], log: &Path) -> Self {
        Self::start_with(command, data, &[&["--listen", "127.0.0.1:0"], args].concat(), log)
    }

    /// Where these flags say that it is to listen.
    pub fn start_anywhere(data: &Path, args: &[&str], log: &Path) -> Self {
        Self::start_with(command(TIDELOG), data, args, log)
    }

    fn start_with(mut command: Command, data: &Path, args: &[&str], log: &Path) -> Self {
        command.args(["serve", "--data"]).arg(data).args(args);
        command.env("RUST_LOG", "trace").stderr(std::fs::File::create(log).expect("a file"));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let url = line.trim().strip_prefix("listening on ").expect("an address");
        let (scheme, at) = url.split_once("://").expect("an address");
        assert_eq!(scheme == "https", args.contains(&"--tls-cert"), "{url}");
        Self { at: at.parse().expect("an address"), child }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until this is so, for as long as that is no fault of the server's.
pub async fn comes(mut is_so: impl AsyncFnMut() -> bool) -> bool {
    let began = Instant::now();
    while !is_so().await {
        if began.elapsed() > Duration::from_secs(20) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Goal: a server that runs takes other keys and origins, and keeps those that it has where there
/// are none. Method: its configuration changes, and it is told so.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_has_keys_and_origins_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (config, log) = (path("tidelog.toml"), path("log"));
    let secrets = ["1", "2"].map(|it| it.repeat(32));
    let write = |number: usize, origin: &str| {
        let secret = path(&format!("secret {number}"));
        std::fs::write(&secret, &secrets[number]).expect("written");
        let secret = secret.to_str().expect("a text");
        let text = format!("token_secret_file = {secret:?}\nallow_origins = [{origin:?}]\n");
        std::fs::write(&config, text).expect("written");
    };
    write(0, "https://one.example.org");
    let running =
        Running::start(&path("data"), &["--config", config.to_str().expect("a text")], &log);
    let claims = format!(r#""sub":"ada","exp":{},"tidelog":{}"#, now_s() + 600, ROLES[6].1);
    let tokens = secrets.each_ref().map(|it| token_by(it.as_bytes(), &claims));
    let serves = async |number: usize, origin: &str| {
        let lines = format!("Origin: {origin}\r\nAuthorization: Bearer {}\r\n", tokens[number]);
        ask_with(running.at, "GET", "/v1/documents", &lines, "").await.status == 200
    };
    assert!(serves(0, "https://one.example.org").await);
    let mut client = join(running.at, Some(&tokens[0])).await.expect("welcome");

    write(1, "https://two.example.org");
    assert!(serves(0, "https://one.example.org").await, "nobody has said so");
    running.signal("-HUP");
    assert!(comes(async || serves(1, "https://two.example.org").await).await);
    assert!(!serves(1, "https://one.example.org").await);
    assert!(!serves(0, "https://two.example.org").await);
    assert_eq!(bye(&mut client).await, ByeReason::Unauthenticated);

    std::fs::write(&config, "allow_origins = 7\n").expect("written");
    running.signal("-HUP");
    let logged = || std::fs::read_to_string(&log).expect("a text");
    assert!(comes(async || logged().contains("stay as they were")).await, "{}", logged());
    assert!(serves(1, "https://two.example.org").await);
}

/// Goal: whoever is in a hurry does not wait for clients, and who tells a whole group of processes,
/// so that another one passes it on, is in none. Method: one does not take leave.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_stop_that_comes_again_a_second_later_ends_the_process_at_once() {
    for (is_again, code) in [(false, 0), (true, 1)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let mut running = Running::start(&data, &[], &log);
        let _silent = Client::connect_silently(running.at).await.expect("up");
        running.signal("-TERM");
        let began = Instant::now();
        let logged = || std::fs::read_to_string(&log).expect("a text");
        assert!(comes(async || logged().contains("stopping")).await, "{}", logged());
        assert!(!logged().contains('\u{1b}'), "it is a file, and no terminal");
        for _ in 0..2 {
            running.signal("-TERM");
        }
        if is_again {
            tokio::time::sleep(Duration::from_millis(1_200).saturating_sub(began.elapsed())).await;
            assert!(running.child.try_wait().expect("it is ours").is_none(), "it says goodbye");
            running.signal("-INT");
        }
        let mut status = None;
        let ended = comes(async || {
            status = running.child.try_wait().expect("it is ours");
            status.is_some()
        });
        assert!(ended.await);
        assert_eq!(status.and_then(|it| it.code()), Some(code), "{}", logged());
    }
}

/// Goal: a file that cannot be read keeps no server from ending. Method: one that nobody writes to
/// is in the place of the configuration, and the server is told to read it again.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_that_hangs_holds_up_no_stop() {
    use rustix::fs::{Mode, OFlags};

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (config, log) = (path("tidelog.toml"), path("log"));
    std::fs::write(&config, "metrics_open = true\n").expect("written");
    let args = ["--config", config.to_str().expect("a text")];
    let mut running = Running::start(&path("data"), &args, &log);
    std::fs::remove_file(&config).expect("away");
    assert!(Command::new("mkfifo").arg(&config).status().expect("it runs").success());
    running.signal("-HUP");
    // That can be opened once somebody reads, who waits for as long as it stays so.
    let mut held = None;
    let is_read = comes(async || {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        held = rustix::fs::open(&config, flags, Mode::empty()).ok();
        held.is_some()
    });
    assert!(is_read.await);
    running.signal("-TERM");
    let mut status = None;
    let ended = comes(async || {
        status = running.child.try_wait().expect("it is ours");
        status.is_some()
    });
    assert!(ended.await);
    drop(held);
    assert_eq!(status.and_then(|it| it.code()), Some(0));
    let log = std::fs::read_to_string(&log).expect("a text");
    assert!(log.contains("stopped"), "{log}");
}

/// Goal: an operator reads who logged in, who was refused and what admins did, and nobody reads a
/// secret there. Method: some of each, to a server whose log is verbose, and JSON.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_who_did_what_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("secret"), "s".repeat(32)).expect("written");
    let secret = path("secret");
    let secret = secret.to_str().expect("a text");
    let mut command = command(TIDELOG);
    command.envs([("TIDELOG_ADMIN_PASSWORD", "sesame-1"), ("TIDELOG_LOG_FORMAT", "json")]);
    let args = ["--token-secret-file", secret, "--trusted-proxy", "127.0.0.1"];
    begin(&path("data"), &["lists/own"]).await;
    let running = Running::start_by(command, &path("data"), &args, &path("log"));
    let at = running.at;
    let login = async |user: &str, password: &str| {
        let body = serde_json::json!({ "user": user, "password": password }).to_string();
        let lines = "X-Forwarded-For: 198.51.100.7\r\n";
        let answer = ask_with(at, "POST", "/v1/login", lines, &body).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        body["token"].as_str().map(str::to_owned)
    };
    assert!(login("admin", "sesame-2").await.is_none());
    assert!(login("sesame-3", "admin").await.is_none(), "in the wrong fields");
    let admin = login("admin", "sesame-1").await.expect("a token");
    let grants = r#"[{"document":"lists/*","role":"read"}]"#;
    let claims = format!(r#""sub":"ada","exp":{},"tidelog":{grants}"#, now_s() + 600);
    let ada = token_by("s".repeat(32).as_bytes(), &claims);
    let asks = async |method: &str, path: &str, token: &str, body: &str| {
        ask(at, method, path, Some(token), body).await.status
    };
    assert_eq!(asks("GET", "/v1/documents/diary", &ada, "").await, 404);
    assert_eq!(asks("DELETE", "/v1/documents/lists%2Fa%0Ab", &ada, "").await, 403);
    assert_eq!(asks("GET", "/v1/documents", "sesame-4", "").await, 401);
    assert!(join(at, Some("sesame-5")).await.is_err());
    let mut client = join(at, Some(&ada)).await.expect("welcome");
    client.open("diary", 1, None).await.expect("up");
    assert!(client.hear_of().await.is_some());
    let mut client = join(at, Some(&ada)).await.expect("welcome");
    client.open("lists/absent", 1, None).await.expect("up");
    while !matches!(client.hear_of().await, Some(FromRoom::Refused(_))) {}
    let mut client = join(at, Some(&ada)).await.expect("welcome");
    client.open("lists/own", 2, None).await.expect("up");
    client.frames(1, vec![frame_of("ada", &notes(), "add", "second")]).await.expect("up");
    while !matches!(client.hear_of().await, Some(FromRoom::Forbidden { .. })) {}
    client.say(&ToServer::Renew { token: admin.clone() }).await.expect("up");
    while client.hear().await.expect("up") != FromServer::NotRenewed {}
    assert_eq!(asks("DELETE", "/v1/documents/gone", &admin, "").await, 404);
    let of_gone = async |what: &str, body: &str| {
        asks("POST", &format!("/v1/documents/gone/{what}"), &admin, body).await
    };
    let event = r#"{"aggregate":"a","stream":"s","type":"t","data":{}}"#;
    assert_eq!(of_gone("events", event).await, 404);
    assert_eq!(of_gone("erase", r#"{"aggregate":"a","stream":"s"}"#).await, 404);
    assert_eq!(of_gone("events/migrate", "{}").await, 404);
    let replayed = r#"{"aggregate":"a","clear":["t"]}"#;
    assert_eq!(of_gone("events/replay", replayed).await, 404);
    assert_eq!(of_gone("events/archive", r#"{"aggregate":"a","stream":"s"}"#).await, 404);
    assert_eq!(of_gone("commands/retry", r#"{"number":1}"#).await, 404);
    assert_eq!(of_gone("commands/cancel", r#"{"number":1}"#).await, 404);
    let doctype = r#"{"name":"none","migrations":[],"mutations":{}}"#;
    assert_eq!(asks("PUT", "/v1/doctypes/none", &admin, doctype).await, 201);
    assert_eq!(asks("POST", "/v1/revoke", &admin, r#"{"subject":"bob"}"#).await, 204);
    assert_eq!(asks("POST", "/v1/forgive", &admin, r#"{"subject":"bob"}"#).await, 204);
    assert_eq!(asks("POST", "/v1/logout", &admin, "").await, 204);

    let log = || std::fs::read_to_string(path("log")).expect("a text");
    assert!(comes(async || log().contains("logout")).await, "{}", log());
    let log = log();
    let lines = audited(&log);
    let expected = [
        "login wrong admin 198.51.100.7",
        "login wrong 198.51.100.7",
        "login ok admin 198.51.100.7",
        "refused no grant ada diary 127.0.0.1",
        r"refused role ada lists/a\nb 127.0.0.1",
        "refused malformed 127.0.0.1",
        "refused malformed 127.0.0.1",
        "refused no grant ada diary 127.0.0.1",
        "refused it is not there, and the token does not allow to begin it ada lists/absent \
         127.0.0.1",
        "refused role ada lists/own 127.0.0.1",
        "refused another subject's token ada 127.0.0.1",
        "delete 404 admin gone 127.0.0.1",
        "append 404 admin gone 127.0.0.1",
        "erase 404 admin gone 127.0.0.1",
        "migrate 404 admin gone 127.0.0.1",
        "replay 404 admin gone 127.0.0.1",
        "archive 404 admin gone 127.0.0.1",
        "retry 404 admin gone 127.0.0.1",
        "cancel 404 admin gone 127.0.0.1",
        "deploy 201 admin none 127.0.0.1",
        "revoke 204 admin bob 127.0.0.1",
        "forgive 204 admin bob 127.0.0.1",
        "logout 204 admin 127.0.0.1",
    ];
    assert_eq!(lines, expected);
    for secret in ["sesame", admin.as_str(), ada.as_str(), &"s".repeat(32)] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// The lines of the audit log in a log of JSON.
fn audited(log: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if line["target"] == "audit" {
            let names = ["event", "outcome", "why", "subject", "document", "what", "address"];
            let told = names.iter().filter(|name| !line[**name].is_null());
            let told = told.map(|name| line[*name].to_string().replace('"', ""));
            lines.push(told.collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

/// Goal: no document comes of a file without a line that says who sent it. Method: whoever sends
/// one hangs up behind its last byte, a little later each time.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_by_whoever_hangs_up_is_in_the_audit_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut command = command(TIDELOG);
    command.envs([("TIDELOG_ADMIN_PASSWORD", "sesame"), ("TIDELOG_LOG_FORMAT", "json")]);
    begin(&path("data"), &["own"]).await;
    let running = Running::start_by(command, &path("data"), &[], &path("log"));
    let at = running.at;
    let token = log_in(at, "admin", "sesame").await;
    let json = json_of(&notes());
    assert_eq!(ask(at, "PUT", "/v1/doctypes/notes", Some(&token), &json).await.status, 201);
    let file = ask(at, "GET", "/v1/documents/own/export", Some(&token), "").await.body;
    for later in 0..60 {
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        let head = format!(
            "PUT /v1/documents/{later}?doctype=notes HTTP/1.1\r\nHost: {at}\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
            file.len()
        );
        stream.write_all(&[head.as_bytes(), &file].concat()).await.expect("sent");
        tokio::time::sleep(Duration::from_micros(100 * later)).await;
    }
    let count = async || {
        let listed = ask(at, "GET", "/v1/documents", Some(&token), "").await;
        let listed: serde_json::Value = serde_json::from_slice(&listed.body).expect("JSON");
        listed["documents"].as_array().expect("names").len()
    };
    let is_told = async || {
        let lines = audited(&std::fs::read_to_string(path("log")).expect("a text"));
        let imported = lines.iter().filter(|line| line.starts_with("import 201 ")).count();
        // One was there before.
        imported > 0 && count().await == imported + 1
    };
    assert!(comes(is_told).await, "{} documents", count().await);
}
