//! Which database is read, who asks, and what is said where the server does not let that be.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Output;

use support::{Redis, Setup, run_to_exit};

/// What a program has said on both ways.
fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|it| String::from_utf8_lossy(it))
        .concat()
}

/// Runs a command with the ini file of `setup`.
#[track_caller]
fn command(setup: &Setup, words: &[&str]) -> Output {
    let ini = setup.write_ini();
    run_to_exit(&[words, &["-c", ini.to_str().unwrap()]].concat())
}

#[test]
fn the_query_of_a_url_names_the_database_and_what_is_unknown_or_contradicts_starts_nothing() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.0.1:1"]);
    let _: i64 = redis::cmd("RPUSH")
        .arg(&["prod", "127.0.0.1:5"])
        .query(&mut redis.connect(5))
        .unwrap();
    let host = format!("redis://{}", redis.address());
    for (url, port) in [
        (host.clone(), 1),
        (format!("{host}?db=5"), 5),
        (format!("{host}/5?db=5&protocol=3"), 5),
    ] {
        let output = command(&Setup::new().redis(url), &["lists", "show", "--offline"]);
        let text = said(&output);
        assert!(text.contains(&format!("127.0.0.1:{port}\n")), "{text}");
    }
    let gateway = Setup::new().redis(format!("{host}?db=5")).start();
    gateway.wait_for_lists("those of database 5", |it| it["prod"][0] == "127.0.0.1:5");
    for (query, why) in [
        ("/1?db=5", "it names two values for the database"),
        ("?timeout=5", "`timeout` is unknown in its query"),
    ] {
        let setup = Setup::new().redis(format!("{host}{query}"));
        let output = setup.start_in_vain();
        assert!(!output.status.success(), "{output:?}");
        assert!(said(&output).contains(why), "{output:?}");
    }
    let sentinels = Setup::new().redis(&host).set("redis.sentinels", "a?name=b");
    let output = command(&sentinels, &["-t"]);
    assert!(
        said(&output).contains("number 1: `name` is unknown in its query"),
        "{output:?}"
    );
}
