//! The binary as a process: how it starts, what is its owner's alone, and how it ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tidelog_server::{Server, ServerError};
use tidelog_sync::{ByeReason, FromRoom, FromServer, Refusal};
use tidelog_testing::room::{Copy, burner, frame, large_seed, notes, offer_of_a_life, open};
use tidelog_testing::server::{Client, Process, command, settings};
use tidelog_types::{JournalId, Position};

/// The binary.
const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

#[test]
fn wrong_usage_ends_with_2() {
    for args in [
        &["serve", "--dev", "--listen", "0.0.0.0:0"][..],
        &["serve", "--no-such-flag"],
        &["serve", "--config", "no/such/file.toml"],
        &[],
    ] {
        let output = command(TIDELOG).args(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_cannot_share_a_folder() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(&settings(data.path())).await.expect("a server");
    let second = Server::start(&settings(data.path())).await.err().expect("refused");
    assert!(matches!(second, ServerError::InUse { .. }), "{second}");
    let output = command(TIDELOG)
        .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another server has"), "{said}");
    server.stop().await;
    Server::start(&settings(data.path())).await.expect("it is free").stop().await;
}

/// V25.
#[cfg(target_os = "linux")]
#[test]
fn files_are_for_their_owner_and_as_many_may_be_open_as_the_system_allows() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let process = Process::start_with_few_files(TIDELOG, &data);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).expect("a folder") {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id()));
    let limits = limits.expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.expect("a line").split_whitespace();
    assert_eq!(numbers.next(), numbers.next(), "soft and hard");
    assert_eq!(process.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_says_goodbye_and_ends_with_0() {
    let data = tempfile::tempdir().expect("a folder");
    let process = Process::start(TIDELOG, data.path());
    let mut client = Client::connect(process.address).await.expect("up");
    let begun = Instant::now();
    let code = tokio::task::spawn_blocking(move || process.terminate());
    assert_eq!(client.hear().await, Some(FromServer::Bye { reason: ByeReason::Shutdown }));
    assert_eq!(code.await.expect("it ended"), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// Goal: no client makes the log as long as it likes, nor waits for it. Method: with the log that a
/// server has by itself, one asks for what is not there, and one says what cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_logged_of_clients_that_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let mut talkative = command(TIDELOG);
    talkative.env_remove("RUST_LOG").stderr(std::fs::File::create(&log).expect("a file"));
    let process = Process::start_by(talkative, &data);
    let logged = || std::fs::read_to_string(&log).expect("text");
    let before = logged();
    assert!(before.contains("serving"), "{before}");
    let mut client = Client::connect(process.address).await.expect("up");
    let had = Some(Position::start_of(JournalId([1; 16])));
    client.open("list", 1, had).await.expect("up");
    assert_eq!(client.hear_of().await, Some(FromRoom::Refused(Refusal::Missing)));
    client.say_bytes(b"nonsense".to_vec()).await.expect("up");
    assert_eq!(client.hear().await, Some(FromServer::Bye { reason: ByeReason::Version }));
    assert_eq!(logged(), before);
    assert_eq!(process.terminate(), Some(0));
}

/// Goal: an operator learns which document could not be migrated, and clients do not make the log
/// as long as they like. Method: one opens a document by a doctype that it cannot have, several
/// times.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_migrated_is_logged_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let mut talkative = command(TIDELOG);
    talkative.stderr(std::fs::File::create(&log).expect("a file"));
    let process = Process::start_by(talkative, &data);
    let mut impossible = notes();
    impossible.migrations.push("insert into note select 'first'".to_owned());
    let mut client = Client::connect(process.address).await.expect("up");
    client.open("list", 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    client.frames(1, vec![frame(&notes(), "add", "first")]).await.expect("up");
    let mut copy = Copy::default();
    client.acked(&mut copy, 2).await.expect("up");
    // An entry may come behind what is said of it.
    client.sync(&mut copy).await.expect("up");
    for _ in 0..3 {
        client.open_as("list", &impossible, 2, None).await.expect("up");
        let refused = client.hear_of().await;
        let is_refused = matches!(refused, Some(FromRoom::Refused(Refusal::DoctypeInvalid { .. })));
        assert!(is_refused, "{refused:?}");
    }
    let logged = std::fs::read_to_string(&log).expect("text");
    let lines: Vec<_> = logged.lines().filter(|it| it.contains("was not migrated")).collect();
    assert_eq!(lines.len(), 1, "{logged}");
    assert!(lines[0].contains("list") && lines[0].contains("UNIQUE constraint"), "{logged}");
    assert_eq!(process.terminate(), Some(0));
}

/// V11.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_does_within_ten_seconds() {
    let data = tempfile::tempdir().expect("a folder");
    for _ in 0..3 {
        assert_eq!(
            Process::start(TIDELOG, data.path()).terminate(),
            Some(0),
            "as soon as it listens"
        );
    }
    let process = Process::start(TIDELOG, data.path());
    let mut clients = Vec::new();
    // More rooms than threads, each with work for long; nobody reads what is said.
    for number in 0..8 {
        let mut client = Client::connect(process.address).await.expect("up");
        client.open_as(&format!("list {number}"), &burner(), 1, None).await.expect("up");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        clients.push(client);
    }
    // A local document half handed over, and one who has not said Hello.
    let (_, mut parts) = large_seed(64);
    parts.pop();
    let mut seeder = Client::connect(process.address).await.expect("up");
    seeder.tell(open("seed", 9, offer_of_a_life())).await.expect("up");
    for part in parts {
        seeder.tell(part).await.expect("up");
    }
    let silent = Client::connect_silently(process.address).await.expect("up");
    for client in &mut clients {
        let burn = |number: u64| frame(&burner(), "burn", &number.to_string());
        client.frames(1, (0..200).map(burn).collect()).await.expect("up");
    }
    let began = Instant::now();
    let ended = tokio::task::spawn_blocking(move || process.terminate()).await.expect("it ends");
    assert_eq!(ended, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    drop((clients, seeder, silent));
}

/// V11. Goal: so does one whose disk hangs as it starts, also where there is one core. Method: a
/// file that it reads then is a pipe into which nobody writes.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_is_told_to_stop_as_it_starts_does_within_ten_seconds() {
    for threads_count in ["1", "2"] {
        stop_as_it_starts(threads_count);
    }
}

#[cfg(target_os = "linux")]
fn stop_as_it_starts(threads_count: &str) {
    let data = tempfile::tempdir().expect("a folder");
    let pipe = data.path().join("marks");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let started = command(TIDELOG)
        .env("TOKIO_WORKER_THREADS", threads_count)
        .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .spawn();
    let mut child = started.expect("the binary starts");
    let id = child.id().to_string();
    let is_reading = || {
        let files = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it runs");
        files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|it| it == pipe))
    };
    let comes = |is_so: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        while !is_so() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        is_so()
    };
    let is_there = comes(&mut || is_reading());
    let told = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
    let has_ended = comes(&mut || child.try_wait().expect("it is ours").is_some());
    child.kill().expect("it is ours");
    let status = child.wait().expect("it is gone");
    assert!(is_there && told.success() && has_ended);
    assert_eq!(status.code(), Some(0));
}

