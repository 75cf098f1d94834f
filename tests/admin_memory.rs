//! What the admin listener takes of memory is bounded, however long the lists are and whoever reads them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::process::Command;

use serde_json::{Value, json};
use support::{Client, DEADLINE, Gateway, Origin, Setup, wait_until};

/// So many entries are some 10 MB as a page, and were ten times as much while that was built.
const ENTRIES: u32 = 200_000;

/// What all who ask at once may take together, in KiB: a stack, a buffer and a head each, and less than
/// two pages as they were.
const MOST: u64 = 16 * 1024;

/// Lists in memory.
const SNAPSHOTS: &str = "graygate_lists_snapshots";

/// So many are served at once.
const AT_ONCE: usize = 16;

fn gateway() -> Gateway {
    let mut text = "[gray]\n".to_owned();
    for at in 0..ENTRIES {
        let spread = u128::from(at.wrapping_mul(2_654_435_761));
        writeln!(
            text,
            "{}",
            Ipv6Addr::from_bits(0x2001 << 112 | spread << 32)
        )
        .unwrap();
    }
    text.push_str("[pre]\n[prod]\n127.0.0.1\n");
    let setup = Setup::new().file("lists", &text);
    let gateway = setup.ready_within(6 * DEADLINE).start();
    assert_eq!(gateway.admin_get("/healthz").0, 200);
    gateway
}

