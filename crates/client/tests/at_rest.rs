//! Documents that wait for nothing.

use tidelog_client::{Call, FromCore, Handle, Input, Storage, ToCore};
use tidelog_pages::StoreReply;
use tidelog_sync::{Channel, FromRoom, FromServer, Refusal};
use tidelog_testing::client::core::{Core, LENT, key, stored_up_to};
use tidelog_testing::client::{HANDLE, SERVER};
use tidelog_types::{ErrorCode, Life};

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

/// What is wrong with a document, as its tab was told last.
fn wrong(core: &Core, of: Handle) -> Option<ErrorCode> {
    let statuses = core.told.iter().rev().filter_map(|it| match it {
        FromCore::Status { handle, status, .. } if *handle == of => Some(status),
        _ => None,
    });
    statuses.map(|status| status.error.as_ref().map(|it| it.code)).next().expect("a status")
}

/// Goal: a document that could not be written hears that there is room again, also where nothing
/// else happens to it. Method: it is read anew on a full disk; then the disk takes something of
/// another one.
#[test]
fn a_document_in_trouble_hears_that_the_disk_takes_something_of_another_one() {
    let mut core = Core::default();
    core.open_new(Call(1), Handle(2), "other", None);
    core.open_new(Call(2), HANDLE, "list", None);
    let before = stored_up_to(&core, 2);
    let ticket = core.add(Call(3), "milk");
    core.fail(ticket);
    let (document, state) = (key("list"), Some(Box::new(before)));
    core.reply(StoreReply::Opened { document, life: Life::NONE, state });
    assert_eq!(wrong(&core, HANDLE), Some(ErrorCode::StorageFull));
    let ticket = core.add_to(Handle(2), Call(4), "bread");
    core.reply(StoreReply::Durable { ticket });
    assert_eq!(wrong(&core, HANDLE), None);
}

#[test]
fn documents_rest_while_nobody_can_be_told_who_is_present_there() {
    let mut core = with_documents();
    for nth in 1..=DOCUMENTS_COUNT {
        let state = Some("{}".to_owned());
        core.say(ToCore::Presence { handle: Handle(nth), state });
    }
    assert_eq!(core.awake_count(), 0);
}

#[test]
fn documents_rest_that_their_server_refuses() {
    let mut core = Core::default();
    for nth in 1..=3 {
        core.open_new(Call(nth), Handle(nth), &format!("list-{nth}"), Some(SERVER));
    }
    core.welcome(SERVER);
    for channel in (1..=3).map(Channel) {
        let body = FromRoom::Refused(Refusal::Access { reason: "no grant".to_owned() });
        core.hear(SERVER, &FromServer::About { channel, body });
    }
    assert_eq!(wrong(&core, Handle(3)), Some(ErrorCode::Access));
    assert_eq!(core.awake_count(), 0);
}
