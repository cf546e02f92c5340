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
    use std::os::fd::AsFd;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals that came since this was made.
    pub struct Signals {
        terminate: Option<Signal>,
        interrupt: Option<Signal>,
        hangup: Option<Signal>,
        /// By SIGHUP a terminal says that it is closed, and whoever else sends it that settings are
        /// to be read again.
        is_at_terminal: bool,
    }

    impl Signals {
        /// Where the system gives no way to hear of one, it does what it would do without us.
        pub fn new() -> Self {
            let [terminate, interrupt, hangup] =
                [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
                    .map(|kind| signal(kind).ok());
            // Asked now: of a terminal that has gone nobody can tell any more that it was one.
            let is_at_terminal = leads(stdin()) || leads(stdout()) || leads(stderr());
            Self { terminate, interrupt, hangup, is_at_terminal }
        }

        /// The process is told to stop.
        pub async fn stop(&mut self) {
            tokio::select! {
                () = comes(&mut self.terminate) => {}
                () = comes(&mut self.interrupt) => {}
                () = comes(&mut self.hangup), if self.is_at_terminal => {}
            }
        }

        /// The process is told to stop, or else, with `true`, to read its settings again.
        pub async fn stop_or_reload(&mut self) -> bool {
            tokio::select! {
                () = comes(&mut self.terminate) => false,
                () = comes(&mut self.interrupt) => false,
                () = comes(&mut self.hangup) => !self.is_at_terminal,
            }
        }
    }

    /// Whether this is the terminal that the process is in the foreground of: a job in the
    /// background lives on without it.
    fn leads(stream: impl AsFd) -> bool {
        rustix::termios::tcgetpgrp(stream).is_ok_and(|group| group == rustix::process::getpgrp())
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
