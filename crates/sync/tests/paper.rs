//! What PROTOCOL.md says of sizes is what the product keeps.
//!
//! Goal: whoever writes a client from the paper alone is refused nothing that the paper lets
//! through. Method: each row that names a limit says its number as it stands in the code.

use tidelog_types::limits::{
    CONNECTION_ATTENDEES_MAX, CONNECTION_CHANNELS_MAX, CONNECTION_IN_SIZE_MAX,
    CONNECTION_OUT_SIZE_MAX, CONNECTIONS_MAX, DOCTYPE_SIZE_MAX, DOCTYPES_MAX, DOCTYPES_SIZE_MAX,
    DOCUMENT_NAME_SIZE_MAX, ENTRY_PAGES_MAX, HELLO_SIZE_MAX, LARGE_MESSAGES_MAX,
    LARGE_MESSAGES_SIZE_MAX, Limits, MESSAGE_FRAMES_MAX, MESSAGE_PAGES_MAX, MESSAGE_SIZE_MAX,
    MUTATION_PARAMS_MAX, MUTATION_STATEMENTS_MAX, OFFER_LIVES_MAX, PRESENCE_ATTENDEES_MAX,
    PRESENCE_KEPT_SIZE_MAX, PRESENCE_STATE_SIZE_MAX, ROOM_LARGE_MESSAGES_SIZE_MAX, ROOMS_MAX,
    SEED_LSN_MAX, SMALL_MESSAGE_SIZE_MAX, SQL_VALUE_SIZE_MAX,
};

const PAPER: &str = include_str!("../PROTOCOL.md");

/// A number as the paper writes it.
fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    groups.iter().map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join(",")
}

/// Bytes as the paper writes them.
fn size(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

#[test]
fn the_limits_of_the_paper_are_those_of_the_code() {
    let limits = Limits::DEFAULT;
    let hello_size_max = usize::try_from(HELLO_SIZE_MAX).expect("small");
    assert_eq!(MUTATION_PARAMS_MAX, MUTATION_STATEMENTS_MAX, "they share a row");
    assert_eq!(SMALL_MESSAGE_SIZE_MAX, 384 << 10, "it names a row");
    let rows = [
        (
            "what one who is present says of itself",
            format!("{} bytes", count(PRESENCE_STATE_SIZE_MAX)),
        ),
        ("changes in one `Presence`", format!("{} ", count(PRESENCE_ATTENDEES_MAX))),
        ("those who are present on one channel", format!("{} ", count(PRESENCE_ATTENDEES_MAX))),
        (
            "those who are present on all channels of one connection",
            format!("{} ", count(CONNECTION_ATTENDEES_MAX)),
        ),
        (
            "who is present with any document",
            format!("{}, ", size(usize::try_from(PRESENCE_KEPT_SIZE_MAX).expect("it fits"))),
        ),
        ("before `Hello`", format!("{}, ", size(hello_size_max))),
        ("frames in one message", format!("{}; ", count(MESSAGE_FRAMES_MAX))),
        ("frames in one message", format!("better {} ", size(limits.message_frames_size_max))),
        (
            "bytes of one connection that no room has worked off yet",
            format!("{}, ", size(CONNECTION_IN_SIZE_MAX)),
        ),
        ("bytes of answers that it has not read", format!("{} ", size(CONNECTION_OUT_SIZE_MAX))),
        (
            "messages of more than 384 KiB that are being said to the server",
            format!("{} ", count(LARGE_MESSAGES_MAX)),
        ),
        (
            "messages of more than 384 KiB that are being said, or that no room has worked off yet",
            format!("{} ", size(LARGE_MESSAGES_SIZE_MAX)),
        ),
        (
            "of them, said to one document and not worked off yet",
            format!("{} ", size(ROOM_LARGE_MESSAGES_SIZE_MAX)),
        ),
        (
            "doctypes, and what their pages name, of all documents that are being handed over",
            format!("{} ", size(usize::try_from(limits.seeds_kept_size_max).expect("64 bits"))),
        ),
        ("documents in the store", format!("{}, ", count(limits.documents_max))),
        ("channels", format!("{} ", count(CONNECTION_CHANNELS_MAX))),
        (
            "documents that are open on the server, connections to it",
            format!("{}; {} ", count(ROOMS_MAX), count(CONNECTIONS_MAX)),
        ),
        ("pages of a seed", format!("{}, ", count(ENTRY_PAGES_MAX))),
        (
            "the LSN at which a seed stands",
            format!("{} ", count(usize::try_from(SEED_LSN_MAX).expect("64 bits"))),
        ),
        ("lives of an offered document", format!("{} ", count(OFFER_LIVES_MAX))),
        (
            "pages of a seed beyond those taken in",
            format!("any number; better {} ", count(limits.seed_pages_ahead_max)),
        ),
        (
            "doctypes of one document",
            format!("{}, and {} in all ", count(DOCTYPES_MAX), size(DOCTYPES_SIZE_MAX)),
        ),
        ("pages in one message", format!("{} ", count(MESSAGE_PAGES_MAX))),
        ("a message", format!("{} ", size(MESSAGE_SIZE_MAX))),
        ("a value in SQL, text or blob", format!("{} ", size(SQL_VALUE_SIZE_MAX))),
        ("a doctype", format!("{} ", size(DOCTYPE_SIZE_MAX))),
        (
            "parameters of a mutation, its SQL texts, statements in each",
            format!("{} ", count(MUTATION_PARAMS_MAX)),
        ),
        ("a document's name", format!("1 to {} bytes ", count(DOCUMENT_NAME_SIZE_MAX))),
        ("pages in a message from the server", format!("{} ", count(limits.message_pages_max))),
        ("pages that one mutation changes", format!("{} ", count(limits.mutation_pages_max))),
    ];
    for (what, how_much) in rows {
        let start = format!("| {what} | ");
        let mut lines = PAPER.lines().filter_map(|line| line.strip_prefix(&start));
        let (Some(row), None) = (lines.next(), lines.next()) else {
            panic!("not one row of {what:?}")
        };
        assert!(row.contains(&how_much), "{what}: {row:?} does not say {how_much:?}");
    }
}
