//! Who may ask the gateway about itself, and change something: by the Unix socket, over TCP with and
//! without a token, and at the address for metrics. docs/security.md names these tests.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output};

use nix::sys::signal::Signal;
use nix::unistd::{Group, User, geteuid};
use serde_json::{Value, json};
use support::{
    Client, Gateway, Origin, Redis, Response, Setup, free_address, run_to_exit, wait_for,
};

const TOKEN: &str = "a-token-that-nobody-guesses";

/// Of a user without any rights, and its group.
const STRANGER: u32 = 65_533;

/// A client's net, which no page over TCP shows.
const CLIENTS: &str = "198.51.100.0/24";

/// The same with host bits, which is a finding.
const CLIENTS_WRITTEN: &str = "198.51.100.77/24";

/// Entries of the gray list, some of which are likely mistakes.
const SUSPICIOUS: [&str; 3] = [CLIENTS_WRITTEN, "203.0.113.77", "203.0.113.77"];

/// Parts of all that names a client.
const OF_CLIENTS: [&str; 3] = ["198.51.100.", "203.0.113.", "192.0.2."];

/// A gateway with clients on its list, and as the default is: nothing of them is shown over TCP.
fn setup(origin: &Origin) -> Setup {
    let setup = Setup::new().lists(&SUSPICIOUS, &[], &[origin]);
    setup.unset("admin.expose")
}

/// With this change held: its digest.
fn hold(gateway: &Gateway, new: &Origin) -> String {
    gateway.write_lists(&SUSPICIOUS, &[], &[new]);
    let page = gateway.wait_for_lists("held", |it| it["held"] != json!([]));
    page["held"][0]["digest"].as_str().unwrap().to_owned()
}

fn over_tcp(addr: SocketAddr, method: &str, target: &str, fields: &str) -> Response {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\n{fields}\r\n");
    Client::connect(addr).ask(head)
}

/// What is answered by the socket of a gateway.
fn by_socket(path: &Path, method: &str, target: &str, fields: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(path).unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: evil.example\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn accept_of(digest: &str) -> String {
    format!("/lists/accept?digest={digest}")
}

const COMMAND: &str = "X-Graygate-Command: accept\r\n";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Lets other users into a test's folder.
fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}

/// Runs the command line as somebody else.
fn run_as(uid: u32, gid: u32, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graygate"));
    let command = command.args(arguments).uid(uid).gid(gid).current_dir("/");
    command.env_remove("GRAYGATE_REDIS_URL").output().unwrap()
}

/// The ini file of whoever asks: only how.
fn asking(setup: &Setup, name: &str, admin: &str) -> String {
    let path = setup.path(name);
    fs::write(&path, format!("[admin]\n{admin}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn a_local_user_without_rights_cannot_accept_a_held_change_and_the_gateways_group_can() {
    if !geteuid().is_root() {
        return;
    }
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let setup = setup(&old);
    open_to_all(setup.path("").as_path());
    let (user, group) = ("nobody", "daemon");
    let socket = setup.path("run").join("admin.sock");
    let gateway = setup
        .set("gateway.user", user)
        .set("gateway.group", group)
        .set("admin.socket", socket.display())
        .start();
    let user = User::from_name(user).unwrap().unwrap().uid.as_raw();
    let group = Group::from_name(group).unwrap().unwrap().gid.as_raw();
    let found = fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    let rights = (found.mode() & 0o777, found.uid(), found.gid());
    assert_eq!(rights, (0o660, 0, group));

    let digest = hold(&gateway, &new);
    let other = Setup::new();
    open_to_all(other.path("").as_path());
    let named = format!("socket = {}", socket.display());
    let alone = asking(&other, "socket.ini", &format!("{named}\nlisten = off"));
    let both = asking(
        &other,
        "both.ini",
        &format!("{named}\nlisten = {}", gateway.admin()),
    );
    let accept = |uid, gid, ini: &str| run_as(uid, gid, &["lists", "accept", &digest, "-c", ini]);
    let refused = accept(STRANGER, STRANGER, &alone);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said(&refused).contains("Permission denied"), "{refused:?}");
    let refused = accept(STRANGER, STRANGER, &both);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    // It says which way it took, and why.
    let way = format!(
        "http://{}/lists/accept: status 403: read-only",
        gateway.admin()
    );
    assert!(said(&refused).contains(&way), "{refused:?}");
    let why = format!("{}: Permission denied", socket.display());
    assert!(said(&refused).contains(&why), "{refused:?}");
    // The gateway's own user is a stranger here, too, as far as its group is another one.
    assert_eq!(accept(user, STRANGER, &alone).status.code(), Some(1));
    assert_eq!(gateway.lists()["held"][0]["digest"], json!(digest));
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "old");

    // Who may not use the socket can still read what TCP shows.
    let status = run_as(STRANGER, STRANGER, &["status", "-c", &both]);
    assert_eq!(status.status.code(), Some(0), "{status:?}");

    let accepted = accept(STRANGER, group, &alone);
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "new");
    // The folder was made for the user that the gateway has become, so that the file goes at the end.
    gateway.end();
    assert!(!socket.exists());
}

