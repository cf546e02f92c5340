//! What a decoder must keep, whatever bytes it is given: no panic, and a value that was read is
//! written as it was. Called by libFuzzer, and by `tests/crash/tests/corpus.rs` with the corpus.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelog_client::{FromCore, ToCore};
use tidelog_disk::{CrashDevice, Disk, StoreFiles};
use tidelog_document::Doctype;
use tidelog_pages::{
    Append, OpenError, OwnerId, PageServer, RequestId, Seed, StoreReply, StoreRequest, Ticket,
    Urgency,
};
use tidelog_sync::codec::{self, port};
use tidelog_sync::{FromServer, ToServer, decode_message, encode_message};
use tidelog_types::{DocumentKey, Lsn, Pgid, Position};

const OWNER: OwnerId = OwnerId(1);
const LOG_START: usize = 8192;
const SALT: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
/// Bytes of a frame before its call and its chain, if it has these, and its body.
const FRAME_HEADER: usize = 98;

/// A store whose files are parts of `data`: the first eight bytes are the sizes of the first two,
/// the page file is the rest.
pub fn log_bytes(data: &[u8]) {
    let Some((sizes, rest)) = data.split_first_chunk::<8>() else { return };
    let size = |at: usize| u32::from_le_bytes(sizes[at..at + 4].try_into().expect("four")) as usize;
    let (log_a, rest) = rest.split_at(size(0).min(rest.len()));
    let (log_b, pages) = rest.split_at(size(4).min(rest.len()));
    store([log_a, log_b, pages]);
}

