//! README.md and README.zh-CN.md say the same, and what they say to type leads where they say: the commands
//! of each are run in order, as they stand there, against the real program and a real Redis, on a machine of
//! their own (namespaces for its processes, its network and its folders). So are the commands by which
//! docs/operating.md reloads and upgrades what the README has started.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

const ENGLISH: &str = "README.md";
const CHINESE: &str = "README.zh-CN.md";

/// Before a block of commands that is not run, with the reason.
const NOT_RUN: &str = "<!-- not run here: ";

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(here(name)).unwrap()
}

/// What stands between two fences.
#[derive(Debug, PartialEq)]
struct Block {
    language: String,
    /// Without comments, since those are in the language of the page.
    lines: Vec<String>,
    is_run: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut before = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|it| *it != "```");
            let inside = inside.map(|it| match language {
                "sh" | "ini" => it.split("  #").next().unwrap().trim_end().to_owned(),
                _ => it.to_owned(),
            });
            blocks.push(Block {
                language: language.to_owned(),
                lines: inside.collect(),
                is_run: language == "sh" && !before.starts_with(NOT_RUN),
            });
        }
        before = line;
    }
    blocks
}

/// How deep each heading is, and whether it is one of a numbered step.
fn outline(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut outline = Vec::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if !is_code && line.starts_with('#') {
            outline.push(line.split(' ').next().unwrap().to_owned());
        } else if let Some(step) = line.strip_prefix("**") {
            outline.push(step.split_once('.').unwrap().0.to_owned());
        }
    }
    outline
}

fn links(text: &str) -> Vec<&str> {
    let links = text
        .split("](")
        .skip(1)
        .map(|it| it.split_once(')').unwrap().0);
    links.filter(|it| !it.starts_with("README")).collect()
}

#[test]
fn both_have_the_same_commands_headings_and_links() {
    let (english, chinese) = (read(ENGLISH), read(CHINESE));
    assert_eq!(blocks(&english), blocks(&chinese));
    assert!(blocks(&english).iter().filter(|it| it.is_run).count() >= 7);
    assert_eq!(outline(&english), outline(&chinese));
    assert_eq!(links(&english), links(&chinese));
    for (text, other) in [(&english, CHINESE), (&chinese, ENGLISH)] {
        assert!(text.contains(&format!("]({other})")), "no link to {other}");
    }
    let rows = |text: &str| text.lines().filter(|it| it.starts_with('|')).count();
    assert_eq!(rows(&english), rows(&chinese));
}

#[test]
fn no_block_is_left_out_but_the_demo_the_packages_and_the_tests() {
    for name in [ENGLISH, CHINESE] {
        let blocks = blocks(&read(name));
        let left_out = blocks.iter().filter(|it| it.language == "sh" && !it.is_run);
        let first: Vec<&str> = left_out.map(|it| it.lines[0].as_str()).collect();
        let demo = "cargo run --release -- demo";
        let ask = "curl http://127.0.0.1:8080/";
        let package = "sudo apt install ./graygate_0.1.0-1_amd64.deb";
        assert_eq!(first, [demo, ask, package, "scripts/test"], "{name}");
    }
}

/// The machine: folders of its own over the real ones, the network with nothing but a loopback, a Redis, and
/// the two commands that it may lack. Then what it was given, line by line, each after a line `@@ N`.
const MACHINE: &str = r#"
set -eu
mount --make-rprivate /
scratch=$1 program=$2 commands=$3
mount -t tmpfs none "$scratch"
for folder in etc usr var run; do
    mkdir -p "$scratch/$folder/upper" "$scratch/$folder/work"
    mount -t overlay none "/$folder" \
        -o "lowerdir=/$folder,upperdir=$scratch/$folder/upper,workdir=$scratch/$folder/work"
done
# Not the real ones: an earlier installation is not there.
rm -rf /etc/graygate /var/lib/graygate /var/log/graygate /run/graygate* /usr/local/sbin/graygate \
    /etc/init.d/graygate /etc/default/graygate
ip link set lo up
mkdir -p "$scratch/bin" "$scratch/target/release"
cp "$program" "$scratch/target/release/graygate"
# As sudo is set up everywhere, whatever the caller's path is.
cat >"$scratch/bin/sudo" <<'END'
#!/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin exec "$@"
END
# The program is built already, or this would not run.
cat >"$scratch/bin/cargo" <<'END'
#!/bin/sh
[ "$*" = 'build --release --locked' ]
END
chmod 755 "$scratch/bin/sudo" "$scratch/bin/cargo"
redis-server --port 6379 --save '' --dir "$scratch" >/dev/null 2>&1 &
until redis-cli PING >/dev/null 2>&1; do sleep 0.05; done
# As a user has it.
export CARGO_TARGET_DIR="$scratch/target" PATH="$scratch/bin:/usr/local/bin:/usr/bin:/bin"
export http_proxy= no_proxy='*'
. "$commands" 2>&1
"#;

