//! What the system tells the process: to stop, or to read its keys again.

#[cfg(unix)]
pub use unix::Signals;

#[cfg(not(unix))]
pub use other::Signals;

#[cfg(unix)]
mod unix {
    use std::future::pending;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals that came since this was made.
    pub struct Signals {
        terminate: Option<Signal>,
        interrupt: Option<Signal>,
        hangup: Option<Signal>,
    }

    impl Signals {
        /// Where the system gives no way to hear of one, it does what it would do without us.
        pub fn new() -> Self {
            let [terminate, interrupt, hangup] =
                [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
                    .map(|kind| signal(kind).ok());
            Self { terminate, interrupt, hangup }
        }

        /// The process is told to stop.
        pub async fn stop(&mut self) {
            tokio::select! {
                () = comes(&mut self.terminate) => {}
                () = comes(&mut self.interrupt) => {}
            }
        }

        /// The process is told to stop, or else, with `true`, to read its settings again.
        pub async fn stop_or_reload(&mut self) -> bool {
            tokio::select! {
                () = comes(&mut self.terminate) => false,
                () = comes(&mut self.interrupt) => false,
                () = comes(&mut self.hangup) => true,
            }
        }
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