/// A log whose frames are what `data` says, with all that ties them to their places made right:
/// so whatever a frame says is believed, but that a chain is zeros. The first byte is how many are
/// copied state.
pub fn log_frames(data: &[u8]) {
    let [state_frames, flags, rest @ ..] = data else { return };
    let mut log = vec![0; LOG_START];
    let mut rest = rest;
    let mut frames = Vec::new();
    let mut counts = std::collections::BTreeMap::<u64, u64>::new();
    while let Some((header, behind)) = rest.split_first_chunk::<FRAME_HEADER>() {
        let body_size = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
        let Some((tail, behind)) = behind.split_at_checked(tail_size(header)) else { break };
        let (body, behind) = behind.split_at(behind.len().min(body_size as usize));
        let mut frame = [header.as_slice(), tail, body].concat();
        frame.resize(frame.len().next_multiple_of(8), 0);
        frame[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        frame[13] &= 3;
        let document = u64::from_le_bytes(frame[42..50].try_into().expect("eight bytes"));
        if flags & 1 == 0 {
            // A batch of its own, durable so far as is known, the next of its document.
            frame[22..38].fill(0);
            frame[38..42].copy_from_slice(&1_u32.to_le_bytes());
            let count = counts.entry(document).or_default();
            *count += u64::from(document != 0);
            frame[50..58].copy_from_slice(&count.to_le_bytes());
        }
        frames.push(frame);
        rest = behind;
    }
    let in_state = usize::from(*state_frames).min(frames.len());
    let state: usize = frames[..in_state].iter().map(Vec::len).sum();
    let header = log_header((LOG_START + state) as u64);
    let mut link = 0;
    for (index, frame) in frames.iter_mut().enumerate() {
        if index == in_state {
            link = crc32c::crc32c(&header[..32]);
        }
        tie(frame, log.len() as u64, link);
        link = u32::from_le_bytes(frame[4..8].try_into().expect("four bytes"));
        log.extend_from_slice(frame);
    }
    log[..512].copy_from_slice(&header);
    log[4096..4608].copy_from_slice(&header);
    log.extend_from_slice(&[0; 8]);
    store([&log, &[], &[]]);
}

/// The header of a sealed log file, generation 1. See `crates/journal/FORMAT.md`.
fn log_header(state_end: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..8].copy_from_slice(b"TIDELOG1");
    header[8..12].copy_from_slice(&1_u32.to_le_bytes());
    header[16..24].copy_from_slice(&1_u64.to_le_bytes());
    header[24..32].copy_from_slice(&state_end.to_le_bytes());
    header[40..48].copy_from_slice(&SALT);
    let checksum = crc32c::crc32c(&header[..508]);
    header[508..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Makes a frame one that was written at this offset, behind the frame with that checksum.
fn tie(frame: &mut [u8], offset: u64, link: u32) {
    let header_size = FRAME_HEADER + tail_size(frame);
    let body = crc32c::crc32c(&frame[header_size..]);
    frame[..4].copy_from_slice(&SALT[..4]);
    frame[14..18].copy_from_slice(&body.to_le_bytes());
    frame[18..22].copy_from_slice(&link.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&SALT), &offset.to_le_bytes());
    let checksum = crc32c::crc32c_append(checksum, &frame[8..header_size]);
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Bytes of a frame's call and chain, as its flags say.
fn tail_size(header: &[u8]) -> usize {
    16 * usize::from(header[13] & 1) + 32 * usize::from(header[13] >> 1 & 1)
}

/// Opens it, reads all of it, writes to it, and opens it again.
fn store(contents: [&[u8]; 3]) {
    let device = CrashDevice::new();
    for (name, bytes) in StoreFiles::<()>::NAMES.into_iter().zip(contents) {
        device.file(name).write_at(0, bytes).expect("room");
    }
    let files = || StoreFiles::open_each(|name| Ok::<_, ()>(device.file(name))).expect("no errors");
    let (mut server, report) = match PageServer::open(files(), Seed(1)) {
        Ok(opened) => opened,
        Err(OpenError::Disk(error)) => panic!("the disk is sound: {error}"),
        Err(_) => return,
    };
    read_all(&mut server);
    let mut append = Append::to(DocumentKey::new("fuzz", "").expect("a good name"));
    append.record = Some(b"here".to_vec().into());
    server.serve(OWNER, StoreRequest::Append { ticket: Ticket(1), append });
    server.flush();
    let replies = poll_all(&mut server);
    let is_durable = replies.contains(&(OWNER, StoreReply::Durable { ticket: Ticket(1) }));
    assert!(!is_durable || report.damage.is_none(), "nothing is written to a damaged store");
    drop(server);
    let (mut server, again) = PageServer::open(files(), Seed(2)).expect("it was opened before");
    assert_eq!(again.damage, report.damage, "damage neither comes nor goes");
    let found = read_all(&mut server);
    assert!(!is_durable || found.iter().any(|name| name == "fuzz"), "it was durable");
}

/// Opens every document and reads all its pages. Gives their names.
fn read_all<D: Disk>(server: &mut PageServer<D>) -> Vec<String> {
    server.serve(OWNER, StoreRequest::List { request: RequestId(1) });
    let replies = poll_all(server);
    let [(_, StoreReply::Documents { documents, .. })] = replies.as_slice() else {
        panic!("list answered {replies:?}");
    };
    for (index, document) in documents.iter().enumerate() {
        // To be refused one document breaks an owner off.
        let owner = OwnerId(2 + index as u64);
        server.serve(owner, StoreRequest::Open { document: document.clone() });
    }
    for (OwnerId(owner), reply) in poll_all(server) {
        let StoreReply::Opened { document, state: Some(opened), .. } = reply else { continue };
        let Some(Position { journal, .. }) = opened.storage else { continue };
        let (request, since, urgency) = (2, Lsn::FIRST, Urgency::User);
        let asked = StoreRequest::SyncPrepare {
            request: RequestId(request),
            urgency,
            document,
            journal,
            since,
            from: Pgid(1),
            pages_max: u32::MAX,
        };
        server.serve(OwnerId(owner), asked);
    }
    poll_all(server);
    documents.iter().map(|key| key.document.clone()).collect()
}

fn poll_all<D: Disk>(server: &mut PageServer<D>) -> Vec<(OwnerId, StoreReply)> {
    let mut replies = Vec::new();
    loop {
        replies.extend(server.poll());
        if !server.wants_poll() {
            return replies;
        }
    }
}

/// A message between client and server, in both directions.
pub fn wire(data: &[u8]) {
    is_read_as_written::<ToServer>(data);
    is_read_as_written::<FromServer>(data);
}

/// There is one way to write a message, but for those that are compressed or may be.
fn is_read_as_written<T>(data: &[u8])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let Ok(message) = decode_message::<T>(data) else { return };
    let written = encode_message(&message);
    let is_compressed = |bytes: &[u8]| bytes[1] & 0x80 != 0;
    if !is_compressed(data) && !is_compressed(&written) {
        assert_eq!(written, data);
    }
    assert_eq!(decode_message::<T>(&written).ok(), Some(message));
}

/// What travels on ports within a browser, and a doctype; the first byte says which.
pub fn ports(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 5 {
        0 => round_trip::<Vec<ToCore>>(data),
        1 => round_trip::<Vec<FromCore>>(data),
        2 => round_trip::<Vec<StoreRequest>>(data),
        3 => round_trip::<Vec<StoreReply>>(data),
        _ => {
            if let Ok(doctype) = codec::decode_untrusted::<Doctype>(data) {
                assert_eq!(codec::encode(&doctype), data);
            }
        }
    }
}

/// A map may be given in another order than it is written in: so it is compared when written.
fn round_trip<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(value) = port::decode::<T>(data) {
        let bytes = port::encode(&value);
        let again = port::decode::<T>(&bytes).expect("it was just written");
        assert_eq!(port::encode(&again), bytes);
    }
}
