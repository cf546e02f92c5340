//! What many take who do little.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidelog_sync::{Attendee, FromRoom, Hears, PresenceWord, StateText, ToRoom};
use tidelog_testing::server::Client;
use tidelog_types::limits::{PRESENCE_HEARD_MAX, PRESENCE_TICK_MS};
use tokio::time::{interval, sleep};

use crate::disturbed::{Guarded, joined, token, token_in_crowd};
use crate::{following, kib_of, processor_ms, scaled, started};

/// What idle connections take that have tokens, and what is left of them.
pub(crate) async fn tokens() {
    const CALM: Duration = Duration::from_secs(5);
    let count = scaled(10_000);
    let guarded = Guarded::start(1).await;
    let (at, id) = (guarded.server.address, guarded.server.id());
    drop(joined(at, token()).await.expect("welcome"));
    sleep(CALM).await;
    let before = kib_of(id);
    let mut idle = Vec::new();
    for number in 0..count {
        idle.push(joined(at, token_in_crowd(number)).await.expect("welcome"));
    }
    let connected = kib_of(id);
    drop(idle);
    sleep(CALM).await;
    let left = kib_of(id);
    let each = |kib: u64| kib as f64 / count as f64;
    println!(
        "{count} idle connections with tokens: {:.1} KiB each (goal 32); {:.1} KiB of each are \
         left once they are gone",
        each(connected.saturating_sub(before)),
        each(left.saturating_sub(before))
    );
}

/// What a room takes in which many are present, each of whom is always at another place.
pub(crate) async fn presence() {
    const WARM_UP: Duration = Duration::from_secs(5);
    const MEASURED: Duration = Duration::from_secs(10);
    let count = scaled(1_000);
    let (server, _data) = started();
    let (is_over, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut present = Vec::new();
    for number in 0..count {
        let timeline = u8::try_from(number % 200).expect("few") + 1;
        present.push(following(server.address, "list", timeline).await);
    }
    let tasks: Vec<_> = present
        .into_iter()
        .map(|client| tokio::spawn(moves(client, Arc::clone(&is_over), Arc::clone(&heard))))
        .collect();
    sleep(WARM_UP).await;
    let (before, count_before) = (processor_ms(server.id()), heard.load(Ordering::Relaxed));
    let began = Instant::now();
    sleep(MEASURED).await;
    let took = began.elapsed();
    let cores = (processor_ms(server.id()) - before) as f64 / took.as_millis() as f64;
    let news = (heard.load(Ordering::Relaxed) - count_before) as f64 / took.as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    println!(
        "{count} present in one room, all of whom move: {cores:.2} cores (goal 1); {news:.0} words \
         on them a second"
    );
    join_all(tasks).await;
}

/// Says again and again that it is at another place, and hears where others are.
async fn moves(mut client: Client, is_over: Arc<AtomicBool>, heard: Arc<AtomicU64>) -> Option<()> {
    let mut turns = interval(Duration::from_millis(PRESENCE_TICK_MS));
    let (mut at, mut unsaid) = (0_u64, 0);
    while !is_over.load(Ordering::Relaxed) {
        tokio::select! {
            _ = turns.tick() => {
                at += 1;
                let state = StateText::new(&format!("{{\"x\":{at},\"y\":{at}}}"));
                word(&mut client, &mut unsaid, vec![(Attendee(1), state)]).await?;
            }
            said = client.hear_of() => {
                if let FromRoom::Presence(_) = said? {
                    heard.fetch_add(1, Ordering::Relaxed);
                    unsaid += 1;
                }
                if unsaid >= PRESENCE_HEARD_MAX {
                    word(&mut client, &mut unsaid, Vec::new()).await?;
                }
            }
        }
    }
    Some(())
}

async fn word(
    client: &mut Client,
    unsaid: &mut u32,
    changes: Vec<(Attendee, Option<StateText>)>,
) -> Option<()> {
    let heard = std::mem::take(unsaid);
    client.tell(ToRoom::Presence(PresenceWord { hears: Hears::Others, heard, changes })).await
}
