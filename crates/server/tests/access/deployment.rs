//! The files in `docs/deploy`: what they say of the server is so.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidelog_testing::server::command;
use tidelog_types::limits::{CONNECTIONS_MAX, IMPORT_SIZE_MAX};

use crate::common::{app_keys, ask, start};

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");
/// Within which time a server that is told to stop has ended.
const STOP_TAKES: Duration = Duration::from_secs(10);

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy").join(name);
    std::fs::read_to_string(path).expect("it is there")
}

/// The values of these lines, `NAME=VALUE`, of a unit.
fn values(unit: &str, name: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

fn value(unit: &str, name: &str) -> String {
    let [value] = values(unit, name).try_into().expect("once");
    value
}

/// What `tidelog serve` would do with these words and variables, by setting.
fn settings(words: &[&str], variables: &[(String, String)]) -> Vec<(String, String)> {
    assert_eq!(words.first(), Some(&"serve"), "{words:?}");
    let mut command = command(TIDELOG);
    command.args(["config", "print", "--json"]).args(&words[1..]);
    let output = command.envs(variables.iter().cloned()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("a text");
    let setting = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let [name, from] = ["setting", "from"].map(|it| line[it].as_str().expect("a text"));
        (name.to_owned(), from.to_owned())
    };
    text.lines().map(setting).collect()
}

/// Each of the variables is one that the server looks at.
fn all_count(variables: &[(String, String)], settings: &[(String, String)]) {
    for (name, _) in variables {
        assert!(settings.iter().any(|(_, from)| from == name), "{name} says nothing");
    }
}

#[test]
fn the_unit_starts_a_server_and_lets_it_end() {
    let unit = file("tidelog.service");
    let start = value(&unit, "ExecStart");
    let words: Vec<_> = start.split_whitespace().collect();
    assert_eq!(words[0], "/usr/local/bin/tidelog");
    let variables = values(&unit, "Environment").into_iter().map(|it| {
        let (name, value) = it.split_once('=').expect("a variable");
        (name.to_owned(), value.to_owned())
    });
    let variables: Vec<_> = variables.collect();
    all_count(&variables, &settings(&words[1..], &variables));
    let state = format!("/var/lib/{}", value(&unit, "StateDirectory"));
    assert!(variables.contains(&("TIDELOG_DATA".to_owned(), state)), "{variables:?}");
    // The shell's own: not every system has a program of that name.
    assert_eq!(value(&unit, "ExecReload"), "/bin/sh -c 'kill -HUP \"$MAINPID\"'");
    let stops = value(&unit, "TimeoutStopSec");
    let stops: u64 = stops.strip_suffix('s').and_then(|it| it.parse().ok()).expect("seconds");
    assert!(stops > STOP_TAKES.as_secs());
    let files: usize = value(&unit, "LimitNOFILE").parse().expect("a number");
    assert!(files > CONNECTIONS_MAX + 1000);
    assert_eq!(value(&unit, "RestartPreventExitStatus"), "2", "wrong usage");
    // Five starts in ten seconds would be the last ones otherwise.
    assert_eq!(value(&unit, "Restart"), "always");
    assert_eq!(value(&unit, "StartLimitIntervalSec"), "0");
}

/// Goal: nothing that an operator has made where the page says so comes into an image, and a
/// container is begun as the page says. Method: what its commands write.
#[test]
fn the_image_has_nothing_of_an_operators_and_the_page_begins_it_alike() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating.md");
    let page = std::fs::read_to_string(page).expect("it is there");
    let left_out = file("Dockerfile.dockerignore");
    // Wherever it is: without that it is meant to be at the root of the clone.
    let left_out: Vec<_> = left_out.lines().filter_map(|line| line.strip_prefix("**/")).collect();
    let is_left_out = |name: &str| {
        let is =
            |line: &&str| line.strip_prefix('*').map_or(*line == name, |end| name.ends_with(end));
        left_out.iter().any(is)
    };
    let mut made = Vec::new();
    for line in
        page.split("```sh\n").skip(1).flat_map(|it| it.split("```").next()).flat_map(str::lines)
    {
        let words: Vec<_> = line.split_whitespace().collect();
        let behind = |mark: &str| words.iter().position(|it| *it == mark).map(|at| words[at + 1]);
        made.extend([behind(">"), behind("--data")].into_iter().flatten());
    }
    assert!(made.len() > 6, "{made:?}");
    // What npm prints for a server is of the app, which is another folder.
    made.retain(|name| !name.contains('/') && !name.ends_with(".json"));
    made.push("tidelog-data");
    for name in made {
        assert!(is_left_out(name), "{name} comes into the image");
    }
    let begins = |text: &str| {
        text.lines().find_map(|it| it.split_once("docker run ")).map(|it| it.1.to_owned())
    };
    let [of_file, of_page] =
        [file("Dockerfile"), page].map(|text| begins(&text).expect("a command"));
    assert_eq!(
        of_file.replace(" tidelog", ""),
        of_page.replace(" --name sync", "").replace(" tidelog", "")
    );
}

