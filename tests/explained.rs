//! `graygate explain` about whole requests: it says what the gateway does with them, and why.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;

use serde_json::Value;
use support::{FileSite, Gateway, run_to_exit};

/// The entries: of every kind, some of which hold for the requests below.
const GRAY: &[&str] = &[
    "127.0.0.5",
    "127.0.0.16/28 method:POST",
    "header:X-User=alice",
    "header:X-User=bob path:/v2/*",
    "header:X-App-Version>=2.10.3",
    "cookie:plan~GOLD",
    "query:preview=1",
    "host:beta.example.com",
    "percent:30:header:X-Account",
    "!header:X-Bot",
    "cookie:old=1 until=2020-01-01T00:00Z",
];

/// One request.
struct Asked {
    from: &'static str,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    headers: Vec<String>,
}

fn asked(from: &'static str, path: &'static str, headers: &[&str]) -> Asked {
    Asked {
        from,
        method: "GET",
        host: "shop.example.com",
        path,
        headers: headers.iter().map(|it| (*it).to_owned()).collect(),
    }
}

impl Asked {
    /// Who serves it, by what is in the answer.
    fn sent(&self, gateway: &Gateway) -> String {
        let Self {
            method, host, path, ..
        } = self;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        for header in &self.headers {
            write!(request, "{header}\r\n").unwrap();
        }
        request.extend(b"Content-Length: 0\r\n\r\n");
        let mut client = gateway.connect_from(self.from);
        let answer = client.ask(request);
        assert_eq!(answer.status(), 200);
        answer.text()
    }

    /// What `explain` says of it, by its parts, and as a curl command.
    fn explained(&self, gateway: &Gateway, offline: bool) -> [Value; 2] {
        let headers = self.headers.iter().flat_map(|it| ["--header", it]);
        let mut by_parts = vec!["explain", self.from, "--method", self.method];
        by_parts.extend(["--host", self.host, "--path", self.path]);
        by_parts.extend(headers);
        let url = format!("http://{}{}", self.host, self.path);
        let mut curl = vec![
            "explain",
            self.from,
            "--curl",
            "curl",
            "-X",
            self.method,
            &url,
        ];
        curl.extend(self.headers.iter().flat_map(|it| ["-H", it]));
        [by_parts, curl].map(|words| said(gateway, &words, offline))
    }
}

