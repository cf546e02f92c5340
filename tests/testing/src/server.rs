//! A small client, and a server process, for tests over a real socket.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tidelog_document::{Completion, Doctype, NewEvent, NewSnapshot, Outcome};
use tidelog_server::{AccessSettings, ServerError};
pub use tidelog_server::{ServeSettings, Server, TlsSettings};
use tidelog_sync::{
    CompletionAnswer, FromRoom, FromServer, Intent, ProbeId, ToRoom, ToServer, WireFrame, codec,
    decode_message, encode_message,
};
use tidelog_types::limits::{CONNECTIONS_MAX, Limits};
use tidelog_types::{ClientId, JournalId, Life, Position};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::room::{CHANNEL, Copy, frame, lsn, notes};

/// Within which time anything comes, on a machine that has ever so much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A development server on a port of its own.
pub fn settings(data: &Path) -> ServeSettings {
    ServeSettings {
        data: data.to_owned(),
        listen: "127.0.0.1:0".parse().expect("an address"),
        dev: true,
        serve: None,
        documents_max: Limits::DEFAULT.documents_max,
        connections_max: CONNECTIONS_MAX,
        access: AccessSettings::default(),
        tls: None,
    }
}

/// Starts it in a folder where one was before. A process that another test has just begun has that
/// one's files open until it runs its own program.
pub async fn start_when_free(settings: &ServeSettings) -> Server {
    let began = Instant::now();
    loop {
        match Server::start(settings).await {
            Err(ServerError::InUse { .. }) if began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            started => return started.expect("a server"),
        }
    }
}

/// One connection.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Who writes its frames: with each timeline another one.
    life: Life,
}

impl Client {
    /// Connects and says Hello.
    pub async fn connect(address: SocketAddr) -> Option<Self> {
        let mut client = Self::connect_silently(address).await?;
        client.say(&ToServer::Hello { client: ClientId([1; 16]), token: None }).await?;
        assert_eq!(client.hear().await?, FromServer::Welcome);
        Some(client)
    }

    pub async fn connect_silently(address: SocketAddr) -> Option<Self> {
        Self::connect_with(address, &[]).await
    }

    /// Connects with these headers, and says nothing.
    pub async fn connect_with(
        address: SocketAddr,
        headers: &[(&'static str, &'static str)],
    ) -> Option<Self> {
        let url = format!("ws://{address}/v1/sync");
        let mut request = url.into_client_request().expect("an address");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        // As browsers do: what is said in two messages leaves at once.
        let is_undelayed = true;
        let connecting = connect_async_with_config(request, None, is_undelayed);
        let (socket, _) = connecting.await.ok()?;
        Some(Self { socket, life: Life::NONE })
    }

    pub async fn say(&mut self, message: &ToServer) -> Option<()> {
        self.say_bytes(encode_message(message)).await
    }

    /// Says something of the document.
    pub async fn tell(&mut self, body: ToRoom) -> Option<()> {
        self.say(&ToServer::About { channel: CHANNEL, body }).await
    }

    pub async fn say_bytes(&mut self, bytes: Vec<u8>) -> Option<()> {
        self.socket.send(Message::Binary(bytes.into())).await.ok()
    }

    /// Begins a message, and does not end it.
    pub async fn begin_to_say(&mut self, bytes: Vec<u8>) -> Option<()> {
        let code = OpCode::Data(Data::Binary);
        self.socket.send(Message::Frame(Frame::message(bytes, code, false))).await.ok()
    }

    /// Says something of the document and closes, both in one.
    pub async fn tell_and_leave(mut self, body: ToRoom) -> Option<()> {
        let message = encode_message(&ToServer::About { channel: CHANNEL, body });
        self.socket.feed(Message::Binary(message.into())).await.ok()?;
        self.socket.close(None).await.ok()
    }

    /// A ping of the transport, which is no message.
    pub async fn ping(&mut self) -> Option<()> {
        self.socket.send(Message::Ping(Vec::new().into())).await.ok()
    }

