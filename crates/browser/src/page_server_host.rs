//! The page server as its worker sees it.

use std::cell::RefCell;

use js_sys::Uint8Array;
use tidelog_disk::StoreFiles;
use tidelog_pages::{
    AppendError, OpenError, OwnerId, PageServer, StoreReply, StoreRequest, Ticket,
};
use tidelog_sync::codec;
use wasm_bindgen::prelude::*;
use web_sys::FileSystemSyncAccessHandle;

use crate::opfs_disk::OpfsDisk;
use crate::{EncodedNotice, panics};

#[wasm_bindgen]
extern "C" {
    /// Who hands over what the page server answers; see `worker/src/page-server.ts`.
    #[derive(Debug)]
    pub type ReplyHost;

    #[wasm_bindgen(method)]
    fn reply(this: &ReplyHost, owner: u32, replies: Uint8Array);
    #[wasm_bindgen(method)]
    fn tell(this: &ReplyHost, owner: u32, tab: u32, messages: Uint8Array);
    #[wasm_bindgen(method)]
    fn failed(this: &ReplyHost, is_newer_format: bool, reason: &str);
}

/// What is left to be done after serving, as the worker numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing = 0,
    /// Slices of large requests: go on after letting others in.
    More = 1,
    /// The store has to be opened anew, by another page server.
    Broken = 2,
}

/// Why the store in the files cannot be opened. They are as they were.
#[derive(Clone, Debug)]
pub struct Unopened {
    /// Whether a newer release wrote them.
    pub is_newer_format: bool,
    /// What was found.
    pub reason: String,
}

/// The page server over the four files of the store.
#[derive(Debug)]
pub struct PageServerHost {
    server: PageServer<OpfsDisk>,
    host: ReplyHost,
    /// What tabs are told as soon as it is durable.
    notices: Vec<(OwnerId, EncodedNotice)>,
}

impl PageServerHost {
    /// Opens the store in these files.
    ///
    /// # Errors
    ///
    /// [`Unopened`].
    pub fn open(
        files: StoreFiles<FileSystemSyncAccessHandle>,
        host: ReplyHost,
    ) -> Result<Self, Unopened> {
        let StoreFiles { log_a, log_b, pages, spare } = files;
        let disk = |handle| {
            OpfsDisk::new(handle)
                .map_err(|error| Unopened { is_newer_format: false, reason: error.to_string() })
        };
        let files = StoreFiles {
            log_a: disk(log_a)?,
            log_b: disk(log_b)?,
            pages: disk(pages)?,
            spare: disk(spare)?,
        };
        let (server, _) = PageServer::open(files).map_err(|error| Unopened {
            is_newer_format: matches!(error, OpenError::NewerFormat { .. }),
            reason: error.to_string(),
        })?;
        Ok(Self { server, host, notices: Vec::new() })
    }

    /// Serves a list of requests in order, flushing once for all of them, and keeps the notices
    /// beside them. The core is trusted to write a list well: one that cannot be read breaks the
    /// page server.
    pub fn serve(&mut self, owner: u32, requests: &[u8]) -> Left {
        type Asked = (Vec<StoreRequest>, Vec<EncodedNotice>);
        let Ok((requests, notices)) = codec::decode::<Asked>(requests) else {
            return Left::Broken;
        };
        let owner = OwnerId(owner.into());
        let mut has_writes = false;
        for request in requests {
            has_writes |= matches!(
                request,
                StoreRequest::Hello { .. }
                    | StoreRequest::Append { .. }
                    | StoreRequest::Destroy { .. }
            );
            self.server.serve(owner, request);
        }
        self.notices.extend(notices.into_iter().map(|notice| (owner, notice)));
        if has_writes {
            self.server.flush();
        }
        self.proceed()
    }

    /// Goes on with what is left, a slice of it.
    pub fn proceed(&mut self) -> Left {
        let mut is_broken = false;
        // Hardly ever for more than one owner.
        let mut lists: Vec<(OwnerId, Vec<StoreReply>)> = Vec::new();
        for (owner, reply) in self.server.poll() {
            match &reply {
                StoreReply::Durable { ticket } => self.give_notice(owner, *ticket),
                StoreReply::AppendFailed { ticket, .. } => {
                    self.notices.retain(|(from, (of, ..))| (*from, of) != (owner, ticket));
                }
                // An owner that is fenced off is told so; the store itself is well.
                StoreReply::Broken { error } => {
                    is_broken |= !matches!(error, AppendError::Fenced { .. });
                }
                _ => {}
            }
            match lists.iter_mut().find(|(to, _)| *to == owner) {
                Some((_, list)) => list.push(reply),
                None => lists.push((owner, vec![reply])),
            }
        }
        for (OwnerId(owner), replies) in lists {
            let bytes = Uint8Array::from(codec::encode(&replies).as_slice());
            self.host.reply(owner as u32, bytes);
        }
        match (is_broken, self.server.wants_poll()) {
            (true, _) => Left::Broken,
            (_, true) => Left::More,
            _ => Left::Nothing,
        }
    }

    /// Tells tabs what is durable now, before the core: it is they who wait.
    fn give_notice(&mut self, owner: OwnerId, durable: Ticket) {
        let Self { notices, host, .. } = self;
        notices.retain(|(from, (ticket, tab, messages))| {
            let is_due = *from == owner && *ticket <= durable;
            if is_due {
                host.tell(owner.0 as u32, *tab, Uint8Array::from(messages.as_slice()));
            }
            !is_due
        });
    }
}

thread_local! {
    /// The one page server of this worker.
    static SERVER: RefCell<Option<PageServerHost>> = const { RefCell::new(None) };
}

fn with_server(work: impl FnOnce(&mut PageServerHost) -> Left) -> u32 {
    SERVER.with_borrow_mut(|server| server.as_mut().map_or(Left::Nothing, work)) as u32
}

// What follows is called by `worker/src/page-server.ts`; functions and not methods, since that
// spares the page a good part of wasm-bindgen's glue.

/// Opens the store in these files, or calls the host with the reason why not. Says which.
#[wasm_bindgen]
pub fn open(
    log_a: FileSystemSyncAccessHandle,
    log_b: FileSystemSyncAccessHandle,
    pages: FileSystemSyncAccessHandle,
    spare: FileSystemSyncAccessHandle,
    host: ReplyHost,
) -> bool {
    panics::print_to_console();
    let files = StoreFiles { log_a, log_b, pages, spare };
    match PageServerHost::open(files, host.clone().unchecked_into()) {
        Ok(server) => {
            SERVER.set(Some(server));
            true
        }
        Err(Unopened { is_newer_format, reason }) => {
            host.failed(is_newer_format, &reason);
            false
        }
    }
}

/// Serves a list of requests, flushing once for all of them. Gives a [`Left`].
#[wasm_bindgen]
pub fn serve(owner: u32, requests: &[u8]) -> u32 {
    with_server(|server| server.serve(owner, requests))
}

/// Goes on with what is left. Gives a [`Left`].
#[wasm_bindgen]
pub fn proceed() -> u32 {
    with_server(PageServerHost::proceed)
}

/// Lets go of the files.
#[wasm_bindgen]
pub fn close() {
    SERVER.set(None);
}
