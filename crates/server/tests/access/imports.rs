//! `tidelog import`, beside a server and without one, and `tidelog ready`.

#![cfg(unix)]

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tidelog_testing::server::texts;

use crate::commands::{code, complained, file, run_with, said};
use crate::common::{ROLES, SECRET, Scene, app_keys, ask, start, token};
use crate::doctypes::notes;
use crate::documents::{changed, deploy};
use crate::process::Running;

/// The command for this folder. A process that another test has just begun has the files of a
/// server that was stopped open until it runs its own program.
async fn run(data: &Path, args: &[&str], input: &[u8]) -> Output {
    let data = data.to_str().expect("a text").to_owned();
    let args = args.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let input = input.to_vec();
    let tried = move || {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let once = || run_with(&args, &[("TIDELOG_DATA", &data)], &input);
        let mut output = once();
        for _ in 0..20 {
            if !complained(&output).contains("a server has") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            output = once();
        }
        output
    };
    tokio::task::spawn_blocking(tried).await.expect("no panic")
}

/// Goal: what an operator types does as the address over HTTP does, and a server that is stopped
/// gets the same document. Method: the same files, with a server and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_a_document_whether_the_server_runs_or_not() {
    let mut scene = Scene::new(&["lists/own"]).await;
    let root = token(ROLES[6].1);
    deploy(&scene, &notes()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = scene.bytes_of("lists/own").await;
    let more = "with recursive n(i) as (values (1) union all select i + 1 from n where i < 3000)
                insert into log (id) select hex(zeroblob(500)) || i from n";
    let large = changed(&bytes, more);
    let (small_file, large_file) =
        (file(folder.path(), "small", &bytes), file(folder.path(), "large", &large));
    let nonsense = file(folder.path(), "nonsense", "sesame".repeat(1000));
    let data = scene.data.path().to_owned();
    for kind in ["running", "stopped"] {
        let import = async |id: &str, file: &str, more: &[&str], input: &[u8]| {
            let id = format!("lists/{kind}/{id}");
            let args = [&["import", id.as_str(), file, "--doctype", "notes"], more].concat();
            run(&data, &args, input).await
        };
        let output = import("small", &small_file, &[], b"").await;
        assert_eq!(code(&output), Some(0), "{kind}: {}", complained(&output));
        assert_eq!(
            said(&output),
            format!("document lists/{kind}/small is there, of doctype notes\n")
        );
        let output = import("large", &large_file, &["--json"], b"").await;
        assert_eq!(code(&output), Some(0), "{kind}: {}", complained(&output));
        let told: Value = serde_json::from_str(&said(&output)).expect("JSON");
        assert_eq!(told["document"], format!("lists/{kind}/large"));
        assert_eq!((&told["doctype"], &told["next_lsn"]), (&"notes".into(), &2.into()));
        let output = import("piped", "-", &[], &large).await;
        assert_eq!(code(&output), Some(0), "{kind}: {}", complained(&output));

        let cases: [(&str, &str, &[&str], i32, &str); 5] = [
            ("small", &large_file, &[], 1, "the document exists"),
            ("new", &nonsense, &[], 1, "no SQLite file"),
            ("new", "-", &[], 1, "no SQLite file"),
            ("new", "no/such/file", &[], 2, "no/such/file"),
            ("new", &small_file, &["--no-such-flag"], 2, "--no-such-flag"),
        ];
        for (id, file, more, expected, why) in cases {
            let output = import(id, file, more, b"").await;
            assert_eq!(code(&output), Some(expected), "{why}: {}", complained(&output));
            assert!(complained(&output).contains(why), "{why}: {}", complained(&output));
        }
        for (args, why) in [
            (&["import", "new", &small_file, "--doctype", "absent"][..], "no doctype absent"),
            (&["import", "", &small_file, "--doctype", "notes"], "that name"),
        ] {
            let output = run(&data, args, b"").await;
            assert_eq!(code(&output), Some(1), "{why}: {}", complained(&output));
            assert!(complained(&output).contains(why), "{why}: {}", complained(&output));
        }
        if let Some(server) = scene.server.take() {
            server.stop().await;
        }
    }
    let nowhere = folder.path().join("nowhere");
    let output = run(&nowhere, &["import", "a", &small_file, "--doctype", "notes"], b"").await;
    assert_eq!(code(&output), Some(2), "{}", complained(&output));
    assert!(!nowhere.exists(), "nothing is made there");

    let server = start(&data, app_keys()).await;
    scene.at = server.address();
    let listed = ask(scene.at, "GET", "/v1/documents", Some(&root), "").await;
    let listed: Value = serde_json::from_slice(&listed.body).expect("JSON");
    let ids = ["running/large", "running/piped", "running/small", "stopped/large"];
    let ids = [&["own"], &ids[..], &["stopped/piped", "stopped/small"]].concat();
    let ids: Vec<_> = ids.into_iter().map(|id| format!("lists/{id}")).collect();
    assert_eq!(listed["documents"], serde_json::json!(ids));
    for kind in ["running", "stopped"] {
        assert!(scene.bytes_of(&format!("lists/{kind}/small")).await == bytes, "byte for byte");
        let rows = "select count(*) || '' from log";
        for name in ["large", "piped"] {
            let file = scene.bytes_of(&format!("lists/{kind}/{name}")).await;
            assert_eq!(texts(&file, rows), ["3000"]);
        }
    }
    server.stop().await;
}

