//! Which database is read, who asks, and what is said where the server does not let that be.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::{
    DEADLINE, Gateway, Origin, Redis, ScriptedRedis, Sentinel, Setup, free_address, run_to_exit,
    texts, wait_for, wait_until,
};

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

/// A connection that stays who it is while passwords change, and ends all others.
struct Owner(redis::Connection);

impl Owner {
    fn of(redis: &Redis) -> Self {
        Self(redis.connect(0))
    }

    #[track_caller]
    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        let outcome: redis::Value = redis::cmd(words[0])
            .arg(&words[1..])
            .query(&mut self.0)
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        drop(outcome);
    }

    fn end_others(&mut self) {
        self.run("CLIENT KILL TYPE normal");
        self.run("CLIENT KILL TYPE pubsub");
    }
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[track_caller]
fn assert_hidden(gateway: &Gateway, secret: &str) {
    let shown = [
        gateway.stderr.all().join("\n"),
        gateway.admin_get("/lists").1,
        gateway.admin_get("/config").1,
        gateway.admin_get("/healthz").1,
        gateway.admin_get("/metrics").1,
    ];
    assert!(!shown.concat().contains(secret), "{shown:?}");
}

#[test]
fn a_password_in_a_file_is_known_to_every_command_and_a_new_one_takes_no_restart() {
    let redis = Redis::start_with_password(Some("first-sesame"));
    let mut owner = Owner::of(&redis);
    owner.run("RPUSH prod 127.0.0.1:1");
    let setup = Setup::new()
        .redis(format!("redis://{}", redis.address()))
        .set("redis.password_file", "password")
        .set("redis.heartbeat", "100ms")
        .set("redis.node", "gw-1")
        .set("admin.listen", free_address());
    write_secret(&setup.path("password"), "first-sesame\n");
    let gateway = setup.start();
    gateway.wait_for_lists("they are read", |it| it["prod"][0] == "127.0.0.1:1");

    let ini = gateway.path("graygate.ini");
    wait_until("the fleet is known", DEADLINE, || {
        let output = run_to_exit(&["fleet", "-c", ini.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        said(&output).contains("gw-1")
    });
    let commands: [&[&str]; 4] = [
        &["lists", "show", "--offline"],
        &["lists", "diff"],
        &["explain", "127.0.0.9", "--offline"],
        &["-t"],
    ];
    for words in commands {
        let output = run_to_exit(&[words, &["-c", ini.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    let output = run_to_exit(&["lists", "check", "-c", ini.to_str().unwrap()]);
    assert!(!said(&output).contains("NOAUTH"), "{output:?}");

    // What is connected stays so; what connects has a wrong password.
    owner.run("CONFIG SET requirepass second-sesame");
    owner.end_others();
    let line = gateway.wait_for_log("authentication failed: WRONGPASS ");
    let file = gateway.path("password").display().to_string();
    assert!(line.contains(&file), "{line}");
    write_secret(&gateway.path("password"), "second-sesame\n");
    gateway.wait_for_log("lists-readable");
    let beats = |it: &serde_json::Value| it["heartbeat"]["written"].as_u64();
    let before = beats(&gateway.lists());
    gateway.wait_for_lists("a heartbeat", |it| beats(it) > before);
    owner.run("RPUSH prod 127.0.0.1:2");
    gateway.wait_for_lists("the new entry", |it| {
        it["prod"].as_array().unwrap().len() == 2
    });
    assert_hidden(&gateway, "-sesame");
}

#[test]
fn a_user_with_a_password_file_changes_the_password_without_a_restart_too() {
    let redis = Redis::start();
    let mut owner = Owner::of(&redis);
    owner.run("RPUSH prod 127.0.0.1:1");
    owner.run("ACL SETUSER app on >first-sesame ~* &* +@all");
    let setup = Setup::new()
        .redis(format!("redis://app@{}", redis.address()))
        .set("redis.password_file", "password");
    write_secret(&setup.path("password"), "first-sesame");
    let gateway = setup.start();
    gateway.wait_for_lists("they are read", |it| it["prod"][0] == "127.0.0.1:1");
    owner.run("ACL SETUSER app <first-sesame >second-sesame");
    owner.end_others();
    gateway.wait_for_log("lists-unreadable");
    write_secret(&gateway.path("password"), "second-sesame");
    gateway.wait_for_log("lists-readable");
    assert_hidden(&gateway, "-sesame");
}

#[test]
fn sentinels_have_a_password_file_of_their_own() {
    let redis = Redis::start_with_password(Some("a-secret"));
    Owner::of(&redis).run("RPUSH prod 127.0.0.1:1");
    let sentinel = Sentinel::watching("mymaster", redis.address(), Some("b-secret"));
    let setup = Setup::new()
        .redis("redis://mymaster")
        .set("redis.sentinels", &sentinel)
        .set("redis.password_file", "a")
        .set("redis.sentinel_password_file", "b");
    write_secret(&setup.path("a"), "a-secret");
    write_secret(&setup.path("b"), "b-secret");
    let output = command(&setup, &["lists", "show", "--offline"]);
    assert!(said(&output).contains("127.0.0.1:1\n"), "{output:?}");
    let gateway = setup.start();
    gateway.wait_for_lists("they are read", |it| it["prod"][0] == "127.0.0.1:1");
    sentinel.signal(Signal::SIGCONT);
}

#[test]
fn a_check_says_what_is_wrong_with_a_password_file() {
    let setup = Setup::new()
        .redis("redis://127.0.0.1:1")
        .set("redis.password_file", "password");
    let file = setup.path("password");
    let place = format!("[redis] password_file {}: ", file.display());
    let fails = |why: &str| {
        let output = command(&setup, &["-t"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            said(&output).contains(&format!("{place}{why}")),
            "{output:?}"
        );
    };
    fails("No such file");
    write_secret(&file, "");
    fails("it is empty");
    write_secret(&file, "a-secret\nanother\n");
    fails("it has more than one line");
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fails("it is not a file");
    fs::remove_file(&file).unwrap();

    write_secret(&file, "a-secret\n");
    let output = command(&setup, &["-t"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!said(&output).contains("password_file"), "{output:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = command(&setup, &["-t"]);
    assert!(output.status.success(), "{output:?}");
    let warning = format!(
        "[redis] password_file: everybody can read {}",
        file.display()
    );
    assert!(said(&output).contains(&warning), "{output:?}");

    // So can a password in the ini file be read.
    let in_ini = Setup::new().redis("redis://:a-secret@127.0.0.1:1");
    let output = command(&in_ini, &["-t"]);
    assert!(
        said(&output).contains("a password in the ini file: everybody can read"),
        "{output:?}"
    );
}

#[test]
fn a_check_by_root_finds_that_the_user_to_be_cannot_read_the_password() {
    if !geteuid().is_root() {
        return;
    }
    let setup = Setup::new()
        .redis("redis://127.0.0.1:1")
        .set("gateway.user", "nobody")
        .set("redis.password_file", "password");
    fs::set_permissions(setup.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    write_secret(&setup.path("password"), "a-secret\n");
    let output = command(&setup, &["-t"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = said(&output);
    assert!(
        text.contains("password_file")
            && text.contains("Permission denied")
            && text.contains("nobody"),
        "{text}"
    );
}

#[test]
fn what_the_environment_goes_before_is_named_by_a_check_and_by_a_reload() {
    let redis = Redis::start_with_password(Some("a-secret"));
    Owner::of(&redis).run("RPUSH prod 127.0.0.1:1");
    let setup = Setup::new()
        .redis("redis://127.0.0.1:1")
        .set("redis.password_file", "password")
        .set("gateway.pid_file", "pid")
        .set("admin.listen", free_address());
    write_secret(&setup.path("password"), "wrong");
    let gateway = setup.environment("GRAYGATE_REDIS_URL", redis.url()).start();
    gateway.wait_for_lists("they are read", |it| it["prod"][0] == "127.0.0.1:1");
    let ini = gateway.path("graygate.ini");
    let ini = ini.to_str().unwrap();
    let output = run_to_exit(&["reload", "-c", ini]);
    assert!(output.status.success(), "{output:?}");
    let masked = "GRAYGATE_REDIS_URL in the gateway's environment takes precedence over redis.url, redis.password_file";
    assert!(said(&output).contains(masked), "{output:?}");
    gateway.wait_for_log(" WARN reload-masked key=redis.url ");
    gateway.wait_for_log(" WARN reload-masked key=redis.password_file ");

    // A check by whoever has it in the environment.
    let output = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["-t", "-c", ini])
        .env("GRAYGATE_REDIS_URL", redis.url())
        .output()
        .unwrap();
    for key in ["redis.url", "redis.password_file"] {
        let warning = format!("{key} has no effect: GRAYGATE_REDIS_URL");
        assert!(said(&output).contains(&warning), "{output:?}");
    }
}

#[test]
fn where_there_are_no_users_the_password_alone_is_sent() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let said_so = Arc::clone(&heard);
    let mut inside = false;
    let mut queued = 0;
    let redis = ScriptedRedis::start(move |words| {
        said_so.lock().unwrap().push(words.join(" "));
        match words {
            ["AUTH", _, _] => "-ERR wrong number of arguments for 'auth' command".to_owned(),
            ["AUTH", "a-secret"] => {
                inside = true;
                "+OK".to_owned()
            }
            _ if !inside => "-NOAUTH Authentication required.".to_owned(),
            ["PING"] => "+PONG".to_owned(),
            ["MULTI" | "SELECT", ..] => "+OK".to_owned(),
            ["EXEC"] => {
                let lists = (0..queued / 2).map(|_| {
                    let list = texts(&["127.0.0.1:1"]);
                    format!("\r\n{list}\r\n{list}")
                });
                format!("*{queued}{}", lists.collect::<String>())
            }
            _ => {
                queued += 1;
                "+QUEUED".to_owned()
            }
        }
    });
    let url = redis.url().replace("redis://", "redis://app:a-secret@");
    let setup = Setup::new().redis(url.replace("/0", "/1"));
    let setup = setup.set("verdict.mode", "off");
    let output = command(&setup, &["lists", "show", "--offline"]);
    assert!(output.status.success(), "{output:?}");
    assert!(said(&output).contains("127.0.0.1:1\n"), "{output:?}");
    let heard = heard.lock().unwrap();
    assert_eq!(
        heard[..6],
        [
            "AUTH app a-secret",
            "SELECT 1",
            "PING",
            "AUTH a-secret",
            "SELECT 1",
            "PING"
        ]
    );
}

#[test]
fn who_is_not_let_in_is_told_where_the_password_belongs() {
    let redis = Redis::start_with_password(Some("a-secret"));
    for (user, hint) in [
        ("", "no password is given here: password_file in [redis]"),
        (
            "a-secret@",
            "a password alone stands behind a colon: redis://:password@host",
        ),
    ] {
        let setup = Setup::new().redis(format!("redis://{user}{}", redis.address()));
        let output = command(&setup, &["fleet"]);
        assert!(!output.status.success(), "{output:?}");
        let text = said(&output);
        assert!(text.contains("NOAUTH") && text.contains(hint), "{text}");
        assert!(!text.contains("a-secret"), "{text}");
    }
}

#[test]
fn keys_with_marks_of_comments_are_written_in_quotes() {
    let redis = Redis::start();
    let mut owner = Owner::of(&redis);
    owner.run("RPUSH prod#1;a 127.0.0.1:1");
    let setup = Setup::new()
        .redis(redis.url())
        .set("redis.prod_key", "\"prod#1;a\"")
        .set("redis.check_interval", "1h");
    let gateway = setup.start();
    gateway.wait_for_lists("they are read", |it| it["prod"][0] == "127.0.0.1:1");
    owner.run("RPUSH prod#1;a 127.0.0.1:2");
    gateway.wait_for_lists("the new entry", |it| {
        it["prod"].as_array().unwrap().len() == 2
    });
    let same = Setup::new().redis(redis.url());
    let same = same
        .set("redis.pre_key", "\"p#\"")
        .set("redis.prod_key", "\"p#\"");
    let output = command(&same, &["-t"]);
    assert!(
        said(&output).contains("[redis] prod_key = p#: pre_key has the same value"),
        "{output:?}"
    );
}

#[test]
fn a_key_of_another_type_is_named_with_its_type_and_those_that_are_accepted() {
    let redis = Redis::start();
    let mut owner = Owner::of(&redis);
    owner.run("RPUSH prod 127.0.0.1:1");
    owner.run("HSET gray a b");
    let told = "the key \"gray\" is a hash; it must be a list or a set";
    let setup = Setup::new().redis(redis.url());
    let output = command(&setup, &["lists", "check"]);
    assert!(
        said(&output).contains(&format!("gray: wrong-type: {told}")),
        "{output:?}"
    );
    let output = command(&setup, &["lists", "show", "--offline"]);
    assert!(said(&output).contains(told), "{output:?}");
    let gateway = setup
        .set("redis.poll_interval", "50ms")
        .set("redis.notify", "poll")
        .start();
    let line = gateway.wait_for_log("key-wrong-type");
    assert!(
        line.contains("is a hash") && line.contains("list=gray"),
        "{line}"
    );
    owner.run("DEL gray");
    owner.run("ZADD gray 1 a");
    gateway.wait_for_log("is a zset");
    assert_eq!(gateway.stderr.count("key-wrong-type"), 2);

    // Who may not ask for it is told the rest.
    owner.run("ACL SETUSER app on >pw ~* &* +@all -type");
    let url = redis.url().replace("redis://", "redis://app:pw@");
    let output = command(&Setup::new().redis(url), &["lists", "check"]);
    let told = "the key \"gray\" is neither a list nor a set";
    assert!(said(&output).contains(told), "{output:?}");
}

#[test]
fn errors_name_the_server_that_a_sentinel_has_named() {
    let mut redis = Redis::start();
    let sentinel = Sentinel::watching("mymaster", redis.address(), None);
    let address = redis.address().to_string();
    redis.kill();
    let setup = Setup::new()
        .redis("redis://mymaster")
        .set("redis.sentinels", &sentinel);
    for words in [&["lists", "show", "--offline"][..], &["fleet"]] {
        let output = command(&setup, words);
        assert!(
            said(&output).contains(&format!("{address}: Connection refused")),
            "{output:?}"
        );
    }
    let gateway = setup.start();
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains(&address), "{line}");
}

#[test]
fn errors_name_the_addresses_that_a_name_has_led_to() {
    let free = free_address();
    let setup = Setup::new().redis(format!("redis://localhost:{}", free.port()));
    let output = command(&setup, &["fleet"]);
    let tried = format!("127.0.0.1:{}: Connection refused", free.port());
    assert!(said(&output).contains(&tried), "{output:?}");
}

#[test]
fn a_byte_order_mark_in_a_lists_file_is_named() {
    let text = "\u{feff}[gray]\n[pre]\n[prod]\n127.0.0.1:1\n";
    let setup = Setup::new().file("lists", text);
    let told = "line 1: it begins with a byte order mark";
    for words in [&["-t"][..], &["lists", "check"]] {
        let output = command(&setup, words);
        assert!(said(&output).contains(told), "{output:?}");
    }
    let lists = setup.path("lists");
    let output = run_to_exit(&["lists", "check", lists.to_str().unwrap()]);
    assert!(said(&output).contains(told), "{output:?}");
}

#[test]
fn a_connection_that_is_cut_again_and_again_is_told_once() {
    const FAILURES: &str = "graygate_lists_failures_total";
    let redis = Redis::start();
    let mut owner = Owner::of(&redis);
    owner.run("RPUSH prod 127.0.0.1:1");
    let setup = Setup::new().redis(redis.url());
    let gateway = setup.set("redis.heartbeat", "100ms").start();
    gateway.wait_for_lists("they are read", |it| it["mode"] == "events");
    for cuts in 1..=12 {
        owner.end_others();
        wait_until("it was noticed and has passed", DEADLINE, || {
            gateway.metric(FAILURES) >= f64::from(cuts) && gateway.lists()["error"].is_null()
        });
    }
    gateway.wait_for_log("lists-unsteady");
    for (event, times) in [
        ("lists-unreadable", 1),
        ("lists-readable", 1),
        ("lists-unsteady", 1),
    ] {
        let all = gateway.stderr.all();
        assert_eq!(gateway.stderr.count(event), times, "{all:?}");
    }
    assert!(gateway.stderr.count("heartbeat-failed") <= 1);
}

#[test]
fn a_gateway_that_only_reads_needs_the_rights_that_the_docs_name_and_asks_for_no_more() {
    let redis = Redis::start();
    redis.cli(&["CONFIG", "SET", "notify-keyspace-events", "KA"]);
    redis.allow_as_in_the_docs("reader", 0);
    let (pre, prod) = Origin::pre_and_prod();
    redis.push_peers(&pre, &prod);
    let setup = Setup::new()
        .redis(format!("redis://reader:password@{}/0", redis.address()))
        .set("redis.heartbeat", "off")
        // What is read is read for its being announced.
        .set("redis.check_interval", "1h");
    let gateway = setup.start();
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    redis.push("gray", &[&"127.0.0.5", &"percent:0"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    redis.cli(&["SET", "graygate:salt", "another"]);
    gateway.wait_for_lists("the salt", |it| it["salt"]["from"] != "settings");
    redis.cli(&["SET", "graygate:tripped", "it breaks"]);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    // Once it has seen a change, it asks for the history: see the page.
    let of_history = gateway.stderr.count("history-refused");
    for word in ["NOPERM", "refused"] {
        assert_eq!(
            gateway.stderr.count(word),
            of_history,
            "{:?}",
            gateway.stderr.all()
        );
    }
    let denied: Vec<redis::Value> = redis::from_redis_value(redis.cli(&["ACL", "LOG"])).unwrap();
    let denied: Vec<_> = denied
        .iter()
        .map(|it| format!("{it:?}"))
        .filter(|it| !it.contains("xrevrange"))
        .collect();
    assert!(denied.is_empty(), "{denied:?}");
    // That evidence begins anew then is for others to write, where there are some.
    let epoch = || {
        let (_, page) = gateway.admin_get("/verdict");
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        let release = page["services"][0]["release"].as_str()?.to_owned();
        Some(release.split_once('/')?.1.to_owned())
    };
    let written = || {
        let state = redis.cli(&["GET", "graygate:release"]);
        let state: Option<String> = redis::from_redis_value(state).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state?).unwrap();
        Some(state["epoch"].as_str()?.to_owned())
    };
    let other = Setup::new().redis(redis.url()).set("redis.node", "other");
    let mut other = other.set("verdict.mode", "enforce").start();
    other.wait_served("127.0.0.5", "prod", DEADLINE);
    redis.cli(&["DEL", "graygate:tripped"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    let first = wait_for("it is written", written);
    wait_until("it is in force here", DEADLINE, || {
        epoch().as_ref() == Some(&first)
    });
    other.signal(Signal::SIGTERM);
    assert!(other.wait_exit().success());
    redis.cli(&["SET", "graygate:tripped", "it breaks again"]);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    redis.cli(&["DEL", "graygate:tripped"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    // Nobody is left to do so.
    let line = gateway.wait_for_log("epoch-unwritten");
    assert!(!line.contains(&first), "{line}");
    assert_eq!(gateway.stderr.count("epoch-unwritten"), 1);
}
