//! A workload on a device that may fail, and what became of it.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_disk::CrashDevice;
use tidelog_pages::{
    AppendError, OpenError, PageServer, StoreOptions, StoreReply, StoreRequest, Ticket,
};
use tidelog_types::DocumentKey;

use super::model::{Model, is_same};
use super::workload::Workload;
use super::{Compaction, OWNER, Parts, Server, files, poll_all, settle, small_log};

/// What a run of a workload left behind.
pub struct Run {
    pub device: CrashDevice,
    /// The states that the requests led to, from the empty one on; a request that failed is not
    /// among them.
    pub history: Vec<(Ticket, Model)>,
    /// The highest ticket called durable.
    pub durable: Ticket,
    /// Tickets that failed because the device was full.
    pub failed: BTreeSet<Ticket>,
    pub is_broken: bool,
    requests: Vec<StoreRequest>,
    /// Compactions that were asked for: what must be answered, by the number of the request.
    compactions: BTreeMap<u64, Compaction>,
    parts: Parts,
    pub compactions_answered: u64,
    /// The first one that was answered in another way. While appends are being taken back the
    /// model is ahead, so only a run without faults can tell.
    pub wrong_compaction: Option<Compaction>,
}

impl Run {
    /// The state in the history, at or after the durable one, that the store holds.
    pub fn find(&self, observed: &Model) -> Option<usize> {
        let states = self.durable_or_later();
        states.clone().find(|index| is_same(observed, &self.history[*index].1))
    }

    /// The states that may be found after a power cut at the end of the run.
    pub fn durable_or_later(&self) -> std::ops::Range<usize> {
        let first = self.history.iter().rposition(|(ticket, _)| *ticket <= self.durable);
        first.expect("the empty state has ticket 0")..self.history.len()
    }

    /// Notes what the replies say, and whether an append failed.
    fn take_in(&mut self, replies: &[StoreReply]) -> bool {
        let failed = self.failed.len();
        for reply in replies {
            match reply {
                StoreReply::Durable { ticket } => {
                    assert!(*ticket >= self.durable, "durable went back");
                    self.durable = *ticket;
                }
                StoreReply::AppendFailed { ticket, error } => {
                    assert_eq!(*error, AppendError::Full, "ticket {ticket:?}");
                    self.failed.insert(*ticket);
                }
                StoreReply::Broken { error: AppendError::Device { .. } | AppendError::Full } => {
                    self.is_broken = true;
                }
                StoreReply::Opened { .. } => {}
                StoreReply::SyncPart { request, .. } | StoreReply::Unrelated { request, .. } => {
                    let Some(compaction) = self.parts.take(reply.clone()) else { continue };
                    let expected = self.compactions.remove(request).expect("it was asked for");
                    self.compactions_answered += 1;
                    if compaction != expected {
                        self.wrong_compaction.get_or_insert(compaction);
                    }
                }
                other => panic!("unasked: {other:?}"),
            }
        }
        if self.failed.len() > failed {
            self.forget_failed();
        }
        self.failed.len() > failed
    }

    /// The history without the requests that failed.
    fn forget_failed(&mut self) {
        let mut model = Model::default();
        self.history.truncate(1);
        for request in &self.requests {
            if !self.failed.contains(&ticket_of(request)) {
                model.apply(request);
                self.history.push((ticket_of(request), model.clone()));
            }
        }
    }
}

/// Runs `turns` turns of some requests, a flush and polls, until the end or until the server
/// breaks.
pub fn run(device: CrashDevice, seed: u64, turns: usize) -> Run {
    run_with(device, seed, turns, small_log())
}

/// The same with a store of other sizes.
pub fn run_with(device: CrashDevice, seed: u64, turns: usize, options: StoreOptions) -> Run {
    let history = vec![(Ticket(0), Model::default())];
    let mut run = Run {
        device: device.clone(),
        history,
        durable: Ticket(0),
        failed: BTreeSet::new(),
        is_broken: false,
        requests: Vec::new(),
        compactions: BTreeMap::new(),
        parts: Parts::default(),
        compactions_answered: 0,
        wrong_compaction: None,
    };
    let opened = PageServer::open_with(files(&device), options);
    let mut server = match opened {
        Ok((server, _)) => server,
        Err(OpenError::Disk(_)) => {
            run.is_broken = true;
            return run;
        }
        Err(other) => panic!("a device that fails is not {other}"),
    };
    let mut workload = Workload::new(seed);
    for _ in 0..turns {
        for _ in 0..=workload.rng.below(3) {
            let request = workload.next();
            let ticket = ticket_of(&request);
            run.history.push((ticket, workload.model.clone()));
            run.requests.push(request.clone());
            server.serve(OWNER, request);
        }
        if workload.rng.one_in(4) {
            let (request, answer) = workload.changes();
            run.compactions.insert(workload.changes, answer);
            server.serve(OWNER, request);
        }
        server.flush();
        // Now and then the next requests come before all is done; and where flushes are held,
        // some stay under way meanwhile, and the files complete theirs in any order.
        let mut replies = Vec::new();
        if workload.rng.one_in(3) {
            replies.extend(poll_some(&mut server, workload.rng.below(4)));
        } else {
            replies.extend(poll_all(&mut server));
        }
        while device.has_held_flushes() && !workload.rng.one_in(4) {
            device.complete_flushes_of_one(&mut |count| workload.rng.below(count));
            replies.extend(poll_all(&mut server));
        }
        let mut has_failed = run.take_in(&replies);
        while has_failed && !run.is_broken {
            for index in 0..workload.documents {
                let name = format!("document-{index}");
                let document = DocumentKey::new(&name, "").expect("a good name");
                server.serve(OWNER, StoreRequest::Open { document });
            }
            has_failed = run.take_in(&settle(&mut server, &device));
            workload.model = run.history.last().expect("the empty state").1.clone();
            workload.recent.clear();
        }
        if run.is_broken {
            return run;
        }
    }
    run.take_in(&settle(&mut server, &device));
    run
}

pub fn ticket_of(request: &StoreRequest) -> Ticket {
    match request {
        StoreRequest::Append { ticket, .. } | StoreRequest::Destroy { ticket, .. } => *ticket,
        other => panic!("{other:?} has no ticket"),
    }
}

/// Polls so many times at most.
fn poll_some(server: &mut Server, times: usize) -> Vec<StoreReply> {
    let polls = (0..times).flat_map(|_| server.poll());
    polls.map(|(_, reply)| reply).collect()
}
