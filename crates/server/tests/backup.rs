//! Backups: of a server that runs and of one that does not, and what is made of them.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelog_access::{Key, Keys, Role};
use tidelog_server::{AccessSettings, Password, ServeSettings, Server};
use tidelog_sync::FromRoom;
use tidelog_testing::room::{Copy, frame, notes};
use tidelog_testing::server::{
    Client, Process, Writer, command, http, settings, start_when_free, texts,
};
use tokio::task::spawn_blocking;

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

/// The command with these, and what came of it. That a server has the folder is believed only after
/// a while: a process that another test has just begun has the files of one that was stopped open
/// until it runs its own program.
async fn run(args: &[&str], paths: &[&Path]) -> Output {
    let mut command = command(TIDELOG);
    command.args(args).args(paths);
    let tried = move || {
        let mut output = command.output().expect("it runs");
        for _ in 0..20 {
            if !complained(&output).contains("a server has") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            output = command.output().expect("it runs");
        }
        output
    };
    spawn_blocking(tried).await.expect("no panic")
}

async fn backup(data: &Path, to: &Path) -> Output {
    run(&["backup", "--data"], &[data, to]).await
}

async fn restore(from: &Path, data: &Path) -> Output {
    run(&["restore", "--data"], &[data, from]).await
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", complained(output));
}

/// A server that has a document with this note.
async fn with_note(data: &Path, note: &str) {
    let server = start_when_free(&settings(data)).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open("list", 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    client.frames(1, vec![frame(&notes(), "add", note)]).await.expect("up");
    client.acked(&mut Copy::default(), 2).await.expect("up");
    server.stop().await;
}

async fn logged(process: &Process) -> Vec<String> {
    let (status, file) = http(process.address, "GET", "/v1/documents/shared/export", "").await;
    assert_eq!(status, 200);
    texts(&file, "select id from log order by number")
}

/// Goal: all that was confirmed before a backup began is in it, and what is in it is of one moment,
/// while the server is written to as fast as it can be. Method: two clients write one after the
/// other, by turns, so that a gap would show; so much that the log goes over to its other file
/// again and again; each backup becomes a server.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_busy_server_has_all_that_was_confirmed_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let process = Process::start(TIDELOG, &data);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&data.join("control")), 0o600);
    let address = process.address;
    let confirmed = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&confirmed);
    let writing = tokio::spawn(async move {
        let mut writer = Writer::new(1);
        writer
            .write_until(address, |acked| {
                told.store(acked, Ordering::SeqCst);
                acked > 6_000
            })
            .await
            .expect("the server runs");
        writer
    });
    let bulk = tokio::spawn(async move {
        let mut client = Client::connect(address).await.expect("up");
        client.open("bulk", 2, None).await.expect("up");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        let mut copy = Copy::default();
        for number in 1..120 {
            let frames = vec![frame(&notes(), "bulk", &number.to_string())];
            client.frames(number, frames).await.expect("up");
            client.acked(&mut copy, number + 1).await.expect("up");
        }
    });
    let mut backups = Vec::new();
    while !writing.is_finished() || backups.is_empty() {
        let before = confirmed.load(Ordering::SeqCst);
        let file = folder.path().join(format!("backup-{}", backups.len()));
        is_done(&backup(&data, &file).await);
        // Whoever looks through it meanwhile sees one moment too.
        is_done(&run(&["check", "--data"], &[&data]).await);
        assert_eq!(mode(&file), 0o600);
        backups.push((before, file));
    }
    writing.await.expect("no panic");
    bulk.await.expect("no panic");
    assert!(backups.len() > 2, "{} backups beside the writing", backups.len());
    let step = backups.len().div_ceil(4);
    for (index, (before, file)) in backups.iter().enumerate().step_by(step) {
        let again = folder.path().join(format!("again-{index}"));
        is_done(&restore(file, &again).await);
        let restored = Process::start(TIDELOG, &again);
        if *before > 1 {
            let ids = logged(&restored).await;
            assert!(ids.len() as u64 >= before - 1, "{} of {before}", ids.len());
            let expected: Vec<_> = (1..=ids.len()).map(|number| format!("1 {number}")).collect();
            assert!(ids == expected, "each once, in order");
        }
        let (status, _) = http(restored.address, "GET", "/readyz", "").await;
        assert_eq!(status, 200);
        assert_eq!(restored.terminate(), Some(0));
        is_done(&run(&["check", "--data"], &[&again]).await);
    }
    assert_eq!(process.terminate(), Some(0));
    assert!(!data.join("control").exists(), "it goes with its server");
}