/// Goal: a command that dies amid a file leaves nothing behind. Method: its words, without the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_broken_off_is_none() {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    let scene = Scene::new(&["lists/own"]).await;
    let root = token(ROLES[6].1);
    deploy(&scene, &notes()).await;
    let bytes = scene.bytes_of("lists/own").await;
    let control = scene.data.path().join("control");
    for sent in [0, bytes.len() / 2, bytes.len() - 1] {
        let stream = tokio::net::UnixStream::connect(&control).await.expect("it listens");
        let mut stream = BufReader::new(stream);
        let size = bytes.len();
        let asked = format!(
            "{{\"ask\":\"import\",\"document\":\"new\",\"doctype\":\"notes\",\"size\":{size}}}\n"
        );
        stream.get_mut().write_all(asked.as_bytes()).await.expect("sent");
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("answered");
        assert_eq!(line, "{\"wanted\":true}\n");
        stream.get_mut().write_all(&bytes[..sent]).await.expect("sent");
        drop(stream);
        let there = ask(scene.at, "GET", "/v1/documents/new", Some(&root), "").await;
        assert_eq!(there.status, 404);
    }
    let output = run(scene.data.path(), &["export", "lists/own", "-"], b"").await;
    assert!(output.stdout == bytes, "it goes on: {}", complained(&output));
    scene.stop().await;
}

/// Goal: nothing in a file is taken for something that a command asks. Method: a file that has a
/// question in it, to a server that cannot put it on its disk, since its folder has another name.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_file_that_is_refused_asks_for_nothing() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let scene = Scene::new(&["lists/own"]).await;
    deploy(&scene, &notes()).await;
    let question = b"\n{\"ask\":\"export\",\"document\":\"lists/own\"}\n";
    let size = 2 * question.len();
    let stream = tokio::net::UnixStream::connect(scene.data.path().join("control")).await;
    let (mut read, mut write) = stream.expect("it listens").into_split();
    let elsewhere = scene.data.path().with_extension("elsewhere");
    std::fs::rename(scene.data.path(), &elsewhere).expect("moved");
    let asked = format!(
        "{{\"ask\":\"import\",\"document\":\"new\",\"doctype\":\"notes\",\"size\":{size}}}\n"
    );
    write.write_all(asked.as_bytes()).await.expect("sent");
    let mut heard = Vec::new();
    while !heard.ends_with(b"}\n{\"error\"") {
        heard.push(read.read_u8().await.expect("answered"));
    }
    // Whoever is refused may have gone by then.
    let _ = write.write_all(&[&question[..], question].concat()).await;
    let _ = write.shutdown().await;
    let _ = read.read_to_end(&mut heard).await;
    std::fs::rename(&elsewhere, scene.data.path()).expect("moved back");
    let lines: Vec<_> = heard.split(|it| *it == b'\n').map(String::from_utf8_lossy).collect();
    assert!(lines.len() == 3 && lines[2].is_empty(), "two answers: {lines:?}");
    assert!(lines[1].starts_with("{\"error\""), "{lines:?}");
    scene.stop().await;
}