/// V11. Goal: one that has begun to serve by then ends as any other, and has its successor be no
/// more careful. Method: it is told as soon as it has written down that it runs.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_is_told_to_stop_as_it_begins_to_serve_is_known_to_have_stopped() {
    use rustix::process::{Pid, Signal, kill_process};

    let data = tempfile::tempdir().expect("a folder");
    let marks = data.path().join("marks");
    let marked = |what: &str| std::fs::read_to_string(&marks).is_ok_and(|it| it.contains(what));
    for _ in 0..20 {
        let started = command(TIDELOG)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .stdout(Stdio::null())
            .spawn();
        let mut child = started.expect("the binary starts");
        let began = Instant::now();
        while !marked(r#""is_stopped":false"#) && began.elapsed() < Duration::from_secs(20) {
            std::hint::spin_loop();
        }
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
        assert_eq!(child.wait().expect("it is ours").code(), Some(0));
        assert!(marked(r#""is_stopped":true"#), "{:?}", std::fs::read_to_string(&marks));
    }
}

/// Goal: a server ends as any other, and has its successor be no more careful, with its terminal
/// closed, and with nobody who reads what it says.
#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_terminal_is_closed_or_whose_log_nobody_reads_ends_as_any_other() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

    for is_at_terminal in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).expect("a terminal");
        grantpt(&terminal).expect("ours");
        unlockpt(&terminal).expect("ours");
        let stream = || Stdio::from(ioctl_tiocgptpeer(&terminal, flags).expect("ours"));
        let mut serve = match is_at_terminal {
            true => {
                let mut session = command("setsid");
                session.args(["--ctty", TIDELOG]).stdin(stream());
                session
            }
            false => command(TIDELOG),
        };
        serve.env("RUST_LOG", "info").args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"]);
        let (stdout, stderr) = match is_at_terminal {
            true => (stream(), stream()),
            false => (Stdio::piped(), Stdio::piped()),
        };
        let mut child = serve.arg(&data).stdout(stdout).stderr(stderr).spawn().expect("it starts");
        drop(serve);
        // It says where it listens to nobody already.
        drop((child.stdout.take(), child.stderr.take()));
        let is_ready =
            || std::fs::read_to_string(data.join("marks")).is_ok_and(|it| !it.is_empty());
        let began = Instant::now();
        while !is_ready() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(200));
        let id = child.id().to_string();
        let tell = |signal: &str| {
            let told = Command::new("kill").args([signal, id.as_str()]).status();
            assert!(told.expect("kill runs").success());
        };
        tell("-HUP");
        std::thread::sleep(Duration::from_millis(300));
        let status = child.try_wait().expect("it is ours");
        assert!(status.is_none(), "it is told to read its settings, and its terminal is there");
        drop(terminal);
        if !is_at_terminal {
            tell("-TERM");
        }
        let mut status = None;
        while status.is_none() && began.elapsed() < Duration::from_secs(40) {
            status = child.try_wait().expect("it is ours");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("it is ours");
        child.wait().expect("it is gone");
        assert_eq!(status.and_then(|it| it.code()), Some(0), "at a terminal: {is_at_terminal}");
        let marks = std::fs::read_to_string(data.join("marks")).expect("written");
        assert!(marks.contains(r#""is_stopped":true"#), "{marks}");
    }
}
