//! The verbs of a release on a lists file: the file afterwards, the answers of its gateway, and what is
//! beside it.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Commands, DEADLINE, FileSite, Gateway, Setup, wait_until};

const LISTS: &str = "\
# Who is gray.
[gray]
10.0.0.1   # ann
; an old one
10.0.0.7/24

[shop gray]
10.0.0.1
[shop pre]
[shop prod]
127.0.2.3

[pre]
127.0.2.1 weight=2
# The old version.
[prod]
127.0.2.2
";

/// A lists file without a gateway.
struct Desk {
    setup: Setup,
    commands: Commands,
}

impl Deref for Desk {
    type Target = Commands;

    fn deref(&self) -> &Commands {
        &self.commands
    }
}

impl Desk {
    fn new() -> Self {
        let setup = Setup::new().file("lists", LISTS);
        let setup = setup.set("service shop.hosts", "shop.test");
        let commands = Commands::of(&setup.write_ini());
        Self { setup, commands }
    }

    fn beside(gateway: &Gateway) -> Self {
        let text = fs::read_to_string(gateway.path("graygate.ini")).unwrap();
        let socket = format!("socket = {}", gateway.path("admin.sock").display());
        let file = format!("file = {}", gateway.path("lists").display());
        let text = text.replace("socket = admin.sock", &socket);
        let text = text.replace("file = lists", &file);
        let setup = Setup::new().file("desk.ini", &text);
        let commands = Commands::of(&setup.path("desk.ini"));
        Self { setup, commands }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    fn lists(&self) -> String {
        fs::read_to_string(self.path("lists")).unwrap()
    }

    fn spawn(&self, words: &[&str]) -> Child {
        self.spawn_in(&self.path("."), words)
    }

    #[track_caller]
    fn history(&self) -> Vec<Value> {
        self.records(&[])
    }
}

#[test]
fn a_file_stays_as_it_was_written_but_for_what_changes() {
    let desk = Desk::new();
    fs::set_permissions(desk.path("lists"), PermissionsExt::from_mode(0o604)).unwrap();
    desk.done(&["admit", "10.0.0.0/24", "1.2.3.4", "cookie:a note=\"a # b\""]);
    let expected = LISTS.replace(
        "10.0.0.7/24\n",
        "10.0.0.7/24\n1.2.3.4\ncookie:a note=\"a # b\"\n",
    );
    assert_eq!(desk.lists(), expected, "the net was there");
    assert_eq!(
        fs::metadata(desk.path("lists")).unwrap().mode() & 0o777,
        0o604
    );
    desk.done(&["remove", "10.0.0.1", "cookie:a note=\"a # b\""]);
    let expected = LISTS.replace("10.0.0.1   # ann\n", "");
    let expected = expected.replace("10.0.0.7/24\n", "10.0.0.7/24\n1.2.3.4\n");
    assert_eq!(desk.lists(), expected);
    desk.done(&["stage", "5%", "--visitor"]);
    let lists = desk.lists();
    assert!(
        lists.contains("1.2.3.4\npercent:5:visitor\n\n[shop gray]"),
        "{lists}"
    );
    let (_, salt) = lists.split_once("\n[salt]\n").unwrap();
    assert_eq!(salt.trim_end().len(), 16);
    let state = fs::read(desk.path("lists.release")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["stage"]["share"], "percent:5:visitor");
    desk.done(&["admit", "10.5.5.5", "--service", "shop"]);
    assert!(
        desk.lists()
            .contains("[shop gray]\n10.0.0.1\n10.5.5.5\n[shop pre]")
    );

    desk.done(&["promote", "--yes", "--force"]);
    let lists = desk.lists();
    assert!(lists.contains("; an old one\n\n[shop gray]"), "{lists}");
    assert!(
        lists.contains("[pre]\n# The old version.\n[prod]\n127.0.2.1 weight=2\n"),
        "{lists}"
    );
    desk.done(&["rollback", "--yes"]);
    let lists = desk.lists();
    assert!(
        lists.contains("[pre]\n127.0.2.1 weight=2\n# The old"),
        "{lists}"
    );
    assert!(lists.contains("[prod]\n127.0.2.2\n"), "{lists}");
    desk.done(&["undo", "--yes"]);
    desk.done(&["rollback", "--to", "1", "--yes"]);
    let words = |text: &str| -> Vec<String> {
        let entries = text
            .lines()
            .map(|it| it.split(['#', ';']).next().unwrap().trim());
        let entries = entries.filter(|it| !it.is_empty()).map(str::to_owned);
        let mut entries: Vec<String> = entries.collect();
        entries.sort();
        entries
    };
    let lists = desk.lists().replace("10.5.5.5\n", "");
    let (lists, _) = lists.split_once("\n[salt]\n").unwrap();
    assert_eq!(words(lists), words(LISTS));
    let verbs: Vec<Value> = desk.history().iter().map(|it| it["verb"].clone()).collect();
    assert_eq!(
        verbs,
        [
            "rollback", "undo", "rollback", "promote", "stage", "remove", "admit"
        ]
    );
}

#[test]
fn what_must_not_be_is_refused_and_the_file_stays() {
    let desk = Desk::new();
    for (words, said) in [
        (&["admit", "1.2.3.256"][..], "from 0 to 255"),
        (&["admit", "0.0.0.0/0"], "--yes"),
        (&["remove", "10.0.0.1", "10.0.0.0/24"], "gray is emptied"),
        (&["undo"], "nothing to undo"),
    ] {
        let why = desk.refused(words);
        assert!(why.contains(said), "{words:?}: {why}");
        assert_eq!(desk.lists(), LISTS);
    }
    desk.done(&["admit", "1.1.1.1", "--dry-run"]);
    assert_eq!(desk.lists(), LISTS);
    desk.done(&["freeze", "--by", "bob"]);
    assert!(desk.refused(&["admit", "1.1.1.1"]).contains("by bob"));
    desk.done(&["thaw"]);
    assert!(!desk.path("lists.release").exists());
    fs::write(desk.path("lists"), "[gray]\n").unwrap();
    assert!(
        desk.refused(&["admit", "1.1.1.1"])
            .contains("no section [pre]")
    );
}

#[test]
fn two_at_once_are_both_in_and_whoever_is_killed_has_done_all_or_nothing() {
    let desk = Desk::new();
    let began = Instant::now();
    let entries: Vec<String> = (0..4).map(|it| format!("10.9.0.{it}")).collect();
    let children: Vec<Child> = entries
        .iter()
        .map(|it| desk.spawn(&["admit", it]))
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let usual = began.elapsed() / 4;
    assert!(
        entries.iter().all(|it| desk.lists().contains(it)),
        "{}",
        desk.lists()
    );
    assert_eq!(desk.history().len(), 4);
    for round in 0..12u32 {
        let entry = format!("10.8.0.{round}");
        let mut child = desk.spawn(&["stage", &format!("{}%", round + 1), "--by-cookie", &entry]);
        std::thread::sleep(usual.mul_f64(f64::from(round) / 8.0));
        child.kill().unwrap();
        child.wait().unwrap();
        // Whoever comes next brings it to an end.
        desk.done(&["admit", &format!("10.7.0.{round}")]);
        let is_in = desk.lists().contains(&entry);
        let state = fs::read_to_string(desk.path("lists.release")).unwrap_or_default();
        assert_eq!(state.contains(&entry), is_in, "{state}");
        let noted = desk.history()[1]["difference"].to_string();
        assert_eq!(noted.contains(&entry), is_in, "{noted}");
        assert!(!desk.path("lists.change").exists());
    }
    let all = desk.history();
    for (later, earlier) in all.iter().zip(&all[1..]) {
        assert_eq!(later["before"], earlier["after"], "nothing by hand");
    }
}

#[test]
fn however_long_a_gateway_is_to_be_waited_for_it_is_and_for_lists_that_were_overtaken_no_longer() {
    let site = FileSite::with(&["127.0.0.5"], |it| it);
    let desk = Desk::beside(&site.gateway);
    let said = desk.done(&[
        "admit",
        "127.0.0.6",
        "--wait",
        "--timeout",
        "9000000000000000000s",
    ]);
    assert!(said.contains("the gateway holds "), "{said}");
    // It never has what came in between.
    site.gateway.signal(Signal::SIGSTOP);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| desk.json(&["admit", "127.0.0.7", "--wait"]));
        wait_until("it is done", DEADLINE, || desk.history().len() == 2);
        let last = desk.json(&["admit", "127.0.0.8", "--by", "ann"]);
        site.gateway.signal(Signal::SIGCONT);
        let first = first.join().unwrap();
        let after = last["after"].as_str().unwrap();
        let by = "by change 3 (admit by ann), which has overtaken it";
        assert_eq!(first["in_force"], format!("the gateway holds {after} {by}"));
    });
}

