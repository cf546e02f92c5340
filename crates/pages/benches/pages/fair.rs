//! How long one page takes while somebody else reads many.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tidelog_pages::{OwnerId, StoreReply, StoreRequest};
use tidelog_types::limits::LOG_SIZE_MAX;

use crate::stores::{Server, folder, open_with};
use tidelog_testing::table::{Table, quantile};
use tidelog_testing::timed::{fill, options, read};

const PAGES: u32 = 10_000;
/// One-page reads of which the quantile is taken.
const READS: u32 = 4_000;
const ROUNDS: usize = 5;

type Asked = (OwnerId, StoreRequest);

/// Serves two owners, as the thread of a server's store does.
fn serve(mut server: Server, inbox: &Receiver<Asked>, replies: &[Sender<StoreReply>; 2]) {
    loop {
        if !server.wants_poll() {
            let Ok((owner, request)) = inbox.recv() else { return };
            server.serve(owner, request);
        }
        while let Ok((owner, request)) = inbox.try_recv() {
            server.serve(owner, request);
        }
        for (OwnerId(owner), reply) in server.poll() {
            let to = &replies[usize::try_from(owner).expect("0 or 1")];
            to.send(reply).expect("they outlive the server");
        }
    }
}

/// Asks, and waits for all of the answer.
fn ask(owner: u64, request: StoreRequest, mail: &Sender<Asked>, replies: &Receiver<StoreReply>) {
    mail.send((OwnerId(owner), request)).expect("it serves");
    while !matches!(replies.recv(), Ok(StoreReply::Pages { last: true, .. })) {}
}

/// The time below which 99 of 100 reads of one page stay.
fn p99(mail: &Sender<Asked>, replies: &Receiver<StoreReply>) -> Duration {
    let one = |n: u32| {
        let page = 1 + n * 97 % PAGES;
        let began = Instant::now();
        ask(1, read(page..=page), mail, replies);
        began.elapsed()
    };
    quantile(&mut (0..READS).map(one).collect::<Vec<_>>(), 0.99)
}

/// Measures single pages alone and beside reads of 10,000, in turn.
pub fn one_page_beside_many(table: &mut Table) {
    let folder = folder();
    let mut server = open_with(folder.path(), options(LOG_SIZE_MAX, 1024));
    fill(&mut server, PAGES);
    let (mail, inbox) = channel();
    let ((to_many, from_many), (to_one, from_one)) = (channel(), channel());
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || serve(server, &inbox, &[to_many, to_one]));
        let mut from_many = from_many;
        for _ in 0..ROUNDS {
            alone.push(p99(&mail, &from_one));
            ends.store(false, Ordering::Relaxed);
            let (mail_of_many, ends) = (mail.clone(), &ends);
            let many = scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    ask(0, read(1..=PAGES), &mail_of_many, &from_many);
                }
                from_many
            });
            beside.push(p99(&mail, &from_one));
            ends.store(true, Ordering::Relaxed);
            from_many = many.join().expect("it only asks");
        }
        drop(mail);
    });
    let (alone, beside) = (quantile(&mut alone, 0.5), quantile(&mut beside, 0.5));
    let what = "p99 of a page while 10,000 are read (raw: alone)";
    table.add(what, Some(5.0), beside, alone);
}
