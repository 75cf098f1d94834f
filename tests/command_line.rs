//! The command line: what it accepts, what it says, and its exit codes.

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use support::{
    Client, DEADLINE, Found, Gateway, Lines, Origin, Redis, RefusingPeer, Setup, run_to_exit,
    wait_for, wait_until,
};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/graygate.ini");

/// The one line that a failed command says, without the program's name.
#[track_caller]
fn only_complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said.trim_end()
        .strip_prefix("graygate: ")
        .unwrap()
        .to_owned()
}

/// Runs `graygate … -c FILE` for both ways to read a configuration: to check it and to use it.
#[track_caller]
fn complaints_about(file: &Path) -> [String; 2] {
    let file = file.to_str().unwrap();
    [&["-t", "-c", file][..], &["run", "-c", file]]
        .map(|arguments| only_complaint(&run_to_exit(arguments)))
}

#[test]
fn a_check_of_a_good_file_succeeds_and_opens_nothing() {
    // As beside a running gateway.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let setup = Setup::new()
        .lists(&["10.0.0.0/8"], &[&"127.0.0.1:9"], &[&"127.0.0.1:9"])
        .set("gateway.listen", addr)
        .set("gateway.pid_file", "graygate.pid");
    let ini = setup.write_ini();
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(ini.to_str().unwrap()), "{said}");
    for name in ["access.log", "graygate.pid"] {
        assert!(!setup.path(name).exists(), "{name}");
    }
}

