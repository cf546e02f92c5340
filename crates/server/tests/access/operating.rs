//! The page *Operating Tidelog*: its commands do what it says.
//!
//! Goal: whoever types what stands there has what is said there. Method: all of its blocks of shell
//! run in one shell, one after the other, in a folder of their own, with the built binary and a
//! port of their own in the place of 8787. What begins with `tidelog serve` goes on in the
//! background, in the place of the server before it.

#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tidelog_document::Doctype;
use tidelog_sync::FromRoom;
use tidelog_testing::room::{Copy, frame_of};
use tidelog_testing::server::command;

use crate::common::join;
use crate::doctypes::{json_of, notes};
use crate::tls::tls_file;

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");
/// What is not run here, and why.
const NOT_RUN: [(&str, &str); 1] =
    [("npx tidelog extract", "a command of the npm package, whose own tests run it")];
/// What a shell says behind each block.
const END: &str = "::end";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating.md");
    std::fs::read_to_string(path).expect("it is there")
}

/// The blocks of the page that are shell.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("```sh\n").skip(1);
    parts.map(|rest| rest.split("```").next().expect("a block").to_owned()).collect()
}

/// A shell that stays, with its variables.
struct Shell {
    folder: PathBuf,
    child: Child,
    says: ChildStdin,
    heard: BufReader<ChildStdout>,
}

impl Shell {
    fn start(folder: &Path) -> Self {
        let bin = folder.join("bin");
        std::fs::create_dir(&bin).expect("a folder");
        std::os::unix::fs::symlink(TIDELOG, bin.join("tidelog")).expect("a link");
        let path = std::env::var("PATH").expect("there is one");
        let mut shell = command("bash");
        shell.args(["-euo", "pipefail"]).env("PATH", format!("{}:{path}", bin.display()));
        shell.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        shell.stderr(std::fs::File::create(folder.join("complaints")).expect("a file"));
        let mut child = shell.spawn().expect("bash is there");
        let says = child.stdin.take().expect("piped");
        let heard = BufReader::new(child.stdout.take().expect("piped"));
        Self { folder: folder.to_owned(), child, says, heard }
    }

    /// Runs it, and gives what it says.
    fn run(&mut self, block: &str) -> String {
        writeln!(self.says, "{block}\necho; echo {END}").expect("it is there");
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let size = self.heard.read_line(&mut line).expect("a text");
            assert!(size > 0, "it failed:\n{block}\n{said}\n{}", self.complaints());
            if line.trim_end() == END {
                return said;
            }
            said.push_str(&line);
        }
    }

    /// Starts a server, in the place of the one before.
    fn serve(&mut self, block: &str) {
        self.stop();
        let block = block.trim_end();
        let start = format!(
            ": > serve.out\n\
             ( exec {block} ) >> serve.out 2>> serve.log &\n\
             SERVER=$!\n\
             echo $SERVER > serve.id\n\
             until grep -q '^listening on ' serve.out; do kill -0 $SERVER; sleep 0.05; done"
        );
        self.run(&start);
    }

    fn stop(&mut self) {
        self.run("if [ -n \"${SERVER:-}\" ]; then kill -TERM $SERVER; wait $SERVER; fi");
    }

    fn complaints(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        format!("{}\n{}", read("complaints"), read("serve.log"))
    }
}

impl Drop for Shell {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(id) = std::fs::read_to_string(self.folder.join("serve.id")) {
            let _ = Command::new("kill").args(["-KILL", id.trim()]).stderr(Stdio::null()).status();
        }
    }
}

/// The doctype of the page.
fn todos() -> Doctype {
    Doctype { name: "todos".to_owned(), ..notes() }
}

/// An app begins the document that the page speaks of.
async fn begin_document(folder: &Path, port: u16) {
    let token = std::fs::read_to_string(folder.join("token")).expect("the page has made one");
    let at = ([127, 0, 0, 1], port).into();
    let mut client = join(at, Some(token.trim())).await.expect("welcome");
    client.open_as("lists/a", &todos(), 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    client.frames(1, vec![frame_of("operator", &todos(), "add", "milk")]).await.expect("up");
    client.acked(&mut Copy::default(), 2).await.expect("up");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_has_operators_type_does_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one");
    let port = free.port();
    // What an operator has beforehand.
    std::fs::write(folder.join("todos.json"), json_of(&todos())).expect("written");
    for (name, from) in [("fullchain.pem", "one.pem"), ("privkey.pem", "one.key")] {
        std::fs::copy(tls_file(from), folder.join(name)).expect("copied");
    }
    let mut shell = Shell::start(folder);
    let (mut served, mut left_out, mut has_document, mut said) = (0, 0, false, String::new());
    let page = page();
    for block in blocks(&page) {
        if NOT_RUN.iter().any(|(words, _)| block.contains(words)) {
            left_out += 1;
            continue;
        }
        if block.contains("lists/a ") && !has_document {
            begin_document(folder, port).await;
            has_document = true;
        }
        let block = block.replace("8787", &port.to_string());
        match block.starts_with("tidelog serve") {
            true => {
                assert_eq!(block.trim_end().lines().count(), 1, "{block}");
                shell.serve(&block);
                served += 1;
            }
            false => said.push_str(&shell.run(&block)),
        }
    }
    assert_eq!(left_out, NOT_RUN.len(), "each of them is there");
    assert!(has_document && served >= 4, "{served}");
    for expected in [
        "ready\n",
        "token_secret_file = secret    # TIDELOG_TOKEN_SECRET_FILE\n",
        "\"expires_at\":",
        "$argon2id$",
        "doctype todos is deployed: version ",
        "document lists/b is there, of doctype todos\n",
        "\ntidelog_ready 1\n",
        "{\"documents\":[\"lists/a\",\"lists/b\"]}",
        "2 documents are in new-data",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    shell.stop();
    let log = std::fs::read_to_string(folder.join("serve.log")).expect("a text");
    assert!(!log.contains("panicked"), "{log}");
}
