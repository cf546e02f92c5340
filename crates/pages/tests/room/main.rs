//! What a store takes of its device, and what it does when that is full.

mod change_over;
mod files;
mod full;
mod given_up;

use tidelog_disk::CrashDevice;
use tidelog_pages::{Append, AppendError, StoreOptions, StoreReply, StoreRequest, Ticket};
use tidelog_testing::store::make::{durable, key, request, timeline};
use tidelog_testing::store::{OWNER, Server, open_document, open_with, settle};
use tidelog_types::BudgetLimits;
use tidelog_types::limits::Limits;

const KIB: u64 = 1024;

fn sizes() -> StoreOptions {
    let limits =
        Limits { slice: BudgetLimits { pages: 64, ..Limits::DEFAULT.slice }, ..Limits::DEFAULT };
    StoreOptions { log_size_max: 96 * KIB, limits, ..StoreOptions::default() }
}

fn open(device: &CrashDevice) -> Server {
    open_with(device, sizes())
}

fn size(device: &CrashDevice, file: &str) -> u64 {
    device.bytes_of(file).map_or(0, |bytes| bytes.len() as u64)
}

fn append(server: &mut Server, device: &CrashDevice, ticket: u64, of: Append) -> bool {
    server.serve(OWNER, request(ticket, of));
    server.flush();
    match settle(server, device).as_slice() {
        [reply] if *reply == durable(ticket) => true,
        [StoreReply::AppendFailed { error: AppendError::Full, .. }] => false,
        other => panic!("{other:?}"),
    }
}

fn destroy(server: &mut Server, device: &CrashDevice, ticket: u64, name: &str) {
    server.serve(OWNER, StoreRequest::Destroy { ticket: Ticket(ticket), document: key(name) });
    server.flush();
    assert_eq!(settle(server, device), [durable(ticket)], "room is made on a full device too");
}

fn kept(document: &str, size: usize) -> Append {
    let mut kept = timeline(document, []);
    kept.record = Some(vec![1; size * 1024].into());
    kept
}

/// How many succeed of 300 appends each of which puts something in the place of the one before.
fn appended_over(server: &mut Server, device: &CrashDevice) -> usize {
    let mut succeeded = 0;
    for ticket in 2..302 {
        let mut notes = Append::to(key("notes"));
        notes.record = Some(vec![ticket as u8; 8000].into());
        if append(server, device, ticket, notes) {
            succeeded += 1;
        } else {
            open_document(server, device, &key("notes"));
        }
    }
    succeeded
}