#[test]
fn over_tcp_the_pages_can_be_read_but_no_client_is_named_and_nothing_is_changed() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let redis = Redis::start();
    redis.push(
        "gray",
        &[
            &SUSPICIOUS[0],
            &SUSPICIOUS[1],
            &SUSPICIOUS[1],
            &"203.0.113.78x",
        ],
    );
    redis.push("prod", &[&old]);
    let setup = setup(&old).redis(redis.url());
    let gateway = setup.set("gateway.trusted_proxies", "127.0.0.9").start();
    let doubted = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7x\r\n\r\n";
    gateway.connect_from("127.0.0.9").ask(doubted);
    redis.push("later", &[&"::/0"]);
    redis.push("new", &[&new]);
    redis.cli(&["RENAME", "later", "gray"]);
    redis.cli(&["RENAME", "new", "prod"]);
    let page = gateway.wait_for_lists("held", |it| it["held"].as_array().unwrap().len() == 2);
    let held = page["held"].as_array().unwrap().iter();
    let digests: Vec<&str> = ["gray", "prod"]
        .iter()
        .map(|list| held.clone().find(|it| it["list"] == json!(list)).unwrap())
        .map(|it| it["digest"].as_str().unwrap())
        .collect();
    let digest = digests[1];
    let admin = gateway.admin();
    for target in [
        "/healthz",
        "/healthz?full",
        "/lists",
        "/peers",
        "/config",
        "/metrics",
    ] {
        let response = over_tcp(admin, "GET", target, "");
        assert_eq!(response.status(), 200, "{target}");
        for part in OF_CLIENTS {
            assert!(!response.text().contains(part), "{target}: {response:?}");
        }
    }
    let page = gateway.lists();
    assert_eq!(
        (&page["clients"], &page["gray"]),
        (&json!("hidden"), &Value::Null)
    );
    assert_eq!(page["counts"]["gray"], json!(2));
    assert_eq!(page["skipped"]["gray"]["count"], json!(1));
    assert_eq!(page["prod"], json!([old.to_string()]));
    for held in page["held"].as_array().unwrap() {
        let is_named = held["gone"]["first"] != json!([]);
        assert_eq!(is_named, held["list"] == json!("prod"), "{held}");
    }
    // Asked for one address after the other, it would show the list.
    let explained = over_tcp(admin, "GET", "/explain?ip=198.51.100.9", "");
    assert_eq!(explained.status(), 403);
    assert!(
        explained.text().starts_with("clients-hidden: "),
        "{explained:?}"
    );
    let accept = over_tcp(admin, "POST", &accept_of(digest), COMMAND);
    assert_eq!(accept.status(), 403);
    assert!(accept.text().starts_with("read-only: "), "{accept:?}");
    // A token is of no use where none is set.
    let fields = format!("{COMMAND}{}", bearer(TOKEN));
    assert_eq!(
        over_tcp(admin, "POST", &accept_of(digest), &fields).status(),
        403
    );
    let count = |reason: &str| {
        gateway.metric(&format!(
            "graygate_admin_refusals_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!((count("clients-hidden"), count("read-only")), (1.0, 2.0));
    gateway.wait_for_log("admin-refused reason=clients-hidden");

    // All of it is there by the socket, whatever Host is.
    let socket = gateway.path("admin.sock");
    let (status, text) = by_socket(&socket, "GET", "/lists", "");
    assert_eq!(status, 200, "{text}");
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(page["clients"], json!("shown"));
    assert!(
        page["gray"].as_array().unwrap().contains(&json!(CLIENTS)),
        "{page}"
    );
    for part in OF_CLIENTS {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (status, text) = by_socket(&socket, "GET", "/explain?ip=198.51.100.9", "");
    assert!(status == 200 && text.contains(CLIENTS), "{text}");
    assert_eq!(by_socket(&socket, "POST", &accept_of(digest), "").0, 403);
    assert_eq!(
        by_socket(&socket, "POST", &accept_of(digest), COMMAND).0,
        200
    );
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "new");
}

#[test]
fn lists_of_clients_are_shown_over_tcp_when_the_ini_file_says_so() {
    let origin = Origin::named("old");
    let mut gateway = setup(&origin).start();
    assert_eq!(gateway.lists()["gray"], Value::Null);
    gateway.edit_ini(|it| it.set("admin.expose", "full"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reloaded file=");
    let page = gateway.lists();
    assert!(
        page["gray"].as_array().unwrap().contains(&json!(CLIENTS)),
        "{page}"
    );
    assert_eq!(gateway.admin_get("/explain?ip=198.51.100.9").0, 200);
}

#[test]
fn changes_over_tcp_require_the_token() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let setup = setup(&old).file("token", &format!("{TOKEN}\n"));
    let gateway = setup.set("admin.token_file", "token").start();
    let digest = hold(&gateway, &new);
    let admin = gateway.admin();
    let accept = |fields: &str| {
        over_tcp(
            admin,
            "POST",
            &accept_of(&digest),
            &format!("{COMMAND}{fields}"),
        )
    };
    let longer = format!("{TOKEN}x");
    for (fields, name) in [
        (String::new(), "no-token"),
        (bearer("another-token-that-is-wrong"), "wrong-token"),
        (bearer(&TOKEN[1..]), "wrong-token"),
        (bearer(&longer), "wrong-token"),
        (bearer(""), "wrong-token"),
        (format!("Authorization: Basic {TOKEN}\r\n"), "wrong-token"),
    ] {
        let response = accept(&fields);
        assert_eq!(response.status(), 401, "{fields}");
        assert!(response.text().starts_with(name), "{fields}: {response:?}");
        let asks = response.field("www-authenticate").unwrap();
        assert!(asks.starts_with("Bearer"), "{asks}");
        assert!(!response.text().contains(TOKEN), "{response:?}");
    }
    // On loopback, reading is free; but not with a token that is wrong.
    assert_eq!(over_tcp(admin, "GET", "/lists", "").status(), 200);
    let wrong = over_tcp(admin, "GET", "/lists", &bearer(&longer));
    assert_eq!(wrong.status(), 401);
    // Whoever has it is still asked for the field that no web page can send.
    let alone = over_tcp(admin, "POST", &accept_of(&digest), &bearer(TOKEN));
    assert!(alone.text().starts_with("no-command"), "{alone:?}");
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "old");
    assert_eq!(accept(&bearer(TOKEN)).status(), 200);
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "new");
    // The token is for changes; what is shown is another matter.
    let page = over_tcp(admin, "GET", "/lists", &bearer(TOKEN)).text();
    assert!(page.contains("\"clients\": \"hidden\""), "{page}");
    assert_eq!(gateway.stderr.count(TOKEN), 0);
}

#[test]
fn an_address_that_is_not_loopback_needs_the_token_for_reading_too() {
    let origin = Origin::named("old");
    for addr in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"] {
        let output = setup(&origin).set("admin.listen", addr).start_in_vain();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = said(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(&format!("[admin] listen = {addr}: ")),
            "{text}"
        );
        assert!(text.contains("[admin] token_file"), "{text}");
        // The check says the same.
        let ini = Setup::new().set("admin.listen", addr).write_ini();
        let checked = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
        assert_ne!(checked.status.code(), Some(0), "{checked:?}");
    }
    let setup = setup(&origin).file("token", TOKEN);
    let setup = setup.set("admin.listen", "0.0.0.0:0");
    let gateway = setup.set("admin.token_file", "token").start();
    let admin = SocketAddr::new([127, 0, 0, 1].into(), gateway.admin().port());
    for target in [
        "/healthz",
        "/metrics",
        "/lists",
        "/config",
        "/peers",
        "/verdict",
        "/upgrades",
        "/nowhere",
    ] {
        let response = over_tcp(admin, "GET", target, "");
        assert_eq!(response.status(), 401, "{target}");
        assert!(response.text().starts_with("no-token: "), "{target}");
        let wrong = over_tcp(admin, "GET", target, &bearer("0123456789abcdef"));
        assert_eq!(wrong.status(), 401, "{target}");
    }
    for target in [
        "/healthz",
        "/metrics",
        "/lists",
        "/config",
        "/peers",
        "/verdict",
        "/upgrades",
    ] {
        let response = over_tcp(admin, "GET", target, &bearer(TOKEN));
        assert_eq!(response.status(), 200, "{target}");
    }
    // The command line reads the token, if it may.
    let ini = format!("socket = off\nlisten = {admin}\ntoken_file = ");
    let other = Setup::new();
    let with = asking(
        &other,
        "with.ini",
        &format!("{ini}{}", gateway.path("token").display()),
    );
    let without = asking(&other, "without.ini", &ini);
    assert_eq!(run_to_exit(&["status", "-c", &with]).status.code(), Some(0));
    let refused = run_to_exit(&["status", "-c", &without]);
    assert_ne!(refused.status.code(), Some(0));
    let way = format!("http://{admin}/healthz: status 401: no-token");
    assert!(said(&refused).contains(&way), "{refused:?}");
}

