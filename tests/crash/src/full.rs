//! What holds of a store on a device that is full, and stays so.

use tidelog_disk::CrashDevice;
use tidelog_pages::{Append, PageServer, StoreReply, StoreRequest, Ticket};
use tidelog_types::DocumentKey;

use tidelog_testing::store::{OWNER, Server, files, open_document, seed, settle};

/// Room that it has at first, for a few documents.
const FREE_SIZE: u64 = 400 * 1024;
/// Size of a document that fills it up.
const DOCUMENT_SIZE: usize = 40 * 1024;
/// More than there is room for.
const DOCUMENTS_MAX: u64 = 100;
/// How often what fits is appended, until there is room made for it.
const TRIES: u64 = 4;

/// Fills the device up, destroys half of the documents, and appends one as large. The log is
/// nowhere near the size at which a change-over is due: nothing but the want of room makes any.
/// Less than half may not be enough: a change-over needs room beside the log that it leaves.
///
/// # Errors
///
/// What does not hold.
pub(crate) fn heals(device: &CrashDevice) -> Result<(), String> {
    let opened = PageServer::open(files(device), seed(device));
    let mut server = opened.map_err(|error| error.to_string())?.0;
    settle(&mut server, device);
    device.set_capacity(Some(device.used() + FREE_SIZE));
    let count = (0..DOCUMENTS_MAX).take_while(|number| fits(&mut server, device, *number)).count();
    let count = count as u64;
    if count == 0 || count == DOCUMENTS_MAX {
        return Err(format!("{count} documents have filled the device"));
    }
    for number in 0..count.div_ceil(2) {
        let destroyed = StoreRequest::Destroy { ticket: Ticket(1), document: key(number) };
        if !is_durable(&mut server, device, destroyed) {
            return Err("nothing can be destroyed on a full device".to_owned());
        }
    }
    if !(0..TRIES).any(|_| fits(&mut server, device, count)) {
        return Err(format!("no room on a full device where half was destroyed: {server}"));
    }
    Ok(())
}

fn key(number: u64) -> DocumentKey {
    DocumentKey::new(&format!("full{number}"), "").expect("a good name")
}

fn fits(server: &mut Server, device: &CrashDevice, number: u64) -> bool {
    // What comes behind an append that failed does so too, before this.
    open_document(server, device, &key(number));
    let mut append = Append::to(key(number));
    append.record = Some(vec![1; DOCUMENT_SIZE].into());
    is_durable(server, device, StoreRequest::Append { ticket: Ticket(1), append })
}

fn is_durable(server: &mut Server, device: &CrashDevice, request: StoreRequest) -> bool {
    server.serve(OWNER, request);
    server.flush();
    let replies = settle(server, device);
    replies.iter().any(|reply| matches!(reply, StoreReply::Durable { .. }))
}