#[test]
fn the_container_starts_a_server_and_looks_after_it() {
    let dockerfile = file("Dockerfile");
    let words = |name: &str| -> Vec<String> {
        let at = dockerfile.rfind(&format!("{name} [")).expect("it is there");
        let line = dockerfile[at + name.len()..].lines().next().expect("a line");
        serde_json::from_str(line).expect("JSON")
    };
    let [entry, command_words] = ["ENTRYPOINT", "\nCMD"].map(words);
    assert_eq!(entry, ["tidelog"]);
    let environment = dockerfile.lines().find_map(|line| line.strip_prefix("ENV "));
    let variables = environment.expect("some").split(' ').map(|it| {
        let (name, value) = it.split_once('=').expect("a variable");
        (name.to_owned(), value.to_owned())
    });
    let variables: Vec<_> = variables.collect();
    let command_words: Vec<_> = command_words.iter().map(String::as_str).collect();
    all_count(&variables, &settings(&command_words, &variables));
    let volume = dockerfile.lines().find_map(|line| line.strip_prefix("VOLUME "));
    let data = variables.iter().find(|(name, _)| name == "TIDELOG_DATA");
    assert_eq!(volume, data.map(|(_, value)| value.as_str()));
    assert!(dockerfile.contains("\nUSER 10001:10001\n"), "it is not root");

    let health = words(" CMD");
    assert_eq!(health[0], "tidelog");
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = command(TIDELOG).args(&health[1..]).env("TIDELOG_DATA", folder.path()).output();
    assert_eq!(nobody.expect("it runs").status.code(), Some(1), "a command of it, and none is up");
}

#[test]
fn the_proxies_pass_on_what_the_server_needs_and_nobody_else_may_have() {
    let help = command(TIDELOG).args(["serve", "--help"]).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("a text");
    for name in ["nginx.conf", "Caddyfile"] {
        let proxy = file(name);
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert!(proxy.contains(path), "{name} lets everybody ask for {path}");
        }
        let flags = proxy.split_whitespace().filter(|word| word.starts_with("--"));
        let flags: Vec<_> = flags.collect();
        assert_eq!(flags, ["--trusted-proxy"], "{name}");
        assert!(help.contains(flags[0]));
    }
    let nginx = file("nginx.conf");
    for line in [
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    ] {
        assert!(nginx.contains(line), "{line}");
    }
    let size = format!("client_max_body_size {}m;", IMPORT_SIZE_MAX / 1024 / 1024);
    assert!(nginx.contains(&size), "{size}");
}

/// The words of a text that are names of numbers.
fn numbers(text: &str) -> Vec<&str> {
    let is_of_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = text.split(|it| !is_of_name(it));
    words.filter(|word| word.starts_with("tidelog_")).collect()
}

/// Goal: no alert is silent since what it asks for has another name, and each tells what to do.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_ask_for_numbers_that_there_are_and_the_page_knows_each() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), app_keys()).await;
    let metrics = ask(server.address(), "GET", "/metrics", None, "").await.text();
    server.stop().await;
    assert!(metrics.contains("\ntidelog_ready 1\n"), "{metrics}");
    let known = numbers(&metrics);
    let rules = file("alerts.yml");
    let asked = numbers(&rules);
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        assert!(known.contains(&name), "{name}");
    }
    let parts = rules.split("{reason=").skip(1);
    for reason in parts.map(|rest| rest.split('}').next().expect("one")) {
        assert!(metrics.contains(&format!("{{reason={reason}}}")), "{reason}");
    }
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<_> = alerts.collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating.md");
    let page = std::fs::read_to_string(page).expect("it is there");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `Tidelog")?.split_once('`'));
    let rows: Vec<_> = rows.map(|(name, _)| format!("Tidelog{name}")).collect();
    assert_eq!(rows, alerts, "the page tells of each, in the same order");
}
