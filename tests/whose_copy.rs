//! Whose a last-good copy is: it serves the store that it is of and no other, and one gateway at a time.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{CopyFolder, DEADLINE, Origin, Redis, Setup, run_to_exit, wait_until};

/// What is looked at in the folder of a copy.
trait Look {
    fn text(&self) -> String;
    fn wait_for(&self, text: &str);
    /// The names of what is here beside the lock.
    fn names(&self) -> Vec<String>;
}

impl Look for CopyFolder {
    fn text(&self) -> String {
        fs::read_to_string(self.copy()).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_until(text, DEADLINE, || self.text().contains(text));
    }

    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(self.path()).unwrap();
        let names = files.map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|it| it != "lists.lock").collect();
        names.sort();
        names
    }
}

#[test]
fn a_copy_of_another_store_is_not_used_not_compared_with_and_not_lost() {
    let (theirs, ours) = (Origin::named("theirs"), Origin::named("ours"));
    let one = Redis::start();
    for key in ["prod", "other"] {
        one.push(key, &[&theirs]);
    }
    let two = Redis::start();
    two.push("prod", &[&ours]);
    let mut db = one.connect(1);
    redis::cmd("RPUSH")
        .arg("prod")
        .arg(ours.to_string())
        .exec(&mut db)
        .unwrap();
    let lists = tempfile::tempdir().unwrap();
    let file = lists.path().join("lists");
    fs::write(&file, format!("[gray]\n[pre]\n[prod]\n{ours}\n")).unwrap();
    type Edit<'a> = Box<dyn Fn(Setup) -> Setup + 'a>;
    let table: [(&str, Edit<'_>); 3] = [
        ("another Redis", Box::new(|it| it.redis(two.url()))),
        ("another database", Box::new(|it| it.redis(one.url_of(1)))),
        (
            "a lists file",
            Box::new(|it| it.set("lists.file", file.display())),
        ),
    ];
    for (what, edit) in table {
        let place = CopyFolder::new();
        let gateway = place.set(Setup::new().redis(one.url())).start();
        gateway.wait_served("127.0.0.1", "theirs", DEADLINE);
        place.wait_for(&theirs.to_string());
        gateway.end();
        let before = place.text();
        assert!(before.contains("# store {\"db\":0,"), "{before}");

        let setup = place.set(edit(Setup::new()));
        let said = setup.warnings();
        assert!(
            said.contains("will not be used: it holds the lists of another store: redis 127."),
            "{what}: {said}"
        );
        let gateway = setup.start();
        gateway.wait_served("127.0.0.1", "ours", DEADLINE);
        let line = gateway.wait_for_log("copy-of-another-store");
        assert!(
            line.contains(" ERROR ") && line.contains("keys gray,pre,prod"),
            "{line}"
        );
        let page = gateway.lists();
        assert_eq!(page["held"], json!([]), "{what}");
        place.wait_for(&ours.to_string());
        let aside = page["copy"]["other"]["path"].as_str().unwrap().to_owned();
        assert_eq!(fs::read_to_string(&aside).unwrap(), before, "{what}");
        let line = gateway.wait_for_log("copy-set-aside");
        assert!(line.contains(&aside), "{line}");
        gateway.wait_for_lists("no error", |it| it["copy"]["error"].is_null());
        gateway.end();
        assert_eq!(place.names().len(), 2, "{what}");
    }
    // Nor is it used while its own store is away.
    let place = CopyFolder::new();
    let gateway = place.set(Setup::new().redis(one.url())).start();
    place.wait_for(&theirs.to_string());
    gateway.end();
    let before = place.text();
    let away = Redis::stopped();
    let gateway = place.set(Setup::new().redis(away.url())).start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    let copy = gateway.lists()["copy"].clone();
    assert!(copy["error"].as_str().unwrap().contains("another store"));
    assert_eq!(copy["in_force"], false);
    gateway.end();
    assert_eq!(
        (place.text(), place.names()),
        (before, vec!["lists".to_owned()])
    );
    // To its own it is still what it was.
    let gateway = place.set(Setup::new().redis(one.url())).start();
    assert_eq!(gateway.stderr.count("copy-of-another-store"), 0);
}

#[test]
fn other_keys_are_other_lists() {
    let (theirs, ours) = (Origin::named("theirs"), Origin::named("ours"));
    let redis = Redis::start();
    redis.push("prod", &[&theirs]);
    redis.push("other", &[&ours]);
    let place = CopyFolder::new();
    let gateway = place.set(Setup::new().redis(redis.url())).start();
    place.wait_for(&theirs.to_string());
    gateway.end();
    let setup = place.set(Setup::new().redis(redis.url()));
    let gateway = setup.set("redis.prod_key", "other").start();
    gateway.wait_served("127.0.0.1", "ours", DEADLINE);
    assert_eq!(gateway.lists()["held"], json!([]));
}

/// Two servers that differ only in their ports are what peers without a port become.
#[test]
fn another_peer_port_is_no_change_of_the_lists() {
    let (before, after) = (Origin::named("before"), Origin::named("after"));
    let port = |origin: &Origin| {
        let shown = origin.to_string();
        shown.rsplit_once(':').unwrap().1.to_owned()
    };
    let mut redis = Redis::start();
    redis.push("prod", &[&"127.0.0.1"]);
    let place = CopyFolder::new();
    let setup = |origin| {
        let setup = place.set(Setup::new().redis(redis.url()));
        setup.set("upstream.peer_port", port(origin))
    };
    let gateway = setup(&before).start();
    gateway.wait_served("127.0.0.1", "before", DEADLINE);
    place.wait_for("\n127.0.0.1\n");
    let first = gateway.lists();
    // Beside it, one with the other port is known by the same digest.
    let beside = Setup::new().redis(redis.url());
    let beside = beside.set("upstream.peer_port", port(&after)).start();
    beside.wait_served("127.0.0.1", "after", DEADLINE);
    assert_eq!(beside.lists()["digest"], first["digest"]);
    beside.end();
    gateway.end();

    let gateway = setup(&after).start();
    gateway.wait_served("127.0.0.1", "after", DEADLINE);
    let page = gateway.lists();
    assert_eq!(
        (&page["held"], &page["digest"]),
        (&json!([]), &first["digest"])
    );
    assert_eq!(page["prod"], json!([after.to_string()]));
    assert_eq!(page["written"]["prod"], json!(["127.0.0.1"]));
    gateway.end();
    let after_setup = setup(&after);
    redis.kill();
    let gateway = after_setup.start();
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "after");
    assert_eq!(gateway.lists()["copy"]["in_force"], true);
}

