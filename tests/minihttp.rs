//! The gateway before a server that others wrote, on `may_minihttp`.
//!
//! It is a small server: it reads bodies by their length and no others, at most 16 fields of a head, and
//! answers with what it is given.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};

use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};

use support::Setup;

/// Answers with the method, the target and the body of the request.
struct Echo;

impl HttpService for Echo {
    fn call(
        &mut self,
        request: Request<'_, '_, '_>,
        response: &mut Response<'_>,
    ) -> io::Result<()> {
        let mut answer = format!("{} {}\n", request.method(), request.path());
        request.body().read_to_string(&mut answer)?;
        response.body_vec(answer.into_bytes());
        Ok(())
    }
}

struct Echoes;

impl HttpServiceFactory for Echoes {
    type Service = Echo;

    fn new_service(&self, _: usize) -> Echo {
        Echo
    }
}

/// Starts the server on a port that was free a moment ago.
fn start() -> SocketAddr {
    loop {
        let addr = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        if Echoes.start(addr).is_ok() {
            return addr;
        }
    }
}

#[test]
fn requests_with_and_without_a_body_are_answered_on_kept_connections() {
    let origin = start();
    let gateway = Setup::serving(&origin).start();
    let mut client = gateway.connect();
    let long = "x".repeat(100_000);
    for body in ["", "x=1", long.as_str()] {
        for method in ["GET", "POST", "PUT", "DELETE", "PROPFIND"] {
            let framing = match body {
                "" => String::new(),
                body => format!("Content-Length: {}\r\n", body.len()),
            };
            let head = format!("{method} /a?b HTTP/1.1\r\nHost: a\r\n{framing}\r\n");
            let response = client.ask(format!("{head}{body}"));
            assert_eq!(response.status(), 200, "{method} {}", body.len());
            assert_eq!(
                response.text(),
                format!("{method} /a?b\n{body}"),
                "{method}"
            );
        }
    }
    gateway.wait_for_metric("graygate_upstream_connections_total{kind=\"new\"}", 1.0);
}
