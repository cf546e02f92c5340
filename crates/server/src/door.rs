//! How connections come in, and go again if they do not say what they want.
//!
//! A connection that was upgraded has deadlines and a seat of its own. Any other one would take up
//! a file and memory for as long as its client likes: so there are only so many at once, a request
//! has to be said within a while, and silence ends them.

use std::convert::Infallible;
use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::serve::Listener;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tidelog_types::limits::{
    EXPORTS_MAX, REQUEST_HEAD_SIZE_MAX, VISITORS_MAX, VISITORS_OF_ADDRESS_MAX,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tracing::debug;

use crate::client_address::network;
use crate::shares::{Share, Shares};
use crate::tls::Tls;

/// After which silence a connection that was not upgraded is closed, unless it waits for an answer.
pub(crate) const SILENCE_ENDS: Duration = Duration::from_secs(20);
/// Within which time all of a request's head has to be said, counted from the answer before it.
const HEAD_TAKES: Duration = Duration::from_secs(10);

/// For how long what still comes behind an answer that ends a connection is taken, and forgotten.
const LEAVE_TAKES: Duration = Duration::from_secs(5);
/// Bytes of it that are read at a time, and how often before others have a turn.
const FORGOTTEN_PIECE_SIZE: usize = 16 * 1024;
const FORGOTTEN_PIECES: usize = 64;

/// All that visitors say at once. In the buffers of their connections it takes a third more.
const _: () = assert!(VISITORS_MAX * REQUEST_HEAD_SIZE_MAX <= 32 * 1024 * 1024);

tokio::task_local! {
    /// Of the visitor whose request is being answered in this task.
    static VISITED: Upgrade;
}

/// The place of the visitor whose request this task answers, to be held for as long as something is
/// done of what was asked: whoever hangs up meanwhile has no other in place of it.
pub(crate) fn held_place() -> Option<impl Send> {
    VISITED.try_with(Clone::clone).ok()
}

/// Listens, and watches over who has come in.
pub(crate) struct Door {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    /// One for each visitor that there may be.
    places: Arc<Semaphore>,
    /// How many of them each address has.
    addresses: Arc<Shares<IpAddr>>,
    /// Who may have all of them: many come through a proxy that is trusted.
    spared: Vec<IpNet>,
}

impl Door {
    /// A server that has few connections has few visitors as well.
    pub(crate) fn new(
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        connections_max: usize,
        trusted_proxies: &[IpNet],
    ) -> Self {
        // However few: those who take exports do not shut everybody else out.
        let visitors_max = connections_max.clamp(2 * EXPORTS_MAX, VISITORS_MAX);
        let of_address_max = (visitors_max / 4).min(VISITORS_OF_ADDRESS_MAX);
        let here = ["127.0.0.0/8", "::1/128"].map(|it| it.parse().expect("BUG: a network"));
        Self {
            listener,
            tls,
            places: Arc::new(Semaphore::new(visitors_max)),
            addresses: Shares::new(of_address_max),
            spared: here.into_iter().chain(trusted_proxies.iter().copied()).collect(),
        }
    }

    /// One for each who may still come in.
    #[cfg(test)]
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }

    /// Answers everybody who comes in until the server stops, and those who are there to their end.
    pub(crate) async fn serve(mut self, router: Router, mut stopped: watch::Receiver<bool>) {
        let mut visits = JoinSet::new();
        loop {
            tokio::select! {
                () = told_to_stop(&mut stopped) => break,
                Some(_) = visits.join_next() => {}
                visitor = self.let_in() => {
                    let places = Arc::clone(&self.places);
                    let (router, stopped) = (router.clone(), stopped.clone());
                    match self.tls.clone() {
                        None => visits.spawn(answer(visitor, places, router, stopped)),
                        Some(tls) => {
                            visits.spawn(answer_within(tls, visitor, places, router, stopped))
                        }
                    };
                }
            }
        }
        drop(self);
        while visits.join_next().await.is_some() {}
    }

    /// The next one who comes, once there is a place. Until then they wait where the system keeps
    /// them, in the order in which they came. Whose address has as many as it may is not let in, or
    /// one could keep everybody else waiting.
    async fn let_in(&mut self) -> Visitor {
        let permit = Arc::clone(&self.places).acquire_owned().await;
        let permit = permit.expect("BUG: places are never closed");
        let (stream, peer, share) = loop {
            let (stream, from) = Listener::accept(&mut self.listener).await;
            let address = from.ip().to_canonical();
            if self.spared.iter().any(|network| network.contains(&address)) {
                break (stream, from.ip(), None);
            }
            match self.addresses.take(network(address)) {
                Some(share) => break (stream, from.ip(), Some(share)),
                None => debug!(%address, "too many connections of one address"),
            }
        };
        // What is said is said whole: nothing is gained by waiting for more of it.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection is gone already");
        }
        Visitor::new(stream, Place { _permit: permit, _share: share }, Peer(peer))
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // The sender going away means stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// The same within TLS, once that is agreed on. Until then it takes up its place.
async fn answer_within(
    tls: Arc<Tls>,
    visitor: Visitor,
    places: Arc<Semaphore>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let visit = visitor.visit();
    let agreed = tokio::select! {
        agreed = tls.agree(visitor) => agreed,
        () = told_to_stop(&mut stopped) => return,
    };
    match agreed {
        Ok(stream) => answer_on(stream, visit, places, router, stopped).await,
        Err(error) => debug!(%error, "a connection was closed before TLS was agreed on"),
    }
}

async fn answer(
    visitor: Visitor,
    places: Arc<Semaphore>,
    router: Router,
    stopped: watch::Receiver<bool>,
) {
    let visit = visitor.visit();
    answer_on(visitor, visit, places, router, stopped).await;
}

/// Answers the requests of one visitor: as many as come, unless others wait for a place.
async fn answer_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    visit: Visit,
    places: Arc<Semaphore>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let Visit { peer, upgrade, waits, is_amid_request } = visit;
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let is_amid_request = Arc::clone(&is_amid_request);
        let mut request: Request = request.map(|body| {
            is_amid_request.store(!body.is_end_stream(), Ordering::Relaxed);
            Body::new(Read { body, is_amid_request })
        });
        request.extensions_mut().insert(upgrade.clone());
        request.extensions_mut().insert(peer);
        let answer = VISITED.scope(upgrade.clone(), router.call(request));
        let (places, waits) = (Arc::clone(&places), Arc::clone(&waits));
        async move {
            waits.store(true, Ordering::Relaxed);
            let answer = answer.await;
            waits.store(false, Ordering::Relaxed);
            let mut answer = answer?;
            let is_upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            if !is_upgraded && places.available_permits() == 0 {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TAKES);
    http.max_buf_size(REQUEST_HEAD_SIZE_MAX);
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = told_to_stop(&mut stopped) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection was closed");
    }
}

