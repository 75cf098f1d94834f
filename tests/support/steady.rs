//! What a client asks for again and again in the steady state, and who answers it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::Client;
use super::origin::Origin;

/// The field that names a user.
const USER: &str = "X-User-Number";

/// So many users have asked.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// A gray list by which a release is under way: every other user is served by `pre`.
pub(crate) const RELEASE: &str = "percent:50:header:X-User-Number";

/// By whom its requests are counted.
pub(crate) const CLIENT: &str = "header:X-User-Number";

/// One kind of request, with its answer.
pub(crate) struct Traffic {
    pub(crate) name: &'static str,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Traffic {
    /// Every kind. Each answer is written at once, so that how often the gateway reads is no accident.
    pub(crate) fn kinds() -> [Self; 4] {
        let fields: String = (0..28)
            .map(|number| format!("X-Field-{number}: value {number}\r\n"))
            .collect();
        let length = "Content-Length: 128\r\n";
        let content = "x".repeat(128);
        let kind = |name, request: String, answer: String| Self {
            name,
            request: request.into(),
            answer: answer.into(),
        };
        [
            kind(
                "a small answer",
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                format!("HTTP/1.1 200 OK\r\n{length}\r\n{content}"),
            ),
            kind(
                "an answer in chunks",
                "GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
                    .to_owned(),
            ),
            kind(
                "a request with a body",
                format!(
                    "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{}",
                    "y".repeat(1024)
                ),
                format!("HTTP/1.1 200 OK\r\n{length}\r\n{content}"),
            ),
            kind(
                "thirty fields both ways",
                format!("GET /fields HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n{fields}\r\n"),
                // The gateway writes the length itself, behind all others.
                format!("HTTP/1.1 200 OK\r\nServer: test\r\n{fields}{length}\r\n{content}"),
            ),
        ]
    }

    /// One with something for each kind of entry that a gray list can have.
    pub(crate) fn selected() -> Self {
        let cookies: String = (0..40).map(|it| format!("c{it}=value {it}; ")).collect();
        Self {
            name: "a request that an entry selects",
            request: format!(
                "GET /selected?a=1&b=%41+b&%75id=a%20b HTTP/1.1\r\nHost: Shop.Example.com\r\n\
                 X-App-Version: 2.10.3\r\nX-User: Somebody\r\nCookie: {cookies}uid=alice\r\n\r\n"
            )
            .into(),
            answer: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        }
    }

    /// One that counts against the version that answers it.
    pub(crate) fn failing() -> Self {
        Self {
            name: "an answer that is a failure",
            request: b"GET /failing HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            answer: b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno".to_vec(),
        }
    }

    /// An origin that answers them.
    pub(crate) fn origin() -> Origin {
        Origin::scripted(|conn| {
            let kinds: Vec<Self> = Self::kinds()
                .into_iter()
                .chain([Self::selected(), Self::failing()])
                .collect();
            // Nothing is recorded, since there is much of it.
            while let Some(head) = conn.wire.head()? {
                conn.stream_body(&head, &mut |_| {})?;
                let target = format!(" {} ", head.target());
                let asked = kinds.iter().find(|it| it.is_for(&target));
                conn.send(&asked.unwrap().answer)?;
            }
            Ok(())
        })
    }

    fn is_for(&self, target: &str) -> bool {
        memchr::memmem::find(&self.request, target.as_bytes()).is_some()
    }

    /// The request's head, and its body.
    pub(crate) fn halves(&self) -> (&[u8], &[u8]) {
        let end = memchr::memmem::find(&self.request, b"\r\n\r\n").unwrap();
        self.request.split_at(end + 4)
    }

    /// Asks `count` times on `client`, one request after the other, and checks each answer.
    #[track_caller]
    pub(crate) fn ask(&self, client: &mut Client, count: usize) {
        for _ in 0..count {
            let response = client.ask(&self.request);
            assert_eq!(response.bytes(), self.answer, "{}", self.name);
        }
    }

    /// The same, each time as another user: see [`RELEASE`].
    #[track_caller]
    pub(crate) fn ask_as_others(&self, client: &mut Client, count: usize) {
        let (head, body) = self.halves();
        let head = head.strip_suffix(b"\r\n").unwrap();
        for _ in 0..count {
            let user = USERS.fetch_add(1, Ordering::Relaxed);
            let field = format!("{USER}: {user}\r\n\r\n");
            let response = client.ask([head, field.as_bytes(), body].concat());
            assert_eq!(response.bytes(), self.answer, "{}", self.name);
        }
    }
}
