//! What the system tells the process: to stop, or to read its keys again.

#[cfg(unix)]
pub use unix::Signals;

#[cfg(not(unix))]
pub use other::Signals;

use std::time::Duration;

/// Who tells a whole group of processes to stop, as `timeout`, systemd and a terminal do, tells the
/// server twice where another process of the group passes signals on to it.
const TOLD_TWICE: Duration = Duration::from_secs(1);

impl Signals {
    /// The process, which was told to stop just now, is told so once more, by somebody in a hurry.
    pub async fn stop_again(&mut self) {
        let twice = tokio::time::sleep(TOLD_TWICE);
        tokio::pin!(twice);
        loop {
            tokio::select! {
                () = &mut twice => break,
                () = self.stop() => {}
            }
        }
        self.stop().await;
    }
}

#[cfg(unix)]
mod unix {
    use std::future::pending;
    use std::io::{stderr, stdin, stdout};

    use rustix::process::Pid;
    use rustix::termios::tcgetpgrp;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals that came since this was made.
    pub struct Signals {
        terminate: Option<Signal>,
        interrupt: Option<Signal>,
        hangup: Option<Signal>,
        /// By SIGHUP a terminal says that it is closed, and whoever else sends it that settings are
        /// to be read again. Whether there was one is asked early: of one that has gone nobody can
        /// tell any more that it was.
        was_at_terminal: bool,
        /// Somebody has said so while it was only asked whether to stop.
        is_to_reload: bool,
    }

    impl Signals {
        /// Where the system gives no way to hear of one, it does what it would do without us.
        pub fn new() -> Self {
            let [terminate, interrupt, hangup] =
                [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
                    .map(|kind| signal(kind).ok());
            let group = rustix::process::getpgrp();
            let was_at_terminal = foregrounds().contains(&group);
            Self { terminate, interrupt, hangup, was_at_terminal, is_to_reload: false }
        }

        /// The process is told to stop.
        pub async fn stop(&mut self) {
            loop {
                tokio::select! {
                    () = comes(&mut self.terminate) => return,
                    () = comes(&mut self.interrupt) => return,
                    () = comes(&mut self.hangup) => match self.is_closed() {
                        true => return,
                        false => self.is_to_reload = true,
                    },
                }
            }
        }

        /// Whether the terminal in whose foreground the process began has gone.
        fn is_closed(&self) -> bool {
            self.was_at_terminal && foregrounds().is_empty()
        }

        /// The process is told to stop, or else, with `true`, to read its settings again.
        pub async fn stop_or_reload(&mut self) -> bool {
            if std::mem::take(&mut self.is_to_reload) {
                return true;
            }
            tokio::select! {
                () = comes(&mut self.terminate) => false,
                () = comes(&mut self.interrupt) => false,
                () = comes(&mut self.hangup) => !self.is_closed(),
            }
        }
    }

    /// The groups of processes in the foreground of the terminals that the standard streams are.
    /// One in the background lives on without its terminal.
    fn foregrounds() -> Vec<Pid> {
        let groups = [tcgetpgrp(stdin()), tcgetpgrp(stdout()), tcgetpgrp(stderr())];
        groups.into_iter().flatten().collect()
    }

    async fn comes(signal: &mut Option<Signal>) {
        match signal {
            Some(signal) => drop(signal.recv().await),
            None => pending().await,
        }
    }
}

#[cfg(not(unix))]
mod other {
    use tokio::signal::ctrl_c;

    /// The signals that there are.
    pub struct Signals;

    impl Signals {
        pub fn new() -> Self {
            Self
        }

        /// The process is told to stop.
        pub async fn stop(&mut self) {
            // Without a way to hear of it the system ends the process by itself.
            if ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }

        /// There is no signal to read settings again.
        pub async fn stop_or_reload(&mut self) -> bool {
            self.stop().await;
            false
        }
    }
}
