//! The formats of the access log: `combined` beside the lines of a real nginx, `json` for a real parser, and
//! formats of one's own.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use support::{
    Client, DEADLINE, Gateway, Origin, RefusingPeer, Setup, free_address, wait_for, wait_until,
};
use tempfile::TempDir;

/// One worker, so that the lines stand in the order of the requests.
fn setup(format: &str) -> Setup {
    Setup::new().one_worker().set("log.format", format)
}

/// The whole lines of a log, whatever bytes they have.
fn lines(path: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read(path).unwrap_or_default();
    let whole = text.split_inclusive(|it| *it == b'\n');
    whole
        .filter_map(|line| Some(line.strip_suffix(b"\n")?.to_vec()))
        .collect()
}

/// Waits until a log has this many lines.
#[track_caller]
fn wait_for_lines(path: &Path, count: usize) -> Vec<Vec<u8>> {
    let what = format!("{count} lines in {}", path.display());
    wait_for(&what, || Some(lines(path)).filter(|it| it.len() >= count))
}

/// The same as text.
#[track_caller]
fn wait_for_text(gateway: &Gateway, count: usize) -> Vec<String> {
    let lines = wait_for_lines(&gateway.path("access.log"), count);
    let text = lines.into_iter().map(|it| String::from_utf8(it).unwrap());
    text.collect()
}

/// nginx in front of the same server, with its own access log.
struct Nginx {
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
}

