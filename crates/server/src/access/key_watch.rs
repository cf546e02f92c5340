//! Keys are read again when their files change.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tidelog_access::Keys;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Guard;
use crate::settings::{KeyFiles, SettingsError};

/// How often the files are looked at. What they say counts once it was the same twice, since
/// somebody may be amid writing: so a key that is gone ends its tokens within a second.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

/// What the files said, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Said([u8; 32]),
    Failed(String),
}

/// What was seen of the files.
#[derive(Default)]
struct KeyWatch {
    /// When they were last looked at.
    seen: Option<(KeyFiles, Seen)>,
    /// What of it was told, or taken.
    known: Option<(KeyFiles, Seen)>,
    /// How often the settings had been read again by then.
    reloads_count: u64,
}

impl KeyWatch {
    /// Looks at the files. Gives what is new of them, and was so the last time too. Where settings
    /// were read again nobody knows what they were then.
    fn look(
        &mut self,
        files: &KeyFiles,
        reloads_count: u64,
    ) -> Option<Result<Keys, SettingsError>> {
        if std::mem::replace(&mut self.reloads_count, reloads_count) != reloads_count {
            self.known = None;
        }
        let texts = files.read();
        let seen = match &texts {
            Ok(texts) => Seen::Said(texts.hash()),
            Err(error) => Seen::Failed(in_full(error)),
        };
        let seen = Some((files.clone(), seen));
        let is_new = seen != self.known && seen == self.seen;
        self.seen = seen;
        if !is_new {
            return None;
        }
        self.known = self.seen.clone();
        Some(texts.and_then(|texts| texts.keys()))
    }
}

/// Has the guard know the keys that the files have, until the server stops.
pub(crate) async fn watch_keys(guard: Arc<Guard>, mut stopped: watch::Receiver<bool>) {
    let mut watch = KeyWatch::default();
    // The sender going away means stop as well.
    while timeout(LOOKS_EVERY, stopped.wait_for(|stop| *stop)).await.is_err() {
        let files = guard.key_files();
        if files == KeyFiles::default() {
            continue;
        }
        // The disk may hang: then the keys stay what they were.
        let reloads_count = guard.reloads_count();
        let looked = spawn_blocking(move || {
            let new = watch.look(&files, reloads_count);
            (watch, new)
        });
        let Ok((again, new)) = looked.await else { return };
        watch = again;
        if let Some(new) = new {
            take(&guard, new);
        }
    }
}

/// Takes keys that were read, or says why not: those that there were stay then.
fn take(guard: &Guard, read: Result<Keys, SettingsError>) {
    let failed = match read {
        Ok(keys) => match guard.set_keys(keys) {
            Ok(false) => return,
            Ok(true) => return info!("the app's keys have changed, and were read again"),
            Err(error) => error.to_string(),
        },
        Err(error) => in_full(&error),
    };
    warn!("the app's keys stay as they were: {failed}");
}

/// An error and what caused it. Neither repeats anything of a key.
fn in_full(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    let texts = causes.map(ToString::to_string);
    std::iter::once(error.to_string()).chain(texts).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(letter: &str) -> String {
        letter.repeat(32)
    }

    /// Goal: what is half written is no key. Method: the file changes at each look, then stays.
    #[test]
    fn what_a_file_says_counts_once_it_was_the_same_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let files = KeyFiles { secret: Some(path.clone()), ..KeyFiles::default() };
        let mut watch = KeyWatch::default();
        for letter in ["a", "b", "c"] {
            std::fs::write(&path, secret(letter)).expect("written");
            assert!(watch.look(&files, 0).is_none());
        }
        assert!(watch.look(&files, 0).expect("it stays").is_ok());
        assert!(watch.look(&files, 0).is_none(), "once");
        std::fs::write(&path, secret("d")).expect("written");
        assert!(watch.look(&files, 0).is_none());
        assert!(watch.look(&files, 0).expect("it stays").is_ok());
    }

    /// Goal: keys that were put back are those that count. Method: settings are read again while
    /// the file says something else, which it says no more at the second look.
    #[test]
    fn what_a_file_says_again_behind_a_reload_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let files = KeyFiles { secret: Some(path.clone()), ..KeyFiles::default() };
        let mut watch = KeyWatch::default();
        std::fs::write(&path, secret("a")).expect("written");
        assert!(watch.look(&files, 0).is_none() && watch.look(&files, 0).is_some());
        std::fs::write(&path, secret("b")).expect("written");
        assert!(watch.look(&files, 1).is_none());
        std::fs::write(&path, secret("a")).expect("written");
        assert!(watch.look(&files, 1).is_none());
        assert!(watch.look(&files, 1).expect("it stays").is_ok());
        assert!(watch.look(&files, 1).is_none(), "once");
    }

    #[test]
    fn what_is_wrong_is_told_once_and_not_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let files = KeyFiles { secret: Some(path.clone()), ..KeyFiles::default() };
        let mut watch = KeyWatch::default();
        for text in [None, Some("sesame"), None] {
            match text {
                Some(text) => std::fs::write(&path, text).expect("written"),
                None => drop(std::fs::remove_file(&path)),
            }
            let told: Vec<_> = (0..5).filter_map(|_| watch.look(&files, 0)).collect();
            let [Err(error)] = told.as_slice() else { panic!("once, and not usable") };
            let said = in_full(error);
            assert!(said.contains(path.to_str().expect("a text")), "{said}");
            assert!(!said.contains("sesame"), "{said}");
        }
    }
}
