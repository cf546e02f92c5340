//! The binary: its environment, its files, and what it says of wrong ones.

use std::process::Output;

use tidelog_testing::server::command;

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
    let cases: [Case<'_>; 8] = [
        (&["--token-secret-file", path], &[], path),
        (&["--token-key", path], &[], path),
        (&["--token-jwks-file", path], &[], path),
        (&["--token-key", "no/such/key"], &[], "no/such/key"),
        (&[], &[("TIDELOG_ADMIN_PASSWORD_HASH", "sesame")], "TIDELOG_ADMIN_PASSWORD_HASH"),
        (&[], &[("TIDELOG_READER_PASSWORD", "")], "TIDELOG_READER_PASSWORD"),
        (&[], &[("TIDELOG_ALLOW_ORIGINS", "https://a,https://b/")], "https://b/"),
        (&["--dev"], &[("TIDELOG_ADMIN_PASSWORD", "sesame")], "--dev"),
    ];
    for (args, variables, named) in cases {
        let output = serve(args, variables);
        assert_eq!(output.status.code(), Some(2), "{args:?} {variables:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
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
        "TIDELOG_TOKEN_KEYS",
        "TIDELOG_ALLOW_ORIGINS",
        "TIDELOG_ADMIN_PASSWORD",
    ] {
        assert!(help.contains(name), "{name}");
    }
}
