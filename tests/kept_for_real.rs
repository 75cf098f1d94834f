//! Servers as people have them, which close idle connections after 5 s (Node, uvicorn) or between 2 and 3 s
//! (gunicorn's threads), and requests that cannot be sent twice just when they do so.
//!
//! Takes minutes, and each server only if it is there. Python's are found by `PYTHONPATH`:
//! `cargo test --test kept_for_real -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // Clippy knows tests, but not their helpers.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Client, Gateway, Setup, free_address, poll};

/// Connections on which one asks at once.
const CLIENTS: usize = 500;

/// Each of them asks so often, first and last at these times after the answer before.
const ROUNDS: u32 = 20;

/// A server, which ends with this.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// `None` when it is not installed. `HOST` and `PORT` in the arguments are free ones.
    fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        let address = free_address();
        let port = address.port().to_string();
        let mut command = Command::new(program);
        let host = address.ip().to_string();
        let named = |it: &&str| it.replace("PORT", &port).replace("HOST", &host);
        command.args(arguments.iter().map(named));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self {
            child: command.spawn().ok()?,
            address,
        };
        let accepts = poll(Duration::from_secs(20), || {
            let has_ended = server.child.try_wait().unwrap().is_some();
            let is_there = !has_ended && TcpStream::connect(address).is_ok();
            (has_ended || is_there).then_some(is_there)
        });
        (accepts == Some(true)).then_some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks at each moment from `first` to `last` seconds after the answer before; returns how many times it
/// was asked, and how many answers were none.
fn ask_at_the_edge(gateway: &Gateway, first: f64, last: f64) -> (usize, usize) {
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    let (mut asked, mut lost) = (0, 0);
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        for client in &mut clients {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        }
        for client in &mut clients {
            asked += 1;
            lost += usize::from(client.response().status() != 200);
        }
        let part = f64::from(round) / f64::from(ROUNDS);
        let pause = Duration::from_secs_f64(first + (last - first) * part);
        poll(pause.saturating_sub(begun.elapsed() / 2), || None::<()>);
    }
    (asked, lost)
}

#[test]
#[ignore = "it takes minutes, and wants Node, uvicorn and gunicorn"]
fn no_post_is_lost_when_a_server_closes_its_idle_connections() {
    let node = |fields: &str| {
        format!(
            "require('http').createServer((q, s) => {{ {fields} q.resume(); q.on('end', () => s.end('x')); }})\
             .listen(PORT, 'HOST')"
        )
    };
    let (announcing, silent) = (node(""), node("s.setHeader('Connection', 'keep-alive');"));
    let dir = tempfile::tempdir().unwrap();
    let apps = "async def asgi(scope, receive, send):\n\
        \x20   if scope['type'] != 'http': raise RuntimeError\n\
        \x20   while (await receive()).get('more_body'): pass\n\
        \x20   fields = [(b'content-length', b'1')]\n\
        \x20   await send({'type': 'http.response.start', 'status': 200, 'headers': fields})\n\
        \x20   await send({'type': 'http.response.body', 'body': b'x'})\n\
        def wsgi(environ, start):\n\
        \x20   environ['wsgi.input'].read()\n\
        \x20   start('200 OK', [('Content-Length', '1')])\n\
        \x20   return [b'x']\n";
    std::fs::write(dir.path().join("apps.py"), apps).unwrap();
    let dir = dir.path().to_str().unwrap();
    let uvicorn = [
        "-m",
        "uvicorn",
        "--host",
        "HOST",
        "--port",
        "PORT",
        "--app-dir",
        dir,
        "apps:asgi",
    ];
    let gunicorn = [
        "-m",
        "gunicorn",
        "-k",
        "gthread",
        "--threads",
        "8",
        "--chdir",
        dir,
        "-b",
        "HOST:PORT",
        "apps:wsgi",
    ];
    for (name, program, arguments, first, last) in [
        ("Node", "node", &["-e", &announcing][..], 4.9, 5.1),
        ("Node that says nothing", "node", &["-e", &silent], 4.9, 5.1),
        ("uvicorn", "python3", &uvicorn, 4.9, 5.1),
        ("gunicorn", "python3", &gunicorn, 1.9, 3.1),
    ] {
        let Some(server) = Server::start(program, arguments) else {
            println!("{name}: not there");
            continue;
        };
        let gateway = Setup::serving(&server.address).start();
        let (asked, lost) = ask_at_the_edge(&gateway, first, last);
        let reused = gateway.metric("graygate_upstream_connections_total{kind=\"reused\"}");
        println!("{name}: {lost} lost of {asked}, {reused} on kept connections");
        assert_eq!(lost, 0, "{name}");
    }
}
