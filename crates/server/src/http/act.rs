//! What an admin of a document does to it by a request with a body: who may, what is wanted, and
//! the line of the audit log that says so.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidelog_access::Role;
use tidelog_document::{Erasable, EraseRefusal, Erased, ErasedUpTo, StreamRef};
use tidelog_room::{Answer, Ask};
use tidelog_types::DocumentKey;

use super::pass::{self, Address};
use super::{body, no_name};
use crate::access::Pass;
use crate::archive::{self, ArchiveError, Archived};
use crate::audit::Who;
use crate::door::held_place;
use crate::rooms::{asking, asks_while};
use crate::shared::Shared;

/// A deed of somebody who may do it.
pub(super) struct Act {
    shared: Arc<Shared>,
    document: DocumentKey,
    pass: Pass,
    who: Who,
    /// What the audit log calls it.
    name: &'static str,
}

impl Act {
    /// One of that name, or what whoever asks is answered instead: it takes an admin of the
    /// document.
    #[expect(clippy::result_large_err, reason = "an answer, of which there is one a request")]
    pub fn by_admin(
        name: &'static str,
        shared: &Arc<Shared>,
        id: &str,
        (pass, address): (Pass, Address),
    ) -> Result<Self, Response> {
        if let Some(refused) = pass::refusal(&pass, id, Role::Admin) {
            return Err(refused);
        }
        let document = DocumentKey::new(id, "").map_err(|_| no_name())?;
        let who = pass::who(&pass, address);
        Ok(Self { shared: Arc::clone(shared), document, pass, who, name })
    }

    /// What the body says, as `read` understands it.
    pub async fn body<T>(
        &self,
        request: Request,
        size_max: usize,
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, Response> {
        let bytes = body(request, size_max).await?;
        let wanted = read(&bytes)
            .map_err(|why| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response())?;
        // The token may have ended while the request was being said.
        self.check()?;
        Ok(wanted)
    }

    /// Fails once the token has ended by which it is done.
    #[expect(clippy::result_large_err, reason = "an answer, of which there is one a request")]
    pub fn check(&self) -> Result<(), Response> {
        pass::refusal_if_ended(&self.shared, &self.pass).map_or(Ok(()), Err)
    }

    /// Who does it.
    pub fn subject(&self) -> Option<&str> {
        self.pass.subject()
    }

    /// The name of the document.
    pub fn document(&self) -> &str {
        &self.document.document
    }

    /// Has a part of the events of a stream leave the document.
    pub async fn archive(&self, stream: &StreamRef) -> Result<Archived, ArchiveError> {
        archive::archive(&self.shared.rooms, &self.document, stream).await
    }

    /// Erases a slice of what the document has, or its archive.
    pub async fn erase(
        &self,
        what: &Erasable,
        after: ErasedUpTo,
        is_archive: bool,
    ) -> Result<Result<Erased, EraseRefusal>, Answer> {
        archive::erase(&self.shared.rooms, &self.document, what, after, is_archive).await
    }

    /// Asks the document's room.
    pub async fn ask(&self, ask: Ask) -> Answer {
        self.shared.rooms.ask(&self.document, ask).await
    }

    /// Carries it out, and writes down what came of it, also where whoever asked hangs up
    /// meanwhile.
    pub async fn carry_out<F>(self, deed: impl FnOnce(Arc<Self>) -> F + Send + 'static) -> Response
    where
        F: Future<Output = Result<Response, Response>> + Send + 'static,
    {
        let act = Arc::new(self);
        to_its_end(async move {
            let answer = deed(Arc::clone(&act)).await.unwrap_or_else(|refused| refused);
            let outcome = answer.status().as_u16();
            act.shared.rooms.audit().act(act.name, &act.who, Some(act.document()), outcome);
            answer
        })
        .await
    }
}

/// Answers by what comes of this, which goes on where whoever asked hangs up meanwhile: so that it
/// is done as a whole, and its line is in the audit log. It takes up a visitor's place until then.
pub(super) async fn to_its_end(work: impl Future<Output = Response> + Send + 'static) -> Response {
    let place = held_place();
    let done = tokio::spawn(asking(asks_while(), async move {
        let _place = place;
        work.await
    }));
    done.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Semaphore, watch};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::door::Door;

    /// Goal: however often somebody asks for something and hangs up, no more of it is under way
    /// than visitors may be there. Method: one hangs up while it is, and then it is done.
    #[tokio::test]
    async fn what_goes_on_for_whoever_hangs_up_takes_up_their_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (may_end, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (ends, begins) = (Arc::clone(&may_end), Arc::clone(&begun));
        let work = move || {
            let (ends, begins) = (Arc::clone(&ends), Arc::clone(&begins));
            to_its_end(async move {
                begins.add_permits(1);
                ends.acquire().await.expect("open").forget();
                StatusCode::OK.into_response()
            })
        };
        let door = Door::new(listener, None, 1, &[]);
        let places = door.places();
        let router = Router::new().route("/", get(work));
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(door.serve(router, stopped));
        let comes_to = async |free: usize| {
            let is_so = async {
                while places.available_permits() != free {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_secs(20), is_so).await.is_ok()
        };
        // One waits for whoever comes next.
        sleep(Duration::from_millis(20)).await;
        let all = places.available_permits();
        for _ in 0..3 {
            let mut visitor = TcpStream::connect(address).await.expect("it listens");
            visitor.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is there");
            begun.acquire().await.expect("open").forget();
        }
        // Each has gone by then.
        sleep(Duration::from_millis(300)).await;
        assert_eq!(places.available_permits(), all - 3);
        may_end.add_permits(2);
        assert!(comes_to(all - 1).await);
        may_end.add_permits(1);
        assert!(comes_to(all).await);
    }
}
