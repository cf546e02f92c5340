//! Appends that arrive in parts.

use tidelog_disk::CrashDevice;
use tidelog_pages::{Append, AppendError, OwnerId, StagedPage, StoreReply, StoreRequest, Ticket};
use tidelog_testing::Rng;
use tidelog_testing::store::make::{self, durable, entry, key, lsn, request, storage};
use tidelog_testing::store::{OWNER, Server, ask, changes, open, open_document, settle};
use tidelog_types::Pgid;
use tidelog_types::limits::{APPEND_PAGES_MAX, Limits};

/// Two entries, the first of them of several parts.
fn large() -> Append {
    let mut rng = Rng::new(3);
    let count = 2 * Limits::DEFAULT.append_part_pages_max as u32 + 7;
    let mut first = entry(1, 2, count, &[]);
    first.set.pages = (1..=count).map(|pgid| (Pgid(pgid), rng.page())).collect();
    storage("a", [first, entry(2, 3, count, &[(5, 5), (9, 9)])])
}

/// The parts of the large append: its pages, and what begins it.
fn parts(ticket: u64) -> (Vec<StoreRequest>, StoreRequest) {
    let mut parts = request(ticket, large()).into_parts(Limits::DEFAULT.append_part_pages_max);
    let append = parts.pop().expect("the append");
    assert_eq!(parts.len(), 3);
    for part in &parts {
        let StoreRequest::Stage { pages, .. } = part else { panic!("{part:?}") };
        assert!(pages.len() <= Limits::DEFAULT.append_part_pages_max);
    }
    (parts, append)
}

fn serve(
    server: &mut Server,
    device: &CrashDevice,
    requests: Vec<StoreRequest>,
) -> Vec<StoreReply> {
    requests.into_iter().for_each(|request| server.serve(OWNER, request));
    server.flush();
    settle(server, device)
}

#[test]
fn an_append_of_few_pages_is_one_message() {
    let small = request(1, storage("a", [entry(1, 2, 2, &[(1, 1), (2, 2)])]));
    assert_eq!(small.clone().into_parts(Limits::DEFAULT.append_part_pages_max), [small]);
    let open = StoreRequest::Open { document: key("a") };
    assert_eq!(open.clone().into_parts(Limits::DEFAULT.append_part_pages_max), [open]);
}

#[test]
fn an_append_in_parts_is_what_it_would_be_whole() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let (stages, append) = parts(1);
    serve(&mut server, &device, stages);
    assert_eq!(open_document(&mut server, &device, &key("a")), None, "it has not begun");
    assert_eq!(serve(&mut server, &device, vec![append]), [durable(1)]);
    let mut expected = large().storage.remove(0).set;
    expected.pages.extend(large().storage.remove(1).set.pages);
    for _ in 0..2 {
        let set = changes(&mut server, &device, &key("a"), lsn(1));
        assert!(set == expected);
        drop(server);
        server = open(&device);
    }
}

#[test]
fn pages_whose_append_never_came_are_in_no_other() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let (stages, _) = parts(1);
    serve(&mut server, &device, stages);
    serve(&mut server, &device, vec![request(2, storage("a", [entry(1, 2, 9, &[(1, 1)])]))]);
    let set = changes(&mut server, &device, &key("a"), lsn(1));
    assert_eq!(set.pages.len(), 1);

    // Neither are those of an owner that went.
    let (stages, append) = parts(3);
    let other = OwnerId(9);
    stages.into_iter().for_each(|stage| server.serve(other, stage));
    server.forget_owner(other);
    let StoreRequest::Append { append: mut rest, .. } = append else { panic!("an append") };
    rest.document = key("b");
    server.serve(other, request(3, rest));
    server.flush();
    settle(&mut server, &device);
    let set = changes(&mut server, &device, &key("b"), lsn(1));
    assert_eq!(set.pages.len(), 0);
}

/// Goal: an append is all that was sent of it, or refused. Method: another one of its owner comes
/// between its parts.
#[test]
fn an_append_between_whose_parts_another_came_is_refused() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let (mut requests, append) = parts(1);
    let other = request(2, storage("b", [entry(1, 2, 9, &[(1, 1)])]));
    requests.insert(2, other);
    requests.push(append);
    let replies = serve(&mut server, &device, requests);
    let [StoreReply::AppendFailed { ticket, error }, other] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    assert!(matches!(error, AppendError::OutOfPlace { .. }), "{error}");
    assert_eq!((*ticket, other), (Ticket(1), &durable(2)));
    assert_eq!(open_document(&mut server, &device, &key("a")), None);
}

#[test]
fn a_page_of_an_entry_that_is_not_there_is_refused() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let (stages, _) = parts(1);
    serve(&mut server, &device, stages);
    let replies = ask(&mut server, &device, request(1, Append::to(key("a"))));
    assert!(
        matches!(
            replies.as_slice(),
            [StoreReply::AppendFailed { ticket: Ticket(1), error: AppendError::OutOfPlace { .. } }]
        ),
        "{replies:?}"
    );
}

#[test]
fn an_owner_can_send_only_so_many_pages_ahead() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let staged = |ticket: u64, count: usize| {
        let staged = StagedPage { entry: 0, pgid: Pgid(1), page: make::page(1) };
        StoreRequest::Stage { ticket: Ticket(ticket), pages: vec![staged; count] }
    };
    let append = |ticket: u64| request(ticket, storage("a", [entry(1, 2, 9, &[(2, 2)])]));
    let parts = vec![staged(1, APPEND_PAGES_MAX), staged(1, 1), staged(1, 1), append(1)];
    let replies = serve(&mut server, &device, parts);
    assert!(
        matches!(
            replies.as_slice(),
            [StoreReply::AppendFailed { ticket: Ticket(1), error: AppendError::OutOfPlace { .. } }]
        ),
        "{replies:?}"
    );
    assert_eq!(open_document(&mut server, &device, &key("a")), None);
    let parts = vec![staged(2, APPEND_PAGES_MAX), append(2)];
    assert_eq!(serve(&mut server, &device, parts), [durable(2)], "as many as are allowed");
}
