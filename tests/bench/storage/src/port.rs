//! Requests as a core sends them to the worker of a page server, and what it answers.

use tidelog_pages::{StoreReply, StoreRequest, Ticket};
use tidelog_sync::codec::port;
use tidelog_types::Lsn;
use wasm_bindgen::prelude::*;

use tidelog_testing::timed;

/// A list of requests with no notices for tabs beside it.
fn encode(requests: Vec<StoreRequest>) -> Vec<u8> {
    port::encode(&(requests, Vec::<()>::new()))
}

/// One message with a small append to each of so many documents, the `nth` of each from 1.
#[wasm_bindgen(js_name = encodeAppends)]
pub fn encode_appends(documents: u32, nth: u32) -> Vec<u8> {
    let lsn = Lsn::new(nth.into()).expect("counted from 1");
    let first = u64::from(documents) * u64::from(nth - 1) + 1;
    let appends = timed::small_appends(documents.into(), 1, lsn).zip(first..);
    let append = |((_, append), ticket)| StoreRequest::Append { ticket: Ticket(ticket), append };
    encode(appends.map(append).collect())
}

/// The `nth` message, from 0, of those that write so many pages of document `a`.
#[wasm_bindgen(js_name = encodeFill)]
pub fn encode_fill(pages: u32, nth: usize) -> Option<Vec<u8>> {
    timed::first_appends("a", pages).nth(nth).map(|append| encode(vec![append]))
}

/// Asks for these pages of document `a`.
#[wasm_bindgen(js_name = encodeRead)]
pub fn encode_read(first: u32, last: u32) -> Vec<u8> {
    encode(vec![timed::read(first..=last)])
}

fn decode(replies: &[u8]) -> Vec<StoreReply> {
    port::decode(replies).expect("what a page server says")
}

/// The ticket up to which these replies say that all is durable, 0 if they do not.
#[wasm_bindgen(js_name = durableIn)]
pub fn durable_in(replies: &[u8]) -> f64 {
    let tickets = decode(replies).into_iter().map(|reply| match reply {
        StoreReply::Durable { ticket } => ticket.0,
        other => panic!("unasked: {other:?}"),
    });
    tickets.max().unwrap_or_default() as f64
}

/// How many pages these replies hold.
#[wasm_bindgen(js_name = pagesIn)]
pub fn pages_in(replies: &[u8]) -> usize {
    let pages = decode(replies).into_iter().map(|reply| match reply {
        StoreReply::Pages { pages, .. } => pages.len(),
        other => panic!("unasked: {other:?}"),
    });
    pages.sum()
}