/// Goal: an operator locks somebody out, and lets them in again, without a token. Method: both, of
/// a server that runs and of one that is stopped; the log tells of the former.
#[tokio::test(flavor = "multi_thread")]
async fn a_subject_is_revoked_and_forgiven_whether_the_server_runs_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let secret = file(folder.path(), "secret", SECRET);
    let args = ["--log-format", "json", "--token-secret-file", &secret];
    let serve = || Running::start(&data, &args, &log);
    let status = async |running: &Running| {
        ask(running.at, "GET", "/v1/documents", Some(&token(ROLES[6].1)), "").await.status
    };
    let done = async |args: &[&str], expected: i32| {
        let output = run(&data, args, b"").await;
        assert_eq!(code(&output), Some(expected), "{args:?}: {}", complained(&output));
        [said(&output), complained(&output)].concat()
    };
    let running = serve();
    assert_eq!(status(&running).await, 200);
    assert_eq!(done(&["revoke", "ada"], 0).await, "tokens of ada are ended\n");
    assert_eq!(status(&running).await, 401);
    assert!(done(&["forgive", "eve"], 1).await.contains("no tokens of eve"));
    assert!(done(&["revoke", "a\n"], 1).await.contains("control characters"));
    assert_eq!(done(&["forgive", "ada", "--json"], 0).await, "{\"forgiven\":\"ada\"}\n");
    assert_eq!(status(&running).await, 200);
    let text = std::fs::read_to_string(&log).expect("a text");
    for (event, what) in [("revoke", "ada"), ("forgive", "ada")] {
        let told = format!("\"event\":\"{event}\",\"what\":\"{what}\",\"outcome\":204");
        assert!(text.contains(&told), "{told}: {text}");
    }
    drop(running);
    assert_eq!(done(&["revoke", "ada", "--json"], 0).await, "{\"revoked\":\"ada\"}\n");
    let running = serve();
    assert_eq!(status(&running).await, 401);
    drop(running);
    assert_eq!(done(&["forgive", "ada"], 0).await, "tokens of ada hold again\n");
    assert!(done(&["forgive", "--everybody"], 1).await.contains("no tokens of everybody"));
    done(&["forgive", "ada", "--everybody"], 2).await;
    done(&["forgive"], 2).await;
    assert_eq!(status(&serve()).await, 200);
    let nowhere = folder.path().join("nowhere");
    let output = run(&nowhere, &["revoke", "ada"], b"").await;
    assert_eq!(code(&output), Some(2), "{}", complained(&output));
    assert!(!nowhere.exists(), "nothing is made there");
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_says_whether_a_server_serves_clients() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let ready = async |more: &[&str]| run(&data, &[&["ready"], more].concat(), b"").await;
    let output = ready(&[]).await;
    assert_eq!(code(&output), Some(1));
    assert!(complained(&output).contains("no server runs in"), "{}", complained(&output));
    let secret = file(folder.path(), "secret", SECRET);
    let running =
        Running::start(&data, &["--token-secret-file", &secret], &folder.path().join("log"));
    let output = ready(&[]).await;
    assert_eq!((code(&output), said(&output).as_str()), (Some(0), "ready\n"));
    assert_eq!(said(&ready(&["--json"]).await), "{\"ready\":true}\n");
    // One that hangs is not waited for for ever.
    let hanging = folder.path().join("hanging");
    std::fs::create_dir(&hanging).expect("a folder");
    let _listener = std::os::unix::net::UnixListener::bind(hanging.join("control")).expect("bound");
    let began = std::time::Instant::now();
    let output = run(&hanging, &["ready"], b"").await;
    assert_eq!(code(&output), Some(1));
    assert!(complained(&output).contains("does not answer"), "{}", complained(&output));
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    // One that was killed leaves its socket.
    drop(running);
    assert!(data.join("control").exists());
    assert_eq!(code(&ready(&[]).await), Some(1));
}
