//! Events that many writers append to one document.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tidelog_document::{
    Doctype, EventDefinition, MutationDefinition, Param, ParamKind, StreamDefinition,
};
use tidelog_sync::{FromRoom, Intent, ToRoom, codec};
use tidelog_testing::figure;
use tidelog_testing::room::{frame, lsn};
use tidelog_testing::server::Client;
use tidelog_types::{CopySecret, JournalId, Life};

use crate::{measured, scaled, started};

/// Orders, of which things are noted.
fn orders() -> Doctype {
    let text = |name: &str| Param { name: name.to_owned(), kind: ParamKind::Text, optional: false };
    let note = MutationDefinition {
        name: "note".to_owned(),
        params: vec![text("id")],
        sql: vec![
            "insert into tidelog_events (aggregate, stream, type, data) values
             ('order', :id, 'noted', json_object('what', 'a line of text of some forty bytes'))"
                .to_owned(),
        ],
    };
    let noted = EventDefinition {
        name: "noted".to_owned(),
        fields: vec![text("what")],
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let order =
        StreamDefinition { name: "order".to_owned(), events: vec![noted], commands: Vec::new() };
    Doctype {
        name: "orders".to_owned(),
        mutations: vec![note],
        streams: vec![order],
        ..Doctype::default()
    }
}

/// Durable events a second in one document, of writers each of whom waits for one before the next.
pub async fn appends(writers: usize) {
    const WARM_UP: Duration = Duration::from_secs(2);
    const MEASURED: Duration = Duration::from_secs(5);
    let (doctype, writers) = (orders(), scaled(writers));
    let (server, _data) = started();
    let (acked, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for number in 1..=writers {
        let timeline = (number as u128).to_le_bytes();
        let mut client = Client::connect(server.address).await.expect("up");
        let open = ToRoom::Open {
            document: "orders".to_owned(),
            doctype: codec::encode(&doctype).into(),
            timeline: JournalId(timeline),
            secret: CopySecret::NONE,
            have: None,
            intent: Intent::Follow,
        };
        client.tell(open).await.expect("up");
        let heard = client.hear_of().await.expect("up");
        assert!(matches!(heard, FromRoom::Opened { .. }), "{heard:?}");
        clients.push((client, Life(timeline)));
    }
    let writing = clients.into_iter().map(|(client, life)| {
        let doctype = doctype.clone();
        tokio::spawn(writes(client, life, doctype, Arc::clone(&acked), Arc::clone(&is_over)))
    });
    let clients: Vec<_> = writing.collect();
    let [rate, ours, theirs] = measured(&server, &acked, WARM_UP, MEASURED).await;
    is_over.store(true, Ordering::Relaxed);
    println!(
        "events of {writers} writers in one document: {rate:.0} a second; {ours:.0} % of a \
         processor for the clients, {theirs:.0} % for the server"
    );
    figure::say(&format!("events of {writers} writers"), "a second", rate);
    join_all(clients).await;
}

async fn writes(
    mut client: Client,
    life: Life,
    doctype: Doctype,
    acked: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> Option<()> {
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        sent += 1;
        let frames = vec![frame(&doctype, "note", &format!("o-{}", sent % 50))];
        client.tell(ToRoom::Frames { life, first: lsn(sent), frames }).await?;
        loop {
            match client.hear_of().await? {
                FromRoom::Acked { next } if next.get() > sent => break,
                FromRoom::Entry(part) if part.is_last => {
                    client.tell(ToRoom::Received { next: part.position.next }).await?;
                }
                _ => {}
            }
        }
        acked.fetch_add(1, Ordering::Relaxed);
    }
    Some(())
}
