//! The page server as its worker sees it.

use std::cell::RefCell;

use js_sys::Uint8Array;
use tidelog_disk::{Disk, DiskError, MemoryDisk, StoreFiles};
use tidelog_pages::{
    AppendError, OpenError, OwnerId, PageServer, Seed, StoreOptions, StoreReply, StoreRequest,
    Ticket,
};
use tidelog_sync::codec::port;
use tidelog_types::UnservedKind;
use wasm_bindgen::prelude::*;
use web_sys::FileSystemSyncAccessHandle;

use crate::idb::IdbDatabase;
use crate::idb_disk::IdbDisk;
use crate::opfs_disk::OpfsDisk;
use crate::{EncodedNotice, panics};

/// [`ReplyHost`] as TypeScript sees it.
#[wasm_bindgen(typescript_custom_section)]
const REPLY_HOST: &str = r"
/** Who hands over what the page server answers. */
export interface ReplyHost {
  /** The store is open. */
  opened(): void;
  /** It cannot be opened, or cannot go on. `kind` is a place in `UNSERVED_KINDS`. */
  failed(kind: number, reason: string): void;
  /** A flush has ended later than it was asked for: `proceed` has something to do. */
  flushed(): void;
  reply(owner: number, replies: Uint8Array<ArrayBuffer>): void;
  /** Tells a tab of that owner a list of messages. */
  tell(owner: number, tab: number, messages: Uint8Array<ArrayBuffer>): void;
}";

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn fill_with_chance(bytes: &mut [u8]);

    /// Who hands over what the page server answers; see `worker/src/store-host.ts`.
    #[derive(Clone, Debug)]
    #[wasm_bindgen(typescript_type = "ReplyHost")]
    pub type ReplyHost;

    #[wasm_bindgen(method)]
    fn opened(this: &ReplyHost);
    #[wasm_bindgen(method)]
    fn failed(this: &ReplyHost, kind: u32, reason: &str);
    /// A flush has ended later than it was asked for: [`proceed`] has something to do.
    #[wasm_bindgen(method)]
    fn flushed(this: &ReplyHost);
    #[wasm_bindgen(method)]
    fn reply(this: &ReplyHost, owner: u32, replies: Uint8Array);
    #[wasm_bindgen(method)]
    fn tell(this: &ReplyHost, owner: u32, tab: u32, messages: Uint8Array);
}

/// Times that the page server is polled in one slice, where nobody else seems to wait.
const SLICE_POLLS: u32 = 4;
/// Slices of one poll each after somebody had to wait for the end of a slice: who asked amid a
/// large read asks again soon.
const SHORT_SLICES: u32 = 64;

/// What is left to be done after serving, as the worker numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing = 0,
    /// Slices of large requests: go on after letting others in.
    More = 1,
}

/// Why the store in the files cannot be opened. They are as they were.
#[derive(Clone, Debug)]
pub struct Unopened {
    /// What kind of failure.
    pub kind: UnservedKind,
    /// What was found.
    pub reason: String,
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        Self { kind: error.why_unserved(), reason: error.reasons() }
    }
}

impl From<DiskError> for Unopened {
    fn from(error: DiskError) -> Self {
        OpenError::Disk(error).into()
    }
}

/// The page server over the four files of the store, whatever keeps them.
pub struct PageServerHost {
    server: PageServer<Box<dyn Disk>>,
    host: ReplyHost,
    /// What tabs are told as soon as it is durable.
    notices: Vec<(OwnerId, EncodedNotice)>,
    /// Slices that are still to be short.
    short_slices: u32,
}