impl Nginx {
    /// `None` where it is not installed. `log_format` is the text of one in nginx's language, in quotes.
    fn start(origin: &Origin, log_format: &str) -> Option<Self> {
        let is_there = Command::new("nginx").arg("-v").output().is_ok();
        if !is_there {
            eprintln!("nginx is not installed: there is nothing to compare with");
            return None;
        }
        let (dir, addr) = (tempfile::tempdir().unwrap(), free_address());
        let place = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|it| format!("{it}_temp_path {place}/{it};\n"))
            .collect();
        let conf = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n{temporary}log_format other {log_format};\naccess_log {place}/combined.log combined;\n\
             access_log {place}/other.log other;\nserver {{ listen {addr};\n\
             underscores_in_headers on; proxy_http_version 1.1;\n\
             location / {{ proxy_pass http://{origin}; }}\n}}\n}}\n"
        );
        let path = dir.path().join("nginx.conf");
        std::fs::write(&path, conf).unwrap();
        let child = Command::new("nginx")
            .args(["-p", &place.to_string(), "-c", path.to_str().unwrap()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, addr, dir };
        wait_until("nginx accepts", DEADLINE, || {
            std::net::TcpStream::connect(addr).is_ok()
        });
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line without its time, which is in square brackets.
fn without_time(line: &[u8]) -> String {
    let line = line.escape_ascii().to_string();
    let (before, rest) = line.split_once('[').unwrap();
    let (time, behind) = rest.split_once(']').unwrap();
    assert_eq!(time.len(), "29/Nov/2026:16:19:43 +0000".len(), "{line}");
    format!("{before}[]{behind}")
}

/// What clients send, each on a connection of its own.
fn requests() -> Vec<Vec<u8>> {
    let get = |fields: &[u8]| {
        [
            b"GET /a?b=c HTTP/1.1\r\nHost: Shop.Example:80\r\n",
            fields,
            b"\r\n",
        ]
        .concat()
    };
    vec![
        get(b""),
        get(b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nReferer: http://a/b?c\r\n"),
        get(b"User-Agent:\r\nReferer: \r\n"),
        get(b"User-Agent: a\" \\ b\xc3\xa9\xff\r\nReferer: \"\r\n"),
        get(b"user-agent: one\r\nUser-Agent: two\r\n"),
        get(b"Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1l\r\n"),
        get(b"Authorization: Basic YSJiOmM=\r\n"),
        get(b"Authorization: Basic Ong=\r\n"),
        get(b"Authorization: Basic x\r\n"),
        get(b"Authorization: Bearer YTpi\r\n"),
        [
            b"GET /".as_slice(),
            &[b'x'; 3000],
            b" HTTP/1.1\r\nHost: a\r\n\r\n",
        ]
        .concat(),
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /missing HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /%22\"<> HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
    ]
}

fn answering() -> Origin {
    Origin::answering(|request| match request.head.target().as_str() {
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec()
        }
        "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n".to_vec(),
        _ if request.head.method() == "HEAD" => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()
        }
        _ => support::ok("hello"),
    })
}

/// Sends each request on a connection of its own, and waits for its line.
#[track_caller]
fn ask_each(addr: SocketAddr, log: &Path, requests: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let before = lines(log).len();
    for (count, request) in (1..).zip(requests) {
        let mut client = Client::connect(addr);
        client.send(request);
        let method = request.split(|it| *it == b' ').next().unwrap();
        client.response_to(std::str::from_utf8(method).unwrap());
        wait_for_lines(log, before + count);
    }
    lines(log).split_off(before)
}

#[test]
fn combined_is_what_nginx_writes_byte_for_byte() {
    let origin = answering();
    let gateway = setup("combined").lists(&[], &[], &[&origin]).start();
    let requests = requests();
    let ours = ask_each(gateway.addr(), &gateway.path("access.log"), &requests);
    let first = without_time(&ours[1]);
    let expected = "127.0.0.1 - - [] \\\"GET /a?b=c HTTP/1.1\\\" 200 5 \\\"http://a/b?c\\\" \
                    \\\"Mozilla/5.0 (X11; Linux x86_64)\\\"";
    assert_eq!(first, expected);
    let Some(nginx) = Nginx::start(&origin, "'$request'") else {
        return;
    };
    let theirs = ask_each(
        nginx.addr,
        &nginx.dir.path().join("combined.log"),
        &requests,
    );
    for ((request, ours), theirs) in requests.iter().zip(ours).zip(theirs) {
        let request = request.escape_ascii();
        assert_eq!(without_time(&ours), without_time(&theirs), "{request}");
    }
}

#[test]
fn variables_show_what_nginx_shows_in_each_kind_of_escaping() {
    let variables = "$remote_addr|$remote_user|$request|$request_method|$request_uri|$args|$query_string|\
                     $server_protocol|$scheme|$host|$http_user_agent|$http_referer|$http_x_none|$status|\
                     $body_bytes_sent|$upstream_addr|$upstream_status|$content_type|$content_length|${status}0";
    let origin = answering();
    let mut requests = requests();
    // nginx passes on what is not UTF-8, which is no JSON any more.
    requests.retain(|it| !it.contains(&0xff));
    for escape in ["default", "json", "none"] {
        let format = format!("escape={escape} {variables}");
        let gateway = setup(&format).lists(&[], &[], &[&origin]).start();
        let ours = ask_each(gateway.addr(), &gateway.path("access.log"), &requests);
        let nginx = Nginx::start(&origin, &format!("escape={escape} '{variables}'"));
        let Some(nginx) = nginx else {
            return;
        };
        let theirs = ask_each(nginx.addr, &nginx.dir.path().join("other.log"), &requests);
        for ((request, ours), theirs) in requests.iter().zip(ours).zip(theirs) {
            let shown = |it: Vec<u8>| it.escape_ascii().to_string();
            let request = request.escape_ascii();
            assert_eq!(shown(ours), shown(theirs), "escape={escape}: {request}");
        }
    }
}

#[test]
fn what_is_no_request_is_shown_as_nginx_shows_it() {
    let origin = Origin::named("prod");
    let format = "$request|$status";
    let requests = [
        "nonsense\r\n\r\n",
        "\r\nGET /\"\\ HTTP/1.1\r\nHost : a\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ]
    .map(|it| it.as_bytes().to_vec());
    let gateway = setup(format).lists(&[], &[], &[&origin]).start();
    let ours = ask_each(gateway.addr(), &gateway.path("access.log"), &requests);
    let Some(nginx) = Nginx::start(&origin, &format!("'{format}'")) else {
        return;
    };
    let theirs = ask_each(nginx.addr, &nginx.dir.path().join("other.log"), &requests);
    let text = |it: &[Vec<u8>]| it.concat().escape_ascii().to_string();
    assert_eq!(text(&ours), text(&theirs));
}

#[test]
fn json_is_read_by_a_parser_whatever_a_client_sends() {
    let (origin, dead) = (Origin::named("prod"), RefusingPeer::new());
    let gateway = setup("json")
        .lists(&["127.0.0.5"], &[&dead], &[&origin])
        .start();
    let request =
        b"GET /\"\\x?\xc3\xa9\xff HTTP/1.1\r\nHost: a\r\nUser-Agent: \"},{\\\r\nReferer: r\r\n\r\n";
    let response = gateway.connect_from("127.0.0.5").ask(request);
    assert_eq!(response.status(), 200);
    let refused = gateway.connect().ask("nonsense\r\n\r\n");
    assert_eq!(refused.status(), 400);
    let lines = wait_for_text(&gateway, 2);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    let expected = serde_json::json!({
        "time": line["time"], "request_time": line["request_time"],
        "upstream_time": line["upstream_time"], "client": "127.0.0.5", "pool": "prod",
        "reason": "pre-exhausted", "peer": origin.to_string(), "attempts": 2, "status": 200,
        "received": request.len(), "sent": response.head.raw.len() + response.raw.len(),
        "body_sent": response.raw.len(), "generation": 1, "method": "GET",
        "target": "/\"\\x?\u{e9}\u{fffd}", "host": "a", "user_agent": "\"},{\\", "referer": "r", "request_id": null,
        "error": null, "close": null, "denied": null, "sample": 1,
    });
    assert_eq!(line, expected);
    assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok());
    assert!(line["request_time"].as_f64() >= line["upstream_time"].as_f64());
    let line: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(line["error"], "bad-request-line");
    assert_eq!(line["body_sent"], refused.raw.len());
    assert!(line["pool"].is_null() && line["upstream_time"].is_null());
}

/// What is sent to a gateway with two services, what its line says of entry, share and service, and what a
/// format of one's own says of them.
const DECIDED: [(&str, &str, [&str; 3]); 5] = [
    (
        "/shop/",
        "X-Beta: a\"b",
        ["header:x-beta=\"a\\\"b\"", "", "shop"],
    ),
    (
        "/shop/",
        "X-User: u1",
        ["percent:100:header:x-user", "BUCKET", "shop"],
    ),
    ("/shop/", "X-Other: 1", ["", "", "shop"]),
    ("/", "X-Beta: a\"b", ["", "", "default"]),
    ("/", "X-Tester: 1", ["header:x-tester", "", "default"]),
];

fn with_services(format: &str, origin: &Origin) -> Gateway {
    let lists = format!(
        "[gray]\nheader:X-Tester\n[pre]\n{origin}\n[prod]\n{origin}\n[shop gray]\n\
         header:X-Beta=\"a\\\"b\"\npercent:100:header:X-User\n[shop pre]\n{origin}\n[shop prod]\n{origin}\n"
    );
    let setup = setup(format).set("service shop.paths", "/shop/");
    // Everybody is gray, by the guard's leave.
    let setup = setup.set("lists.guard_share", 100);
    setup.file("lists", &lists).start()
}

/// The lines of the requests of [`DECIDED`].
fn lines_of_decided(gateway: &Gateway) -> Vec<String> {
    // On one connection, so that they are in order.
    let mut client = gateway.connect();
    for (path, field, _) in DECIDED {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        assert_eq!(client.ask(request).status(), 200);
    }
    wait_for_text(gateway, DECIDED.len())
}

/// A share's place in percent: `37.42`.
#[track_caller]
fn assert_is_bucket(text: &str) {
    let (_, cents) = text.split_once('.').unwrap_or_else(|| panic!("{text}"));
    let value: f64 = text.parse().unwrap();
    assert!(cents.len() == 2 && (0.0..100.0).contains(&value), "{text}");
}

#[test]
fn json_names_the_service_the_entry_that_has_decided_and_the_place_in_its_share() {
    let origin = Origin::named("any");
    let gateway = with_services("json", &origin);
    let mut buckets = Vec::new();
    for (line, (_, field, [entry, bucket, service])) in
        lines_of_decided(&gateway).iter().zip(DECIDED)
    {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["service"], service, "{field}");
        // No key where there is nothing to say.
        let said = line.get("entry").map(|it| it.as_str().unwrap());
        assert_eq!(said, (!entry.is_empty()).then_some(entry), "{field}");
        assert_eq!(line.get("bucket").is_some(), !bucket.is_empty(), "{field}");
        if let Some(bucket) = line.get("bucket") {
            assert!(bucket.is_f64() || bucket.is_u64(), "a number: {line}");
            buckets.push(bucket.as_f64().unwrap());
        }
    }
    // The same one as in a format of one's own, on another gateway.
    let gateway = with_services("$service $bucket", &origin);
    let lines = lines_of_decided(&gateway);
    let shown = lines[1].strip_prefix("shop ").unwrap();
    assert_is_bucket(shown);
    assert_eq!(buckets, [shown.parse::<f64>().unwrap()]);
}

#[test]
fn a_format_of_ones_own_has_service_entry_and_bucket_in_each_kind_of_escaping() {
    let origin = Origin::named("any");
    for (escape, none) in [("default", "-"), ("json", ""), ("none", "")] {
        let gateway = with_services(
            &format!("escape={escape} $service|$entry|$bucket|$pool"),
            &origin,
        );
        for (line, (_, field, [entry, bucket, service])) in
            lines_of_decided(&gateway).iter().zip(DECIDED)
        {
            let escaped = match (escape, entry) {
                (_, "") => none.to_owned(),
                ("default", _) => entry.replace('\\', "\\x5C").replace('"', "\\x22"),
                ("json", _) => entry.replace('\\', "\\\\").replace('"', "\\\""),
                _ => entry.to_owned(),
            };
            let parts: Vec<&str> = line.split('|').collect();
            let pool = if entry.is_empty() { "prod" } else { "pre" };
            assert_eq!(parts[..2], [service, &*escaped], "escape={escape}: {field}");
            assert_eq!(parts[3..], [pool], "escape={escape}: {field}");
            match bucket {
                "" => assert_eq!(parts[2], none, "escape={escape}: {field}"),
                _ => assert_is_bucket(parts[2]),
            }
        }
    }
    // Without other services there is the default one all the same.
    let gateway = setup("$service|$entry|$bucket")
        .lists(&["header:X-Tester"], &[&origin], &[&origin])
        .start();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Tester: 1\r\n\r\n";
    assert_eq!(gateway.connect().ask(request).status(), 200);
    assert_eq!(wait_for_text(&gateway, 1), ["default|header:x-tester|-"]);
}

#[test]
fn a_reload_changes_the_format_and_a_bad_one_changes_nothing() {
    let origin = Origin::named("prod");
    let mut gateway = setup("$pool $reason $attempts $generation $error $close")
        .lists(&[], &[], &[&origin])
        .start();
    let mut client = gateway.connect();
    let mut ask = |path: &str| {
        assert_eq!(client.get(path).status(), 200);
    };
    ask("/1");
    assert_eq!(wait_for_text(&gateway, 1), ["prod unlisted 1 1 - -"]);
    gateway.edit_ini(|it| it.set("log.format", "$request_uri $http_host"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log(" reloaded ");
    ask("/2");
    gateway.edit_ini(|it| it.set("log.format", "$request_url"));
    gateway.signal(Signal::SIGHUP);
    let error = gateway.wait_for_log(" reload-failed ");
    assert!(error.contains("`$request_url` is not a variable; allowed: main, combined, json"));
    ask("/3");
    assert_eq!(wait_for_text(&gateway, 3)[1..], ["/2 test", "/3 test"]);
}

#[test]
fn times_are_of_the_zone_that_the_machine_is_in() {
    let origin = Origin::named("prod");
    let gateway = setup("$time_local|$time_iso8601|$msec")
        .environment("TZ", "XXX-5:45")
        .lists(&[], &[], &[&origin])
        .start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    let line = wait_for_text(&gateway, 1).remove(0);
    let [local, iso8601, msec]: [&str; 3] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
    assert!(local.ends_with(" +0545"), "{line}");
    let wall = iso8601.strip_suffix("+05:45").unwrap();
    let wall = humantime::parse_rfc3339(&format!("{wall}Z")).unwrap();
    let wall = wall
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let second: u64 = msec.split_once('.').unwrap().0.parse().unwrap();
    assert_eq!(wall, second + (5 * 60 + 45) * 60);
    // `29/Nov/2026:16:19:43`, and `2026-11-29T16:19:43`.
    assert_eq!(local[..2], iso8601[8..10]);
    assert_eq!(local[12..20], iso8601[11..19]);
}

#[test]
fn goaccess_reads_every_line_of_combined() {
    if Command::new("goaccess").arg("--version").output().is_err() {
        eprintln!("goaccess is not installed: there is nothing to read the log with");
        return;
    }
    let origin = answering();
    let gateway = setup("combined").lists(&[], &[], &[&origin]).start();
    let log = gateway.path("access.log");
    let requests = requests();
    ask_each(gateway.addr(), &log, &requests);
    let mut gone = gateway.connect();
    gone.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n1");
    gone.half_close();
    wait_for_lines(&log, requests.len() + 1);
    let report = gateway.path("report.json");
    let output = Command::new("goaccess")
        .arg(&log)
        .args(["--log-format=COMBINED", "--no-global-config", "-o"])
        .arg(&report)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let general = &report["general"];
    assert_eq!(general["failed_requests"], 0, "{general}");
    assert_eq!(general["valid_requests"], requests.len() + 1, "{general}");
}
