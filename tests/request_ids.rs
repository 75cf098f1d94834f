//! `[gateway] request_id`: every request has an id that the access log and the server know, and that no
//! client can choose.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::collections::HashSet;

use nix::sys::signal::Signal;
use support::{DEADLINE, Gateway, Origin, RefusingPeer, Setup, wait_until};

fn setup(request_id: &str) -> Setup {
    Setup::new().set("gateway.request_id", request_id)
}

/// A request with these fields, and what is behind `request_id=` in its line.
#[track_caller]
fn ask(gateway: &Gateway, path: &str, fields: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(gateway.connect().ask(request).status(), 200);
    let line = gateway.wait_for_access(&format!("target={path}"));
    line.get("request_id").to_owned()
}

fn is_made(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// All that the server got under this name, or one that some servers read as it.
fn ids_of_last(origin: &Origin) -> Vec<String> {
    let fields = origin.last().head.fields();
    let is_id = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-") == "x-request-id";
    let ids = fields.into_iter().filter(|(name, _)| is_id(name));
    ids.map(|(_, value)| value).collect()
}

#[test]
fn a_client_that_is_not_trusted_gets_an_id_that_is_made_whatever_it_sends() {
    let origin = Origin::named("prod");
    let gateway = setup("on").lists(&[], &[], &[&origin]).start();
    let mut all = HashSet::new();
    for (number, fields) in [
        "",
        "X-Request-Id: mine\r\n",
        "X-Request-Id: mine\r\nx-request-id: other\r\n",
        "X_Request_Id: mine\r\nX.Request-Id: mine\r\n",
        "Connection: X-Request-Id\r\nX-Request-Id: mine\r\n",
        "X-Request-Id: 0123456789abcdef0123456789abcdef\r\n",
    ]
    .iter()
    .enumerate()
    {
        let id = ask(&gateway, &format!("/{number}"), fields);
        assert!(is_made(&id), "{fields}: {id}");
        assert!(!id.starts_with("0123456789"), "{id}");
        assert_eq!(ids_of_last(&origin), [id.as_str()], "{fields}");
        assert!(all.insert(id));
    }
}

#[test]
fn a_trusted_proxys_id_is_kept_where_it_is_one() {
    let origin = Origin::named("prod");
    let gateway = setup("on")
        .set("gateway.trusted_proxies", "127.0.0.1")
        .lists(&[], &[], &[&origin])
        .start();
    let long = "x".repeat(128);
    let kept = [
        "7",
        "6d27a5f4-8f4a-4a5e-9a53-0c9ad4d7a8c3",
        "Root=1-67891233-abc;S=1",
        &long,
    ];
    for (number, id) in kept.iter().enumerate() {
        let path = format!("/kept/{number}");
        let shown = ask(&gateway, &path, &format!("x-request-ID: {id}\r\n"));
        assert_eq!(shown, *id);
        assert_eq!(ids_of_last(&origin), [*id]);
    }
    let longer = format!("X-Request-Id: {long}x\r\n");
    let replaced = [
        "",
        "X-Request-Id:\r\n",
        "X-Request-Id: a b\r\n",
        "X-Request-Id: a\" error=forged\r\n",
        "X-Request-Id: \u{e9}\r\n",
        "X-Request-Id: a\r\nX-Request-Id: a\r\n",
        "X_Request_Id: a\r\n",
        "X-Request-Id: a\r\nX_Request_Id: a\r\n",
        &longer,
    ];
    for (number, fields) in replaced.iter().enumerate() {
        let id = ask(&gateway, &format!("/replaced/{number}"), fields);
        assert!(is_made(&id), "{fields}: {id}");
        assert_eq!(ids_of_last(&origin), [id], "{fields}");
    }
}

#[test]
fn every_attempt_has_the_same_id_and_a_refused_request_has_one_too() {
    let (dead, origin) = (RefusingPeer::new(), Origin::named("prod"));
    let gateway = setup("on")
        .lists(&["127.0.0.1"], &[&dead], &[&origin])
        .start();
    let id = ask(&gateway, "/", "");
    assert_eq!(ids_of_last(&origin), [id]);
    for (request, error) in [
        ("nonsense\r\n\r\n", "error=bad-request-line"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            "error=bad-length",
        ),
    ] {
        assert_eq!(gateway.connect().ask(request).status(), 400);
        let line = gateway.wait_for_access(error);
        assert!(is_made(line.get("request_id")), "{}", line.raw);
    }
}

#[test]
fn without_the_key_ids_pass_like_any_other_field_and_a_reload_changes_that() {
    let origin = Origin::named("prod");
    let mut gateway = setup("off")
        .one_worker()
        .lists(&[], &[], &[&origin])
        .start();
    let mut client = gateway.connect();
    let ask = "GET /off HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nX_Request_Id: two\r\n\r\n";
    assert_eq!(client.ask(ask).status(), 200);
    assert_eq!(ids_of_last(&origin), ["one", "two"]);
    let line = gateway.wait_for_access("target=/off");
    assert!(!line.keys().contains(&"request_id"), "{}", line.raw);
    gateway.edit_ini(|it| {
        it.set("gateway.request_id", "on")
            .set("log.format", "id=$request_id")
    });
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log(" reloaded ");
    assert_eq!(client.ask(ask).status(), 200);
    let [id] = &ids_of_last(&origin)[..] else {
        panic!("not one id");
    };
    assert!(is_made(id));
    let log = gateway.path("access.log");
    wait_until("the line with the id", DEADLINE, || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().last() == Some(&format!("id={id}"))
    });
}