/// A value of the gateway's status in KiB, as the kernel tells it.
fn memory(gateway: &Gateway, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|it| it.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// By how much more than before the most was that the gateway took while `act` ran, in KiB.
fn taken_by<T>(gateway: &Gateway, act: impl FnOnce() -> T) -> (u64, T) {
    // The peak begins anew.
    fs::write(format!("/proc/{}/clear_refs", gateway.pid()), "5").unwrap();
    let before = memory(gateway, "VmRSS:");
    let outcome = act();
    (memory(gateway, "VmHWM:").saturating_sub(before), outcome)
}

fn ask(gateway: &Gateway, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.admin()).unwrap();
    stream.set_read_timeout(Some(3 * DEADLINE)).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn whoever_asks_for_long_lists_takes_little_of_the_gateways_memory() {
    let gateway = gateway();
    let ini = {
        let setup = Setup::new().set("admin.listen", gateway.admin());
        let path = gateway.path("asking.ini");
        fs::write(&path, setup.ini()).unwrap();
        path
    };
    let run = |arguments: &[&str]| {
        // What it says is longer than a pipe holds.
        let mut command = Command::new(env!("CARGO_BIN_EXE_graygate"));
        let output = command.args(arguments).arg("-c").arg(&ini).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };

    // As many as there may be, of whom nobody reads.
    let (taken, streams) = taken_by(&gateway, || {
        let streams: Vec<TcpStream> = (0..AT_ONCE).map(|_| ask(&gateway, "/lists")).collect();
        for stream in &streams {
            let begun = stream.peek(&mut [0]).unwrap();
            assert_eq!(begun, 1);
        }
        streams
    });
    assert!(taken < MOST, "{taken} KiB for {AT_ONCE} who do not read");
    drop(streams);

    // Some who read all of it.
    let (taken, ()) = taken_by(&gateway, || {
        let mut streams: Vec<TcpStream> = (0..2).map(|_| ask(&gateway, "/lists")).collect();
        for stream in &mut streams {
            let mut text = Vec::new();
            stream.read_to_end(&mut text).unwrap();
            let end = text.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
            let page: Value = serde_json::from_slice(&text[end..]).unwrap();
            let head = String::from_utf8_lossy(&text[..end]).into_owned();
            let length = format!("Content-Length: {}\r\n", text.len() - end);
            assert!(head.contains(&length), "{head}");
            let gray = page["gray"].as_array().unwrap();
            assert_eq!(gray.len(), ENTRIES as usize);
            assert!(gray.is_sorted_by_key(|it| it.as_str().unwrap().parse::<Ipv6Addr>().unwrap()));
            assert_eq!(page["prod"], json!(["127.0.0.1:80"]));
        }
    });
    assert!(taken < MOST, "{taken} KiB for those who read");

    let (taken, status) = taken_by(&gateway, || run(&["status"]));
    let expected = format!("entries     gray {ENTRIES}, pre 0, prod 1\n");
    assert!(status.contains(&expected), "{status}");
    assert!(taken < MOST / 4, "{taken} KiB for `graygate status`");

    let (taken, shown) = taken_by(&gateway, || run(&["lists", "show"]));
    assert_eq!(
        shown.lines().filter(|it| it.starts_with("2001:")).count(),
        ENTRIES as usize
    );
    assert!(taken < MOST, "{taken} KiB for `graygate lists show`");
}

#[test]
fn a_page_of_the_lists_is_a_part_of_each() {
    let setup = Setup::new().lists(
        &["10.0.0.1", "10.0.0.2", "::1"],
        &[&"127.0.0.1:81", &"127.0.0.2"],
        &[&"127.0.0.1"],
    );
    let gateway = setup.start();
    let ask = |query: &str| {
        let (status, text) = gateway.admin_get(&format!("/lists{query}"));
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let whole = ask("");
    assert_eq!(whole["gray"], json!(["10.0.0.1", "10.0.0.2", "::1"]));
    assert_eq!(whole["pre"], json!(["127.0.0.1:81", "127.0.0.2:80"]));
    assert_eq!(
        whole["written"]["pre"],
        json!(["127.0.0.1:81", "127.0.0.2"])
    );
    assert_eq!(whole["counts"], json!({ "gray": 3, "pre": 2, "prod": 1 }));
    for (query, gray, pre, prod) in [
        (
            "?limit=0",
            &whole["gray"].as_array().unwrap()[..0],
            0..0,
            0..0,
        ),
        (
            "?limit=2",
            &whole["gray"].as_array().unwrap()[..2],
            0..2,
            0..1,
        ),
        (
            "?offset=1&limit=1",
            &whole["gray"].as_array().unwrap()[1..2],
            1..2,
            1..1,
        ),
        (
            "?offset=2",
            &whole["gray"].as_array().unwrap()[2..],
            2..2,
            1..1,
        ),
        ("?offset=100", &[][..], 2..2, 1..1),
    ] {
        let page = ask(query);
        assert_eq!(page["gray"], json!(gray), "{query}");
        assert_eq!(
            page["pre"],
            json!(whole["pre"].as_array().unwrap()[pre]),
            "{query}"
        );
        assert_eq!(
            page["prod"],
            json!(whole["prod"].as_array().unwrap()[prod]),
            "{query}"
        );
        for same in ["digest", "digests", "counts", "skipped", "held"] {
            assert_eq!(page[same], whole[same], "{query} {same}");
        }
    }
    for wrong in ["?limit=x", "?offset=-1"] {
        let (status, text) = gateway.admin_get(&format!("/lists{wrong}"));
        assert_eq!(
            (status, text.contains("are numbers")),
            (400, true),
            "{wrong}"
        );
    }
    // A typo would otherwise fetch all there is.
    for (page, name) in [
        ("/lists?limt=0", "limt"),
        ("/lists?offset=1&Limit=2", "Limit"),
        ("/explain?ip=127.0.0.1&heder=a", "heder"),
    ] {
        let (status, text) = gateway.admin_get(page);
        let said = format!("{name:?} is unknown in the query");
        assert_eq!((status, text.starts_with(&said)), (400, true), "{text}");
    }
    // And without a body, its length.
    let mut client = Client::connect(gateway.admin());
    client.send("HEAD /lists?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let length = client.head().field("content-length").unwrap();
    let page = gateway.admin_get("/lists?limit=1").1;
    let digits = length.parse::<usize>().unwrap().abs_diff(page.len());
    // The age has as many digits as it happens to have.
    assert!(digits < 16, "{length}, {page}");
}

/// Who reads slowly does not keep lists that were replaced, and gets no mixture of two.
#[test]
fn lists_that_are_replaced_while_somebody_reads_end_that_and_are_freed() {
    let gateway = gateway();
    let mut slow = ask(&gateway, "/lists");
    slow.peek(&mut [0]).unwrap();
    gateway.write_lists(&["10.0.0.1"], &[], &[&"127.0.0.1"]);
    gateway.wait_for_log("lists-published generation=2 ");
    // They are freed although that one has taken nothing and is still connected.
    gateway.wait_for_metric(SNAPSHOTS, 1.0);
    let mut text = Vec::new();
    // What has been sent until then, and no more.
    let _ = slow.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("\"2001:") && !text.contains("\"10.0.0.1\""));
    assert!(!text.ends_with("}\n"), "it was read to its end");
}

#[test]
fn a_worker_without_anything_to_do_does_not_keep_lists_that_were_replaced() {
    let origin = Origin::named("old");
    let setup = Setup::new().set("gateway.workers", 2);
    let gateway = setup.lists(&["10.0.0.1"], &[], &[&origin]).start();
    // The connections are shared out evenly, so each worker has seen these lists.
    for _ in 0..8 {
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut client = gateway.connect();
        client.send(request);
        assert_eq!(client.response().status(), 200);
    }
    drop(origin);
    wait_until("the workers' clocks have stopped", 3 * DEADLINE, || {
        clocks(&gateway) == (2, 0)
    });
    gateway.write_lists(&["10.0.0.2"], &[], &[&"127.0.0.1"]);
    gateway.wait_for_log("lists-published generation=2 ");
    gateway.wait_for_metric(SNAPSHOTS, 1.0);
    wait_until("they have stopped again", 3 * DEADLINE, || {
        clocks(&gateway) == (2, 0)
    });
}

/// How many clocks the gateway's workers have, and how many of them run.
fn clocks(gateway: &Gateway) -> (usize, usize) {
    let folder = fs::read_dir(format!("/proc/{}/fdinfo", gateway.pid())).unwrap();
    let texts = folder.filter_map(|it| fs::read_to_string(it.ok()?.path()).ok());
    let clocks: Vec<String> = texts.filter(|it| it.contains("it_interval:")).collect();
    let stopped = clocks.iter().filter(|it| it.contains("it_value: (0, 0)"));
    (clocks.len(), clocks.len() - stopped.count())
}
