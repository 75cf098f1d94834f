//! The lists file: an edit is in force within a second, and one that is wrong changes nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use support::{Client, DEADLINE, FileSite, Gateway, Origin, Setup, run_to_exit, wait_until};

/// An edit is in force so soon.
const SOON: Duration = Duration::from_secs(1);

const READINGS: &str = "graygate_lists_refreshes_total{cause=\"event\"}";

/// A site where 127.0.0.5 is gray.
#[track_caller]
fn site() -> FileSite {
    site_with(|setup| setup)
}

#[track_caller]
fn site_with(edit: impl FnOnce(Setup) -> Setup) -> FileSite {
    FileSite::with(&["127.0.0.5"], edit)
}

#[track_caller]
fn readings(site: &FileSite) -> u64 {
    site.gateway.metric(READINGS) as u64
}

/// A way to write the file, and its name.
type Way = (&'static str, fn(&FileSite, &str));

const WRITE: [Way; 3] = [
    ("renamed", |site, text| site.gateway.write_lists_text(text)),
    ("written in place", |site, text| {
        fs::write(site.file(), text).unwrap();
    }),
    ("behind a link", |site, text| {
        let target = site.gateway.path(&format!("lists {}", text.len()));
        fs::write(&target, text).unwrap();
        let link = site.gateway.path("link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        fs::rename(link, site.file()).unwrap();
    }),
];

/// The lines of the error log that say why the file is not used.
fn unreadable(gateway: &Gateway) -> Vec<String> {
    let mut lines = gateway.stderr.all();
    lines.retain(|it| it.contains("lists-unreadable"));
    lines
}

#[test]
fn an_edit_is_in_force_soon_and_without_a_restart() {
    for (how, write) in WRITE {
        let site = site();
        let mut client = site.gateway.connect_from("127.0.0.7");
        assert_eq!(client.get("/").text(), "prod", "{how}");
        write(&site, &site.text("127.0.0.7\n10.0.0.1"));
        // On a quiet machine within a second; this asks for no speed of a busy one.
        wait_until(&format!("the file, {how}, is in force"), DEADLINE, || {
            client.get("/").text() == "pre"
        });
        site.assert_served(&[("127.0.0.5", "prod"), ("127.0.0.7", "pre")], how);
        let page = site.gateway.lists();
        assert_eq!(page["generation"], 2, "{how}");
        assert_eq!(page["mode"], "file", "{how}");
        assert_eq!(page["error"], Value::Null, "{how}");
    }
}

#[test]
fn peers_change_with_the_file() {
    let site = site_with(|setup| setup.set("lists.guard_share", "100"));
    let (pre, prod) = (Origin::named("new pre"), Origin::named("new prod"));
    site.gateway.write_lists(&["127.0.0.5"], &[&pre], &[&prod]);
    site.gateway.wait_served("127.0.0.5", "new pre", DEADLINE);
    site.assert_served(&[("127.0.0.6", "new prod")], "after the change");
}

#[test]
fn a_version_that_differs_in_nothing_but_its_content_is_read() {
    let site = site();
    let modified = fs::metadata(site.file()).unwrap().modified().unwrap();
    let file = OpenOptions::new().write(true).open(site.file()).unwrap();
    // In place and as long as before; then the time of the old one, as tools that copy times do.
    (&file)
        .write_all(site.text("127.0.0.6").as_bytes())
        .unwrap();
    file.set_modified(modified).unwrap();
    site.gateway.wait_served("127.0.0.6", "pre", DEADLINE);
}

#[test]
fn a_version_that_is_wrong_changes_nothing_and_is_told_once_with_its_line() {
    /// What is wrong with a file, how a good one is made so, and what is said of it.
    type Wrong = (&'static str, fn(String) -> String, &'static str);
    let table: [Wrong; 9] = [
        ("empty", |_| String::new(), "there is no section [gray]"),
        (
            "cut within a line",
            |it| it[..it.len() - 1].to_owned(),
            "line 6: the last line has no line feed",
        ),
        (
            "cut between lines",
            |it| it[..it.find("[prod]").unwrap()].to_owned(),
            "there is no section [prod]",
        ),
        (
            "without [pre]",
            |it| it.replace("[pre]\n", ""),
            r#"line 3: "127.0.0.1:"#,
        ),
        (
            "with [gray] twice",
            |it| it + "[gray]\n127.0.0.8\n",
            "line 7: this section stands twice",
        ),
        (
            "with another section",
            |it| it + "[test]\n127.0.0.8\n",
            "line 7: an unknown section",
        ),
        (
            "with an entry before all sections",
            |it| format!("127.0.0.8\n{it}"),
            "line 1: an entry before",
        ),
        (
            "with a bad gray entry",
            |it| it.replace("127.0.0.7", "127.0.0.256"),
            r#"line 2: "127.0.0.256": neither"#,
        ),
        (
            "with a bad peer",
            |it| it.replace("[prod]\n", "[prod]\nprod.example:0\n"),
            r#"line 6: "prod.example:0": port 0"#,
        ),
    ];
    let site = site();
    let before = site.gateway.lists();
    for (at, (what, edit, told)) in table.into_iter().enumerate() {
        site.gateway.write_lists_text(&edit(site.text("127.0.0.7")));
        let page = site
            .gateway
            .wait_for_lists(&format!("{told}, told of a file {what}"), |it| {
                it["error"]
                    .as_str()
                    .is_some_and(|error| error.contains(told))
            });
        for key in ["generation", "digest", "gray", "pre", "prod"] {
            assert_eq!(page[key], before[key], "{what}: {key}");
        }
        site.assert_served(&[("127.0.0.5", "pre"), ("127.0.0.7", "prod")], what);
        let (status, _) = site.gateway.admin_get("/healthz");
        assert_eq!(status, 200, "{what}");
        site.gateway.wait_for_metric("graygate_lists_readable", 0.0);
        wait_until(&format!("a file {what} is told"), DEADLINE, || {
            unreadable(&site.gateway).len() > at
        });
        let lines = unreadable(&site.gateway);
        assert_eq!(lines.len(), at + 1, "{what}: {lines:?}");
        let (file, line) = (format!("{:?}", site.file()), &lines[at]);
        assert!(line.contains(file.trim_matches('"')), "{what}: {line}");
        let told = told.escape_default().to_string();
        assert!(line.contains(&told), "{what}: {line}");
    }
    site.gateway.write_lists_text(&site.text("127.0.0.7"));
    site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
    site.gateway.wait_for_log("lists-readable");
    let page = site.gateway.lists();
    assert_eq!(
        (&page["error"], &page["generation"]),
        (&Value::Null, &json!(2))
    );
    site.gateway.wait_for_metric("graygate_lists_readable", 1.0);
}

#[test]
fn a_file_that_is_gone_or_is_none_changes_nothing_and_is_told_once() {
    let site = site();
    let away = site.gateway.path("away");
    let leave: [Way; 4] = [
        ("No such file", |site, _| {
            fs::remove_file(site.file()).unwrap()
        }),
        ("a folder, not a file", |site, _| {
            let link = site.gateway.path("link");
            std::os::unix::fs::symlink(".", &link).unwrap();
            fs::rename(link, site.file()).unwrap();
        }),
        // Nobody writes into it, so opening it as a file is opened would never end.
        ("not a regular file", |site, _| {
            let pipe = site.gateway.path("pipe");
            mkfifo(&pipe, Mode::S_IRUSR).unwrap();
            fs::rename(pipe, site.file()).unwrap();
        }),
        ("longer than 64 MiB", |site, _| {
            let long = site.gateway.path("long");
            let file = File::create(&long).unwrap();
            file.set_len(64 * 1024 * 1024 + 1).unwrap();
            fs::rename(long, site.file()).unwrap();
        }),
    ];
    for (at, (told, leave)) in leave.into_iter().enumerate() {
        fs::hard_link(site.file(), &away).unwrap();
        leave(&site, "");
        let line = site.gateway.wait_for_log(told);
        assert!(line.contains("lists-unreadable"), "{line}");
        site.assert_served(&[("127.0.0.5", "pre"), ("127.0.0.6", "prod")], told);
        let error = site.gateway.lists()["error"].clone();
        assert!(error.as_str().unwrap().contains(told), "{error}");

        // The very file that was there before.
        fs::rename(&away, site.file()).unwrap();
        site.gateway
            .wait_for_lists("the error is gone", |it| it["error"].is_null());
        assert_eq!(site.gateway.lists()["generation"], 1, "{told}");
        assert_eq!(unreadable(&site.gateway).len(), at + 1, "{told}");
    }
}

#[test]
fn what_is_no_file_or_never_ends_is_refused_at_the_start() {
    // Else its lines would stand among those of the complaint.
    let setup = Setup::new().set("log.error", "error.log");
    let pipe = setup.path("pipe");
    mkfifo(&pipe, Mode::S_IRUSR).unwrap();
    let folder = setup.path("");
    let mut setup = setup;
    for (path, told) in [
        (pipe.as_path(), "not a regular file"),
        (Path::new("/dev/zero"), "not a regular file"),
        (&folder, "a folder, not a file"),
    ] {
        setup = setup.set("lists.file", path.display());
        let ini = setup.write_ini();
        let check = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
        for output in [check, setup.start_in_vain()] {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            let expected = format!("graygate: {}: {told}\n", path.display());
            assert_eq!(said, expected);
        }
    }
}

#[test]
fn a_version_that_is_still_being_written_is_not_used() {
    let site = site();
    let whole = site.text("127.0.0.7");
    let mut file = File::create(site.file()).unwrap();
    let mut written = 0;
    for (at, cut) in [0, 3, 7, 20, whole.len() - 4].into_iter().enumerate() {
        file.write_all(&whole.as_bytes()[written..cut]).unwrap();
        written = cut;
        // Each version is judged once.
        let failures = "graygate_lists_failures_total";
        site.gateway.wait_for_metric(failures, (at + 1) as f64);
        site.assert_served(&[("127.0.0.5", "pre"), ("127.0.0.7", "prod")], "cut");
    }
    file.write_all(&whole.as_bytes()[written..]).unwrap();
    site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
    assert_eq!(site.gateway.lists()["generation"], 2);
}

#[test]
fn prod_is_held_when_its_section_becomes_empty_and_the_others_change() {
    let site = site();
    site.gateway.write_lists(&["127.0.0.7"], &[&site.pre], &[]);
    site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
    site.assert_served(&[("127.0.0.5", "prod")], "while prod is held");
    let page = site.gateway.lists();
    assert_eq!(page["held"][0]["reason"], "empties-prod", "{page}");
    assert_eq!(page["prod"], json!([site.prod.to_string()]));
    site.gateway
        .wait_for_log("change-held list=prod reason=empties-prod");

    let new = Origin::named("new prod");
    let both: [&dyn std::fmt::Display; 2] = [&new, &site.prod];
    site.gateway.write_lists(&[], &[&site.pre], &both);
    site.gateway.wait_served("127.0.0.5", "new prod", DEADLINE);
    site.gateway.wait_for_log("change-forgotten list=prod");
    assert_eq!(site.gateway.lists()["held"], json!([]));
}

#[test]
fn nets_both_families_comments_and_line_ends_of_other_systems_are_understood() {
    let (pre, prod) = Origin::pre_and_prod();
    let text = format!(
        "; who, and from where\r\n\n[gray] # nets too\r\n\t127.1.0.0/16  # the office\n\
         #127.2.0.1\n127.3.0.9/31\n2001:db8::/32\n::1\n127.4.0.1#no blank\n\
         [prod]\n{prod}\n[pre]\n  {pre} # twice\n{pre}\n"
    );
    let gateway = Setup::new()
        .set("gateway.listen", "127.0.0.1:0, [::1]:0")
        .set("gateway.trusted_proxies", "127.0.0.1")
        .file("lists", &text)
        .start();
    for (client, pool) in [
        ("127.1.0.0", "pre"),
        ("127.1.255.255", "pre"),
        ("127.0.255.255", "prod"),
        ("127.2.0.1", "prod"),
        ("127.3.0.8", "pre"),
        ("127.3.0.9", "pre"),
        ("127.3.0.10", "prod"),
        ("127.4.0.1", "pre"),
        ("2001:db8::1", "pre"),
        ("2001:db9::1", "prod"),
        ("::ffff:127.1.0.1", "pre"),
        ("::1", "pre"),
    ] {
        let field = format!("X-Forwarded-For: {client}");
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        assert_eq!(gateway.connect().ask(request).text(), pool, "{client}");
    }
    // And without a proxy.
    assert_eq!(gateway.get("127.1.2.3", "/").text(), "pre");
    let mut over_v6 = Client::from("::1", gateway.addrs()[1]);
    assert_eq!(over_v6.get("/").text(), "pre");
    let page = gateway.lists();
    assert_eq!(page["pre"], json!([pre.to_string()]));
    assert_eq!(page["gray"].as_array().unwrap().len(), 5, "{page}");
}

#[test]
fn a_file_that_is_only_touched_is_no_new_generation() {
    let site = site();
    let text = site.text("127.0.0.5");
    let touch: [(&str, &dyn Fn()); 3] = [
        ("touched", &|| {
            let file = File::options().write(true).open(site.file()).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(7))
                .unwrap();
        }),
        ("written again", &|| site.gateway.write_lists_text(&text)),
        ("in another order, with comments", &|| {
            let (gray, pools) = text.split_once("[pre]").unwrap();
            let text = format!("# more\n[pre]{pools}{gray}127.0.0.5\n");
            site.gateway.write_lists_text(&text);
        }),
    ];
    for (what, touch) in touch {
        let before = readings(&site);
        touch();
        wait_until(&format!("the file, {what}, is read"), DEADLINE, || {
            readings(&site) > before
        });
        assert_eq!(site.gateway.lists()["generation"], 1, "{what}");
        assert_eq!(site.gateway.stderr.count("lists-published"), 1, "{what}");
    }
}

#[test]
fn what_is_not_told_since_so_much_was_told_is_told_soon_though_the_file_stays_as_it_is() {
    const RELOADS: usize = 20;
    const FINDING: &str = " lists-finding ";
    let mut site = site();
    site.gateway.write_lists_text(&site.text("127.0.0.0/8"));
    site.gateway.wait_served("127.0.0.9", "pre", DEADLINE);
    // Each makes a finding of its own, and so does another version of the file.
    for at in 1..=RELOADS {
        let proxy = format!("127.1.0.{at}");
        site.gateway
            .edit_ini(|it| it.set("gateway.trusted_proxies", proxy));
        site.gateway.signal(Signal::SIGHUP);
        wait_until("it is reloaded", DEADLINE, || {
            site.gateway.stderr.count(" INFO reloaded ") == at
        });
    }
    site.gateway
        .write_lists_text(&site.text("127.0.0.0/8\n127.0.0.0/8"));
    site.gateway
        .wait_for_log(&format!("covers a trusted proxy (127.1.0.{RELOADS})"));
    site.gateway.wait_for_log("finding=duplicate");
    let told = site.gateway.stderr.all();
    let told: Vec<_> = told.iter().filter(|it| it.contains(FINDING)).collect();
    let untold = |line: &&String| line.rsplit_once("untold=").unwrap().1.parse::<usize>();
    let untold: usize = told.iter().map(|it| untold(it).unwrap()).sum();
    assert!(told.len() + untold > RELOADS, "{told:?}");
}

#[test]
fn a_file_that_nobody_touches_is_not_read_again() {
    let site = site();
    for gray in ["127.0.0.6", "127.0.0.7"] {
        site.gateway.write_lists_text(&site.text(gray));
        site.gateway.wait_served(gray, "pre", DEADLINE);
    }
    let start = Instant::now();
    wait_until("a second passes", DEADLINE, || start.elapsed() > SOON);
    assert_eq!(readings(&site), 2);
}

#[test]
fn of_many_rewrites_the_last_is_in_force_and_no_request_sees_half_a_list() {
    for (how, write) in &WRITE[..2] {
        let site = site();
        let mut client = site.gateway.connect_from("127.0.0.5");
        let start = Instant::now();
        let mut rewrites = 0;
        while start.elapsed() < SOON {
            rewrites += 1;
            // The gray client of all of them is the same.
            let more = "\n10.0.0.1".repeat(rewrites % 7);
            write(
                &site,
                &site.text(&format!("127.0.0.5\n10.1.{}.1{more}", rewrites % 200)),
            );
            assert_eq!(client.get("/").text(), "pre", "{how}, {rewrites} rewrites");
        }
        write(&site, &site.text("127.0.0.5\n127.0.0.7"));
        site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
        let gray = &site.gateway.lists()["gray"];
        assert_eq!(*gray, json!(["127.0.0.5", "127.0.0.7"]), "{how}");
    }
}

#[test]
fn where_there_is_a_redis_the_file_is_ignored() {
    let (in_redis, in_file) = (Origin::named("in redis"), Origin::named("in file"));
    let redis = support::Redis::start();
    redis.push("prod", &[&in_redis]);
    let setups: [(&str, &dyn Fn(Setup) -> Setup); 2] = [
        ("in the file", &|it| it.set("redis.url", redis.url())),
        ("in the environment", &|it| {
            it.environment("GRAYGATE_REDIS_URL", redis.url())
        }),
    ];
    for (place, set_url) in setups {
        let setup = Setup::serving(&in_file);
        let gateway = set_url(setup).start();
        gateway.wait_served("127.0.0.1", "in redis", DEADLINE);
        let source = gateway.lists()["source"].clone();
        assert!(
            source.as_str().unwrap().starts_with("redis://127."),
            "{place}: {source}"
        );
    }
    // Not even where Redis is away.
    let redis = support::Redis::stopped();
    let setup = Setup::serving(&in_file);
    let gateway = setup.set("redis.url", redis.url()).start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    assert_eq!(in_file.accepted(), 0);
}