/// Goal: who has seen more than a backup has notices it, and goes on. Method: a client confirms
/// something behind the backup, and follows the server that is made of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_seen_more_than_a_backup_has_takes_the_document_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, again) = (folder.path().join("data"), folder.path().join("again"));
    let file = folder.path().join("backup");
    let server = start_when_free(&settings(&data)).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open("list", 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    let mut copy = Copy::default();
    client.frames(1, vec![frame(&notes(), "add", "before")]).await.expect("up");
    client.acked(&mut copy, 2).await.expect("up");
    is_done(&backup(&data, &file).await);
    client.frames(2, vec![frame(&notes(), "add", "behind")]).await.expect("up");
    client.acked(&mut copy, 3).await.expect("up");
    client.sync(&mut copy).await.expect("up");
    server.stop().await;

    is_done(&restore(&file, &again).await);
    let server = start_when_free(&settings(&again)).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open("list", 1, copy.position).await.expect("up");
    let Some(FromRoom::Opened { from, wanted, .. }) = client.hear_of().await else {
        panic!("opened")
    };
    assert_eq!((from.get(), wanted.get()), (1, 2), "the whole document, and what was lost again");
    server.stop().await;
}

/// The names of what a backup has, and all of its bytes.
fn names(file: &Path) -> (Vec<String>, Vec<u8>) {
    let bytes = std::fs::read(file).expect("a backup");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().expect("a tar");
    let name = |entry: std::io::Result<tar::Entry<'_, _>>| {
        entry.expect("an entry").path().expect("a name").to_str().expect("a text").to_owned()
    };
    (entries.map(name).collect(), bytes.clone())
}

/// Goal: no key is in a backup, and none of before is worth anything behind it. Method: a login's
/// token at the server that is made of a backup, where the same password logs in.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_in_a_backup_and_logins_of_before_are_void() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, again) = (folder.path().join("data"), folder.path().join("again"));
    let file = folder.path().join("backup");
    with_note(&data, "kept").await;
    let passwords = [(Role::Admin, Password::Plain("sesame".to_owned()))].into();
    let access = AccessSettings { passwords, ..AccessSettings::default() };
    let guarded =
        |data: &Path| ServeSettings { dev: false, access: access.clone(), ..settings(data) };
    let server = start_when_free(&guarded(&data)).await;
    let doctype = folder.path().join("notes.json");
    std::fs::write(&doctype, r#"{"name":"n","migrations":[],"mutations":{}}"#).expect("written");
    let log_in = async |server: &Server| {
        let body = "{\"user\":\"admin\",\"password\":\"sesame\"}";
        let extra = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        // The line that would end the header ends the body.
        let (status, answer) = http(server.address(), "POST", "/v1/login", &extra).await;
        assert_eq!(status, 200);
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        answer["token"].as_str().expect("a text").to_owned()
    };
    let listed = async |server: &Server, token: &str, path: &str| {
        let extra = format!("Authorization: Bearer {token}\r\n");
        http(server.address(), "GET", path, &extra).await
    };
    let token = log_in(&server).await;
    assert_eq!(listed(&server, &token, "/v1/documents").await.0, 200);
    let (address, path) = (format!("http://{}", server.address()), folder.path().join("token"));
    std::fs::write(&path, &token).expect("written");
    let deploy = ["deploy", "--server", &address, "--token-file"];
    is_done(&run(&deploy, &[&path, &doctype]).await);
    let logout = format!("Authorization: Bearer {}\r\n", log_in(&server).await);
    assert_eq!(http(server.address(), "POST", "/v1/logout", &logout).await.0, 204);
    is_done(&backup(&data, &file).await);
    let (names, bytes) = names(&file);
    let own: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("access.json")).expect("a file"))
            .expect("JSON");
    let secret = own["secret"].as_str().expect("a text").as_bytes().to_vec();
    assert!(!bytes.windows(secret.len()).any(|it| it == secret));
    assert_eq!(names[..3], ["backup.json", "log-a", "pages"]);
    assert_eq!(names[3], "revocations.json");
    assert!(names[4].starts_with("doctypes/000000-") && names[5] == "checksums.json");
    server.stop().await;

    is_done(&restore(&file, &again).await);
    let ended = |folder: &Path| {
        let json = std::fs::read(folder.join("revocations.json")).expect("a file");
        let ended: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        ended["tokens"].as_object().expect("an object").clone()
    };
    assert!(!ended(&again).is_empty());
    assert_eq!(ended(&again), ended(&data), "what was ended stays so");
    let server = start_when_free(&guarded(&again)).await;
    assert_eq!(listed(&server, &token, "/v1/documents").await.0, 401);
    let token = log_in(&server).await;
    let (status, documents) = listed(&server, &token, "/v1/documents").await;
    assert_eq!((status, documents.as_slice()), (200, &b"{\"documents\":[\"list\"]}"[..]));
    let (_, doctypes) = listed(&server, &token, "/v1/doctypes").await;
    assert!(String::from_utf8_lossy(&doctypes).contains("\"name\":\"n\""));
    server.stop().await;
}

