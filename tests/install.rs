//! `scripts/install`, below a folder as for a package: what it puts there, what it takes away again,
//! and what it leaves.

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::Uid;
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/install");

/// A system in a folder, and the program that was built for it.
struct System {
    dir: TempDir,
}

impl System {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("built/release")).unwrap();
        let program = dir.path().join("built/release/graygate");
        fs::copy(env!("CARGO_BIN_EXE_graygate"), program).unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("sh");
        let command = command
            .arg(SCRIPT)
            .args(arguments)
            .env("DESTDIR", self.root())
            .env("CARGO_TARGET_DIR", self.dir.path().join("built"))
            .env_remove("PREFIX");
        command.output().unwrap()
    }

    #[track_caller]
    fn install(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `commands` where the files of this machine's system are a copy, and where ports are its own, with
    /// `install` for the script. What they print.
    #[track_caller]
    fn for_real(&self, commands: &str) -> String {
        let set_up = r#"
            mkdir "$DIR/etc" "$DIR/local"
            cp -a /etc/. "$DIR/etc"
            sed -i /^graygate:/d "$DIR/etc/passwd" "$DIR/etc/group" "$DIR/etc/shadow" "$DIR/etc/gshadow"
            rm -rf "$DIR/etc/graygate" "$DIR"/etc/*/graygate
            mount --bind "$DIR/etc" /etc
            mount --bind "$DIR/local" /usr/local
            for folder in /var/log /var/lib /run; do mount -t tmpfs none "$folder"; done
            ip link set lo up
            install() { sh "$SCRIPT" "$@"; }
        "#;
        let output = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc"])
            .args(["sh", "-euc"])
            .arg(format!("{set_up}\n{commands}"))
            .env("DIR", self.dir.path())
            .env("SCRIPT", SCRIPT)
            .env("CARGO_TARGET_DIR", self.dir.path().join("built"))
            .env_remove("PREFIX")
            .env_remove("DESTDIR")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// All files and empty folders, as paths below the root.
    fn all(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.root(), &self.root(), &mut found);
        found.sort();
        found
    }

    /// As if an earlier version had installed this file.
    fn as_if_installed(&self, path: &str, text: &str) {
        fs::write(self.at(path), text).unwrap();
        let sum = Command::new("sh")
            .arg("-c")
            .arg(format!("cksum <{}", self.at(path).display()))
            .output()
            .unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let manifest = self.at("/usr/local/share/graygate/manifest");
        let known = fs::read_to_string(&manifest).unwrap();
        let others = known.lines().filter(|line| !line.ends_with(path));
        let mut lines: Vec<String> = others.map(str::to_owned).collect();
        lines.push(format!("{} {path}", sum.trim()));
        fs::write(manifest, lines.join("\n") + "\n").unwrap();
    }

    fn append(&self, path: &str, text: &str) {
        let mut content = fs::read_to_string(self.at(path)).unwrap();
        content.push_str(text);
        fs::write(self.at(path), content).unwrap();
    }
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && fs::read_dir(&path).unwrap().next().is_some() {
            collect(root, &path, found);
        } else {
            let path = path.strip_prefix(root).unwrap();
            found.push(format!("/{}", path.display()));
        }
    }
}

const INI: &str = "/etc/graygate/graygate.ini";

#[test]
fn an_unknown_argument_is_refused_and_help_helps() {
    let system = System::new();
    for wrong in [
        &["--frobnicate"][..],
        &["uninstall"],
        &["--purge"],
        &["--uninstall", "x"],
    ] {
        let output = system.run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?}");
        assert!(!system.root().exists(), "{wrong:?}");
    }
    let said = system.install(&["--help"]);
    for option in ["--static", "--uninstall", "--purge", "PREFIX=", "DESTDIR="] {
        assert!(said.contains(option), "{option}: {said}");
    }
    assert!(!system.root().exists());
}

#[test]
fn what_was_installed_is_taken_away_again() {
    let system = System::new();
    system.install(&[]);
    let installed = system.all();
    for path in [
        "/usr/local/sbin/graygate",
        INI,
        "/etc/init.d/graygate",
        "/etc/logrotate.d/graygate",
        "/etc/default/graygate",
        "/var/lib/graygate",
        "/usr/local/share/man/man8/graygate.8",
        "/usr/local/share/man/man8/graygate-lists-check.8",
        "/usr/local/share/bash-completion/completions/graygate",
        "/usr/local/share/zsh/site-functions/_graygate",
        "/usr/local/share/fish/vendor_completions.d/graygate.fish",
    ] {
        assert!(
            installed.iter().any(|it| it == path),
            "{path}: {installed:?}"
        );
    }
    system.install(&["--uninstall"]);
    let left = system.all();
    let of_ours = |it: &&String| it.contains("graygate");
    assert_eq!(left.iter().find(of_ours), None, "{left:?}");
    // A second time there is nothing to take away.
    let output = system.run(&["--uninstall"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn where_systemd_is_its_units_are_installed_and_taken_away_too() {
    for (prefix, folder) in [
        ("/usr/local", "/usr/local/lib/systemd/system"),
        ("/opt/gray", "/etc/systemd/system"),
    ] {
        let system = System::new();
        fs::create_dir_all(system.at("/etc/systemd/system")).unwrap();
        let run = |argument: &[&str]| {
            let output = Command::new("sh")
                .arg(SCRIPT)
                .args(argument)
                .env("DESTDIR", system.root())
                .env("PREFIX", prefix)
                .env("CARGO_TARGET_DIR", system.dir.path().join("built"))
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        run(&[]);
        for (unit, ini) in [
            ("graygate.service", "graygate"),
            ("graygate@.service", "%i"),
        ] {
            let text = fs::read_to_string(system.at(&format!("{folder}/{unit}"))).unwrap();
            let start = format!(
                "ExecStart={prefix}/sbin/graygate run --supervise -c /etc/graygate/{ini}.ini"
            );
            assert!(text.lines().any(|it| it == start), "{start} in {text}");
        }
        // Which way it starts with the system is not for the installation to say.
        assert!(
            !system
                .at("/etc/systemd/system/multi-user.target.wants")
                .exists()
        );
        run(&["--uninstall"]);
        let left = system.all();
        assert!(!left.iter().any(|it| it.contains("graygate")), "{left:?}");
        assert!(system.at("/etc/systemd/system").exists());
    }
}

#[test]
fn what_was_edited_and_what_has_been_logged_stays_unless_it_is_purged() {
    for purge in [false, true] {
        let system = System::new();
        system.install(&[]);
        system.append(INI, "\n# mine\n");
        fs::create_dir_all(system.at("/var/log/graygate")).unwrap();
        fs::write(system.at("/var/log/graygate/access.log"), "a line\n").unwrap();
        fs::write(system.at("/var/lib/graygate/lists"), "a copy\n").unwrap();
        let said = match purge {
            false => system.install(&["--uninstall"]),
            true => system.install(&["--uninstall", "--purge"]),
        };
        assert!(!system.at("/usr/local/sbin/graygate").exists());
        assert!(!system.at("/etc/init.d/graygate").exists());
        for path in [
            INI,
            "/var/log/graygate/access.log",
            "/var/lib/graygate/lists",
        ] {
            assert_eq!(system.at(path).exists(), !purge, "{path}: {said}");
        }
        assert_eq!(said.contains("was edited, and stays"), !purge, "{said}");
        // Also who purges later knows what there is.
        system.install(&["--uninstall", "--purge"]);
        let left = system.all();
        assert_eq!(
            left.iter().find(|it| it.contains("graygate")),
            None,
            "{left:?}"
        );
    }
}

#[test]
fn a_later_installation_replaces_what_nobody_has_edited_and_puts_the_rest_aside() {
    let system = System::new();
    system.install(&[]);
    let earlier = "# of an earlier version\n";
    system.as_if_installed(INI, earlier);
    system.install(&[]);
    assert_ne!(fs::read_to_string(system.at(INI)).unwrap(), earlier);
    system.append(INI, "# mine\n");
    let edited = fs::read_to_string(system.at(INI)).unwrap();
    let said = system.install(&[]);
    assert!(said.contains("stays as it is"), "{said}");
    assert_eq!(fs::read_to_string(system.at(INI)).unwrap(), edited);
    assert!(system.at(&format!("{INI}.new")).exists());
}

/// Only root can make users, and mount.
fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        eprintln!("not run: it takes root");
    }
    is_root
}

#[test]
fn the_user_graygate_is_made_once_and_goes_with_a_purge() {
    if !is_root() {
        return;
    }
    let system = System::new();
    let said = system.for_real(
        "install >/dev/null
         getent passwd graygate; id -gn graygate
         install >/dev/null; getent passwd graygate
         NAME=shop /etc/init.d/graygate new >/dev/null; touch /run/graygate-shop.lock
         install --uninstall >/dev/null; getent passwd graygate
         install --uninstall --purge
         ! getent passwd graygate; ! getent group graygate
         find /etc /usr/local /var/log /var/lib /run -name '*graygate*'
         echo nothing else",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].ends_with(":Graygate gateway:/nonexistent:/usr/sbin/nologin"),
        "{said}"
    );
    assert_eq!(lines[1], "graygate", "{said}");
    assert_eq!(lines[2], lines[0], "{said}");
    assert_eq!(lines[3], lines[0], "{said}");
    assert!(said.contains("removed the user graygate"), "{said}");
    assert!(
        said.ends_with("removed the user graygate\nnothing else\n"),
        "{said}"
    );
}

#[test]
fn a_user_graygate_of_somebody_else_is_taken_and_left() {
    if !is_root() {
        return;
    }
    let system = System::new();
    let said = system.for_real(
        "useradd --system --no-create-home --comment mine graygate; id -u graygate
         install >/dev/null; id -u graygate
         install --uninstall --purge; id -u graygate",
    );
    let uid = said.lines().next().unwrap();
    assert_eq!(said.lines().filter(|it| *it == uid).count(), 3, "{said}");
    assert!(said.contains("left: the user graygate"), "{said}");
}

#[test]
fn an_image_makes_no_user_on_this_machine() {
    if !is_root() {
        return;
    }
    let system = System::new();
    let said = system.for_real(
        "DESTDIR=$DIR/image install >/dev/null
         ! getent passwd graygate; ls \"$DIR/image/etc/graygate\"
         DESTDIR=$DIR/image install --uninstall --purge >/dev/null; ls \"$DIR/image/etc\"",
    );
    assert!(said.starts_with("graygate.ini\n"), "{said}");
}

#[test]
fn a_new_installation_runs_as_a_user_of_its_own_whose_logs_copy_and_socket_are_its_groups() {
    if !is_root() {
        return;
    }
    let system = System::new();
    let said = system.for_real(
        "install >/dev/null
         /etc/init.d/graygate start >/dev/null 2>&1 || [ -e /run/graygate/admin.sock ]
         stat -c '%n %a %U:%G' /var/log/graygate /var/log/graygate/*.log /var/lib/graygate \\
             /run/graygate /run/graygate/admin.sock
         /etc/init.d/graygate stop >/dev/null",
    );
    let expected = [
        "/var/log/graygate 750 graygate:graygate",
        "/var/log/graygate/access.log 640 graygate:graygate",
        "/var/log/graygate/error.log 640 graygate:graygate",
        "/var/lib/graygate 755 graygate:graygate",
        "/run/graygate 755 graygate:graygate",
        "/run/graygate/admin.sock 660 root:graygate",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{said}");
}

#[test]
fn an_earlier_installation_goes_on_as_nobody() {
    let system = System::new();
    system.install(&[]);
    let text = fs::read_to_string(system.at(INI)).unwrap();
    let earlier = text.replace("user = graygate\n", "user = nobody\n");
    assert_ne!(earlier, text);
    system.as_if_installed(INI, &earlier);
    for _ in 0..2 {
        let said = system.install(&[]);
        assert!(said.contains("it runs as nobody, as before"), "{said}");
        assert_eq!(fs::read_to_string(system.at(INI)).unwrap(), earlier);
    }
}
