//! Documents that wait for nothing.

use tidelog_client::{Call, FromCore, Handle, Input, Storage};
use tidelog_pages::StoreReply;
use tidelog_testing::client::core::{Core, LENT};

const DOCUMENTS_COUNT: u32 = 50;

fn with_documents() -> Core {
    let mut core = Core::default();
    for nth in 1..=DOCUMENTS_COUNT {
        core.open_new(Call(nth), Handle(nth), &format!("list-{nth}"), None);
    }
    core.pass(10_000);
    core
}

/// Goal: a mutation takes as long however many other documents are open. Method: one of many is
/// written, and only that one is looked at, until it is on the disk.
#[test]
fn a_core_looks_only_at_documents_that_wait_for_something() {
    let mut core = with_documents();
    assert_eq!(core.awake_count(), 0);
    let ticket = core.add_to(Handle(7), Call(100), "milk");
    assert_eq!(core.awake_count(), 1);
    core.reply(StoreReply::Durable { ticket });
    core.pass(1_000);
    assert_eq!(core.awake_count(), 0);
}

#[test]
fn all_documents_hear_of_what_they_share() {
    let mut core = with_documents();
    core.told.clear();
    core.step(Input::PageServerGone { server: LENT });
    let storage_of = |it: &FromCore| match it {
        FromCore::Status { status, .. } => Some(status.storage),
        _ => None,
    };
    let waiting = core.told.iter().filter(|it| storage_of(it) == Some(Storage::Waiting));
    assert_eq!(waiting.count(), DOCUMENTS_COUNT as usize);
}