/// Goal: nobody is let in again who was locked out since a backup was made. Method: a token of
/// before, whose subject is revoked behind the backup, at the server that is made of that; and at
/// one for which the operator says that nobody was.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_before_are_void_in_what_is_restored() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (data, file) = (path("data"), path("backup"));
    with_note(&data, "kept").await;
    let secret = "s".repeat(32);
    std::fs::write(path("secret"), &secret).expect("written");
    let keys = Keys::new([Key::from_secret(secret.as_bytes()).expect("a key")]).expect("few");
    let access = AccessSettings { keys, ..AccessSettings::default() };
    let guarded =
        |data: &Path| ServeSettings { dev: false, access: access.clone(), ..settings(data) };
    let token = async |subject: &str| {
        let args = [
            "token",
            "--subject",
            subject,
            "--grant",
            "*:admin",
            "--expires",
            "1h",
            "--secret-file",
        ];
        let output = run(&args, &[&path("secret")]).await;
        is_done(&output);
        String::from_utf8(output.stdout).expect("a text").trim().to_owned()
    };
    let status = async |server: &Server, token: &str| {
        let extra = format!("Authorization: Bearer {token}\r\n");
        http(server.address(), "GET", "/v1/documents", &extra).await.0
    };
    let (ada, operator) = (token("ada").await, token("operator").await);
    let server = start_when_free(&guarded(&data)).await;
    assert_eq!(status(&server, &ada).await, 200);
    is_done(&backup(&data, &file).await);
    let body = "{\"subject\":\"ada\"}";
    let size = body.len();
    let extra = format!("Authorization: Bearer {operator}\r\nContent-Length: {size}\r\n\r\n{body}");
    assert_eq!(http(server.address(), "POST", "/v1/revoke", &extra).await.0, 204);
    server.stop().await;

    for (into, args, expected) in [
        ("again", &["restore", "--data"][..], 401),
        ("kept", &["restore", "--keep-tokens", "--data"], 200),
    ] {
        is_done(&run(args, &[&path(into), &file]).await);
        let server = start_when_free(&guarded(&path(into))).await;
        for token in [&ada, &operator] {
            assert_eq!(status(&server, token).await, expected, "{into}");
        }
        server.stop().await;
    }
}

