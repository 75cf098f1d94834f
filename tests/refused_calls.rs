//! What a kernel, or the sandbox around the gateway, does not do for it, it does without.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Client, DEADLINE, Gateway, Origin, Setup, allow_descriptors, ok, wait_until};

/// Large enough for a pipe, and for several turns.
const LENGTH: usize = 3_000_000;

/// A gateway whose every splice(2) fails with `error`; what was asked stands in its file `trace`.
fn without_splice(origin: &Origin, error: &str) -> Gateway {
    let setup = Setup::serving(origin);
    let trace = setup.path("trace");
    let inject = format!("inject=splice:error={error}");
    let wrapper = [
        "strace",
        // The gateway is the child of the test, and the tracer is not.
        "-D",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-o",
        trace.to_str().unwrap(),
        "-e",
        "trace=splice",
        "-e",
        &inject,
    ];
    setup.under(&wrapper).start()
}

#[test]
fn large_bodies_pass_whole_where_the_kernel_refuses_splice() {
    // An old kernel, none with this call, and two sandboxes.
    for error in ["EINVAL", "ENOSYS", "EPERM", "EACCES"] {
        let origin = Origin::answering(|request| match &*request.head.method() {
            "GET" => ok(vec![b'd'; LENGTH]),
            _ => ok(request.content.len().to_string()),
        });
        let gateway = without_splice(&origin, error);
        let mut client = gateway.connect();
        for _ in 0..2 {
            let content = client.get("/").content;
            assert_eq!(content.len(), LENGTH, "{error}");
            let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
            client.send(head);
            client.send(vec![b'u'; LENGTH]);
            assert_eq!(client.response().text(), LENGTH.to_string(), "{error}");
        }
        let trace = std::fs::read_to_string(gateway.path("trace")).unwrap();
        let refused = trace.matches("(INJECTED)").count();
        assert!(refused > 0, "{error}: nothing was spliced: {trace}");
        // Whoever was refused does not ask for each piece of a body.
        assert!(refused < 30, "{error}: asked {refused} times");
    }
}

/// Makes every further mmap(2) of `gateway` fail for as long as this lives.
struct WithoutMaps(Child);

impl WithoutMaps {
    #[track_caller]
    fn of(gateway: &Gateway) -> Self {
        let pid = gateway.pid().to_string();
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid, "-e"])
            .args(["trace=mmap", "-e", "inject=mmap:error=ENOMEM"])
            .spawn()
            .unwrap();
        let status = |task: &Path| std::fs::read_to_string(task.join("status")).unwrap_or_default();
        let is_traced = |task: &Path| !status(task).contains("TracerPid:\t0\n");
        wait_until("all threads are traced", DEADLINE, || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            tasks.into_iter().all(|it| is_traced(&it.unwrap().path()))
        });
        Self(strace)
    }
}

impl Drop for WithoutMaps {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        // It lets go of the gateway, which goes on.
        kill(pid, Signal::SIGTERM).unwrap();
        self.0.wait().unwrap();
    }
}

/// A coroutine needs a stack, and so many are kept from the start.
#[test]
fn a_connection_for_which_no_stack_can_be_had_is_503_and_others_are_served() {
    const MANY: usize = 256 + 100;
    allow_descriptors(4096);
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            if request.head.target() == "/held" {
                conn.wait_for_release()?;
            }
            conn.send(ok("fine"))?;
        }
        Ok(())
    });
    let setup = Setup::serving(&origin).one_worker();
    let gateway = setup.set("upstream.read_timeout", "1m").start();
    let mut before = gateway.connect();
    assert_eq!(before.get("/").text(), "fine");
    let without = WithoutMaps::of(&gateway);
    // Whoever is served needs one for as long as that takes.
    let mut clients: Vec<_> = (0..MANY).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send_if_open("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
        client.wire.stream.set_nonblocking(true).unwrap();
    }
    let line = gateway.wait_for_log(" accept-failed ");
    assert!(
        line.contains("error=\"no stack for a coroutine: "),
        "{line}"
    );
    wait_until("all have been accepted", DEADLINE, || {
        let is_answered = |it: &&Client| it.wire.stream.peek(&mut [0]).is_ok();
        let refused = clients.iter().filter(is_answered).count();
        refused + origin.seen(|it| it.requests.len()) - 1 == MANY
    });
    for client in &clients {
        client.wire.stream.set_nonblocking(false).unwrap();
    }
    origin.release();
    let statuses = clients.iter_mut().map(|it| it.response().status());
    let refused = statuses
        .filter(|it| *it != 200)
        .inspect(|it| assert_eq!(*it, 503));
    let refused = refused.count();
    assert!((1..MANY / 2).contains(&refused), "{refused}");
    drop(clients);
    // Nor is there a stack for another thread, and that is no reason to end.
    let mut admin = Client::connect(gateway.admin());
    admin.send_if_open("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    gateway.wait_for_log(" admin-thread-failed error=");
    drop(without);
    wait_until("there is one again", DEADLINE, || {
        gateway.admin_get("/healthz").0 == 200
    });
    for client in [&mut before, &mut gateway.connect()] {
        assert_eq!(client.get("/").text(), "fine");
    }
    assert_eq!(gateway.stderr.count("panic"), 0);
}
