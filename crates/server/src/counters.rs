//! Numbers for whoever watches the server.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tidelog_sync::ByeReason;
use tidelog_types::limits::SMALL_WAITING_SIZE_MAX;

use crate::connection::Ending;
use crate::histogram::Histogram;

/// Counts up, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) rooms: AtomicU64,
    /// Bytes that rooms keep for their next messages, about.
    pub(crate) rooms_kept_size: AtomicU64,
    /// Bytes that rooms have on their way to the disk, about.
    pub(crate) rooms_in_flight_size: AtomicU64,
    /// Bytes that rooms keep of documents that are handed over, about.
    pub(crate) seeds_kept_size: AtomicU64,
    /// Bytes that those who are present take in rooms, about.
    pub(crate) presence_size: AtomicU64,
    /// Bytes of small messages that no room has worked off yet, about.
    pub(crate) small_waiting_size: AtomicU64,
    /// Documents that the store has, and bytes of its files, as it said last.
    pub(crate) store_documents: AtomicU64,
    pub(crate) store_log_size: AtomicU64,
    pub(crate) store_pages_size: AtomicU64,
    /// Bytes that its disk has room for.
    pub(crate) disk_free_size: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) applied: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) migrations_failed: AtomicU64,
    /// What was decided of tasks and could not be written, or has ended the server.
    pub(crate) task_failures: AtomicU64,
    pub(crate) appends: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) byes: AtomicU64,
    pub(crate) store_failures: AtomicU64,
    pub(crate) room_panics: AtomicU64,
    /// Connections that ended, by why.
    closes: [AtomicU64; CLOSES.len()],
    /// How long flushes of the store took.
    pub(crate) flush: Histogram,
    /// And steps of rooms.
    pub(crate) step: Histogram,
    /// And how long it was from when frames had come until they were acknowledged.
    pub(crate) confirm: Histogram,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// One part of what is counted is `now` so much. Gives all of it.
pub(crate) fn move_to(counter: &AtomicU64, part: &mut u64, now: u64) -> u64 {
    let before = std::mem::replace(part, now);
    match now.checked_sub(before) {
        Some(more) => counter.fetch_add(more, Ordering::Relaxed) + more,
        None => counter.fetch_sub(before - now, Ordering::Relaxed) - (before - now),
    }
}

/// Why connections end, as it is counted: by their clients, or by what they are told.
const CLOSES: [&str; 8] =
    ["gone", "slow", "full", "shutdown", "unauthenticated", "origin", "version", "protocol"];

impl Counters {
    /// A connection has ended so.
    pub(crate) fn closed(&self, ending: &Ending) {
        let why = match ending {
            Ending::Quiet => "gone",
            Ending::Bye(ByeReason::Slow) => "slow",
            Ending::Full => "full",
            Ending::Bye(ByeReason::Shutdown) => "shutdown",
            Ending::Bye(ByeReason::Unauthenticated) => "unauthenticated",
            Ending::Bye(ByeReason::Origin) => "origin",
            Ending::Bye(ByeReason::Version) => "version",
            Ending::Bye(ByeReason::Protocol { .. }) => "protocol",
        };
        for (close, known) in self.closes.iter().zip(CLOSES) {
            add(close, u64::from(known == why));
        }
    }

    /// Whether so much waits for rooms that whoever has a part in it is not listened to.
    pub(crate) fn has_too_much_waiting(&self) -> bool {
        self.small_waiting_size.load(Ordering::Relaxed) > SMALL_WAITING_SIZE_MAX
    }

    /// As Prometheus reads it, with the bytes that wait for clients to read, whether they are
    /// served, and the seconds until the certificate that they are shown ends, if there is one.
    pub(crate) fn text(
        &self,
        outbox_size: usize,
        is_ready: bool,
        certificate_left_s: Option<i64>,
    ) -> String {
        let is_ready = AtomicU64::new(u64::from(is_ready));
        let outbox_size = AtomicU64::new(outbox_size as u64);
        let rows = [
            ("ready", "gauge", "Whether clients are served.", &is_ready),
            ("connections", "gauge", "Connections that are open.", &self.connections),
            ("rooms", "gauge", "Documents that have a room now.", &self.rooms),
            ("rooms_kept_bytes", "gauge", "Kept for next messages, about.", &self.rooms_kept_size),
            ("in_flight_bytes", "gauge", "On their way to the disk.", &self.rooms_in_flight_size),
            ("seeds_kept_bytes", "gauge", "Kept of documents handed over.", &self.seeds_kept_size),
            ("presence_bytes", "gauge", "Of those who are present.", &self.presence_size),
            ("small_waiting_bytes", "gauge", "Small messages that wait.", &self.small_waiting_size),
            ("outbox_bytes", "gauge", "Waiting for clients to read, about.", &outbox_size),
            ("store_documents", "gauge", "Documents of the store.", &self.store_documents),
            ("store_log_bytes", "gauge", "Both files of the log.", &self.store_log_size),
            ("store_pages_bytes", "gauge", "The file of pages.", &self.store_pages_size),
            ("messages_in_total", "counter", "Messages from clients.", &self.messages_in),
            ("messages_out_total", "counter", "Messages to clients.", &self.messages_out),
            ("mutations_applied_total", "counter", "Mutations applied.", &self.applied),
            ("mutations_rejected_total", "counter", "Mutations rejected.", &self.rejected),
            ("migrations_failed_total", "counter", "Migrations failed.", &self.migrations_failed),
            ("task_failures_total", "counter", "Not written of tasks.", &self.task_failures),
            ("appends_total", "counter", "Appends handed to the store.", &self.appends),
            ("flushes_total", "counter", "Rounds of the store with a flush.", &self.flushes),
            ("refusals_total", "counter", "Documents refused to clients.", &self.refusals),
            ("byes_total", "counter", "Connections ended with a reason.", &self.byes),
            ("store_failures_total", "counter", "Failures of the store.", &self.store_failures),
            ("room_panics_total", "counter", "Rooms that broke a promise.", &self.room_panics),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in rows {
            let value = value.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP tidelog_{name} {help}");
            let _ = writeln!(text, "# TYPE tidelog_{name} {kind}\ntidelog_{name} {value}");
        }
        if cfg!(unix) {
            let (name, free) =
                ("tidelog_disk_free_bytes", self.disk_free_size.load(Ordering::Relaxed));
            let _ = writeln!(text, "# HELP {name} Left on the disk of the store.");
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {free}");
        }
        let name = "tidelog_closes_total";
        let _ = writeln!(text, "# HELP {name} Connections ended, by why.\n# TYPE {name} counter");
        for (why, count) in CLOSES.iter().zip(&self.closes) {
            let _ = writeln!(text, "{name}{{reason=\"{why}\"}} {}", count.load(Ordering::Relaxed));
        }
        let name = "tidelog_certificate_left_seconds";
        let _ = writeln!(text, "# HELP {name} Until the certificate ends.\n# TYPE {name} gauge");
        if let Some(left_s) = certificate_left_s {
            let _ = writeln!(text, "{name} {left_s}");
        }
        self.flush.write(&mut text, "flush", "Flushes of the store.");
        self.step.write(&mut text, "step", "Steps of rooms.");
        self.confirm.write(&mut text, "confirm", "From frames to their acknowledgement.");
        text
    }
}