/// Goal: what is no whole backup becomes no server, and nothing is left of it. Method: each way in
/// which a file is cut off or changed.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_whole_backup_is_restored_and_only_into_an_empty_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (file, wrong) = (folder.path().join("backup"), folder.path().join("wrong"));
    with_note(&data, "kept").await;
    // Of a server that is stopped, and to where nobody looks.
    is_done(&backup(&data, &file).await);
    let whole = std::fs::read(&file).expect("a backup");
    let refused = async |from: &Path, into: &Path, code: i32, why: &str| {
        let output = restore(from, into).await;
        assert_eq!(output.status.code(), Some(code), "{why}: {}", complained(&output));
        assert!(complained(&output).contains(why), "{why}: {}", complained(&output));
    };
    refused(&file, &data, 2, "is not empty").await;
    refused(&folder.path().join("absent"), &folder.path().join("new"), 2, "absent").await;
    let into = folder.path().join("into");
    let flipped = |at: usize| {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        flipped
    };
    let newer =
        String::from_utf8_lossy(&whole[512..600]).find("\"format\":1").expect("it says") + 521;
    let end = whole.len() - whole.len() % 512;
    let mut cases = vec![
        (Vec::new(), "too early"),
        (b"sesame".repeat(1000), "backup"),
        (whole[..end / 2].to_vec(), "backup"),
        (whole[..1024 + 512 + 9000].to_vec(), "backup"),
        (flipped(newer).to_vec(), "format"),
    ];
    // In the log, in the page file, and in what is said of them.
    for part in 1..16 {
        cases.push((flipped(1024 + (whole.len() - 4096) * part / 16), ""));
    }
    let mut unchanged = 0;
    for (index, (bytes, why)) in cases.into_iter().enumerate() {
        std::fs::write(&wrong, bytes).expect("written");
        let output = restore(&wrong, &into).await;
        // The padding of a tar says nothing.
        if index >= 5 && output.status.code() == Some(0) {
            unchanged += 1;
            std::fs::remove_dir_all(&into).expect("it is there");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{index}: {}", complained(&output));
        assert!(complained(&output).contains(why), "{why}: {}", complained(&output));
        let left = std::fs::read_dir(&into).expect("a folder").count();
        assert_eq!(left, 0, "{index}: {}", complained(&output));
    }
    assert!(unchanged < 3, "{unchanged}");
    is_done(&restore(&file, &into).await);
    let server = start_when_free(&settings(&into)).await;
    let (_, exported) = http(server.address(), "GET", "/v1/documents/list/export", "").await;
    assert_eq!(texts(&exported, "select id from note"), ["kept"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_checked_and_exported_whether_it_runs_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    with_note(&data, "kept").await;
    let (stopped, running) = (folder.path().join("stopped"), folder.path().join("running"));
    let check = async || {
        let check = run(&["check", "--json", "--data"], &[&data]).await;
        is_done(&check);
        serde_json::from_slice::<serde_json::Value>(&check.stdout).expect("JSON")
    };
    let found = check().await;
    assert_eq!((&found["documents"], &found["damages"]), (&1.into(), &serde_json::json!([])));
    assert!(found["pages"].as_u64() > Some(3), "{found}");
    is_done(&run(&["export", "--data"], &[&data, Path::new("list"), &stopped]).await);

    let server = start_when_free(&settings(&data)).await;
    let (_, exported) = http(server.address(), "GET", "/v1/documents/list/export", "").await;
    assert_eq!(check().await, found);
    let told = run(&["export", "--json", "--data"], &[&data, Path::new("list"), &running]).await;
    is_done(&told);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!((&told["document"], &told["size_bytes"]), (&"list".into(), &exported.len().into()));
    let piped = run(&["export", "--data"], &[&data, Path::new("list"), Path::new("-")]).await;
    is_done(&piped);
    let files = [stopped, running].map(|file| std::fs::read(file).expect("a file"));
    for file in files.iter().chain([&piped.stdout]) {
        assert!(*file == exported, "as the server exports it");
    }
    for document in ["absent", "other/\u{1}é"] {
        let file = folder.path().join("absent");
        let absent = run(&["export", "--data"], &[&data, Path::new(document), &file]).await;
        assert_eq!(absent.status.code(), Some(1), "{}", complained(&absent));
        assert!(!file.exists());
    }
    let both = [data.as_path(), Path::new("list"), Path::new("-")];
    let both = run(&["export", "--json", "--data"], &both).await;
    assert_eq!(both.status.code(), Some(2), "both would go to standard output");
    // One that has the folder and is not heard is no reason to open it as well.
    std::fs::remove_file(data.join("control")).expect("it is there");
    let file = folder.path().join("file");
    for args in [&["check", "--data"][..], &["export", "--data"], &["backup", "--data"]] {
        let more: &[&Path] = &[&data, Path::new("list"), &file];
        let paths = match args[0] {
            "check" => more[..1].to_vec(),
            "backup" => vec![more[0], more[2]],
            _ => more.to_vec(),
        };
        let output = run(args, &paths).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(complained(&output).contains("a server has"), "{}", complained(&output));
    }
    server.stop().await;
    let absent = run(&["export", "--data"], &[&data, Path::new("absent"), &file]).await;
    assert_eq!(absent.status.code(), Some(1));
    let nowhere: PathBuf = folder.path().join("nowhere");
    for args in [&["check", "--data"][..], &["backup", "--data"]] {
        let paths: &[&Path] = &[&nowhere, &file];
        let output = run(args, if args[0] == "check" { &paths[..1] } else { paths }).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", complained(&output));
    }
    assert!(!nowhere.exists(), "nothing is made there");

    // A page that rots is found, and such a store is not copied.
    let path = data.join("log-a");
    let mut log = std::fs::read(&path).expect("a log");
    let at = 8192 + 600;
    log[at..at + 64].fill(0xff);
    std::fs::write(&path, log).expect("written");
    let output = run(&["check", "--data"], &[&data]).await;
    assert_eq!(output.status.code(), Some(1), "{}", complained(&output));
    let copied = folder.path().join("copied");
    assert_eq!(backup(&data, &copied).await.status.code(), Some(1));
    assert!(!copied.exists());
}

/// Goal: what rots under a server that runs is found before it is needed. Method: bytes of its log
/// change on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_what_has_rotted_under_a_running_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    with_note(&data, "kept").await;
    let server = start_when_free(&settings(&data)).await;
    let check = async || run(&["check", "--data"], &[&data]).await;
    is_done(&check().await);
    let path = data.join("log-a");
    let whole = std::fs::read(&path).expect("a log");
    let mut log = whole.clone();
    log[8192 + 600..8192 + 664].fill(0xff);
    std::fs::write(&path, log).expect("written");
    let found = check().await;
    assert_eq!(found.status.code(), Some(1), "{}", complained(&found));
    assert!(complained(&found).contains("put a backup in its place"), "{}", complained(&found));
    // Nothing was written by whoever looked.
    std::fs::write(&path, &whole).expect("written");
    is_done(&check().await);
    assert!(std::fs::read(&path).expect("a log") == whole);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_what_is_made_of_it_are_told_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data, file, into] = ["data", "file", "into"].map(|name| folder.path().join(name));
    with_note(&data, "kept").await;
    let told = async |args: &[&str], paths: &[&Path]| {
        let output = run(args, paths).await;
        is_done(&output);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("a line of JSON")
    };
    let made = told(&["backup", "--json", "--data"], &[&data, &file]).await;
    let size = std::fs::metadata(&file).expect("a backup").len();
    assert_eq!(made, serde_json::json!({ "file": file, "size_bytes": size }));
    let restored = told(&["restore", "--json", "--data"], &[&into, &file]).await;
    assert_eq!((&restored["documents"], &restored["data"]), (&1.into(), &serde_json::json!(into)));
    assert!(restored["at_s"].as_u64() > Some(1_700_000_000), "{restored}");
    let both = run(&["backup", "--json", "--data"], &[&data, Path::new("-")]).await;
    assert_eq!(both.status.code(), Some(2), "both would go to standard output");
    assert!(both.stdout.is_empty());
}