#[test]
fn what_was_confirmed_before_the_clock_was_set_back_lets_nothing_in() {
    let site = FileSite::with(&["127.0.0.5"], |it| it);
    let desk = Desk::beside(&site.gateway);
    let (lists, accept) = (
        site.gateway.path("lists"),
        site.gateway.path("lists.accept"),
    );
    desk.done(&["promote", "--yes", "--wait"]);
    let (promoted, accepted) = (fs::read(&lists).unwrap(), fs::read(&accept).unwrap());
    desk.done(&["undo", "--yes", "--wait"]);
    fs::write(&accept, accepted).unwrap();
    let file = fs::File::options().write(true).open(&accept).unwrap();
    let modified = SystemTime::now() + Duration::from_secs(3600);
    file.set_modified(modified).unwrap();
    fs::write(&lists, promoted).unwrap();
    let is_held = |it: &Value| it["held"][0]["list"] == "prod";
    site.gateway.wait_for_lists("prod is held", is_held);
    assert_eq!(site.gateway.get("127.0.0.9", "/").text(), "prod");
}

#[test]
fn a_gateway_takes_what_was_confirmed_and_is_waited_for() {
    let site = FileSite::with(&["127.0.0.5"], |it| it);
    let desk = Desk::beside(&site.gateway);
    assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre");
    let said = desk.done(&["promote", "--yes", "--wait"]);
    assert!(said.contains("the gateway holds "), "{said}");
    assert_eq!(site.gateway.get("127.0.0.9", "/").text(), "pre");
    desk.done(&["undo", "--yes", "--wait"]);
    assert_eq!(site.gateway.get("127.0.0.9", "/").text(), "prod");
    assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre");
    desk.done(&["rollback", "--wait"]);
    site.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(desk.history().len(), 3);
    assert_eq!(site.gateway.stderr.count("change-held"), 0);
    // Frozen, it keeps what it has.
    desk.done(&["freeze"]);
    let kept = |page: &Value| page["kept"].to_string().contains("frozen");
    site.gateway.wait_for_lists("it says so", kept);
    let write_and_be_read = || {
        let read = || {
            let name = "graygate_lists_refreshes_total{cause=\"event\"}";
            site.gateway.metric(name)
        };
        let before = read();
        site.gateway
            .write_lists(&["127.0.0.7"], &[&site.pre], &[&site.prod]);
        wait_until("it is read", DEADLINE, || read() > before);
    };
    // What is no state is nobody's word.
    let state = site.gateway.path("lists.release");
    let frozen = fs::read(&state).unwrap();
    fs::write(&state, "[]").unwrap();
    site.gateway.wait_for_log("release-refused file=");
    write_and_be_read();
    assert_eq!(site.gateway.get("127.0.0.7", "/").text(), "prod");
    fs::write(&state, frozen).unwrap();
    desk.done(&["thaw"]);
    site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
    // Whoever freezes what was just rolled back has it rolled back.
    desk.done(&["rollback"]);
    desk.done(&["freeze"]);
    site.gateway.wait_served("127.0.0.7", "prod", DEADLINE);
    site.gateway.wait_for_lists("they are frozen", kept);
    write_and_be_read();
    assert_eq!(site.gateway.get("127.0.0.7", "/").text(), "prod");
}

#[test]
fn what_was_confirmed_is_not_held_by_a_gateway_that_did_not_run_then() {
    let mut site = FileSite::with(&["127.0.0.5"], |it| it.set("lists.last_good", "copy"));
    let desk = Desk::beside(&site.gateway);
    let copy = site.gateway.path("copy");
    wait_until("there is a copy", DEADLINE, || copy.exists());
    site.gateway.signal(Signal::SIGTERM);
    assert!(site.gateway.wait_exit().success());
    desk.done(&["promote", "--yes", "--force"]);
    // A minute later.
    fs::remove_file(site.gateway.path("lists.accept")).unwrap();
    let again = Setup::new().set("lists.file", site.file().display());
    let again = again.set("lists.last_good", copy.display()).start();
    again.wait_served("127.0.0.9", "pre", DEADLINE);
    assert_eq!(again.stderr.count("change-held"), 0);
}
