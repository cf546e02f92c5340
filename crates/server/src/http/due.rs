//! `GET /v1/due`: which documents have tasks that are due, as they become so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tidelog_access::Pattern;
use tidelog_types::limits::{DUE_LISTENERS_MAX, DUE_LISTENERS_OF_SUBJECT_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::{failed, pass};
use crate::access::{Pass, now_ms};
use crate::agenda::{Agenda, Listener, Names};
use crate::shared::Shared;
use crate::shares::{Share, Shares};

/// How often it is looked whether the token has ended, or the server stops.
const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// Changes are taken together for so long: each costs a look at all that is due.
const CHANGES_WAIT: Duration = Duration::from_millis(20);
/// And for so many times as long as the last look took, where very much is due.
const CHANGES_WAIT_LOOKS: u32 = 9;
/// After which time an empty line is said, so that each side knows that the other is there.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// After which time a document is told again that is still due.
const TELLS_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// After which time one is told again in which tasks wait for code that fits: twice as long each
/// time, and at most so long.
const STOPPED_AGAIN_AFTER: Duration = Duration::from_secs(10);
const STOPPED_AGAIN_AFTER_MAX: Duration = Duration::from_secs(600);
/// By how much a document is told ahead of its time, so that it is open by then.
const TELLS_AHEAD_MS: u64 = 1_000;
/// By how much later those are told who are not the first to be.
const OTHERS_LATER: Duration = Duration::from_millis(500);
/// Within which time what is said has to be taken.
const READER_PAUSES_MAX: Duration = Duration::from_secs(30);

/// Places of those who listen.
pub(crate) struct DueListeners {
    places: Arc<Semaphore>,
    subjects: Arc<Shares<String>>,
}

/// A place, until it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share<String>>,
}

impl DueListeners {
    pub(crate) fn new() -> Self {
        let places = Arc::new(Semaphore::new(DUE_LISTENERS_MAX));
        Self { places, subjects: Shares::new(DUE_LISTENERS_OF_SUBJECT_MAX) }
    }

    fn place(&self, subject: Option<&str>) -> Result<Place, &'static str> {
        let own = "too many listen to what is due for this subject";
        let share = |subject: &str| self.subjects.take(subject.to_owned()).ok_or(own);
        let share = subject.map(share).transpose()?;
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_| "too many listen to what is due")?;
        Ok(Place { _permit: permit, _share: share })
    }
}

/// Which documents somebody works for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    documents: String,
}