#[test]
fn the_address_for_metrics_serves_nothing_else() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let setup = setup(&old).set("admin.listen", "off");
    let setup = setup.set("admin.metrics", "0.0.0.0:0");
    let gateway = setup.set("admin.hosts", "gw-1.example.net").start();
    let ready = gateway
        .stderr
        .all()
        .into_iter()
        .find(|it| it.contains(" ready "));
    let ready = ready.unwrap();
    let addr = ready.split(' ').find_map(|it| it.strip_prefix("metrics="));
    let addr: SocketAddr = addr.unwrap().parse().unwrap();
    let addr = SocketAddr::new([127, 0, 0, 1].into(), addr.port());
    for (target, part) in [
        ("/healthz", "ok generation=1\n"),
        ("/healthz?full", "ok generation=1\n"),
        ("/metrics", "graygate_lists_generation 1\n"),
    ] {
        let response = over_tcp(addr, "GET", target, "");
        assert_eq!(response.status(), 200, "{target}");
        assert!(response.text().contains(part), "{target}");
        for part in OF_CLIENTS {
            assert!(!response.text().contains(part), "{target}");
        }
    }
    gateway.write_lists(&SUSPICIOUS, &[], &[&new]);
    let socket = gateway.path("admin.sock");
    let held = wait_for("held", || {
        let page = by_socket(&socket, "GET", "/lists", "").1;
        let page: Value = serde_json::from_str(&page).unwrap();
        page["held"][0]["digest"].as_str().map(str::to_owned)
    });
    for target in [
        "/lists",
        "/lists?limit=0",
        "/peers",
        "/config",
        "/explain?ip=192.0.2.1",
        "/",
    ] {
        assert_eq!(over_tcp(addr, "GET", target, "").status(), 404, "{target}");
        assert_eq!(
            over_tcp(addr, "GET", target, &bearer(TOKEN)).status(),
            404,
            "{target}"
        );
    }
    let accept = over_tcp(addr, "POST", &accept_of(&held), COMMAND);
    assert_eq!(accept.status(), 405, "{accept:?}");
    assert_eq!(
        over_tcp(addr, "GET", &accept_of(&held), COMMAND).status(),
        404
    );
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "old");
    for (host, status) in [("evil.example", 403), ("gw-1.example.net", 200)] {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(Client::connect(addr).ask(head).status(), status, "{host}");
    }
}