#[test]
fn the_shipped_file_is_good() {
    // Its user is made by an installation.
    let text = std::fs::read_to_string(SHIPPED).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let ini = dir.path().join("graygate.ini");
    std::fs::write(&ini, text.replace("user = graygate\n", "user = nobody\n")).unwrap();
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_bad_file_is_one_line_with_its_place_and_what_is_allowed() {
    // The text, what the line begins with behind the path, and what is allowed.
    let cases = [
        (
            "[gateway]\nlisten = 127.0.0.1:0\nmax_body = 10x\n",
            ":3: [gateway] max_body = 10x: ",
            "unlimited",
        ),
        (
            "# a comment\n\n[gateway]\nworkers = 0\n",
            ":4: [gateway] workers = 0: ",
            "auto, or a whole number from 1 to 256",
        ),
        (
            "[gateway]\nlisten = 127.0.0.1:1080,0.0.0.0:1080\n",
            ":2: [gateway] listen = 127.0.0.1:1080,0.0.0.0:1080: ",
            "IP addresses",
        ),
        (
            "[gateway]\nlisten = 127.0.0.1:1080\n[admin]\nlisten = 127.0.0.1:1080\n",
            ":4: [admin] listen = 127.0.0.1:1080: ",
            "different addresses or ports",
        ),
        (
            "[gateway]\nuser =\ngroup = adm\n",
            ":3: [gateway] group = adm: ",
            "no group",
        ),
        (
            "[log]\naccess = 'off'\n",
            ":2: [log] access = 'off': ",
            "off, stdout (or -)",
        ),
        (
            "[upstream]\nread_timeout = 5\n",
            ":2: [upstream] read_timeout = 5: ",
            "ms, s, m or h",
        ),
        (
            "[upstream]\nfallback = maybe\n",
            ":2: [upstream] fallback = maybe: ",
            "on",
        ),
        (
            "[gateway]\nlisten = 127.0.0.1\n",
            ":2: [gateway] listen = 127.0.0.1: ",
            "",
        ),
        (
            "[gateway]\n[getaway]\nworkers = 1\n",
            ":2: [getaway]: an unknown section",
            "[gateway], [redis], [lists], [gray], [upstream], [health], [health pre], [health prod], [verdict], [log], [admin]",
        ),
        (
            "[log]\nlevel = info\nworker = 1\n",
            ":3: [log] worker: not a key",
            "access, error, format, sample, own_lines, level",
        ),
        (
            "[log]\nworkers = 1\n",
            ":2: [log] workers: not a key of this section, but one of [gateway]",
            "access, error, format, sample, own_lines, level",
        ),
        (
            "[log]\nlevel = info\nlevel = warn\n",
            ":3: [log] level: given twice, first on line 2",
            "each key once",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.ini");
    for (text, place, allowed) in cases {
        // What is missing is complained of before some of what is wrong.
        std::fs::write(&file, format!("{text}[lists]\nfile = lists\n")).unwrap();
        for complaint in complaints_about(&file) {
            let expected = format!("{}{place}", file.display());
            assert!(complaint.starts_with(&expected), "{complaint}");
            let (_, shown) = complaint.split_once("; allowed: ").unwrap();
            assert!(
                !shown.is_empty() && shown.contains(allowed),
                "{complaint} should allow {allowed}"
            );
        }
    }
}

#[test]
fn a_missing_file_is_one_line_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("missing.ini");
    for complaint in complaints_about(&file) {
        let expected = format!("{}: cannot be read: ", file.display());
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
}

#[test]
fn a_bad_lists_file_is_one_line_with_its_path() {
    let text = "[gray]\n[pre]\n[prod]\n127.0.0.1:9\nnobody knows\n";
    // By then the error log is open, and not to be mixed up with the complaint.
    let setup = Setup::new()
        .set("log.error", "error.log")
        .file("lists", text);
    for complaint in complaints_about(&setup.write_ini()) {
        let expected = format!("{}: line 5: ", setup.path("lists").display());
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let cases: [&[&str]; 5] = [
        &[],
        &["fly"],
        &["run", "--fast"],
        &["demo", "--listen", "here"],
        &["origin", "--name", "a"],
    ];
    for arguments in cases {
        let output = run_to_exit(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_address_in_use_is_named_and_nothing_is_left_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    for (key, value) in [
        ("gateway.listen", format!("127.0.0.1:0, {addr}")),
        ("admin.listen", addr.to_string()),
    ] {
        let setup = Setup::serving(&"127.0.0.1:9")
            .set("gateway.pid_file", "graygate.pid")
            .set(key, value);
        let complaint = only_complaint(&setup.start_in_vain());
        let expected = format!("cannot listen on {addr}");
        assert!(complaint.starts_with(&expected), "{key}: {complaint}");
        assert!(!setup.path("graygate.pid").exists(), "{key}");
    }
}

#[test]
fn a_user_or_group_that_does_not_exist_is_named() {
    // Others than root cannot become anybody, so there the keys mean nothing.
    if !geteuid().is_root() {
        return;
    }
    for (key, user, group) in [
        ("user", "no-such-one", ""),
        ("group", "nobody", "no-such-one"),
    ] {
        let setup = Setup::serving(&"127.0.0.1:9")
            .set("gateway.user", user)
            .set("gateway.group", group);
        let expected = format!("[gateway] {key} = no-such-one: there is no such {key}");
        for complaint in complaints_about(&setup.write_ini()) {
            assert_eq!(complaint, expected);
        }
    }
}

/// The modes of the folder and of two files that only root may read unless `mode` says otherwise.
fn open_to_others(setup: &Setup, files: &[(&str, u32)]) {
    for (name, mode) in [("", 0o755)].iter().chain(files) {
        let path = setup.path(name);
        std::fs::set_permissions(path, PermissionsExt::from_mode(*mode)).unwrap();
    }
}

#[test]
fn a_check_by_root_finds_what_the_user_to_be_cannot_read() {
    if !geteuid().is_root() {
        return;
    }
    let setup = Setup::serving(&"127.0.0.1:9")
        .set("log.error", "error.log")
        .set("gateway.user", "nobody");
    let ini = setup.write_ini();
    open_to_others(&setup, &[("lists", 0o600), ("graygate.ini", 0o600)]);
    let [checked, started] = complaints_about(&ini);
    let place = format!("{}: Permission denied", setup.path("lists").display());
    assert!(started.starts_with(&place), "{started}");
    assert!(checked.starts_with(&place), "{checked}");
    assert!(checked.contains("the user nobody"), "{checked}");

    // Without this file it starts, but cannot reload.
    let check = || run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    open_to_others(&setup, &[("lists", 0o644)]);
    let output = check();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let warning = format!("graygate: warning: {}: cannot be read as", ini.display());
    assert!(said.starts_with(&warning), "{said}");
    assert!(said.contains("every reload will fail"), "{said}");

    // A group of the user's is enough.
    open_to_others(&setup, &[("lists", 0o644), ("graygate.ini", 0o640)]);
    let nobody = User::from_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(&ini, None, Some(nobody.gid.as_raw())).unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_check_after_an_installation_does_not_warn_of_what_the_start_makes() {
    if !geteuid().is_root() {
        return;
    }
    let setup = Setup::serving(&"127.0.0.1:9")
        .set("gateway.user", "nobody")
        .set("lists.last_good", "var/copy");
    open_to_others(&setup, &[]);
    std::fs::create_dir(setup.path("var")).unwrap();
    let ini = setup.write_ini();
    std::fs::set_permissions(&ini, PermissionsExt::from_mode(0o644)).unwrap();
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    // One that holds something of somebody else's is not given away.
    std::fs::write(setup.path("var/other"), "").unwrap();
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("is not writable for the user nobody"),
        "{said}"
    );
}

#[test]
fn a_check_finds_logs_and_pid_files_that_could_not_be_made() {
    for (place, said) in [
        ("missing/folder/a.log", "there is no folder {missing}"),
        ("lists/a.log", "{lists} is not a folder"),
        ("lists/folder/a.log", "{lists} is not a folder"),
        ("./folder", "{./folder} is a folder"),
    ] {
        for key in ["log.access", "log.error", "gateway.pid_file"] {
            let setup = Setup::serving(&"127.0.0.1:9").set(key, place);
            std::fs::create_dir(setup.path("folder")).unwrap();
            let [checked, _started] = complaints_about(&setup.write_ini());
            let (section, name) = key.split_once('.').unwrap();
            // A log's folder would be made, a pid file's would not.
            let said = match (key, said) {
                ("gateway.pid_file", "there is no folder {missing}") => {
                    "there is no folder {missing/folder}"
                }
                ("gateway.pid_file", "{lists} is not a folder") if place.contains("folder") => {
                    "there is no folder {lists/folder}"
                }
                _ => said,
            };
            let (before, rest) = said.split_once('{').unwrap();
            let (path, behind) = rest.split_once('}').unwrap();
            let path = setup.path(path);
            let path = path.display();
            let expected = format!("[{section}] {name}: {before}{path}{behind}");
            assert_eq!(checked, expected);
            assert!(!setup.path("missing").exists());
        }
    }
    // What a start makes is not made here.
    let setup = Setup::serving(&"127.0.0.1:9")
        .set("gateway.pid_file", "pid")
        .set("log.access", "logs/access.log");
    let output = run_to_exit(&["-t", "-c", setup.write_ini().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!setup.path("logs").exists() && !setup.path("pid").exists());
}

#[test]
fn a_gateway_of_root_becomes_the_configured_user_with_its_files() {
    if !geteuid().is_root() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let origin = Origin::named("prod");
    let setup = Setup::serving(&"127.0.0.1:9")
        .set("lists.guard_share", 100)
        .set("gateway.user", "nobody")
        .set("gateway.pid_file", "graygate.pid")
        .set("log.error", "logs/error.log");
    // The folder is the test's own; the lists file in it must be readable for nobody.
    open_to_others(&setup, &[]);
    let gateway = setup.start();

    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let ids_of = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let words = line.unwrap().split_whitespace();
        words.map(|it| it.parse().unwrap()).collect()
    };
    // Real, effective, saved and of the file system.
    assert_eq!(ids_of("Uid:"), [uid; 4]);
    assert_eq!(ids_of("Gid:"), [gid; 4]);
    assert!(!ids_of("Groups:").contains(&0), "{status}");
    // The kernel keeps an identity for each thread.
    for task in std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap() {
        let task = task.unwrap().path();
        // A thread that has ended meanwhile has no identity left.
        let Ok(metadata) = std::fs::metadata(&task) else {
            continue;
        };
        assert_eq!(metadata.uid(), uid, "{}", task.display());
    }
    // Lines hold targets, and targets hold secrets.
    for (name, mode) in [
        ("access.log", 0o640),
        ("logs", 0o750),
        ("logs/error.log", 0o640),
    ] {
        let found = std::fs::metadata(gateway.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (uid, gid), "{name}");
        assert_eq!(found.mode() & 0o777, mode, "{name}");
    }
    // Root signals what it names.
    let pid_file = std::fs::metadata(gateway.path("graygate.pid")).unwrap();
    assert_eq!((pid_file.uid(), pid_file.mode() & 0o777), (0, 0o644));
    // The process id is written after the line that says "ready".
    let writes_pid_file = |at: &str| {
        let link = format!("/proc/{}/fd/{at}", gateway.pid());
        let info = format!("/proc/{}/fdinfo/{at}", gateway.pid());
        let is_it = std::fs::read_link(link).is_ok_and(|it| it.ends_with("graygate.pid"));
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        // O_RDONLY is 0.
        let writes = |it: &str| u32::from_str_radix(it.trim(), 8).unwrap() & 0o3 != 0;
        is_it && flags.is_some_and(writes)
    };
    let what = "the pid file cannot be written through a descriptor";
    wait_until(what, DEADLINE, || {
        let open = std::fs::read_dir(format!("/proc/{}/fdinfo", gateway.pid())).unwrap();
        let mut numbers = open.map(|it| it.unwrap().file_name());
        !numbers.any(|it| writes_pid_file(it.to_str().unwrap()))
    });
    gateway.write_lists(&[], &[], &[&origin]);
    gateway.wait_served("127.0.0.1", "prod", DEADLINE);
    gateway.wait_for_access("pool=prod status=200");

    // The log of a folder that it has made can be renamed as it is.
    let old = gateway.path("logs/error.log.1");
    std::fs::rename(gateway.path("logs/error.log"), old).unwrap();
    std::fs::set_permissions(gateway.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    gateway.signal(Signal::SIGUSR1);
    wait_until("the new file", DEADLINE, || {
        let text = std::fs::read_to_string(gateway.path("logs/error.log"));
        text.is_ok_and(|it| it.contains(" INFO logs-reopened\n"))
    });
}

/// Makes a pipe (FIFO) at `path`.
fn make_pipe(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
}

#[test]
fn a_log_that_is_a_pipe_waits_for_its_reader_and_is_named_when_there_is_none() {
    let setup = Setup::serving(&"127.0.0.1:9");
    let path = setup.path("pipe");
    make_pipe(&path);
    let setup = setup.set("log.access", path.display());
    let ini = setup.write_ini();
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("is a pipe (FIFO) that nobody reads"),
        "{said}"
    );
    let output = setup.start_in_vain();
    let said = String::from_utf8_lossy(&output.stderr);
    // Before, it says what it waits for.
    let expected = format!(
        "graygate: {}: a pipe (FIFO) that nobody reads\n",
        path.display()
    );
    assert!(said.ends_with(&expected), "{said}");

    let reader = std::thread::spawn(move || {
        let file = std::fs::File::open(path).unwrap();
        std::io::BufRead::lines(std::io::BufReader::new(file)).next()
    });
    let gateway = setup.start();
    let status = gateway.get("127.0.0.1", "/").status();
    assert_eq!(status, 502);
    let line = reader.join().unwrap().unwrap().unwrap();
    assert!(line.contains("status=502"), "{line}");
}

#[test]
fn a_start_that_waits_says_for_what() {
    let setup = Setup::new();
    let pipe = setup.path("pipe.ini");
    make_pipe(&pipe);
    for (arguments, doing) in [(&["run"][..], "reading"), (&["-t"], "checking")] {
        let arguments = [arguments, &["-c", pipe.to_str().unwrap()]].concat();
        let program = Program::start(&arguments);
        let said = format!("still {doing} {}", pipe.display());
        let found = program.stderr.wait_for(&said, DEADLINE);
        assert!(matches!(found, Found::Line(_)), "{said}: {found:?}");
    }
}

#[test]
fn root_is_not_led_elsewhere_by_the_owner_of_the_log_folder() {
    if !geteuid().is_root() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let setup = Setup::serving(&"127.0.0.1:9")
        .set("gateway.user", "nobody")
        .set("log.access", "logs/access.log")
        .file("precious", "");
    open_to_others(&setup, &[]);
    std::fs::create_dir(setup.path("logs")).unwrap();
    std::os::unix::fs::chown(setup.path("logs"), Some(uid), Some(gid)).unwrap();
    let link = setup.path("logs/access.log");
    std::os::unix::fs::symlink(setup.path("precious"), &link).unwrap();
    let complaint = only_complaint(&setup.start_in_vain());
    assert!(
        complaint.starts_with(&link.display().to_string()),
        "{complaint}"
    );
    assert_eq!(std::fs::metadata(setup.path("precious")).unwrap().uid(), 0);

    // In a folder of root's, a link is root's wish.
    std::os::unix::fs::chown(setup.path("logs"), Some(0), Some(0)).unwrap();
    setup.start();
}

/// `graygate status` for the gateway whose admin listener is at `admin`.
fn status_of(admin: impl std::fmt::Display) -> Output {
    let setup = Setup::new().set("admin.listen", admin);
    run_to_exit(&["status", "-c", setup.write_ini().to_str().unwrap()])
}

#[test]
fn status_shows_the_lists_in_force_of_a_gateway_that_serves() {
    let gateway = Setup::new()
        .lists(
            &["10.0.0.1", "10.0.0.2"],
            &[],
            &[&"127.0.0.1:9", &"127.0.0.2:9", &"127.0.0.3:9"],
        )
        .start();
    let output = status_of(gateway.admin());
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lists = gateway.lists();
    let digest = lists["digest"].as_str().unwrap();
    assert!(!digest.is_empty() && said.contains(digest), "{said}");
    assert!(said.contains("gray 2, pre 0, prod 3"), "{said}");
}

#[test]
fn status_fails_for_a_gateway_that_has_no_lists_yet() {
    let redis = RefusingPeer::new();
    let gateway = Setup::new().redis(format!("redis://{redis}")).start();
    let output = status_of(gateway.admin());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("gray 0, pre 0, prod 0"), "{said}");
}

#[test]
fn status_fails_where_nobody_can_be_asked() {
    let nobody = RefusingPeer::new();
    let complaint = only_complaint(&status_of(&nobody));
    assert!(complaint.contains(&nobody.to_string()), "{complaint}");
    let complaint = only_complaint(&status_of("off"));
    assert!(complaint.contains("[admin] listen is off"), "{complaint}");
}

#[test]
fn status_needs_nothing_but_the_admin_address() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.0.1:9"]);
    let setup = Setup::new()
        .unset("lists.file")
        .environment("GRAYGATE_REDIS_URL", redis.url());
    let gateway = setup.start();
    gateway.wait_for_lists("they are read", |it| it["generation"] == 1);
    let admin = gateway.admin();
    for text in [
        "",
        "[upstream]\nread_timeout = 5\n",
        "[gateway]\nnonsense\n",
    ] {
        let setup = Setup::new().file("a.ini", &format!("{text}[admin]\nlisten = {admin}\n"));
        let path = setup.path("a.ini");
        let output = run_to_exit(&["status", "-c", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{text}: {output:?}");
    }
    for (text, said) in [
        ("[admin]\nlisten = here\n", ":2: [admin] listen = here: "),
        ("nonsense\n", ":1: a line without =; "),
    ] {
        let setup = Setup::new().file("a.ini", text);
        let path = setup.path("a.ini");
        let complaint = only_complaint(&run_to_exit(&["status", "-c", path.to_str().unwrap()]));
        let expected = format!("{}{said}", path.display());
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
}

/// A command of the program that runs until it is told to end.
struct Program {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    dir: TempDir,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = support::spawn(arguments, dir.path());
        Self {
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr: Lines::of(child.stderr.take().unwrap()),
            child,
            dir,
        }
    }

    /// Waits for a line on stdout that contains `text`.
    #[track_caller]
    fn wait_for_line(&self, text: &str) -> String {
        match self.stdout.wait_for(text, DEADLINE) {
            Found::Line(line) => line,
            outcome => panic!("no {text:?}: {outcome:?}, {:?}", self.stderr.all()),
        }
    }

    #[track_caller]
    fn end_by(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        wait_for("the program ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address behind `words` in a line.
#[track_caller]
fn address_behind(words: &str, line: &str) -> SocketAddr {
    let (_, behind) = line.split_once(words).unwrap();
    let end = behind
        .find(|it: char| !it.is_ascii_digit() && it != '.' && it != ':')
        .unwrap_or(behind.len());
    behind[..end].trim_end_matches(['.', ':']).parse().unwrap()
}

#[test]
fn an_origin_answers_every_request_with_its_name() {
    let arguments = ["origin", "--listen", "127.0.0.1:0", "--name", "green (new)"];
    let mut origin = Program::start(&arguments);
    let addr = address_behind(" listens on ", &origin.wait_for_line(" listens on "));
    let mut client = Client::connect(addr);
    for path in ["/", "/a?b=c", "/"] {
        let response = client.get(path);
        assert_eq!(response.status(), 200);
        assert!(response.text().contains("green (new)"), "{response:?}");
    }
    assert_eq!(origin.end_by(Signal::SIGTERM).code(), Some(0));
}

/// Requests with every kind of body, all of one connection, and then one that ends it.
const WITH_BODIES: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: smuggler\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
];

#[test]
fn an_origin_takes_any_method_and_body_on_one_connection_also_behind_the_gateway() {
    let arguments = ["origin", "--listen", "127.0.0.1:0", "--name", "green"];
    let mut origin = Program::start(&arguments);
    let addr = address_behind(" listens on ", &origin.wait_for_line(" listens on "));
    let gateway = Gateway::serving(&addr);
    for to in [addr, gateway.addr()] {
        // One after the other, and all at once.
        let mut client = Client::connect(to);
        for request in WITH_BODIES {
            assert_eq!(client.ask(request).status(), 200, "{request}");
        }
        client.expect_close();
        let mut client = Client::connect(to);
        client.send(WITH_BODIES.concat());
        for request in WITH_BODIES {
            let method = request.split(' ').next().unwrap();
            let response = client.response_to(method);
            let text = if method == "HEAD" { "" } else { "green at " };
            assert!(response.text().starts_with(text), "{request}");
            assert_eq!(response.status(), 200, "{request}");
        }
        client.expect_close();
        // In pieces, by a client that waits to be told to go on, and a large one.
        let mut client = Client::connect(to);
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        );
        assert_eq!(client.head().status(), 100);
        client.send("ab");
        client.send("cd");
        assert_eq!(client.response().status(), 200);
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n");
        client.send(vec![b'x'; 5_000_000]);
        assert_eq!(client.response().status(), 200);
    }
    let failed = gateway.access_lines();
    assert!(failed.iter().all(|it| it.has("status=200 error=-")));
    assert_eq!(origin.end_by(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn an_origin_or_a_demo_on_a_busy_port_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for arguments in [
        &["origin", "--name", "a", "--listen", &addr][..],
        &["demo", "--listen", &addr],
    ] {
        let complaint = only_complaint(&run_to_exit(arguments));
        let expected = format!("cannot listen on {addr}");
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
}

#[test]
fn the_demo_does_what_it_says_and_cleans_up() {
    let mut demo = Program::start(&["demo", "--listen", "127.0.0.1:0"]);
    let introduction = demo.wait_for_line("Graygate listens on ");
    let addr = address_behind("Graygate listens on ", &introduction);
    let edit = demo.wait_for_line("sed -i ");
    assert!(matches!(
        demo.stderr.wait_for(" ready ", DEADLINE),
        Found::Line(_)
    ));
    let served_by = |source: &str| Client::from(source, addr).get("/").text();
    let version = served_by("127.0.0.5");
    assert!(version.contains("new version"), "{version}");
    let version = served_by("127.0.0.1");
    assert!(version.contains("old version"), "{version}");

    // What it tells the user to do, as the user would.
    let edited = Command::new("sh").arg("-c").arg(&edit).status().unwrap();
    assert!(edited.success(), "{edit}");
    wait_until("127.0.0.1 gets the new version", DEADLINE, || {
        served_by("127.0.0.1").contains("new version")
    });
    demo.wait_for_line("client=127.0.0.5 pool=pre reason=listed");
    demo.wait_for_line("client=127.0.0.1 pool=prod reason=unlisted");
    demo.wait_for_line("client=127.0.0.1 pool=pre reason=listed");

    let lists = Path::new(edit.split_whitespace().last().unwrap());
    assert!(lists.starts_with(demo.dir.path()), "{}", lists.display());
    assert_eq!(demo.end_by(Signal::SIGINT).code(), Some(0));
    assert!(!lists.exists() && !lists.parent().unwrap().exists());
}
