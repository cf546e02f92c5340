//! What an operator types, by the binary.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tidelog_access::PasswordHash;
use tidelog_document::Doctype;
use tidelog_testing::room::notes;
use tidelog_testing::server::command;

use crate::common::{ROLES, SECRET, Scene, ask, token};
use crate::doctypes::json_of;

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

/// Runs it with these variables, and this on its standard input.
pub fn run_with(args: &[&str], variables: &[(&str, &str)], input: &[u8]) -> Output {
    let mut command = command(TIDELOG);
    let piped = command.args(args).envs(variables.iter().copied()).stdin(Stdio::piped());
    let child = piped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("it runs");
    // It may end before it reads.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn run(args: &[&str]) -> Output {
    run_with(args, &[], b"")
}

pub fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file in the folder, by its name.
pub fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    path.to_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_sends_a_doctype_and_says_what_it_is_known_by() {
    let scene = Scene::new(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let named = Doctype { name: "notes/é ?".to_owned(), ..notes() };
    let json = json_of(&named);
    let doctype = file(folder, "notes.json", &json);
    let root = token(ROLES[6].1);
    let token_file = file(folder, "token", format!("{root}\n"));
    let server = format!("http://{}", scene.at);
    let deploy = ["deploy", &doctype, "--server", &server, "--token-file", &token_file];
    let first = run(&deploy);
    assert_eq!(code(&first), Some(0), "{}", complained(&first));
    let hash: String = hash_of(&json);
    let line = format!("doctype notes/é ? is deployed: version 2, hash {hash}\n");
    assert_eq!(said(&first), line);

    // Again, from standard input, with a token from the environment, for another program.
    let variables = [("TIDELOG_TOKEN", root.as_str()), ("TIDELOG_SERVER", &server)];
    let again = run_with(&["deploy", "-", "--json"], &variables, json.as_bytes());
    assert_eq!(code(&again), Some(0), "{}", complained(&again));
    let answer: Value = serde_json::from_str(&said(&again)).expect("JSON");
    assert_eq!(answer, json!({ "name": named.name, "hash": hash, "version": 2, "new": false }));
    let listed = ask(scene.at, "GET", "/v1/doctypes", Some(&root), "").await;
    assert!(listed.text().contains(&hash), "{}", listed.text());
    scene.stop().await;
}

/// The hash of the doctype by the encoding of clients, with its mutations sorted as theirs.
fn hash_of(json: &str) -> String {
    let mut doctype = Doctype { name: "notes/é ?".to_owned(), ..notes() };
    assert_eq!(json_of(&doctype), json);
    doctype.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    doctype.hash().0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_says_why_nothing_was_deployed() {
    let scene = Scene::new(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let doctype = file(folder, "notes.json", json_of(&notes()));
    let nonsense = file(folder, "nonsense.json", "sesame");
    let admin = file(folder, "token", token(ROLES[5].1));
    let server = format!("http://{}", scene.at);
    let (no_server, empty) = ("http://127.0.0.1:1", file(folder, "empty", ""));
    let cases: [(&[&str], i32, &str); 8] = [
        (&[&doctype, "--server", &server], 1, "401"),
        (&[&doctype, "--server", &server, "--token-file", &admin], 1, "admin on *"),
        (&[&nonsense, "--server", &server, "--token-file", &admin], 1, "JSON.stringify"),
        (&[&doctype, "--server", no_server], 1, no_server),
        (&[&doctype, "--server", "127.0.0.1:8787"], 2, "no address of a server"),
        (&["no/such/file", "--server", &server], 2, "no/such/file"),
        (&[&doctype, "--server", &server, "--token-file", &empty], 2, "no token"),
        (&[&doctype], 2, "--server"),
    ];
    for (args, expected, named) in cases {
        let output = run(&[&["deploy"], args].concat());
        assert_eq!(code(&output), Some(expected), "{args:?}: {}", complained(&output));
        assert!(complained(&output).contains(named), "{args:?}: {}", complained(&output));
        assert!(!complained(&output).contains("sesame"), "{}", complained(&output));
    }
    let listed = ask(scene.at, "GET", "/v1/doctypes", Some(&token(ROLES[6].1)), "").await;
    assert_eq!(listed.text(), "{\"doctypes\":[]}");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_with_check_names_the_documents_that_would_fail() {
    let scene = Scene::new(&["lists/a", "lists/b"]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let token_file = file(folder, "token", token(ROLES[6].1));
    let server = format!("http://{}", scene.at);
    let check = |sql: &str, more: &[&str]| {
        let mut newer = notes();
        newer.migrations.push(sql.to_owned());
        let doctype = file(folder, "newer.json", json_of(&newer));
        let args = ["deploy", &doctype, "--check", "--server", &server];
        run(&[&args[..], &["--token-file", &token_file], more].concat())
    };
    let right = check("create table done (id text) strict", &[]);
    assert_eq!(code(&right), Some(0), "{}", complained(&right));
    assert_eq!(said(&right), "doctype notes was tried on 2 documents: 0 failures\n");
    let wrong = check("insert into note select 'first'", &[]);
    assert_eq!(code(&wrong), Some(1));
    let lines: Vec<_> = said(&wrong).lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("lists/a: ") && lines[0].contains("UNIQUE"), "{lines:?}");
    assert!(lines[1].starts_with("lists/b: "), "{lines:?}");
    assert_eq!(lines[2], "doctype notes was tried on 2 documents: 2 failures");
    let wrong = check("insert into note select 'first'", &["--json"]);
    let answer: Value = serde_json::from_str(&said(&wrong)).expect("JSON");
    assert_eq!((code(&wrong), &answer["tried"]), (Some(1), &json!(2)));
    assert_eq!(answer["failures"][1]["document"], "lists/b");
    let listed = ask(scene.at, "GET", "/v1/doctypes", Some(&token(ROLES[6].1)), "").await;
    assert_eq!(listed.text(), "{\"doctypes\":[]}");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_printed_allows_what_it_was_asked_for() {
    let scene = Scene::new(&["lists/a", "other"]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = file(folder.path(), "secret", [&SECRET[..], b"\n"].concat());
    let mint_for = |time: &str, args: &[&str]| {
        let base = ["token", "--secret-file", &secret, "--expires", time];
        run(&[&base[..], args].concat())
    };
    let mint = |args: &[&str]| mint_for("1h", args);
    let printed = mint(&["--subject", "ada", "--grant", "lists/*:admin"]);
    assert_eq!(code(&printed), Some(0), "{}", complained(&printed));
    let token = said(&printed).trim().to_owned();
    let status =
        async |method: &str, path: &str| ask(scene.at, method, path, Some(&token), "").await.status;
    assert_eq!(status("GET", "/v1/documents/other").await, 404, "it has no grant there");
    assert_eq!(status("DELETE", "/v1/documents/lists%2Fa").await, 204);

    let json = mint(&["--subject", "ada", "--grant", "a:write", "--create", "--json"]);
    let answer: Value = serde_json::from_str(&said(&json)).expect("JSON");
    let payload = answer["token"].as_str().expect("a text").split('.').nth(1).expect("three parts");
    let payload =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    let payload: Value = serde_json::from_slice(&payload.expect("base64")).expect("JSON");
    assert_eq!(payload["exp"], answer["expires_at"]);
    assert_eq!(payload["tidelog"], json!([{ "document": "a", "role": "write", "create": true }]));
    let handles = mint(&["--subject", "mail", "--grant", "a:read", "--handle", "--json"]);
    let answer: Value = serde_json::from_str(&said(&handles)).expect("JSON");
    let payload = answer["token"].as_str().expect("a text").split('.').nth(1).expect("three parts");
    let payload =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    let payload: Value = serde_json::from_slice(&payload.expect("base64")).expect("JSON");
    assert_eq!(payload["tidelog"], json!([{ "document": "a", "role": "read", "handle": true }]));
    let sends = ["--subject", "ada", "--grant", "a:read", "--grant", "b:write", "--send", "--json"];
    let answer: Value = serde_json::from_str(&said(&mint(&sends))).expect("JSON");
    let payload = answer["token"].as_str().expect("a text").split('.').nth(1).expect("three parts");
    let payload =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    let payload: Value = serde_json::from_slice(&payload.expect("base64")).expect("JSON");
    let grants = [
        json!({ "document": "a", "role": "read", "send": true }),
        json!({ "document": "b", "role": "write" }),
    ];
    assert_eq!(payload["tidelog"], json!(grants));
    scene.stop().await;

    for (args, named) in [
        (&["--subject", "admin"][..], "built-in user"),
        (&["--subject", ""], "sub"),
        (&["--subject", "ada", "--grant", "lists"], "lists/*:write"),
        (&["--subject", "ada", "--grant", "lists:owner"], "read, write or admin"),
        (&["--subject", "ada", "--grant", "lists:read", "--create"], "--create"),
        (&["--subject", "ada", "--grant", "lists:write", "--send"], "--send"),
        (&["--subject", "ada", "--grant", "lists:send"], "read, write or admin"),
        (&[], "--subject"),
    ] {
        let output = mint(args);
        assert_eq!((code(&output), said(&output).as_str()), (Some(2), ""), "{args:?}");
        assert!(complained(&output).contains(named), "{args:?}: {}", complained(&output));
    }
    let output = mint_for("1", &["--subject", "ada"]);
    assert!(code(&output) == Some(2) && complained(&output).contains("90s"));
    let short = file(folder.path(), "short", "sesame");
    let output = run(&["token", "--subject", "a", "--expires", "1h", "--secret-file", &short]);
    assert_eq!(code(&output), Some(2));
    assert!(complained(&output).contains(&short) && !complained(&output).contains("sesame"));
}

#[test]
fn a_password_becomes_a_hash_that_the_server_takes() {
    let hashed = |password: &[u8]| run_with(&["user", "hash"], &[], password);
    let output = hashed("ein Pässwort\r\n".as_bytes());
    assert_eq!(code(&output), Some(0), "{}", complained(&output));
    let phc = said(&output).trim().to_owned();
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
    let hash = PasswordHash::from_phc(&phc).expect("a hash");
    assert!(hash.matches("ein Pässwort"));
    let output = run_with(&["user", "hash", "--json"], &[], b"sesame");
    let line: Value = serde_json::from_str(&said(&output)).expect("a line of JSON");
    let hash = PasswordHash::from_phc(line["hash"].as_str().expect("a text")).expect("a hash");
    assert!(hash.matches("sesame"));
    assert_ne!(said(&hashed("ein Pässwort".as_bytes())).trim(), phc, "another salt");
    for wrong in [&b""[..], b"\n", b"\xff", &[b'x'; 1025]] {
        let output = hashed(wrong);
        assert_eq!((code(&output), said(&output).as_str()), (Some(2), ""), "{wrong:?}");
    }
}

#[test]
fn config_print_says_what_each_setting_is_and_where_it_is_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = file(folder.path(), "secret", "sesame, which nobody is to see in any output");
    let password = file(folder.path(), "password", "sesame");
    let text = "listen = \"127.0.0.1:1\"\ndocuments_max = 7\n\
                allow_origins = [\"https://a\", \"https://b\"]\n";
    let config = file(folder.path(), "tidelog.toml", text);
    let variables = [
        ("TIDELOG_LISTEN", "127.0.0.1:2"),
        ("TIDELOG_CONFIG", &config),
        ("TIDELOG_ADMIN_PASSWORD", "sesame"),
        ("TIDELOG_READER_PASSWORD_FILE", &password),
    ];
    let print = ["config", "print", "--json", "--token-secret-file", &secret];
    let output = run_with(&print, &variables, b"");
    assert_eq!(code(&output), Some(0), "{}", complained(&output));
    assert!(!said(&output).contains("sesame"), "{}", said(&output));
    let settings: Vec<Value> =
        said(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |name: &str| {
        let found = settings.iter().find(|it| it["setting"] == name).expect("it is there");
        let text = |key: &str| found[key].as_str().expect("a text").to_owned();
        (text("value"), text("from"))
    };
    let pair = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    assert_eq!(of("listen"), pair("127.0.0.1:2", "TIDELOG_LISTEN"));
    assert_eq!(of("documents_max"), pair("7", &config));
    assert_eq!(of("allow_origins"), pair("https://a,https://b", &config));
    assert_eq!(of("token_secret_file"), pair(&secret, "--token-secret-file"));
    assert_eq!(of("data"), pair("tidelog-data", "default"));
    assert_eq!(of("connections_max"), pair("100000", "default"));
    assert_eq!(of("dev"), pair("false", "default"));
    assert_eq!(of("token_issuer"), pair("any", "default"));
    assert_eq!(of("token_jwks_file"), pair("not set", "default"));
    assert_eq!(of("TIDELOG_ADMIN_PASSWORD"), pair("********", "TIDELOG_ADMIN_PASSWORD"),);
    assert_eq!(of("TIDELOG_READER_PASSWORD_FILE").0, password);

    // Whatever serve refuses is refused here, in the same words.
    std::fs::write(&config, "listen = 7").expect("written");
    for args in [&["config", "print"][..], &["serve"]] {
        let output = run_with(args, &[("TIDELOG_CONFIG", &config)], b"");
        assert_eq!(code(&output), Some(2));
        assert!(complained(&output).contains(&config), "{}", complained(&output));
    }
}
