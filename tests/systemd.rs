//! Under systemd: the units are ones, and what systemd makes of the init script says what is.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::Setup;

const GENERATORS: [&str; 2] = [
    "/lib/systemd/system-generators/systemd-sysv-generator",
    "/usr/lib/systemd/system-generators/systemd-sysv-generator",
];

fn etc(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(name)).unwrap()
}

/// The lines of a unit that say something.
fn settings(unit: &str) -> Vec<&str> {
    let lines = unit.lines().map(str::trim);
    lines
        .filter(|it| !it.is_empty() && !it.starts_with('#'))
        .collect()
}

#[test]
fn the_units_are_what_systemd_understands() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("not run: there is no systemd-analyze");
        return;
    }
    let folder = Setup::new();
    for (file, name) in [
        ("graygate.service", "graygate.service"),
        ("graygate@.service", "graygate@shop.service"),
    ] {
        // The program and its page are where this test has them.
        let unit = etc(file).replace("/usr/local/sbin/graygate", env!("CARGO_BIN_EXE_graygate"));
        let unit = unit.replace("Documentation=", "# ");
        let path = folder.path(name);
        fs::write(&path, unit).unwrap();
        let verified = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        // Those of the machine may be wrong.
        let ours: Vec<&str> = said.lines().filter(|it| it.contains("graygate")).collect();
        assert!(ours.is_empty(), "{said}");
        assert!(verified.status.success(), "{said}");
    }
}

#[test]
fn the_unit_of_an_instance_differs_from_the_first_one_by_its_name_alone() {
    let (first, instance) = (etc("graygate.service"), etc("graygate@.service"));
    let mut expected = Vec::new();
    for line in settings(&first) {
        let line = line.replace("/graygate.ini", "/%i.ini");
        match line.split_once('=') {
            Some(("EnvironmentFile", _)) => {
                expected.push(line.clone());
                expected.push(format!("{line}-%i"));
            }
            Some(("Description", _)) => expected.push(format!("{line} (%i)")),
            _ => expected.push(line),
        }
    }
    assert_eq!(settings(&instance), expected);
}

#[test]
fn the_unit_that_systemd_makes_of_the_init_script_ends_with_the_gateway() {
    let generator = GENERATORS.iter().find(|it| Path::new(it).exists());
    let Some(generator) = generator else {
        eprintln!("not run: there is no generator");
        return;
    };
    let folder = Setup::new();
    for name in ["init.d", "rc", "out"] {
        fs::create_dir(folder.path(name)).unwrap();
    }
    let script = folder.path("init.d/graygate");
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/graygate.init"),
        &script,
    )
    .unwrap();
    let out: PathBuf = folder.path("out");
    let made = Command::new(generator)
        .args([&out, &out, &out])
        .env("SYSTEMD_SYSVINIT_PATH", folder.path("init.d"))
        .env("SYSTEMD_SYSVRCND_PATH", folder.path("rc"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let unit = fs::read_to_string(out.join("graygate.service")).unwrap();
    let script = script.display();
    for line in [
        // With these two, systemd knows the process, and the unit is not active without it.
        "PIDFile=/run/graygate.pid",
        "RemainAfterExit=no",
        // What is under way ends by itself, and a gateway may go on for the next one.
        "KillMode=process",
        &format!("ExecStart={script} start"),
        &format!("ExecStop={script} stop"),
        &format!("ExecReload={script} reload"),
    ] {
        assert!(settings(&unit).contains(&line), "{line} in {unit}");
    }
}
