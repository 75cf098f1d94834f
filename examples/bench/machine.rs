//! What was measured on, and with which versions; and nothing that names the machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::proxies::with_sbin;

/// Lines of the form `name: what it is`.
pub(crate) fn lines(graygate: &Path, descriptors: u64) -> Vec<(&'static str, String)> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpus, "model name").unwrap_or("unknown");
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: Option<u64> =
        field(&memory, "MemTotal").and_then(|it| it.trim_end_matches(" kB").parse().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system
        .lines()
        .find_map(|it| it.strip_prefix("PRETTY_NAME="));
    let date = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let mut commit = Command::new("git");
    commit.args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=10",
        "--exclude=*",
    ]);
    let lua = ["libnginx-mod-http-lua", "lua-nginx-redis"].map(|package| {
        let version = said(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]));
        format!("{package} {version}")
    });
    vec![
        ("CPU", format!("{model}, {count} of them")),
        (
            "memory",
            format!("{:.0} GiB", kib.unwrap_or(0) as f64 / (1 << 20) as f64),
        ),
        ("kernel", format!("Linux {}", kernel.trim())),
        (
            "system",
            system.unwrap_or("unknown").trim_matches('"').to_owned(),
        ),
        ("descriptors a process", descriptors.to_string()),
        (
            "date",
            date.split('T').next().unwrap_or_default().to_owned(),
        ),
        (
            "Graygate",
            format!(
                "{}, commit {}",
                version(Command::new(graygate).arg("--version")),
                said(&commit)
            ),
        ),
        ("nginx", version(Command::new("nginx").arg("-v"))),
        ("HAProxy", version(Command::new("haproxy").arg("-v"))),
        ("Lua", lua.join(", ")),
        (
            "Redis",
            version(Command::new("redis-server").arg("--version")),
        ),
    ]
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|it| it.split_once(':'));
    let (_, value) = fields.find(|(it, _)| it.trim() == name)?;
    Some(value.trim())
}

/// The first line that a program says.
fn said(command: &Command) -> String {
    let mut own = Command::new(command.get_program());
    own.args(command.get_args());
    let Ok(output) = with_sbin(own).output() else {
        return "not there".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The first word that looks like a version, of `nginx version: nginx/1.22.1` for instance.
fn version(command: &Command) -> String {
    let said = said(command);
    let mut words = said.split([' ', '/', '=', ',']);
    let version =
        words.find(|it| it.starts_with(|it: char| it.is_ascii_digit()) && it.contains('.'));
    version.unwrap_or(&said).to_owned()
}
