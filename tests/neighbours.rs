//! Two gateways on one machine: with what docs/operating.md says for the second one they do not notice
//! each other, and whatever they share is named.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Origin, Redis, Setup, run_to_exit};

/// The ini file of a second gateway that docs/operating.md shows: the names of its keys, and their values.
fn second_of_the_page() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page
        .split_once("```ini\n# /etc/graygate/shop.ini\n")
        .unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let mut section = "";
    let mut keys = Vec::new();
    for line in block.lines().filter(|it| !it.is_empty()) {
        match line.strip_prefix('[') {
            Some(name) => section = name.trim_end_matches(']'),
            None => {
                let (key, value) = line.split_once(" = ").unwrap();
                keys.push((format!("{section}.{key}"), value.to_owned()));
            }
        }
    }
    keys
}

/// Settings as they are by default, in `folder` instead of the system's.
fn by_default(folder: &Path, redis: &Redis) -> Setup {
    let setup = Setup::new().redis(redis.url());
    let files = [
        ("gateway.pid_file", "graygate.pid"),
        ("lists.last_good", "lists"),
        ("log.access", "access.log"),
        ("log.error", "error.log"),
        ("admin.socket", "admin.sock"),
    ];
    files.into_iter().fold(setup, |setup, (key, name)| {
        setup.set(key, folder.join(name).display())
    })
}

/// The same with what the page sets for a second one, on free ports.
fn second(folder: &Path, redis: &Redis) -> Setup {
    let keys = second_of_the_page().into_iter();
    keys.fold(by_default(folder, redis), |setup, (key, value)| {
        if key.ends_with(".listen") || key == "redis.url" {
            return setup;
        }
        match Path::new(&value)
            .file_name()
            .filter(|_| value.starts_with('/'))
        {
            Some(name) => setup.set(&key, folder.join(name).display()),
            None => setup.set(&key, value),
        }
    })
}

fn error_log(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

#[test]
fn two_gateways_on_one_machine_work_with_what_the_page_says_for_the_second() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let redis = Redis::start();
    redis.push("prod", &[&one]);
    redis.push("shop:prod", &[&two]);
    let setup = second(folder, &redis);
    let first = by_default(folder, &redis).start();
    assert_eq!(setup.warnings(), "");
    let second = setup.start();
    for (gateway, content) in [(&first, "one"), (&second, "two")] {
        gateway.wait_served("127.0.0.1", content, DEADLINE);
        let copy = gateway.wait_for_lists("the copy", |it| it["copy"]["written"].is_string());
        assert_eq!(copy["copy"]["error"], Value::Null);
        let beats = |it: &Value| it["heartbeat"]["written"].as_u64() > Some(0);
        gateway.wait_for_lists("a heartbeat", beats);
    }
    assert_eq!(first.lists()["held"], json!([]));
    for (name, gateway) in [("graygate.pid", &first), ("graygate-shop.pid", &second)] {
        let pid = fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(pid.trim(), gateway.pid().to_string());
    }
    for (name, copy, other) in [("lists", &one, &two), ("shop", &two, &one)] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.contains(&copy.to_string()) && !text.contains(&other.to_string()));
    }
    for name in ["error.log", "shop-error.log"] {
        let log = error_log(folder, name);
        for word in [
            "neighbour-shares",
            "copy-taken",
            "another-store",
            "name-taken",
        ] {
            assert!(!log.contains(word), "{name}: {log}");
        }
    }
    for name in ["access.log", "shop-access.log"] {
        assert!(folder.join(name).exists());
    }
    // Beside it, a check of the one that runs finds nothing either.
    let ini = first.path("graygate.ini");
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn whatever_a_second_gateway_shares_with_the_first_is_named_by_a_check() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.0.1:9"]);
    let first = by_default(folder, &redis).set("redis.node", "gw").start();
    first.wait_for_lists("the copy", |it| it["copy"]["written"].is_string());
    let pid = first.pid();
    let in_folder = |name: &str| folder.join(name).display().to_string();
    let table: [(&str, String, String); 8] = [
        (
            "gateway.pid_file",
            in_folder("graygate.pid"),
            "[gateway] pid_file ".to_owned(),
        ),
        (
            "log.access",
            in_folder("access.log"),
            "[log] access ".to_owned(),
        ),
        (
            "admin.socket",
            in_folder("admin.sock"),
            "[admin] socket ".to_owned(),
        ),
        // Whichever log it is there.
        (
            "log.access",
            in_folder("error.log"),
            "[log] access ".to_owned(),
        ),
        (
            "log.error",
            in_folder("error.log"),
            "[log] error ".to_owned(),
        ),
        (
            "redis.accept_key",
            "graygate:accept".to_owned(),
            "[redis] accept_key graygate:accept of other lists".to_owned(),
        ),
        ("admin.listen", first.admin().to_string(), String::new()),
        (
            "lists.last_good",
            in_folder("lists"),
            format!("is kept by another gateway, process {pid} with "),
        ),
    ];
    for (key, value, said) in &table {
        let warning = second(folder, &redis).set(key, value).warnings();
        match *key {
            // The first one has taken any port that was free: nobody can know that by its ini file.
            "admin.listen" => assert_eq!(warning, ""),
            "lists.last_good" => assert!(warning.contains(said), "{key}: {warning}"),
            _ => {
                let by =
                    format!(" is in use by another gateway, process {pid}; each needs its own");
                assert!(
                    warning.contains(said) && warning.contains(&by),
                    "{key}: {warning}"
                );
                assert_eq!(warning.lines().count(), 1, "{key}: {warning}");
            }
        }
    }
    // The same name for two of one fleet.
    let node = second(folder, &redis)
        .set("redis.node", "gw")
        .set("redis.node_key", "graygate:node");
    let warning = node.warnings();
    assert!(
        warning.contains("[redis] node gw is in use by"),
        "{warning}"
    );
    // Of the same lists the key that accepts is meant to be shared.
    let same = ["gray", "pre", "prod", "accept"].into_iter();
    let same = same.fold(second(folder, &redis), |setup, it| {
        setup.unset(&format!("redis.{it}_key"))
    });
    assert_eq!(same.warnings(), "");
}

#[test]
fn a_second_gateway_names_at_its_start_what_it_shares() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.0.1:9"]);
    redis.push("shop:prod", &[&"127.0.0.1:9"]);
    let first = by_default(folder, &redis).start();
    let pid = first.pid();
    let other: Gateway = second(folder, &redis)
        .set("log.access", folder.join("access.log").display())
        .set("log.error", "stderr")
        .start();
    let line = other.wait_for_log("neighbour-shares");
    assert!(
        line.contains("what=\"[log] access ") && line.contains(&format!(" process={pid} ")),
        "{line}"
    );
    assert_eq!(other.stderr.count("neighbour-shares"), 1);
    drop(other);
    // What keeps it from starting is named together with the rest.
    let setup = second(folder, &redis)
        .set("gateway.pid_file", folder.join("graygate.pid").display())
        .set("log.error", folder.join("error.log").display());
    let ini = setup.write_ini();
    let output = run_to_exit(&["run", "-c", ini.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "{said}");
    for what in ["[gateway] pid_file ", "[log] error "] {
        let named = format!("{what}{}", folder.display());
        assert!(said.contains(&named), "{said}");
    }
    assert!(
        said.contains(&format!(" is in use by another gateway, process {pid}")),
        "{said}"
    );
}