/// The commands that are run, of the page or a part of it.
fn commands_of(text: &str) -> Vec<String> {
    let blocks = blocks(text).into_iter().filter(|it| it.is_run);
    blocks.flat_map(|it| it.lines).collect()
}

/// What each command has said, in order.
#[track_caller]
fn run(name: &str, lines: Vec<String>) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let (scratch, commands) = (
        folder.path().join("scratch"),
        folder.path().join("commands"),
    );
    fs::create_dir(&scratch).unwrap();
    let mut script = String::new();
    for (at, line) in lines.iter().enumerate() {
        // A person is slower.
        script += &format!("sleep 0.1\necho '@@ {at}'\n{line}\n");
        if line.ends_with('&') {
            let port = line.split("127.0.0.1:").nth(1).unwrap();
            let port = port.split(' ').next().unwrap();
            script +=
                &format!("until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.05; done\n");
        }
    }
    script += "echo '@@ end'\n";
    fs::write(&commands, script).unwrap();
    let output = Command::new("timeout")
        .args(["120", "unshare", "--mount", "--net", "--pid", "--fork"])
        .args([
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            MACHINE,
            "bash",
        ])
        .args([
            &scratch,
            Path::new(env!("CARGO_BIN_EXE_graygate")),
            &commands,
        ])
        .current_dir(here(""))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let whole = format!("{name}:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && said.contains("@@ end"),
        "{whole}"
    );
    let parts = said.split("@@ ").skip(1);
    let said = parts.map(|it| it.split_once('\n').unwrap().1.to_owned());
    eprintln!("{whole}");
    lines.into_iter().zip(said).collect()
}

#[track_caller]
fn leads_to_a_client_that_is_routed_by_redis(name: &str) {
    // Nobody else can install anything, nor has folders of his own.
    if !Uid::effective().is_root() {
        eprintln!("not root, so the commands of {name} are not run");
        return;
    }
    let told = run(name, commands_of(&read(name)));
    let of = |command: &str| -> Vec<&str> {
        let all = told.iter().filter(|it| it.0.starts_with(command));
        all.map(|it| it.1.as_str()).collect()
    };
    let [first, gray, last] = of("curl ")[..] else {
        panic!("{told:?}");
    };
    for (said, wanted) in [
        (first, "old at 127.0.0.1:9001"),
        (gray, "new at 127.0.0.1:9002"),
        (last, "old at 127.0.0.1:9001"),
    ] {
        assert_eq!(said.lines().last(), Some(wanted), "{said}");
    }
    let status = of("sudo graygate status")[0];
    assert!(status.contains("health      ok"), "{status}");
    let all: String = told.iter().map(|it| it.1.as_str()).collect();
    assert!(!all.contains("warning"), "{all}");
    let explained = of("sudo graygate explain 127.0.0.1")[0];
    assert!(explained.contains("pre"), "{explained}");
    let start = of("sudo service graygate restart")[0];
    assert!(start.contains("graygate: started"), "{start}");
}

#[test]
fn the_english_one_leads_to_a_client_that_is_routed_by_redis() {
    leads_to_a_client_that_is_routed_by_redis(ENGLISH);
}

#[test]
fn the_chinese_one_leads_to_a_client_that_is_routed_by_redis() {
    leads_to_a_client_that_is_routed_by_redis(CHINESE);
}

#[test]
fn the_page_about_operating_reloads_upgrades_and_rolls_back_what_the_readme_has_started() {
    if !Uid::effective().is_root() {
        eprintln!("not root, so the commands are not run");
        return;
    }
    let (readme, page) = (read(ENGLISH), read("docs/operating.md"));
    let (started, _) = readme.split_once("**6. ").unwrap();
    let (_, rest) = page.split_once("\n## Reload or restart\n").unwrap();
    let (part, _) = rest.split_once("\n## Several gateways").unwrap();
    let own = commands_of(part);
    let mut lines = commands_of(started);
    let begin = lines.len();
    lines.extend(own);
    let told = run("docs/operating.md", lines);
    let upgrades = told[begin..]
        .iter()
        .filter(|it| it.0.starts_with("sudo graygate upgrade"));
    let said: Vec<&str> = upgrades.map(|it| it.1.as_str()).collect();
    assert_eq!(said.len(), 3, "{told:?}");
    for said in said {
        assert!(said.starts_with("upgraded (pid "), "{said}");
    }
    let reload = told
        .iter()
        .find(|it| it.0 == "sudo /etc/init.d/graygate reload");
    let reload = &reload.unwrap().1;
    assert!(reload.starts_with("graygate: reloaded"), "{reload}");
    let status = told
        .iter()
        .rfind(|it| it.0 == "sudo graygate status")
        .unwrap();
    assert!(status.1.contains("upgrades    1 since"), "{}", status.1);
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert!(told.last().unwrap().1.contains(&version), "{told:?}");
}
