//! What runs in a process of its own beside the one that measures.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The argument behind which a process is told what it is.
pub(crate) const ROLE: &str = "--role=";

/// Another process of this program. It ends when this is dropped.
pub(crate) struct Outside {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Outside {
    /// Starts one. If it `yields` it takes what others leave of the processors, as somebody who has
    /// a machine of its own takes nothing of theirs.
    pub(crate) fn start(role: &str, at: &str, yields: bool) -> Self {
        let program = std::env::current_exe().expect("a program");
        let mut command = if yields { Command::new("nice") } else { Command::new(&program) };
        if yields {
            command.args(["-n", "19"]).arg(&program);
        }
        command.arg(format!("{ROLE}{role}")).arg(at).kill_on_drop(true);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = BufReader::new(output.expect("piped")).lines();
        Self { _child: child, input: input.expect("piped"), output }
    }

    /// What it says next.
    pub(crate) async fn says(&mut self) -> String {
        self.output.next_line().await.expect("it speaks").expect("it has not ended")
    }

    /// Tells it to go on.
    pub(crate) async fn goes_on(&mut self) {
        self.input.write_all(b"\n").await.expect("it listens");
    }
}

/// In the other process: says something, and waits until it is told to go on.
pub(crate) async fn say_and_wait(what: &str) {
    println!("{what}");
    let mut lines = BufReader::new(stdin()).lines();
    let told = lines.next_line().await.expect("it listens");
    told.expect("whoever measures is there");
}
