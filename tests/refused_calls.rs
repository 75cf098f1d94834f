//! What a kernel, or the sandbox around the gateway, does not do for it, it does without.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Gateway, Origin, Setup, ok};

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