impl PageServerHost {
    /// Opens the store in these files.
    ///
    /// # Errors
    ///
    /// [`Unopened`].
    pub fn open<D: Disk + 'static>(
        files: StoreFiles<D>,
        options: StoreOptions,
        host: ReplyHost,
    ) -> Result<Self, Unopened> {
        let StoreFiles { log_a, log_b, pages, spare } = files;
        let files: StoreFiles<Box<dyn Disk>> = StoreFiles {
            log_a: Box::new(log_a),
            log_b: Box::new(log_b),
            pages: Box::new(pages),
            spare: Box::new(spare),
        };
        let now_ms = js_sys::Date::now() as u64;
        let options = StoreOptions { now_ms, ..options };
        let mut seed = [0; 8];
        fill_with_chance(&mut seed);
        let (server, _) = PageServer::open_with(files, Seed(u64::from_le_bytes(seed)), options)?;
        Ok(Self { server, host, notices: Vec::new(), short_slices: 0 })
    }

    /// Serves a list of requests in order, flushing once for all of them, and keeps the notices
    /// beside them. The core is trusted to write a list well: one that cannot be read breaks the
    /// page server.
    pub fn serve(&mut self, owner: u32, requests: &[u8]) -> Left {
        type Asked = (Vec<StoreRequest>, Vec<EncodedNotice>);
        let Ok((requests, notices)) = port::decode::<Asked>(requests) else {
            return self.broke(UnservedKind::Unavailable, "a list of requests cannot be read");
        };
        let owner = OwnerId(owner.into());
        if self.server.wants_poll() {
            self.short_slices = SHORT_SLICES;
        }
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
        self.server.set_time(js_sys::Date::now() as u64);
        let mut broken = None;
        // Hardly ever for more than one owner.
        let mut lists: Vec<(OwnerId, Vec<StoreReply>)> = Vec::new();
        for (owner, reply) in self.polled() {
            match &reply {
                StoreReply::Durable { ticket } => self.give_notice(owner, *ticket),
                StoreReply::AppendFailed { ticket, .. } => {
                    self.notices.retain(|(from, (of, ..))| (*from, of) != (owner, ticket));
                }
                // An owner that is fenced off is told so; the store itself is well.
                StoreReply::Broken { error } if !matches!(error, AppendError::Fenced { .. }) => {
                    broken = Some((error.why_unserved(), error.to_string()));
                }
                _ => {}
            }
            match lists.iter_mut().find(|(to, _)| *to == owner) {
                Some((_, list)) => list.push(reply),
                None => lists.push((owner, vec![reply])),
            }
        }
        for (owner, replies) in lists {
            self.reply(owner, &replies);
        }
        match broken {
            Some((kind, reason)) => self.broke(kind, &reason),
            None if self.server.wants_poll() => Left::More,
            None => Left::Nothing,
        }
    }

    /// The store has to be opened anew, by another page server. The host says why as it ends this
    /// one: what it replied may be heard only after that, and so by nobody.
    fn broke(&self, kind: UnservedKind, reason: &str) -> Left {
        self.host.failed(kind.number(), reason);
        Left::Nothing
    }

    /// Nobody has asked for anything for a while.
    pub fn rest(&mut self) -> Left {
        self.server.mark_durable();
        self.server.shorten_log();
        self.proceed()
    }

    /// What is to be said now; where it is pages, those of a few turns, since between two slices
    /// the worker waits for a message of its own.
    fn polled(&mut self) -> Vec<(OwnerId, StoreReply)> {
        let mut replies = self.server.poll();
        let is_pages =
            |(_, reply): &(OwnerId, StoreReply)| matches!(reply, StoreReply::Pages { .. });
        let polls_max = if self.short_slices > 0 { 1 } else { SLICE_POLLS };
        self.short_slices = self.short_slices.saturating_sub(1);
        let mut polls = 1;
        while polls < polls_max && self.server.wants_poll() && replies.last().is_some_and(is_pages)
        {
            replies.extend(self.server.poll());
            polls += 1;
        }
        replies
    }

    fn reply(&self, OwnerId(owner): OwnerId, replies: &Vec<StoreReply>) {
        self.host.reply(owner as u32, Uint8Array::from(port::encode(replies).as_slice()));
    }

    /// From now on nothing is taken, since it would go nowhere; what is there can still be read.
    pub fn lose(&mut self) {
        self.server.lose();
        self.notices.clear();
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

// What follows is called by `worker/src/store-host.ts`; functions and not methods, since that
// spares the page a good part of wasm-bindgen's glue.

/// Opens the store in the files behind these handles. The host is told whether that went well.
///
/// The spare file is there and not open: nothing is ever written to it, and a tab that takes the
/// store over waits for every file that one worker closes and another one opens.
#[wasm_bindgen(js_name = openFiles)]
pub fn open_files(
    log_a: FileSystemSyncAccessHandle,
    log_b: FileSystemSyncAccessHandle,
    pages: FileSystemSyncAccessHandle,
    host: ReplyHost,
) {
    panics::print_to_console();
    let boxed = |handle| Ok::<Box<dyn Disk>, DiskError>(Box::new(OpfsDisk::new(handle)?));
    let files = || {
        let (log_a, log_b, pages) = (boxed(log_a)?, boxed(log_b)?, boxed(pages)?);
        Ok(StoreFiles { log_a, log_b, pages, spare: Box::new(MemoryDisk::default()) })
    };
    open(files(), StoreOptions::of_device(), host);
}

/// Opens the store in this database. The host is told whether that went well.
#[wasm_bindgen(js_name = openBlocks)]
pub fn open_blocks(database: IdbDatabase, host: ReplyHost) {
    panics::print_to_console();
    let listener = host.clone();
    IdbDisk::open(
        database,
        move || listener.flushed(),
        move |files| {
            open(files, StoreOptions::in_memory(), host);
        },
    );
}

fn open<D: Disk + 'static>(
    files: Result<StoreFiles<D>, DiskError>,
    options: StoreOptions,
    host: ReplyHost,
) {
    let opened = files.map_err(Unopened::from);
    match opened.and_then(|files| PageServerHost::open(files, options, host.clone())) {
        Ok(server) => {
            SERVER.set(Some(server));
            host.opened();
        }
        Err(Unopened { kind, reason }) => host.failed(kind.number(), &reason),
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

/// Nobody has asked for anything for a while. Gives a [`Left`].
#[wasm_bindgen]
pub fn rest() -> u32 {
    with_server(PageServerHost::rest)
}

/// The data of this site were cleared: from now on what is to be appended fails.
#[wasm_bindgen]
pub fn lose() {
    SERVER.with_borrow_mut(|server| server.as_mut().map(PageServerHost::lose));
}

/// Lets go of the files.
#[wasm_bindgen]
pub fn close() {
    SERVER.set(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_damaged_is_said_to_be() {
        let kind_of = |error: OpenError| Unopened::from(error).kind;
        assert_eq!(kind_of(OpenError::DamagedPageFile), UnservedKind::Damaged);
        let failed = DiskError::Device { reason: "for now".to_owned() };
        assert_eq!(kind_of(failed.into()), UnservedKind::Unavailable);
        assert_eq!(kind_of(DiskError::Full.into()), UnservedKind::Full);
    }
}
