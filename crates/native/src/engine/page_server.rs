//! The page server over the files of a folder, or over memory, opened anew where it fails.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidelog_client::{Input, PageServerFailure, PageServerId, Storage};
use tidelog_disk::{Disk, DiskError, StoreFiles};
use tidelog_pages::{
    AppendError, OpenError, OwnerId, PageServer, Seed, StoreOptions, StoreReply, StoreRequest,
};
use tracing::warn;

/// At first, before a store that failed is opened anew.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The longest such wait: a full device may have room again at any time.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);

/// A store that worked for so long did not fail for the reason of those before it.
const STEADY: Duration = Duration::from_secs(60);

/// The core is the only one who asks.
const OWNER: OwnerId = OwnerId(1);

/// Where the store is.
pub(super) enum Keep {
    Folder(PathBuf),
    Memory,
}

impl Keep {
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Memory => None,
        }
    }
}

/// The page server as the core sees it: at any time there is one, or there will be.
pub(super) struct Store {
    keep: Keep,
    /// What it is called, higher for each new one.
    id: PageServerId,
    server: Option<PageServer<Box<dyn Disk>>>,
    opened_at: Instant,
    pause: Duration,
    /// When it is opened anew.
    again_at: Option<Instant>,
}

/// Another engine has the files.
pub(super) struct InUse;

impl Store {
    /// Opens the store for the first time. Says what the core is told of that.
    pub(super) fn open(keep: Keep) -> Result<(Self, Input), InUse> {
        let mut store = Self {
            keep,
            id: PageServerId(0),
            server: None,
            opened_at: Instant::now(),
            pause: AGAIN_AFTER,
            again_at: None,
        };
        match store.open_files() {
            Err(OpenError::Disk(DiskError::Busy)) => Err(InUse),
            opened => {
                let input = store.opened(opened);
                Ok((store, input))
            }
        }
    }

    fn open_files(&self) -> Result<PageServer<Box<dyn Disk>>, OpenError> {
        let files = match &self.keep {
            Keep::Folder(folder) => boxed(StoreFiles::in_folder(folder)?),
            Keep::Memory => boxed(StoreFiles::in_memory()),
        };
        let now_ms = super::thread::wall_ms();
        let options = match self.keep {
            Keep::Folder(_) => StoreOptions::of_device(),
            Keep::Memory => StoreOptions::in_memory(),
        };
        let options = StoreOptions { now_ms, ..options };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| DiskError::Device { reason: error.to_string() })?;
        Ok(PageServer::open_with(files, Seed(u64::from_le_bytes(seed)), options)?.0)
    }

    fn opened(&mut self, opened: Result<PageServer<Box<dyn Disk>>, OpenError>) -> Input {
        self.id.0 += 1;
        self.opened_at = Instant::now();
        match opened {
            Ok(server) => {
                self.server = Some(server);
                let storage = match self.keep {
                    Keep::Folder(_) => Storage::Opfs,
                    Keep::Memory => Storage::Memory,
                };
                Input::PageServerLent { server: self.id, settled_at_ms: 0, storage }
            }
            Err(error) => {
                let failure = PageServerFailure::new(error.why_unserved(), error.reasons());
                self.failed(failure)
            }
        }
    }

    /// It cannot go on: another one takes its place in a while.
    fn failed(&mut self, failure: PageServerFailure) -> Input {
        warn!(reason = %failure.reason, "the store has failed, and is opened anew");
        if self.opened_at.elapsed() > STEADY {
            self.pause = AGAIN_AFTER;
        }
        self.again_at = Some(Instant::now() + self.pause);
        self.pause = (2 * self.pause).min(AGAIN_AFTER_MAX);
        Input::PageServerFailed { server: self.id, failure }
    }

    /// When there is something to do though nobody asks.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Opens it anew, if it is time to. Says what the core is told, in this order.
    pub(super) fn wake(&mut self) -> Vec<Input> {
        if self.again_at.is_none_or(|at| at > Instant::now()) {
            return Vec::new();
        }
        self.again_at = None;
        let gone = Input::PageServerGone { server: self.id };
        // It holds the files.
        self.server = None;
        let opened = self.open_files();
        vec![gone, self.opened(opened)]
    }

    /// Whether it goes on by itself.
    pub(super) fn is_at_work(&self) -> bool {
        self.again_at.is_none() && self.server.as_ref().is_some_and(PageServer::wants_poll)
    }

    /// Serves what the core asks, and flushes once for all of it.
    pub(super) fn serve(&mut self, requests: Vec<(PageServerId, StoreRequest)>) {
        let Some(server) = self.server.as_mut().filter(|_| self.again_at.is_none()) else { return };
        let mut writes = false;
        for (_, request) in requests.into_iter().filter(|(to, _)| *to == self.id) {
            use StoreRequest::{Append, Destroy, Hello};
            writes |= matches!(request, Hello { .. } | Append { .. } | Destroy { .. });
            server.serve(OWNER, request);
        }
        if writes {
            server.flush();
        }
    }

    /// Does a piece of what is to be done. Says what the core is told, in this order.
    pub(super) fn proceed(&mut self) -> Vec<Input> {
        let Some(server) = self.server.as_mut().filter(|_| self.again_at.is_none()) else {
            return Vec::new();
        };
        server.set_time(super::thread::wall_ms());
        let replies: Vec<StoreReply> = server.poll().into_iter().map(|(_, reply)| reply).collect();
        let broken = replies.iter().find_map(|reply| match reply {
            StoreReply::Broken { error } if !matches!(error, AppendError::Fenced { .. }) => {
                Some(PageServerFailure::new(error.why_unserved(), error.to_string()))
            }
            _ => None,
        });
        let mut inputs = Vec::new();
        if !replies.is_empty() {
            inputs.push(Input::FromPageServer { server: self.id, replies });
        }
        inputs.extend(broken.map(|failure| self.failed(failure)));
        inputs
    }

    /// Nobody has asked for anything for a while.
    pub(super) fn rest(&mut self) {
        if let Some(server) = &mut self.server {
            server.rest();
            server.mark_durable();
            server.shorten_log();
        }
    }

    /// Writes down what may wait no longer, and lets go of the files.
    pub(super) fn close(self) {
        let Some(mut server) = self.server else { return };
        while (server.is_behind() || server.holds_back()) && server.wants_poll() {
            server.poll();
        }
        server.mark_durable();
        server.flush();
    }
}

fn boxed<D: Disk + 'static>(files: StoreFiles<D>) -> StoreFiles<Box<dyn Disk>> {
    let StoreFiles { log_a, log_b, pages, spare } = files;
    StoreFiles {
        log_a: Box::new(log_a),
        log_b: Box::new(log_b),
        pages: Box::new(pages),
        spare: Box::new(spare),
    }
}
