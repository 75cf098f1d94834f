//! The commands of docs/redis.md that rewrite whole lists: no request sees anything in between.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::{DEADLINE, Site};

/// The blocks of commands of the chapter about that.
fn scripts() -> Vec<&'static str> {
    let page = include_str!("../docs/redis.md");
    let (_, chapter) = page
        .split_once("## To rewrite a list from a script")
        .unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    let blocks = chapter.split("```sh\n").skip(1);
    blocks.map(|it| it.split_once("```").unwrap().0).collect()
}

/// Runs commands with a `redis-cli` that leads to the server of a test.
#[track_caller]
fn run(site: &Site, script: &str) {
    let address = site.redis.address();
    let (ip, port) = (address.ip(), address.port());
    let cli = format!("redis-cli -e -h {ip} -p {port}");
    let script = script.replace("redis-cli", &cli);
    let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && !said.contains("ERR"),
        "{output:?}"
    );
}

#[test]
fn lists_that_are_rewritten_as_the_manual_says_are_never_seen_by_halves() {
    let site = Site::by_events();
    let [rename, transaction] = scripts()[..] else {
        panic!("{:?}", scripts());
    };
    let rename = rename.replace("192.168.1.1", "127.0.0.5");
    run(&site, &rename);
    site.gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    let (ends, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let pre = site.pre.to_string();
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        for at in 0..20 {
            run(
                &site,
                &rename.replace("10.20.0.0/16", &format!("10.{at}.0.0/16")),
            );
            site.redis.cli(&["RPUSH", "gray:new", "127.0.0.5"]);
            site.redis.cli(&["RPUSH", "pre:new", &pre]);
            run(&site, transaction);
        }
        let enough = asked.load(Ordering::Relaxed) + 1;
        support::wait_until("one more request", DEADLINE, || {
            asker.is_finished() || asked.load(Ordering::Relaxed) > enough
        });
        ends.store(true, Ordering::Relaxed);
        asker.join().unwrap();
    });
    assert!(asked.load(Ordering::Relaxed) > 20);
    site.gateway.wait_for_lists("the last version", |it| {
        it["gray"].as_array().unwrap().len() == 1
    });
}