    /// The next message; `None` once the connection is gone.
    pub async fn hear(&mut self) -> Option<FromServer> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next());
            match message.await.expect("the server says something")?.ok()? {
                Message::Binary(bytes) => {
                    return Some(decode_message(&bytes).expect("a message of this version"));
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next message about the document, of which alone messages come; a busy server says in
    /// between that it is there, and what is allowed is not asked for.
    pub async fn hear_of(&mut self) -> Option<FromRoom> {
        loop {
            match self.hear().await? {
                FromServer::About { body: FromRoom::Allowed { .. }, .. } | FromServer::Pong => {}
                FromServer::About { body, .. } => return Some(body),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    pub async fn open(
        &mut self,
        document: &str,
        timeline: u8,
        have: Option<Position>,
    ) -> Option<()> {
        self.open_as(document, &notes(), timeline, have).await
    }

    pub async fn open_as(
        &mut self,
        document: &str,
        doctype: &Doctype,
        timeline: u8,
        have: Option<Position>,
    ) -> Option<()> {
        self.life = Life([timeline; 16]);
        self.tell(ToRoom::Open {
            document: document.to_owned(),
            doctype: codec::encode(doctype).into(),
            timeline: JournalId([timeline; 16]),
            secret: tidelog_types::CopySecret::NONE,
            have,
            intent: Intent::Follow,
        })
        .await
    }

    pub async fn frames(&mut self, first: u64, frames: Vec<WireFrame>) -> Option<()> {
        let life = self.life;
        self.tell(ToRoom::Frames { life, first: lsn(first), frames }).await
    }

    /// Takes entries into `copy` until the server says something else; gives that.
    pub async fn follow(&mut self, copy: &mut Copy) -> Option<FromRoom> {
        loop {
            match self.hear_of().await? {
                FromRoom::Entry(part) => {
                    let last = part.is_last;
                    copy.take(part);
                    if let Some(position) = copy.position.filter(|_| last) {
                        self.tell(ToRoom::Received { next: position.next }).await?;
                    }
                }
                other => return Some(other),
            }
        }
    }

    /// Follows until the frames before `next` are acknowledged.
    pub async fn acked(&mut self, copy: &mut Copy, next: u64) -> Option<()> {
        loop {
            match self.follow(copy).await? {
                FromRoom::Acked { next: acked } if acked >= lsn(next) => return Some(()),
                FromRoom::Acked { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Follows until all that the server has now is here.
    pub async fn sync(&mut self, copy: &mut Copy) -> Option<()> {
        self.tell(ToRoom::Probe { probe: ProbeId(1) }).await?;
        let end = loop {
            match self.follow(copy).await? {
                FromRoom::Probed { next, .. } => break next,
                FromRoom::Acked { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        };
        while copy.position.is_none_or(|position| position.next < end) {
            let FromRoom::Entry(part) = self.hear_of().await? else { continue };
            copy.take(part);
        }
        Some(())
    }
}

/// Frames that a writer has under way at once.
const WINDOW: u64 = 20;

/// A client that writes, and follows.
pub struct Writer {
    pub timeline: u8,
    /// All frames before this were acknowledged.
    pub acked: u64,
    pub copy: Copy,
}

impl Writer {
    pub fn new(timeline: u8) -> Self {
        Self { timeline, acked: 1, copy: Copy::default() }
    }

    /// Writes until what is acknowledged is enough; `None` if the connection is gone before.
    pub async fn write_until(
        &mut self,
        address: SocketAddr,
        is_enough: impl Fn(u64) -> bool,
    ) -> Option<()> {
        let mut client = Client::connect(address).await?;
        client.open("shared", self.timeline, self.copy.position).await?;
        let FromRoom::Opened { storage, wanted, .. } = client.hear_of().await? else {
            panic!("opened")
        };
        if let Some(have) = self.copy.position {
            assert_eq!(storage.journal, have.journal, "the server still knows what it sent");
            assert!(storage.next >= have.next, "what was sent was durable");
        }
        assert!(wanted >= lsn(self.acked), "what was acknowledged is there");
        self.acked = wanted.get();
        if is_enough(self.acked) {
            return Some(());
        }
        let doctype = notes();
        // Some of what is applied already is sent again, as after a break that both sides missed.
        let mut sent = self.acked.saturating_sub(5).max(1);
        loop {
            while sent < self.acked + WINDOW {
                let id = format!("{} {sent}", self.timeline);
                client.frames(sent, vec![frame(&doctype, "log", &id)]).await?;
                sent += 1;
            }
            if let FromRoom::Acked { next } = client.follow(&mut self.copy).await? {
                self.acked = self.acked.max(next.get());
                if is_enough(self.acked) {
                    return Some(());
                }
            }
        }
    }
}

/// All that was acknowledged to the writers is in the document, each once and in order, and each of
/// them can follow to the same bytes.
pub async fn check_writers(address: SocketAddr, writers: &mut [Writer]) {
    for index in 0..writers.len() {
        let file = followed(address, &mut writers[index]).await;
        let mut applied = texts(&file, "select id from log order by number");
        for writer in writers.iter() {
            let of_this = format!("{} ", writer.timeline);
            let of_this: Vec<_> = applied.iter().filter(|id| id.starts_with(&of_this)).collect();
            let expected: Vec<_> =
                (1..=of_this.len()).map(|number| format!("{} {number}", writer.timeline)).collect();
            // The lists are long: only say that they differ.
            assert!(of_this.iter().copied().eq(&expected), "each once, in order");
            assert!(of_this.len() as u64 >= writer.acked - 1, "all that was acknowledged");
        }
        let total = applied.len();
        applied.sort();
        applied.dedup();
        assert_eq!(applied.len(), total);
    }
}

/// Lets a writer follow to the end of the document, and gives the document as it is there.
///
/// What writers had sent when they went may still be on its way: a file tells of the end of the
/// document only if the end was the same before and after it.
async fn followed(address: SocketAddr, writer: &mut Writer) -> Vec<u8> {
    let mut client = Client::connect(address).await.expect("the server runs");
    client.open("shared", writer.timeline, writer.copy.position).await.expect("it runs");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    client.sync(&mut writer.copy).await.expect("it runs");
    for _ in 0..100 {
        let before = writer.copy.position;
        let (status, file) = http(address, "GET", "/v1/documents/shared/export", "").await;
        assert_eq!(status, 200);
        client.sync(&mut writer.copy).await.expect("it runs");
        if writer.copy.position == before {
            assert!(writer.copy.image() == file, "the same bytes on both sides");
            return file;
        }
    }
    panic!("the document never comes to rest");
}

/// Has the first command of a document, which is of this aggregate and name, handled by somebody
/// who keeps a state of the `position` events before it, and records one.
pub async fn keep_state(
    address: SocketAddr,
    document: &str,
    doctype: &Doctype,
    [aggregate, command]: [&str; 2],
    position: u64,
    (name, data): (&str, &str),
) {
    let mut client = Client::connect(address).await.expect("up");
    client.open_as(document, doctype, 99, None).await.expect("up");
    let kinds = vec![(aggregate.to_owned(), command.to_owned())];
    let register = ToRoom::Register { tag: 1, instance: 0, kinds, concurrency: 1 };
    client.tell(register).await.expect("up");
    let snapshot = Some(NewSnapshot { name: "v1".to_owned(), state: "1".to_owned() });
    let events = vec![NewEvent { name: name.to_owned(), data: data.to_owned() }];
    let outcome = Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot };
    let completion = Completion { task: 1, attempt: 1, position, outcome }.encode();
    loop {
        let completion = completion.clone();
        let complete = ToRoom::Complete { tag: 1, number: 1, completion };
        client.tell(complete).await.expect("up");
        loop {
            match client.hear_of().await.expect("up") {
                FromRoom::Completed { answer: CompletionAnswer::Done, .. } => return,
                // It was not given it yet.
                FromRoom::Completed { .. } => break,
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks over HTTP; gives the status and the body.
pub async fn http(address: SocketAddr, method: &str, path: &str, extra: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{extra}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a header");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    let body = answer.split_off(end + 4);
    (status, body)
}

/// The rows of one text column in an exported file.
pub fn texts(file: &[u8], sql: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("export.sqlite");
    std::fs::write(&path, file).expect("written");
    let database = rusqlite::Connection::open(&path).expect("a database");
    let check: String = database
        .query_row("pragma integrity_check", [], |row| row.get(0))
        .expect("it can be checked");
    assert_eq!(check, "ok");
    let mut statement = database.prepare(sql).expect("a statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a text")).collect()
}

/// The binary, running.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    pub fn start(tidelog: &str, data: &Path) -> Self {
        Self::start_by(command(tidelog), data)
    }

    /// By a shell that may have only few files open, and lets everybody read its own.
    pub fn start_with_few_files(tidelog: &str, data: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 000; ulimit -S -n 256; exec \"$0\" \"$@\""]);
        shell.arg(tidelog).env("RUST_LOG", "warn");
        Self::start_by(shell, data)
    }

    /// By this command, which lets in everybody.
    pub fn start_by(mut command: Command, data: &Path) -> Self {
        command.args(["serve", "--dev"]);
        Self::serve(command, data)
    }

    /// By this command, which lets in whoever has a token that is signed with the secret in a file,
    /// and takes whoever asks for what a header says.
    pub fn start_guarded(mut command: Command, data: &Path, secret: &Path) -> Self {
        command.args(["serve", "--trusted-proxy", "127.0.0.1", "--token-secret-file"]).arg(secret);
        Self::serve(command, data)
    }

    fn serve(mut command: Command, data: &Path) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on http://").expect("an address");
        Self { child, address: address.parse().expect("an address") }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is gone");
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Process {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, with none of the settings of whoever runs the tests.
pub fn command(tidelog: &str) -> Command {
    let mut command = Command::new(tidelog);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDELOG_") {
            command.env_remove(name);
        }
    }
    // A server at a terminal takes SIGHUP for its end.
    command.env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}