/// What a command says in JSON.
fn said(gateway: &Gateway, words: &[&str], offline: bool) -> Value {
    let ini = gateway.path("graygate.ini");
    let (command, rest) = words.split_first().unwrap();
    let mut all = vec![*command, "--json", "-c", ini.to_str().unwrap()];
    if offline {
        all.push("--offline");
    }
    all.extend(rest);
    let output = run_to_exit(&all);
    assert!(output.status.success(), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_explained_is_what_happens() {
    let site = FileSite::with(GRAY, |setup| setup);
    let table = [
        (asked("127.0.0.5", "/", &[]), "127.0.0.5"),
        (asked("127.0.0.5", "/", &["X-Bot: 1"]), "!header:x-bot"),
        (asked("127.0.0.9", "/", &[]), ""),
        (asked("127.0.0.17", "/", &[]), ""),
        (
            asked("127.0.0.9", "/", &["X-User: alice"]),
            "header:x-user=alice",
        ),
        (asked("127.0.0.9", "/", &["X-User: Alice"]), ""),
        (asked("127.0.0.9", "/", &["X-User: bob"]), ""),
        (
            asked("127.0.0.9", "/v2/cart?x=1", &["x-user: bob"]),
            "header:x-user=bob path:/v2/*",
        ),
        (
            asked("127.0.0.9", "/", &["X-App-Version: v2.11"]),
            "header:x-app-version>=2.10.3",
        ),
        (asked("127.0.0.9", "/", &["X-App-Version: 2.9"]), ""),
        (
            asked("127.0.0.9", "/", &["Cookie: a=1; plan=Gold"]),
            "cookie:plan~gold",
        ),
        (
            asked("127.0.0.9", "/?a&pre%76iew=1", &[]),
            "query:preview=1",
        ),
        (asked("127.0.0.9", "/", &["Cookie: old=1"]), ""),
    ];
    for (request, entry) in table {
        let served = request.sent(&site.gateway);
        let name = format!("{} {} {:?}", request.from, request.path, request.headers);
        for offline in [false, true] {
            for said in request.explained(&site.gateway, offline) {
                assert_eq!(said["pool"], served.as_str(), "{name}: {said:#}");
                assert_eq!(
                    said["entry"].as_str().unwrap_or_default(),
                    entry,
                    "{name}: {said:#}"
                );
            }
        }
    }
    let posted = Asked {
        method: "POST",
        ..asked("127.0.0.17", "/", &[])
    };
    let beta = Asked {
        host: "Beta.Example.com:80",
        ..asked("127.0.0.9", "/", &[])
    };
    for request in [posted, beta] {
        assert_eq!(request.sent(&site.gateway), "pre");
        for said in request.explained(&site.gateway, false) {
            assert_eq!(said["pool"], "pre", "{said:#}");
        }
    }
}

#[test]
fn shares_are_explained_by_the_bucket_by_which_they_are_dealt() {
    let site = FileSite::with(GRAY, |setup| setup);
    let mut pools = Vec::new();
    for account in 0..20 {
        let header = format!("X-Account: {account}");
        let request = asked("127.0.0.9", "/", &[&header]);
        let served = request.sent(&site.gateway);
        let [said, _] = request.explained(&site.gateway, false);
        assert_eq!(said["pool"], served.as_str(), "{said:#}");
        let share = &said["near"][0];
        assert_eq!(share["entry"], "percent:30:header:x-account", "{said:#}");
        let bucket = share["terms"][0]["found"].as_str().unwrap();
        let is_in = bucket.parse::<f64>().unwrap() < 30.0;
        assert_eq!(is_in, served == "pre", "{said:#}");
        let decided = said["bucket"].as_str();
        assert_eq!(decided, is_in.then_some(bucket), "{said:#}");
        pools.push(served);
    }
    let gray = pools.iter().filter(|it| *it == "pre").count();
    assert!(gray > 0 && gray < pools.len(), "{pools:?}");
    // In the text, beside the share.
    let ini = site.gateway.path("graygate.ini");
    for (account, lines) in [
        (
            "bob",
            &[
                "bucket      17.87 of 30\n",
                "+ percent:30:header:x-account: 17.87 of 30\n",
            ][..],
        ),
        ("alice", &["- percent:30:header:x-account: 67.26 of 30\n"]),
    ] {
        let header = format!("X-Account: {account}");
        let words = ["explain", "127.0.0.9", "--header", &header];
        let output = run_to_exit(&[&words[..], &["-c", ini.to_str().unwrap()]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        for line in lines {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}

#[test]
fn entries_that_came_near_are_shown_term_by_term() {
    let site = FileSite::with(GRAY, |setup| setup);
    let headers = ["X-User: bob", "X-App-Version: 2.9.1", "Cookie: old=1"];
    let request = asked("127.0.0.18", "/v1/cart", &headers);
    let [said, _] = request.explained(&site.gateway, false);
    let near = said["near"].as_array().unwrap();
    let shown: Vec<String> = near
        .iter()
        .map(|entry| {
            let terms = entry["terms"].as_array().unwrap().iter().map(|it| {
                let sign = if it["holds"] == true { '+' } else { '-' };
                format!("{sign}{} {}", it["term"].as_str().unwrap(), it["found"])
            });
            let terms: Vec<String> = terms.collect();
            format!(
                "holds={} expired={}: {}",
                entry["holds"],
                entry["expired"],
                terms.join(", ")
            )
        })
        .collect();
    for expected in [
        "holds=false expired=false: +127.0.0.16/28 null, -method:POST \"\\\"GET\\\"\"",
        "holds=false expired=false: -header:x-user=alice \"\\\"bob\\\"\"",
        "holds=false expired=false: +header:x-user=bob \"\\\"bob\\\"\", -path:/v2/* \"\\\"/v1/cart\\\"\"",
        "holds=false expired=false: -header:x-app-version>=2.10.3 \"\\\"2.9.1\\\"\"",
        "holds=false expired=true: +cookie:old=1 \"\\\"1\\\"\"",
    ] {
        assert!(
            shown.iter().any(|it| it == expected),
            "{expected}: {shown:#?}"
        );
    }
    assert_eq!(said["near_count"], shown.len(), "{said:#}");
    // In the text, the same.
    let ini = site.gateway.path("graygate.ini");
    let words = [
        "explain",
        "127.0.0.18",
        "--header",
        "X-User: bob",
        "--path",
        "/v1/cart",
    ];
    let output = run_to_exit(&[&words[..], &["-c", ini.to_str().unwrap()]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "entry       -",
        "served by   prod (unlisted)",
        "header:x-user=bob path:/v2/* (does not hold)",
        "              + header:x-user=bob: \"bob\"",
        "              - path:/v2/*: \"/v1/cart\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // The states of the peers are the gateway's to know.
    let peer = site.prod.address().to_string();
    assert!(text.contains(&format!("{peer} up")), "{text}");
    let [offline, _] = request.explained(&site.gateway, true);
    assert_eq!(offline["states"], serde_json::json!({}));
}

#[test]
fn testers_marks_and_visitors_are_explained() {
    let site = FileSite::with(&["percent:50:visitor"], |setup| {
        setup
            .set("gray.force_header", "X-Force")
            .set("gray.follow_mark", "on")
            .set("gateway.trusted_proxies", "127.0.0.99")
    });
    for (from, header, reason) in [
        ("127.0.0.9", "X-Force: pre", "forced"),
        ("127.0.0.9", "X-Force: prod", "forced"),
        ("127.0.0.99", "X-Graygate-Pool: pre", "marked"),
        ("127.0.0.9", "Cookie: graygate_visitor=0123456789abcdef", ""),
    ] {
        let request = asked(from, "/", &[header]);
        let served = request.sent(&site.gateway);
        for said in request.explained(&site.gateway, false) {
            assert_eq!(said["pool"], served.as_str(), "{header}: {said:#}");
            assert!(reason.is_empty() || said["reason"] == reason, "{said:#}");
            assert_eq!(said["visitor_is_new"], false, "{header}: {said:#}");
        }
    }
    let [unknown, _] = asked("127.0.0.9", "/", &[]).explained(&site.gateway, false);
    assert_eq!(unknown["visitor_is_new"], true, "{unknown:#}");
    let wrong = asked("127.0.0.9", "/", &["X-Force: nonsense"]);
    let [said, _] = wrong.explained(&site.gateway, false);
    assert_eq!(said["force_refused"], "no-pool", "{said:#}");
}

#[test]
fn a_testers_secret_counts_offline_as_it_does_for_a_gateway() {
    let site = FileSite::with(&["path:/"], |setup| {
        setup
            .set("gray.force_header", "X-Force")
            .set("gray.force_secret_file", "secret")
            .file("secret", "correct-horse-battery\n")
    });
    for (header, reason, refused) in [
        ("X-Force: prod:correct-horse-battery", "forced", None),
        (
            "X-Force: prod:correct-horse-batterz",
            "listed",
            Some("wrong-secret"),
        ),
        ("X-Force: prod", "listed", Some("no-secret")),
    ] {
        let request = asked("127.0.0.9", "/", &[header]);
        for offline in [false, true] {
            let [said, _] = request.explained(&site.gateway, offline);
            assert_eq!(said["reason"], reason, "{header} {offline}: {said:#}");
            let refused = serde_json::json!(refused);
            assert_eq!(
                said["force_refused"], refused,
                "{header} {offline}: {said:#}"
            );
        }
    }
    let ini = site.gateway.path("graygate.ini");
    let run = |header: &str| {
        run_to_exit(&[
            "explain",
            "--offline",
            "--header",
            header,
            "-c",
            ini.to_str().unwrap(),
        ])
    };
    // The entry holds, but it was a tester who has decided.
    let output = run("X-Force: prod:correct-horse-battery");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nnear        path:/ (holds)\n"), "{text}");
    // Nobody can say what a secret is worth that cannot be read.
    std::fs::remove_file(site.gateway.path("secret")).unwrap();
    let output = run("X-Force: prod:correct-horse-battery");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("[gray] force_secret_file: "), "{text}");
    assert!(run("A: 1").status.success());
}