/// Lines of JSON, for as long as the one who asks listens and its token holds.
pub(super) async fn due(
    State(shared): State<Arc<Shared>>,
    pass: Pass,
    Query(Wanted { documents }): Query<Wanted>,
) -> Response {
    let Ok(pattern) = Pattern::new(&documents) else {
        let why = "documents are a name, or how names begin and a * behind that\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    if let Some(refused) = pass::refusal_unless_handle_some(&pass, &pattern) {
        return refused;
    }
    let place = match shared.due_listeners.place(pass.subject()) {
        Ok(place) => place,
        Err(why) => return failed(why),
    };
    let (sender, mut receiver) = mpsc::channel(1);
    let listener = shared.rooms.agenda().listen(&shared.rooms);
    tokio::spawn(async move {
        let _place = place;
        Telling::new(shared, pass, pattern, listener).tell_all(sender).await;
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A proxy that gathers it first would say nothing.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let lines = stream::poll_fn(move |context| receiver.poll_recv(context));
    (headers, Body::from_stream(lines)).into_response()
}

/// What one who listens is told.
struct Telling {
    shared: Arc<Shared>,
    pass: Pass,
    pattern: Pattern,
    listener: Listener,
    /// What is due, since when it is seen, and what was told of it when.
    seen: HashMap<String, Seen>,
    stopped: ToldStopped,
}

/// Documents in which tasks wait for code that fits, as this one's may, and that were told.
#[derive(Default)]
struct ToldStopped(HashMap<String, Stopped>);

impl ToldStopped {
    fn has_told(&self, document: &str) -> bool {
        self.0.contains_key(document)
    }

    /// Gives those that are to be told now.
    fn tell(
        &mut self,
        agenda: &Agenda,
        wants: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<(String, Names)> {
        let is_due = |document: &str, stopped: &BTreeMap<String, u64>| {
            self.0.get(document).is_none_or(|it| it.is_due(stopped, now)) && wants(document)
        };
        let stopped = agenda.stopped(is_due).into_iter();
        let told = stopped.map(|(document, stopped)| {
            let names = stopped.keys().cloned().collect();
            let told = Stopped::tell(self.0.get(&document), stopped, now);
            self.0.insert(document.clone(), told);
            (document, Some(names))
        });
        let told = told.collect();
        // Nothing is stopped any more in those that were not told again.
        self.0.retain(|_, it| !it.is_over(now));
        told
    }
}

/// What was told of tasks that wait for code that fits: by name, with the largest number of each.
struct Stopped {
    told: BTreeMap<String, u64>,
    at: Instant,
    again_after: Duration,
}

impl Stopped {
    /// It is told of these now, once more if it was before: later each time, unless there are
    /// others.
    fn tell(before: Option<&Self>, stopped: BTreeMap<String, u64>, now: Instant) -> Self {
        let again_after = match before {
            Some(it) if !it.is_news(&stopped) => 2 * it.again_after,
            _ => STOPPED_AGAIN_AFTER,
        };
        let again_after = again_after.min(STOPPED_AGAIN_AFTER_MAX);
        Self { told: stopped, at: now, again_after }
    }

    fn is_news(&self, stopped: &BTreeMap<String, u64>) -> bool {
        stopped.iter().any(|(name, newest)| self.told.get(name).is_none_or(|told| newest > told))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.at + self.again_after <= now
    }

    /// Whether it is to be told that these are stopped. It may not help, so that is not done again
    /// and again.
    fn is_due(&self, stopped: &BTreeMap<String, u64>, now: Instant) -> bool {
        self.is_over(now) || (self.at + STOPPED_AGAIN_AFTER <= now && self.is_news(stopped))
    }
}

struct Seen {
    since: Instant,
    told: Option<(Names, Instant)>,
}

impl Telling {
    fn new(shared: Arc<Shared>, pass: Pass, pattern: Pattern, listener: Listener) -> Self {
        let (seen, stopped) = (HashMap::new(), ToldStopped::default());
        Self { shared, pass, pattern, listener, seen, stopped }
    }

    fn wants(&self, document: &str) -> bool {
        let handles = || self.pass.for_document(document).is_some_and(|it| it.handle);
        self.pattern.matches(document) && handles()
    }

    fn is_over(&self) -> bool {
        self.shared.is_stopping() || self.shared.check(&self.pass).is_err()
    }

    async fn tell_all(mut self, to: mpsc::Sender<Result<String, Infallible>>) {
        // Headers leave with the first of what is said.
        let mut text = "\n".to_owned();
        let mut said_at = Instant::now();
        while !self.is_over() {
            let began = Instant::now();
            let next_at = self.look(&mut text);
            let looks = NextLook::of(began, began.elapsed(), next_at);
            if text.is_empty() && said_at.elapsed() >= SILENCE_MAX {
                text.push('\n');
            }
            if !text.is_empty() {
                let sent = to.send(Ok(std::mem::take(&mut text)));
                if !matches!(timeout(READER_PAUSES_MAX, sent).await, Ok(Ok(()))) {
                    return;
                }
                said_at = Instant::now();
            }
            tokio::select! {
                () = to.closed() => return,
                () = async {
                    self.listener.changed().await;
                    sleep_until(looks.for_changes_from).await;
                } => {}
                () = sleep_until(looks.at) => {}
            }
        }
    }

    /// Says what is to be told now, and gives when to look again.
    fn look(&mut self, text: &mut String) -> Instant {
        let (now, now_ms) = (Instant::now(), now_ms().saturating_add(TELLS_AHEAD_MS));
        let mut stopped = std::mem::take(&mut self.stopped);
        let agenda = self.shared.rooms.agenda();
        for (document, names) in stopped.tell(agenda, |document| self.wants(document), now) {
            text.push_str(&line(&document, &names));
        }
        self.stopped = stopped;
        let due = self.shared.rooms.agenda().due(now_ms, |document| self.wants(document));
        let in_ms = |at_ms: u64| Duration::from_millis(at_ms.saturating_sub(now_ms));
        let mut next_at = now + due.next_ms.map_or(LOOKS_EVERY, in_ms).min(LOOKS_EVERY);
        self.seen.retain(|document, seen| {
            let is_due = due.documents.contains_key(document);
            if !is_due && seen.told.is_some() && !self.stopped.has_told(document) {
                text.push_str(&line(document, &Some(BTreeSet::new())));
            }
            is_due
        });
        for (document, names) in due.documents {
            let is_first = self.listener.is_first_of(&document);
            let seen = self.seen.entry(document.clone());
            let seen = seen.or_insert(Seen { since: now, told: None });
            let tells_at = match &seen.told {
                None if is_first => now,
                None => seen.since + OTHERS_LATER,
                Some((told, at)) if *told == names => *at + TELLS_AGAIN_AFTER,
                Some(_) => now,
            };
            if tells_at <= now {
                text.push_str(&line(&document, &names));
                seen.told = Some((names, now));
            } else {
                next_at = next_at.min(tells_at);
            }
        }
        next_at
    }
}

/// When it is looked again: looks take a tenth of the time, or come once a second, and take no more
/// than half of it, however much is due and whenever.
#[derive(Clone, Copy, Debug)]
struct NextLook {
    /// Not before, where something has changed.
    for_changes_from: Instant,
    /// At the latest.
    at: Instant,
}

impl NextLook {
    /// The one behind a look that took so long, where something is to be told at `next_at`. That is
    /// told ahead of its time, so that it is not late where the look is later by as much.
    fn of(began: Instant, took: Duration, next_at: Instant) -> Self {
        let from = began + CHANGES_WAIT.max((1 + CHANGES_WAIT_LOOKS) * took);
        let next_at = next_at.min(began + took + LOOKS_EVERY);
        let late_at = next_at + Duration::from_millis(TELLS_AHEAD_MS);
        let late_at = late_at.max(began + 2 * took);
        Self { for_changes_from: from, at: next_at.max(from.min(late_at)) }
    }
}

fn line(document: &str, names: &Names) -> String {
    format!("{}\n", json!({ "document": document, "due": names }))
}

#[cfg(test)]
mod tests {
    use tidelog_document::DueTasks;

    use super::*;

    /// Goal: whoever listens keeps no processor busy, and is not told late, also where very much is
    /// due at ever other times. Method: something is to be told at each millisecond, and a look
    /// takes thirty, three hundred, or more than a second; and once nothing is.
    #[test]
    fn looks_take_a_part_of_the_time_where_much_is_due_at_ever_other_times() {
        for (took_ms, share) in [(30, 10), (300, 3), (1_500, 2)] {
            let (began, took) = (Instant::now(), Duration::from_millis(took_ms));
            let (mut at, mut looks) = (began, 0);
            while at < began + Duration::from_secs(60) {
                looks += 1;
                let next_at = at + Duration::from_millis(1);
                let next = NextLook::of(at, took, next_at);
                assert!(next.at >= at + took, "it has not ended before");
                assert!(next.at <= (next_at + Duration::from_secs(1)).max(at + 2 * took));
                at = next.at;
            }
            assert!(took * looks <= Duration::from_secs(60) / share, "{looks} looks");
        }
        let (now, took) = (Instant::now(), Duration::from_millis(1));
        let next = NextLook::of(now, took, now + Duration::from_secs(100));
        assert_eq!(next.at, now + took + LOOKS_EVERY);
        assert_eq!(next.for_changes_from, now + CHANGES_WAIT);
    }

    /// One who listens, and what it was told at which second.
    #[derive(Default)]
    struct Ear {
        stopped: ToldStopped,
        told_at_s: Vec<u64>,
    }

    /// Goal: whoever may have code that fits is told of each task that stops, though it was told of
    /// others before, and of one that stays so in growing pauses. Method: in one document a task
    /// stops and completes, another one stops and stays; two listen, of whom one comes late.
    #[test]
    fn each_that_listens_is_told_again_of_what_stops_later() {
        let agenda = Agenda::default();
        let stopped = |number: Option<u64>| {
            let stopped = number.map(|it| ("fulfil".to_owned(), it)).into_iter().collect();
            agenda.tell("a", DueTasks { stopped, ..DueTasks::default() });
        };
        let began = Instant::now();
        let [mut one, mut two] = [Ear::default(), Ear::default()];
        for second in 0..2_000 {
            match second {
                0 => stopped(Some(1)),
                3 => stopped(None),
                5 => stopped(Some(2)),
                1_000 => stopped(Some(3)),
                _ => {}
            }
            let now = began + Duration::from_secs(second);
            let listening = [&mut one, &mut two].into_iter();
            for ear in listening.take(if second < 4 { 1 } else { 2 }) {
                if !ear.stopped.tell(&agenda, |_| true, now).is_empty() {
                    ear.told_at_s.push(second);
                }
            }
        }
        let begin = [&[0, 10, 20, 40, 80, 160, 320, 640][..], &[5, 15, 35, 75, 155, 315, 635]];
        for (ear, begin) in [one, two].iter().zip(begin) {
            let all = [begin, &[1_000, 1_010, 1_030, 1_070, 1_150, 1_310, 1_630]].concat();
            assert_eq!(ear.told_at_s, all);
        }
    }
}