/// The body of a request, which notes when all of it was read.
struct Read {
    body: Incoming,
    is_amid_request: Arc<AtomicBool>,
}

impl HttpBody for Read {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.is_amid_request.store(false, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a visitor takes up.
struct Place {
    _permit: OwnedSemaphorePermit,
    /// Of what its address may have.
    _share: Option<Share<IpAddr>>,
}

/// Says that a connection was upgraded: it is no visitor any more, and its place is free.
#[derive(Clone)]
pub(crate) struct Upgrade(Arc<Mutex<Option<Place>>>);

impl Upgrade {
    pub(crate) fn done(&self) {
        *self.place() = None;
    }

    fn is_done(&self) -> bool {
        self.place().is_none()
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address that a request comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What is known of one who has come in, whatever is spoken.
#[derive(Clone)]
struct Visit {
    peer: Peer,
    upgrade: Upgrade,
    /// Whether it waits for an answer: then it is we who say nothing.
    waits: Arc<AtomicBool>,
    /// Whether it has begun to say a request of which not all has come.
    is_amid_request: Arc<AtomicBool>,
}

/// One who has come in.
pub(crate) struct Visitor {
    stream: TcpStream,
    /// Until it is upgraded: it would keep the task in memory that has answered the request.
    silence: Option<Pin<Box<Sleep>>>,
    visit: Visit,
    /// By when it has to be gone, once it was told all.
    leave: Option<Pin<Box<Sleep>>>,
}

impl Visitor {
    fn new(stream: TcpStream, place: Place, peer: Peer) -> Self {
        let upgrade = Upgrade(Arc::new(Mutex::new(Some(place))));
        let silence = Some(Box::pin(sleep(SILENCE_ENDS)));
        let visit = Visit { peer, upgrade, waits: Arc::default(), is_amid_request: Arc::default() };
        Self { stream, silence, visit, leave: None }
    }

    fn visit(&self) -> Visit {
        self.visit.clone()
    }

    /// What it says first, and says again to whoever reads.
    pub(crate) async fn peek(&self, bytes: &mut [u8]) -> Result<usize> {
        self.stream.peek(bytes).await
    }

    fn silence(&mut self) -> Option<Pin<&mut Sleep>> {
        self.silence.take_if(|_| self.visit.upgrade.is_done());
        self.silence.as_mut().map(Pin::as_mut)
    }

    /// Something came or went.
    fn is_heard(&mut self) {
        if let Some(silence) = self.silence() {
            silence.reset(Instant::now() + SILENCE_ENDS);
        }
    }

    /// Fails once nothing has come or gone for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Result<()> {
        while self.silence().is_some_and(|silence| silence.poll(context).is_ready()) {
            if !self.visit.waits.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::TimedOut, "nothing was said"));
            }
            self.is_heard();
        }
        Ok(())
    }

    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        match written {
            Poll::Ready(Ok(_)) => self.is_heard(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.poll_silence(context)?,
        }
        written
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match read {
            Poll::Ready(Ok(())) => self.is_heard(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.poll_silence(context)?,
        }
        read
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.after_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes such that an answer arrives which was given before all of a request had come: what
    /// nobody has read by then would have the system take the answer back.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { stream, visit, leave, .. } = &mut *self;
        if leave.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
            if visit.upgrade.is_done() || !visit.is_amid_request.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let leave = leave.get_or_insert_with(|| Box::pin(sleep(LEAVE_TAKES)));
        if leave.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut forgotten = [MaybeUninit::uninit(); FORGOTTEN_PIECE_SIZE];
        for _ in 0..FORGOTTEN_PIECES {
            let mut piece = ReadBuf::uninit(&mut forgotten);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    #[cfg(target_os = "linux")]
    use tokio::net::TcpSocket;

    use super::*;

    async fn visit() -> (TcpStream, Visitor) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).await.expect("it listens");
        (client, Door::new(listener, None, 1, &[]).let_in().await)
    }

    #[tokio::test]
    async fn no_message_waits_for_the_one_behind_it() {
        let (_client, visitor) = visit().await;
        assert!(visitor.stream.nodelay().expect("an option"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_says_nothing_is_let_go() {
        let (mut client, mut visitor) = visit().await;
        for _ in 0..3 {
            sleep(SILENCE_ENDS / 2).await;
            client.write_all(b"x").await.expect("it is there");
            assert_eq!(visitor.read_u8().await.expect("it was said"), b'x');
        }
        let silent = visitor.read_u8().await.expect_err("nothing more is said");
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
    }

    /// Goal: nobody is cut off for what we take long for, and everybody is who is silent again.
    /// Method: an answer takes a minute.
    #[tokio::test(start_paused = true)]
    async fn one_who_waits_for_an_answer_gets_it_however_long_that_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let late = || async {
            sleep(3 * SILENCE_ENDS).await;
            "late"
        };
        let router = Router::new().route("/", get(late));
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(Door::new(listener, None, 1, &[]).serve(router, stopped));
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it is there");
        let mut heard = Vec::new();
        let began = Instant::now();
        client.read_to_end(&mut heard).await.expect("it ends");
        assert!(heard.ends_with(b"late"), "{}", String::from_utf8_lossy(&heard));
        assert!(began.elapsed() < 5 * SILENCE_ENDS, "after {:?}", began.elapsed());
    }

    /// Goal: whoever is refused before all was said hears why, and no proxy has to guess. Method:
    /// an answer is given at once to each of many long requests, and one client never stops.
    #[tokio::test]
    async fn an_answer_arrives_that_was_given_before_all_of_its_request_had_come() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/", get(|| async { "no" }).put(|| async { "no" }));
        let door = Door::new(listener, None, 1, &[]);
        let places = door.places();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(door.serve(router, stopped));
        let body = vec![b'x'; 4 * 1024 * 1024];
        for nth in 0..20 {
            let mut client = TcpStream::connect(address).await.expect("it listens");
            let size = body.len();
            let head = format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
            client.write_all(head.as_bytes()).await.expect("it is there");
            client.write_all(&body).await.expect("all of it is taken");
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.expect("it ends");
            let heard = String::from_utf8_lossy(&heard);
            assert!(heard.starts_with("HTTP/1.1 200") && heard.ends_with("no"), "{nth}: {heard}");
        }
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let head = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n";
        client.write_all(head.as_bytes()).await.expect("it is there");
        let began = Instant::now();
        while client.write_all(&body).await.is_ok() {}
        assert!(began.elapsed() < 2 * LEAVE_TAKES, "{:?}", began.elapsed());
        // Nobody waits for one who has said all, and stays.
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        client.write_all(head.as_bytes()).await.expect("it is there");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("it ends");
        let began = Instant::now();
        while places.available_permits() < 2 * EXPORTS_MAX - 1 {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(began.elapsed() < LEAVE_TAKES / 2, "{:?}", began.elapsed());
        drop(client);
    }

    /// Goal: no address keeps everybody else waiting. Method: one is silent as often as it likes,
    /// then another one comes, and one of them is upgraded.
    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn one_address_has_so_many_places_and_others_have_theirs() {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut door = Door::new(listener, None, 1, &["127.0.0.3/32".parse().expect("one")]);
        door.spared.retain(|network| network.prefix_len() == 32);
        let connect = async |from: &str| {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(format!("{from}:0").parse().expect("an address")).expect("it is ours");
            socket.connect(([127, 0, 0, 1], port).into()).await.expect("it listens")
        };
        let all = door.places().available_permits();
        let (mut clients, mut inside) = (Vec::new(), Vec::new());
        for _ in 0..all {
            clients.push(connect("127.0.0.1").await);
        }
        clients.push(connect("127.0.0.2").await);
        for _ in 0..all / 4 + 1 {
            inside.push(door.let_in().await);
        }
        let froms: Vec<_> = inside.iter().map(|it| it.visit.peer.0.to_string()).collect();
        let (last, first) = froms.split_last().expect("some");
        assert!(last == "127.0.0.2" && first.iter().all(|it| it == "127.0.0.1"), "{froms:?}");
        let mut refused = clients.swap_remove(all / 4);
        assert_eq!(refused.read(&mut [0]).await.expect("closed"), 0, "it is not kept waiting");

        inside[0].visit.upgrade.done();
        clients.push(connect("127.0.0.1").await);
        assert_eq!(door.let_in().await.visit.peer.0.to_string(), "127.0.0.1", "that was one");
        for _ in 0..all / 2 {
            clients.push(connect("127.0.0.3").await);
            inside.push(door.let_in().await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_was_upgraded_may_be_silent() {
        let (_client, mut visitor) = visit().await;
        visitor.visit.upgrade.done();
        tokio::select! {
            read = visitor.read_u8() => panic!("{read:?}"),
            () = sleep(3 * SILENCE_ENDS) => {}
        }
        assert!(visitor.silence.is_none(), "it keeps nothing for that");
    }
}