#[test]
fn a_copy_is_one_gateways_at_a_time_and_the_next_one_takes_it_over() {
    let prod = Origin::named("prod");
    let redis = Redis::start();
    redis.push("prod", &[&prod]);
    let place = CopyFolder::new();
    let setup = || place.set(Setup::new().redis(redis.url()));
    let mut first = setup().start();
    place.wait_for(&prod.to_string());
    // A check beside the very gateway finds nothing.
    let own = Setup::new();
    assert_eq!(first.lists()["copy"]["error"], Value::Null);
    first.edit_ini(|it| it);
    let ini = first.path("graygate.ini");
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    drop(own);

    let second = setup();
    let pid = first.pid();
    let expected = format!(
        "is kept by another gateway, process {pid} with {}",
        ini.display()
    );
    let said = second.warnings();
    assert!(said.contains(&expected), "{said}");
    let second = second.start();
    let line = second.wait_for_log("copy-taken");
    assert!(
        line.contains(" ERROR ") && line.contains(&expected),
        "{line}"
    );
    assert_eq!(second.get("127.0.0.1", "/").text(), "prod");
    let error = second.lists()["copy"]["error"].clone();
    assert!(error.as_str().unwrap().contains(&expected), "{error}");

    // What the second reads it does not write over what the first has written.
    redis.push("gray", &[&"10.0.0.1"]);
    second.wait_for_lists("the entry", |it| it["gray"] == json!(["10.0.0.1"]));
    place.wait_for("\n10.0.0.1\n");
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    redis.push("gray", &[&"10.0.0.2"]);
    place.wait_for("\n10.0.0.2\n");
    second.wait_for_log("copy-written");
    second.wait_for_lists("no error", |it| it["copy"]["error"].is_null());
}

/// So it is where a new process starts while the old one still ends: it has the lists at once.
#[test]
fn who_finds_the_copy_of_its_own_store_taken_uses_it_all_the_same() {
    let prod = Origin::named("prod");
    let mut redis = Redis::start();
    redis.push("prod", &[&prod]);
    let place = CopyFolder::new();
    let setup = || place.set(Setup::new().redis(redis.url()));
    let old = setup().start();
    place.wait_for(&prod.to_string());
    let new = setup();
    redis.kill();
    let new = new.start();
    assert_eq!(new.get("127.0.0.1", "/").text(), "prod");
    assert_eq!(new.lists()["copy"]["in_force"], true);
    old.end();
    new.end();
    assert_eq!(place.names(), ["lists"]);
}