#[test]
fn the_socket_of_a_dead_gateway_is_replaced_and_that_of_a_living_one_is_not() {
    let origin = Origin::named("old");
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("admin.sock");
    let setup = || setup(&origin).set("admin.socket", socket.display());
    let killed = setup().start();
    killed.signal(Signal::SIGKILL);
    drop(killed);
    assert!(socket.exists());
    let gateway = setup().start();
    let answered = || by_socket(&socket, "GET", "/healthz", "").0 == 200;
    assert!(answered());
    // Another one that names it does not start, and leaves it as it is.
    let output = setup().start_in_vain();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let complaint = format!(
        "[admin] socket: {}: a process that is running has it",
        socket.display()
    );
    assert!(said(&output).contains(&complaint), "{output:?}");
    let holder = format!("in use by another gateway, process {}", gateway.pid());
    assert!(said(&output).contains(&holder), "{output:?}");
    assert!(setup().warnings().contains(&holder));
    assert!(answered());
    gateway.end();
    assert!(!socket.exists());

    // Something else in that place is nobody's to remove.
    fs::write(&socket, "kept").unwrap();
    let output = setup().start_in_vain();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read(&socket).unwrap(), b"kept");
}

#[test]
fn of_gateways_that_start_at_once_on_one_dead_socket_one_starts() {
    let origin = Origin::named("old");
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("admin.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let setups: Vec<Setup> = (0..6)
        .map(|_| setup(&origin).set("admin.socket", socket.display()))
        .collect();
    let mut all = Killed(setups.iter().map(Setup::spawn).collect());
    wait_for("all but one have ended", || {
        let ended = all.0.iter_mut().filter_map(|it| it.try_wait().unwrap());
        (ended.count() == 5).then_some(())
    });
    wait_for("one answers", || UnixStream::connect(&socket).ok());
}

/// Processes that end with the test, however that ends.
struct Killed(Vec<Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Between the look at a dead socket and the one that takes its place, another gateway could make its own.
#[test]
fn a_socket_is_taken_under_a_lock_on_its_folder() {
    let origin = Origin::named("old");
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("admin.sock");
    let held = fs::File::open(place.path()).unwrap();
    held.lock().unwrap();
    let setup = setup(&origin).set("admin.socket", socket.display());
    let output = setup.start_in_vain();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let complaint = "another process keeps its folder locked";
    assert!(said(&output).contains(complaint), "{output:?}");
    assert!(!socket.exists());
    drop(held);
    setup.start().end();
}

/// As another user, who may not write in /run.
#[test]
fn without_the_default_socket_the_gateway_warns_and_goes_on() {
    if !geteuid().is_root() {
        return;
    }
    let origin = Origin::named("old");
    let setup = setup(&origin).unset("admin.socket");
    fs::set_permissions(setup.path(""), Permissions::from_mode(0o777)).unwrap();
    let stranger = [
        "setpriv",
        "--reuid=65533",
        "--regid=65533",
        "--clear-groups",
    ];
    let gateway = setup.under(&stranger).start();
    let line = gateway.wait_for_log("admin-socket-failed");
    assert!(
        line.contains(" WARN ") && line.contains("/run/graygate/admin.sock"),
        "{line}"
    );
    assert_eq!(gateway.stderr.count("admin-socket-failed"), 1);
    gateway.wait_for_log(" socket=\"off\" ");
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "old");
    assert_eq!(gateway.admin_get("/lists").0, 200);
}

/// In a /run of its own, so that no other gateway of this machine is disturbed.
#[test]
fn the_default_socket_is_made_with_its_folder_and_only_its_own_gateway_is_asked_by_it() {
    if !geteuid().is_root() {
        return;
    }
    let origin = Origin::named("old");
    let own_run = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
    let own_run = ["unshare", "-m", "sh", "-c", own_run];
    let tried = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none", "/run"])
        .status();
    if !tried.is_ok_and(|it| it.success()) {
        return;
    }
    let setup = setup(&origin)
        .unset("admin.socket")
        .set("admin.listen", free_address());
    let gateway = setup.under(&own_run).start();
    let pid = gateway.pid().to_string();
    let run = Path::new("/proc").join(&pid).join("root/run/graygate");
    assert_eq!(
        fs::metadata(run.join("admin.sock")).unwrap().mode() & 0o777,
        0o660
    );
    let inside = |ini: &str, command: &[&str]| {
        let program = env!("CARGO_BIN_EXE_graygate");
        let mut nsenter = Command::new("nsenter");
        let nsenter = nsenter.args(["-m", "-t", &pid, program]).args(command);
        nsenter.args(["-c", ini]).output().unwrap()
    };
    let ini = gateway.path("graygate.ini");
    let output = inside(ini.to_str().unwrap(), &["lists", "show"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said(&output).contains(CLIENTS), "{output:?}");
    // Another ini file that names no socket either: this is not its gateway.
    let other = Setup::new();
    let nobody = free_address();
    let ini = asking(&other, "other.ini", &format!("listen = {nobody}"));
    let output = inside(&ini, &["status"]);
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    let text = said(&output);
    assert!(
        text.contains(&format!("http://{nobody}/healthz: ")),
        "{text}"
    );
    assert!(text.contains("is of a gateway that runs with"), "{text}");
}

#[test]
fn the_command_line_asks_by_the_socket_if_it_is_there_and_otherwise_over_tcp() {
    let origin = Origin::named("old");
    let gateway = setup(&origin).set("admin.listen", free_address()).start();
    let other = Setup::new();
    let socket = gateway.path("admin.sock");
    let admin = gateway.admin();
    let ini = |socket: &str| {
        asking(
            &other,
            "a.ini",
            &format!("socket = {socket}\nlisten = {admin}"),
        )
    };
    let run = |arguments: &[&str], ini: &str| run_to_exit(&[arguments, &["-c", ini]].concat());
    let by_socket = ini(socket.to_str().unwrap());
    let shown = run(&["lists", "show"], &by_socket);
    assert!(said(&shown).contains(CLIENTS), "{shown:?}");
    let explained = run(&["explain", "198.51.100.9"], &by_socket);
    assert!(said(&explained).contains(CLIENTS), "{explained:?}");
    let status = run(&["status"], &by_socket);
    let doors = format!(
        "admin       socket {}, listen {admin} (expose status)\n",
        socket.display()
    );
    assert!(said(&status).contains(&doors), "{status:?}");

    let by_tcp = ini("gone.sock");
    assert_eq!(run(&["status"], &by_tcp).status.code(), Some(0));
    assert_eq!(run(&["peers"], &by_tcp).status.code(), Some(0));
    for arguments in [&["lists", "show"][..], &["explain", "198.51.100.9"]] {
        let output = run(arguments, &by_tcp);
        assert_ne!(output.status.code(), Some(0), "{output:?}");
        let text = said(&output);
        assert!(text.contains(&format!("http://{admin}/")), "{text}");
        assert!(text.contains("gone.sock: No such file"), "{text}");
        assert!(text.contains("expose = full"), "{text}");
    }
    // /config says the same of itself.
    let (_, page) = gateway.admin_get("/config");
    let page: Value = serde_json::from_str(&page).unwrap();
    let expected = json!({
        "socket": socket.to_str().unwrap(), "listen": admin.to_string(), "expose": "status",
        "token": false, "metrics": null,
    });
    assert_eq!(page["admin"], expected);
}

#[test]
fn what_keeps_the_doors_from_opening_is_found_by_the_check_and_ends_the_start() {
    let origin = Origin::named("old");
    let in_vain = |setup: Setup, part: &str| {
        let ini = setup.write_ini();
        for output in [
            run_to_exit(&["-t", "-c", ini.to_str().unwrap()]),
            setup.start_in_vain(),
        ] {
            assert_ne!(output.status.code(), Some(0), "{part}: {output:?}");
            assert!(said(&output).contains(part), "{part}: {output:?}");
        }
    };
    let token = |text: &str| {
        let setup = setup(&origin).file("token", text);
        setup.set("admin.token_file", "token")
    };
    in_vain(
        setup(&origin).set("admin.socket", "no/such/admin.sock"),
        "[admin] socket: ",
    );
    in_vain(
        setup(&origin).set("admin.token_file", "no"),
        "[admin] token_file: ",
    );
    in_vain(token("short\n"), "fewer than 16 bytes");
    in_vain(token("two words that are long"), "without blanks");
    let open = token(TOKEN);
    fs::set_permissions(open.path("token"), Permissions::from_mode(0o644)).unwrap();
    let warning = open.warnings();
    assert!(
        warning.contains("[admin] token_file: everybody can read "),
        "{warning}"
    );
}

/// An entry of a lists file that cannot be read is named in its error.
#[test]
fn an_error_of_the_lists_file_names_no_client_over_tcp() {
    let origin = Origin::named("old");
    let metrics = free_address();
    let gateway = setup(&origin).set("admin.metrics", metrics).start();
    gateway.write_lists_text("[gray]\n203.0.113.78x\n[pre]\n[prod]\n127.0.0.1:9\n");
    gateway.wait_for_lists("the error", |it| it["error"] != Value::Null);
    let socket = gateway.path("admin.sock");
    let (_, text) = by_socket(&socket, "GET", "/healthz?full", "");
    let said = "line 2: \"203.0.113.78x\": neither an IP address";
    assert!(text.contains(said), "{text}");
    for (addr, target) in [
        (gateway.admin(), "/healthz?full"),
        (gateway.admin(), "/lists"),
        (metrics, "/healthz?full"),
        (metrics, "/metrics"),
    ] {
        let text = over_tcp(addr, "GET", target, "").text();
        assert!(!text.contains("203.0.113."), "{target}: {text}");
        let is_named = text.contains("line 2: (hidden): neither an IP address");
        assert!(is_named || target == "/metrics", "{target}: {text}");
    }
}
