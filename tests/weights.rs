//! Weights of servers: what they mean for requests, and what a change of them is.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use nix::sys::signal::Signal;
use serde_json::json;
use support::{CopyFolder, DEADLINE, Gateway, Origin, Redis, Setup, free_address, run_to_exit};

const REQUESTS: u32 = 1000;

/// The share of the requests, each of another client, that `origin` got.
fn share(gateway: &Gateway, origin: &Origin) -> f64 {
    let before = origin.requests().len();
    for at in 0..REQUESTS {
        let [.., high, low] = at.to_be_bytes();
        let response = gateway.get(&format!("127.1.{high}.{low}"), "/");
        assert_eq!(response.status(), 200);
    }
    let count = u32::try_from(origin.requests().len() - before).unwrap();
    f64::from(count) / f64::from(REQUESTS)
}

/// Five standard deviations of so many requests.
const NEARLY: f64 = 0.065;

#[track_caller]
fn assert_nearly(share: f64, expected: f64, what: &str) {
    assert!(
        (share - expected).abs() < NEARLY,
        "{what}: {share}, not {expected}"
    );
}

#[test]
fn a_server_gets_requests_by_its_weight_in_every_balance() {
    for balance in ["random", "least", "hash"] {
        let (redis, light, heavy) = (
            Redis::start(),
            Origin::named("light"),
            Origin::named("heavy"),
        );
        redis.push("prod", &[&light, &format!("{heavy}  weight=4")]);
        let gateway = Setup::new()
            .redis(redis.url())
            .set("upstream.balance", balance)
            .start();
        gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
        assert_nearly(share(&gateway, &heavy), 0.8, balance);
        let peers = gateway.admin_get("/peers").1;
        let peers: serde_json::Value = serde_json::from_str(&peers).unwrap();
        assert!(peers.to_string().contains("\"weight\":4"), "{peers}");
    }
}

#[test]
fn another_weight_is_another_list_that_nobody_holds() {
    let (redis, one, other) = (Redis::start(), Origin::named("one"), Origin::named("other"));
    redis.push("prod", &[&one, &other]);
    // Any server that goes is too many. Whoever shows the lists reads where to ask.
    let setup = Setup::new().redis(redis.url());
    let setup = setup.set("admin.listen", free_address());
    let setup = setup.set("lists.guard_share", 0);
    let gateway = setup.start();
    gateway.wait_served("127.0.0.1", "one", DEADLINE);
    let before = gateway.lists();
    let weighted = format!("{other} weight=9");
    let mut change = redis::pipe();
    change.atomic();
    change
        .cmd("LREM")
        .arg("prod")
        .arg(0)
        .arg(other.to_string())
        .ignore();
    change.cmd("RPUSH").arg("prod").arg(&weighted).ignore();
    change.exec(&mut redis.connect(0)).unwrap();
    let mut entries = [one.to_string(), weighted.clone()];
    entries.sort();
    let page = gateway.wait_for_lists("the weight", |it| it["prod"] == json!(entries));
    assert_eq!(page["held"], json!([]));
    assert_ne!(page["digests"]["prod"], before["digests"]["prod"]);
    assert_nearly(share(&gateway, &other), 0.9, "the new weight");
    // Wherever it is read, it is the same list.
    let ini = gateway.path("graygate.ini");
    let show = |arguments: &[&str]| {
        let all = [&["lists", "show", "-c", ini.to_str().unwrap()], arguments].concat();
        String::from_utf8(run_to_exit(&all).stdout).unwrap()
    };
    for shown in [show(&[]), show(&["--offline"])] {
        assert!(shown.contains(page["digest"].as_str().unwrap()), "{shown}");
        assert!(shown.lines().any(|it| it == weighted), "{shown}");
    }
    let diff = run_to_exit(&["lists", "diff", "-c", ini.to_str().unwrap()]);
    assert_eq!(diff.status.code(), Some(0), "{diff:?}");
    // A weight of 1 is what the server had at first.
    redis.cli(&["LREM", "prod", "0", &weighted]);
    redis.push("prod", &[&format!("{other} weight=1")]);
    gateway.wait_for_lists("the first digest", |it| it["digests"] == before["digests"]);
}

#[test]
fn weights_are_in_the_copy_too() {
    let (redis, folder) = (Redis::start(), CopyFolder::new());
    let (light, heavy) = (Origin::named("light"), Origin::named("heavy"));
    redis.push("prod", &[&light, &format!("{heavy} weight=4")]);
    let setup = || folder.set(Setup::new().redis(redis.url()));
    let gateway = setup().start();
    let lists = gateway.wait_for_lists("the copy", |it| {
        it["generation"] == 1 && folder.copy().exists()
    });
    gateway.end();
    redis.signal(Signal::SIGSTOP);
    let gateway = setup().start();
    gateway.wait_for_log("lists-from-copy");
    assert_eq!(gateway.lists()["digest"], lists["digest"]);
    assert_nearly(share(&gateway, &heavy), 0.8, "from the copy");
    redis.signal(Signal::SIGCONT);
}
