//! The last-good copy: a gateway whose Redis is away starts with the lists that it had, and a
//! damaged copy is never used.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use graygate::lists::Lists;
use graygate::store::copy;
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{
    CopyFolder, DEADLINE, Gateway, Origin, Redis, Setup, Site, run_to_exit, wait_for, wait_until,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The place of a copy that outlives its gateway.
struct Place(CopyFolder);

impl Place {
    fn new() -> Self {
        Self(CopyFolder::new())
    }

    fn path(&self) -> PathBuf {
        self.0.copy()
    }

    /// Settings with the copy here, where only events and news lead to readings.
    fn set(&self, setup: Setup) -> Setup {
        self.0.set(setup).set("redis.check_interval", "1h")
    }

    /// The copy, once `cond` holds for it.
    #[track_caller]
    fn wait_for(&self, what: &str, cond: impl Fn(&Lists) -> bool) -> copy::Copy {
        wait_for(what, || {
            let copy = copy::read(&self.path(), 80).unwrap()?;
            cond(&copy.lists).then_some(copy)
        })
    }

    /// Writes a copy of such lists, which were good at `time`, as the versions did that wrote no name of
    /// a store: whoever finds it takes it for its own.
    #[track_caller]
    fn write(&self, gray: &[&str], pre: &[&dyn Display], prod: &[&dyn Display], time: SystemTime) {
        let time = humantime::format_rfc3339_millis(time);
        let mut rest = format!("# time {time}\n# digest 0\n# generation 7\n[gray]\n");
        let peers = |peers: &[&dyn Display]| peers.iter().map(|it| format!("{it}\n")).collect();
        rest.extend(gray.iter().map(|it| format!("{it}\n")));
        let [pre, prod]: [String; 2] = [peers(pre), peers(prod)];
        rest.push_str(&format!("[pre]\n{pre}[prod]\n{prod}"));
        let sum: String = Sha256::digest(&rest)
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        let first = format!("# graygate last-good lists, version 1, sha256 {sum}\n");
        copy::write(&self.path(), (first + &rest).as_bytes()).unwrap();
    }
}

/// A gateway with the copy of `place`, and a Redis that is down.
#[track_caller]
fn start_without_redis(place: &Place, edit: impl FnOnce(Setup) -> Setup) -> (Redis, Gateway) {
    let redis = Redis::stopped();
    let gateway = edit(place.set(Setup::new().redis(redis.url()))).start();
    (redis, gateway)
}

#[track_caller]
fn accept(gateway: &Gateway, digest: &Value) {
    let setup = Setup::new().set("admin.socket", gateway.path("admin.sock").display());
    let ini = setup.write_ini();
    let digest = digest.as_str().unwrap();
    let output = run_to_exit(&["lists", "accept", digest, "-c", ini.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_gateway_whose_redis_is_away_starts_with_the_lists_that_it_had() {
    for silent in [false, true] {
        let place = Place::new();
        let mut site = Site::with(|setup| place.set(setup));
        site.redis("RPUSH gray 127.0.0.5 10.0.0.0/8 2001:db8::/32");
        site.wait_served("127.0.0.5", "pre");
        let before = site.gateway.lists();
        assert_eq!(before["copy"]["in_force"], false);
        let copy = place.wait_for("the newest copy", |it| it.gray.entries().count() == 3);
        assert_eq!(before["digest"], copy.lists.digest.to_string());
        let Site {
            mut redis,
            gateway,
            pre,
            prod,
        } = site;
        gateway.end();
        match silent {
            true => redis.signal(Signal::SIGSTOP),
            false => redis.kill(),
        }
        let gateway = place.set(Setup::new().redis(redis.url())).start();
        site = Site {
            redis,
            gateway,
            pre,
            prod,
        };

        // The first request that it accepts is served.
        assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre");
        assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
        site.gateway.wait_for_health(200, "ok generation=1");
        let line = site.gateway.wait_for_log("lists-from-copy");
        assert!(line.contains(" WARN ") && line.contains(" age="), "{line}");
        let page = site
            .gateway
            .wait_for_lists("the error", |it| it["error"] != Value::Null);
        for same in ["digest", "gray", "pre", "prod"] {
            assert_eq!(page[same], before[same], "{same}");
        }
        let copy = &page["copy"];
        assert_eq!(copy["path"], place.path().to_str().unwrap());
        assert_eq!(
            (&copy["in_force"], &copy["error"]),
            (&json!(true), &Value::Null)
        );
        let written = humantime::parse_rfc3339(copy["written"].as_str().unwrap()).unwrap();
        assert!(written.elapsed().unwrap() < 2 * DEADLINE);
        assert!(copy["age_seconds"].as_f64().unwrap() < 20.0);
        assert_eq!(page["age_seconds"], Value::Null, "nothing was read yet");
        assert_eq!(site.gateway.metric("graygate_lists_copy_in_force"), 1.0);
        assert_eq!(site.gateway.metric("graygate_lists_readable"), 0.0);
        assert_eq!(site.refreshes("copy"), 1);
        assert_eq!(
            (&page["refreshes"]["copy"], &page["refreshed_by"]),
            (&json!(1), &json!("copy"))
        );
        let setup = Setup::new().set("admin.listen", site.gateway.admin());
        let output = run_to_exit(&["status", "-c", setup.write_ini().to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("\ncopy        in force, written "), "{said}");

        // Redis comes back, with the same lists or with none; then they change.
        match silent {
            true => site.redis.signal(Signal::SIGCONT),
            false => {
                site.redis.restart();
                site.redis.push("pre", &[&site.pre]);
                site.redis.push("prod", &[&site.prod]);
            }
        }
        site.redis("RPUSH gray 127.0.0.7");
        site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
        let page = site
            .gateway
            .wait_for_lists("it was read", |it| it["copy"]["in_force"] == false);
        assert_eq!(page["error"], Value::Null);
        assert_eq!(site.gateway.metric("graygate_lists_copy_in_force"), 0.0);
        assert_eq!(site.gateway.stderr.count("lists-from-copy"), 1);
    }
}

#[test]
fn without_a_copy_and_without_redis_there_are_no_lists() {
    let place = Place::new();
    let (_redis, gateway) = start_without_redis(&place, |setup| setup);
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    let copy = &gateway.lists()["copy"];
    assert_eq!(
        (&copy["in_force"], &copy["written"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(copy["error"], Value::Null);
    assert_eq!(gateway.stderr.count("copy-"), 0);
    assert_eq!(gateway.lists()["refreshed_by"], Value::Null);
    assert!(!place.path().exists(), "what was never read is not kept");
    drop(gateway);
    // And none is kept where none is wanted.
    let site = Site::with(|setup| setup);
    assert_eq!(site.gateway.lists()["copy"], Value::Null);
    assert_eq!(
        site.gateway.shown_metric("graygate_lists_copy_in_force"),
        None
    );
}

#[test]
fn a_damaged_copy_is_refused_with_its_reason_and_never_used() {
    let prod = Origin::named("prod");
    let place = Place::new();
    place.write(&["127.0.0.5"], &[], &[&prod], SystemTime::now());
    let good = fs::read(place.path()).unwrap();
    let changed = |at: usize| {
        let mut text = good.clone();
        text[at] ^= 1;
        text
    };
    let version = String::from_utf8(good.clone()).unwrap();
    let version = version.replacen("version 1", "version 4", 1);
    let checksum = good.iter().position(|it| *it == b'\n').unwrap() - 1;
    let table: [(&str, Vec<u8>, &str); 8] = [
        ("empty", Vec::new(), "does not begin like a copy"),
        (
            "cut in its first line",
            good[..30].to_vec(),
            "does not begin like a copy",
        ),
        (
            "cut before its last line",
            good[..good.len() - 16].to_vec(),
            "checksum is wrong",
        ),
        (
            "with another peer",
            changed(good.len() - 2),
            "checksum is wrong",
        ),
        (
            "with another time",
            changed(checksum + 15),
            "checksum is wrong",
        ),
        (
            "with another checksum",
            changed(checksum),
            "checksum is wrong",
        ),
        (
            "of another version",
            version.into_bytes(),
            "it has version 4; known are 1, 2 and 3",
        ),
        (
            "no copy at all",
            b"[gray]\n[pre]\n[prod]\n10.0.0.1\n".to_vec(),
            "does not begin",
        ),
    ];
    for (what, text, said) in table {
        fs::write(place.path(), &text).unwrap();
        let (mut redis, gateway) = start_without_redis(&place, |setup| setup);
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 503, "{what}");
        let line = gateway.wait_for_log("copy-refused");
        assert!(
            line.contains(said) && line.contains(" ERROR "),
            "{what}: {line}"
        );
        let copy = gateway.lists()["copy"].clone();
        assert!(
            copy["error"].as_str().unwrap().contains(said),
            "{what}: {copy}"
        );
        assert_eq!(copy["written"], Value::Null, "{what}");
        assert_eq!(gateway.stderr.count("lists-from-copy"), 0, "{what}");
        // Nor does anything of it hold up what Redis has; and a good one takes its place.
        redis.restart();
        redis.push("prod", &[&prod]);
        gateway.wait_served("127.0.0.1", "prod", DEADLINE);
        wait_until("a good copy", DEADLINE, || {
            copy::read(&place.path(), 80).is_ok_and(|it| it.is_some())
        });
        // It can still be looked at.
        let aside = place.0.path().join("lists.damaged");
        assert_eq!(fs::read(&aside).unwrap(), text, "{what}");
        let line = gateway.wait_for_log("copy-set-aside");
        assert!(line.contains(aside.to_str().unwrap()), "{line}");
        gateway.wait_for_lists("no error", |it| it["copy"]["error"].is_null());
    }
}

#[test]
fn a_copy_without_a_name_and_without_a_server_of_this_store_is_set_aside_when_that_is_known() {
    let prod = Origin::named("prod");
    for is_up in [false, true] {
        let place = Place::new();
        place.write(&["127.0.0.1"], &[], &[&"10.0.0.1:80"], SystemTime::now());
        let text = fs::read(place.path()).unwrap();
        let (mut redis, gateway);
        if is_up {
            redis = Redis::start();
            redis.push("prod", &[&prod]);
            gateway = place.set(Setup::new().redis(redis.url())).start();
        } else {
            (redis, gateway) = start_without_redis(&place, |setup| setup);
            assert_eq!(gateway.lists()["copy"]["in_force"], true);
            redis.restart();
            redis.push("prod", &[&prod]);
        }
        gateway.wait_served("127.0.0.1", "prod", DEADLINE);
        let page = gateway.lists();
        assert_eq!(page["held"], json!([]), "{is_up}");
        assert_eq!(page["gray"], json!([]), "{is_up}");
        let line = gateway.wait_for_log("copy-set-aside");
        let aside = place.0.path().join("lists.of-unknown");
        assert!(line.contains(aside.to_str().unwrap()), "{line}");
        assert_eq!(fs::read(&aside).unwrap(), text, "{is_up}");
        place.wait_for("a copy of this store", |it| {
            it.prod.peers()[0].to_string() == prod.to_string()
        });
        // From now on that is what changes are compared with.
        redis.cli(&["DEL", "prod"]);
        gateway.wait_for_lists("prod is held", |it| it["held"] != json!([]));
    }
}

#[test]
fn a_copy_that_is_too_old_is_not_used() {
    let prod = Origin::named("prod");
    for (age, most, used) in [
        (2 * DAY, "1d", false),
        (2 * DAY, "47h", false),
        (2 * DAY, "3d", true),
        (4000 * DAY, "unlimited", true),
    ] {
        let place = Place::new();
        place.write(&[], &[], &[&prod], SystemTime::now() - age);
        let (mut redis, gateway) =
            start_without_redis(&place, |setup| setup.set("lists.last_good_max_age", most));
        let status = gateway.get("127.0.0.1", "/").status();
        assert_eq!(status, if used { 200 } else { 503 }, "{age:?} of {most}");
        let (told, days) = (
            gateway.stderr.all().join("\n"),
            age.as_secs() / 24 / 60 / 60,
        );
        match used {
            true => assert!(told.contains("lists-from-copy"), "{told}"),
            false => {
                let line = gateway.wait_for_log("copy-refused");
                assert!(line.contains("older than last_good_max_age"), "{line}");
                assert!(line.contains(" age=2d max_age="), "{line}");
                gateway.wait_for_health(503, "no-lists");
            }
        }
        let shown = gateway.lists()["copy"]["age_seconds"].as_f64().unwrap();
        assert_eq!(shown as u64 / 24 / 60 / 60, days);
        // Used or not, it is compared with: a restart is no way around what is held.
        redis.restart();
        let new = Origin::named("new");
        redis.push("prod", &[&new]);
        let page = gateway.wait_for_lists("prod is held", |it| it["held"] != json!([]));
        assert_eq!(page["prod"], json!([prod.to_string()]), "{age:?} of {most}");
        gateway.wait_served("127.0.0.1", "prod", DEADLINE);
        assert_eq!(new.accepted(), 0, "{age:?} of {most}");
    }
}

#[test]
fn a_copy_never_comes_to_the_age_of_refusal_while_the_lists_are_confirmed() {
    let place = Place::new();
    let edit = |setup| {
        let setup = place.set(setup).set("lists.last_good_max_age", "6s");
        setup.set("redis.check_interval", "200ms")
    };
    let mut site = Site::with(edit);
    let first = place.wait_for("a copy", |_| true).written;
    // Nothing changes.
    wait_until("it is renewed", DEADLINE, || {
        copy::read(&place.path(), 80).unwrap().unwrap().written > first
    });
    site.gateway.signal(Signal::SIGKILL);
    site.gateway.wait_exit();
    site.redis.kill();
    let gateway = edit(Setup::new().redis(site.redis.url())).start();
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
    let line = gateway.wait_for_log("lists-from-copy");
    let seconds = (0..=5).any(|it| line.contains(&format!(" age={it}s ")));
    assert!(seconds, "{line}");
}

#[test]
fn a_copy_from_the_future_is_used_with_a_warning() {
    let prod = Origin::named("prod");
    let place = Place::new();
    place.write(&[], &[], &[&prod], SystemTime::now() + DAY);
    let (mut redis, gateway) =
        start_without_redis(&place, |setup| setup.set("lists.last_good_max_age", "1h"));
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
    let line = gateway.wait_for_log("copy-from-the-future");
    assert!(line.contains(" WARN "), "{line}");
    assert_eq!(gateway.lists()["copy"]["age_seconds"], 0.0);
    // It does not stay there: the next one has the time of now.
    redis.restart();
    redis.push("prod", &[&prod]);
    redis.push("gray", &[&"127.0.0.5"]);
    let copy = place.wait_for("a new copy", |it| it.gray.entries().count() == 1);
    assert!(copy.written <= SystemTime::now());
}

#[test]
fn a_restart_is_no_way_around_what_is_held_and_what_was_accepted_stays_so() {
    let place = Place::new();
    let new = Origin::named("new");
    let site = Site::with(|setup| place.set(setup));
    place.wait_for("a copy", |it| it.prod.peers().len() == 1);
    site.redis("RPUSH gray 0.0.0.0/0");
    site.redis(&format!("LSET prod 0 {new}"));
    let both = |page: &Value| page["held"].as_array().unwrap().len() == 2;
    let before = site.gateway.wait_for_lists("both are held", both);
    let Site { redis, gateway, .. } = site;
    gateway.end();

    let start = || place.set(Setup::new().redis(redis.url())).start();
    let gateway = start();
    let page = gateway.wait_for_lists("both are held again", both);
    for at in [0, 1] {
        for same in ["list", "reason", "digest", "gone", "new"] {
            assert_eq!(page["held"][at][same], before["held"][at][same], "{same}");
        }
    }
    assert_eq!(page["generation"], 1);
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "prod");
    for at in [0, 1] {
        accept(&gateway, &page["held"][at]["digest"]);
    }
    let accepted = gateway.lists();
    gateway.end();

    let gateway = start();
    let page = gateway.lists();
    assert_eq!(page["held"], json!([]));
    assert_eq!(page["digest"], accepted["digest"]);
    assert_eq!(page["prod"], json!([new.to_string()]));
    assert_eq!(gateway.stderr.count("change-held"), 0);
}

#[test]
fn a_restart_between_del_and_rpush_keeps_prod() {
    let place = Place::new();
    let site = Site::with(|setup| place.set(setup));
    place.wait_for("a copy", |it| it.prod.peers().len() == 1);
    let Site {
        redis,
        gateway,
        pre,
        prod,
    } = site;
    gateway.end();
    redis.cli(&["DEL", "prod"]);
    let setup = place.set(Setup::new().redis(redis.url()));
    let gateway = setup.set("log.level", "debug").start();
    // As while it runs, an emptied list is not believed at once.
    gateway.wait_for_log("list-kept list=prod fault=unsettled");
    for _ in 0..20 {
        assert_eq!(gateway.get("127.0.0.6", "/").text(), "prod");
    }
    redis.push("prod", &[&prod]);
    gateway.wait_for_lists("nothing is held or kept", |it| {
        (&it["held"], &it["kept"]) == (&json!([]), &json!([]))
    });
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "prod");
    drop(pre);
}

#[test]
fn a_lists_file_that_was_changed_while_nothing_ran_is_compared_with_the_copy() {
    let place = Place::new();
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    // It is the same file for both.
    let file = place.0.path().join("file");
    let start = |prod: &Origin| {
        fs::write(&file, format!("[gray]\n[pre]\n[prod]\n{prod}\n")).unwrap();
        let setup = place.set(Setup::new()).set("lists.file", file.display());
        setup.start()
    };
    let gateway = start(&old);
    place.wait_for("a copy", |it| it.prod.peers().len() == 1);
    gateway.end();
    let gateway = start(&new);
    let page = gateway.lists();
    assert_eq!(page["held"][0]["reason"], "removes-peers", "{page}");
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "old");
    accept(&gateway, &page["held"][0]["digest"]);
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "new");
}

#[test]
fn the_copy_is_written_at_most_once_a_second_and_the_newest_is_there_at_the_end() {
    let place = Place::new();
    let site = Site::with(|setup| place.set(setup));
    let start = Instant::now();
    let (mut copies, mut last) = (0, 0);
    for at in 0.. {
        site.redis(&format!("RPUSH gray 10.0.{}.{}", at / 250, at % 250));
        // Each copy is a new file.
        let inode = fs::metadata(place.path()).map_or(0, |it| it.ino());
        copies += usize::from(inode != last);
        last = inode;
        // Whole at any moment.
        copy::read(&place.path(), 80).unwrap();
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let most = start.elapsed().as_secs() as usize + 2;
    assert!(
        (2..=most).contains(&copies),
        "{copies} copies, {most} at most"
    );
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let digest = site.gateway.lists()["digest"].clone();
    site.gateway.end();
    let copy = copy::read(&place.path(), 80).unwrap().unwrap();
    assert_eq!(digest, copy.lists.digest.to_string());
    let left = fs::read_dir(place.0.path()).unwrap().count();
    assert_eq!(left, 1, "nothing is left beside it");
    // It is a lists file, for whoever wants to go on without Redis.
    let setup = Setup::new().set("lists.file", place.path().display());
    let gateway = setup.start();
    assert_eq!(gateway.lists()["digest"], digest);
}

#[test]
fn a_kill_leaves_a_whole_copy() {
    let place = Place::new();
    for round in 0..5 {
        let mut site = Site::with(|setup| place.set(setup).set("lists.guard_share", "100"));
        let prod = site.prod.to_string();
        place.wait_for("the first copy", |it| {
            it.prod.peers()[0].to_string() == prod
        });
        for at in 0..20 {
            site.redis(&format!("RPUSH gray 10.0.{round}.{at}"));
        }
        site.gateway.signal(Signal::SIGKILL);
        site.gateway.wait_exit();
        copy::read(&place.path(), 80).unwrap().unwrap();
    }
}

#[test]
fn where_the_copy_cannot_be_written_that_is_told_once_and_serving_goes_on() {
    const FAILURES: &str = "graygate_lists_copy_failures_total";
    let place = Place::new();
    // Where its folder should be there is a file.
    let folder = place.0.path().join("folder");
    fs::write(&folder, "").unwrap();
    let path = folder.join("lists");
    let site = Site::with(|setup| {
        let setup = place.set(setup);
        setup.set("lists.last_good", path.display())
    });
    site.gateway.wait_for_log("copy-failed");
    for at in 0..3 {
        site.redis(&format!("RPUSH gray 127.0.0.{}", 20 + at));
        site.wait_served(&format!("127.0.0.{}", 20 + at), "pre");
    }
    wait_until("another attempt", 2 * DEADLINE, || {
        site.gateway.metric(FAILURES) >= 2.0
    });
    let copy = site.gateway.lists()["copy"].clone();
    assert!(
        copy["error"].as_str().unwrap().contains("Not a directory"),
        "{copy}"
    );
    assert_eq!(site.gateway.stderr.count("copy-failed"), 1);
    site.gateway.wait_for_health(200, "ok");
    // Once it can be written, it is, without another change.
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    site.gateway.wait_for_log("copy-written");
    site.gateway
        .wait_for_lists("no error", |it| it["copy"]["error"].is_null());
    let copy = copy::read(&path, 80).unwrap().unwrap();
    assert_eq!(copy.lists.gray.entries().count(), 3);
}

#[test]
fn a_full_disk_keeps_the_old_copy_and_costs_no_request() {
    let place = Place::new();
    let old = SystemTime::now() - DAY;
    place.write(&["10.0.0.1"], &[], &[&"127.0.0.1:9"], old);
    let before = fs::read(place.path()).unwrap();
    // No file may grow: as near to a full disk as a test can come everywhere.
    let site = Site::with(|setup| {
        let setup = place.set(setup).set("log.access", "off");
        let setup = setup.set("lists.guard_share", "100");
        setup.under(&["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""])
    });
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let line = site.gateway.wait_for_log("copy-failed");
    assert!(line.contains("File too large"), "{line}");
    site.gateway.end();
    assert_eq!(fs::read(place.path()).unwrap(), before);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
}

#[test]
fn started_as_root_the_folder_belongs_to_the_user_that_it_becomes() {
    if !geteuid().is_root() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let place = Place::new();
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.0.path(), everybody).unwrap();
    let path = place.0.path().join("graygate/lists");
    let site = Site::with(|setup| {
        let setup = place.set(setup).set("gateway.user", "nobody");
        setup.set("lists.last_good", path.display())
    });
    wait_until("the copy is there", DEADLINE, || path.exists());
    for path in [path.as_path(), path.parent().unwrap()] {
        let found = fs::metadata(path).unwrap();
        assert_eq!(found.uid(), nobody.uid.as_raw(), "{}", path.display());
    }
    site.gateway.end();
    // So does one that an installation has made, unless something of others is in it.
    for (name, other, owner) in [("new", "", nobody.uid.as_raw()), ("used", "x", 0)] {
        let folder = place.0.path().join(name);
        fs::create_dir(&folder).unwrap();
        if !other.is_empty() {
            fs::write(folder.join(other), "").unwrap();
        }
        let gateway = Setup::serving(&"127.0.0.1:9");
        for file in ["", "lists"] {
            let mode = if file.is_empty() { 0o755 } else { 0o644 };
            fs::set_permissions(gateway.path(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        let gateway = gateway.set("gateway.user", "nobody");
        let gateway = gateway.set("lists.last_good", folder.join("lists").display());
        drop(gateway.start());
        assert_eq!(fs::metadata(&folder).unwrap().uid(), owner, "{name}");
    }
    // And it is used.
    let mut redis = site.redis;
    redis.kill();
    let setup = place.set(Setup::new().redis(redis.url()));
    let setup = setup.set("gateway.user", "nobody");
    let gateway = setup.set("lists.last_good", path.display()).start();
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "prod");
}

#[test]
fn a_copy_in_a_folder_that_cannot_be_synced_is_as_good_as_any() {
    // Root may read, and so sync, every folder.
    if !geteuid().is_root() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let place = Place::new();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(place.0.path(), 0o755).unwrap();
    let folder = place.0.path().join("folder");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(nobody.uid.as_raw()), None).unwrap();
    mode(&folder, 0o300).unwrap();
    let path = folder.join("lists");
    let site = Site::with(|setup| {
        let setup = place.set(setup).set("gateway.user", "nobody");
        let setup = setup.set("lists.last_good", path.display());
        setup.set("log.level", "debug")
    });
    site.gateway.wait_for_log("copy-folder-not-synced");
    let page = site
        .gateway
        .wait_for_lists("the copy", |it| it["copy"]["written"].is_string());
    assert_eq!(page["copy"]["error"], Value::Null);
    assert_eq!(page["copy"]["failures"], 0);
    assert!(path.exists());
    assert_eq!(site.gateway.stderr.count("copy-failed"), 0);
}

#[test]
fn a_check_warns_of_a_copy_that_cannot_be_written_or_used() {
    let place = Place::new();
    let setup = || Setup::serving(&"127.0.0.1:9");
    let at = |path: &Path| setup().set("lists.last_good", path.display());
    assert_eq!(at(&place.path()).warnings(), "");
    // Its folder would be made.
    assert_eq!(at(&place.0.path().join("new/lists")).warnings(), "");
    let missing = place.0.path().join("no/such/lists");
    let said = at(&missing).warnings();
    assert!(
        said.contains("warning: [lists] last_good: there is no folder"),
        "{said}"
    );
    let said = at(place.0.path()).warnings();
    assert!(said.contains("is a folder"), "{said}");
    /// What is said of a lock, and who makes such a one.
    type Wrong = (&'static str, fn(&Path));
    // A gateway with such a lock writes no copy, and says the same.
    let lock = place.0.path().join("lists.lock");
    let wrongs: [Wrong; 3] = [
        ("a folder", |it| fs::create_dir(it).unwrap()),
        ("a symbolic link", |it| {
            std::os::unix::fs::symlink("/tmp/nowhere", it).unwrap();
        }),
        ("not a regular file", |it| {
            drop(std::os::unix::net::UnixListener::bind(it).unwrap());
        }),
    ];
    for (what, make) in wrongs {
        make(&lock);
        let said = at(&place.path()).warnings();
        let expected = format!("last_good: the lock {} is {what}", lock.display());
        assert!(said.contains(&expected), "{said}");
        let gateway = at(&place.path()).start();
        let line = gateway.wait_for_log("copy-failed");
        assert!(line.contains(lock.to_str().unwrap()), "{line}");
        drop(gateway);
        let _ = fs::remove_dir(&lock).or_else(|_| fs::remove_file(&lock));
    }
    assert_eq!(at(&place.path()).warnings(), "");
    fs::write(place.path(), "garbage\n").unwrap();
    let said = at(&place.path()).warnings();
    assert!(
        said.contains("will not be used: it does not begin like a copy"),
        "{said}"
    );

    if geteuid().is_root() {
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let setup = at(&place.path()).set("gateway.user", "nobody");
        let setup = setup.set("log.error", "error.log");
        for name in ["", "lists"] {
            let mode = if name.is_empty() { 0o755 } else { 0o644 };
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(setup.path(name), mode).unwrap();
        }
        let said = setup.warnings();
        assert!(
            said.contains("is not writable for the user nobody"),
            "{said}"
        );
    }
}
