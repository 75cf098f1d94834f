//! `scripts/install`, below a folder as for a package: what it puts there, what it takes away again,
//! and what it leaves.

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

    /// All files and empty folders, as paths below the root.
    fn all(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.root(), &self.root(), &mut found);
        found.sort();
        found
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
    // As if an earlier version had installed another file.
    let earlier = "# of an earlier version\n";
    fs::write(system.at(INI), earlier).unwrap();
    let sum = Command::new("sh")
        .arg("-c")
        .arg(format!("cksum <{}", system.at(INI).display()))
        .output()
        .unwrap();
    let manifest = "/usr/local/share/graygate/manifest";
    let sum = String::from_utf8(sum.stdout).unwrap();
    let text = fs::read_to_string(system.at(manifest)).unwrap();
    let others = text.lines().filter(|line| !line.ends_with(INI));
    let mut lines: Vec<String> = others.map(str::to_owned).collect();
    lines.push(format!("{} {INI}", sum.trim()));
    fs::write(system.at(manifest), lines.join("\n") + "\n").unwrap();

    system.install(&[]);
    assert_ne!(fs::read_to_string(system.at(INI)).unwrap(), earlier);
    system.append(INI, "# mine\n");
    let edited = fs::read_to_string(system.at(INI)).unwrap();
    let said = system.install(&[]);
    assert!(said.contains("stays as it is"), "{said}");
    assert_eq!(fs::read_to_string(system.at(INI)).unwrap(), edited);
    assert!(system.at(&format!("{INI}.new")).exists());
}
