//! What is written, what of it is read again, and when.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use super::disk::{InTheWay, beside, write_copy};
use super::*;
use crate::lists::ByList;

pub(super) fn lists() -> Lists {
    let entries = ByList {
        gray: vec![
            "10.0.0.1",
            "10.1.0.0/16",
            "2001:db8::/32",
            "::1",
            r##"header:X-Colour="#fff" note="a # and a \"""##,
            "!percent:5:cookie:uid until=2026-12-01T18:00Z",
        ],
        pre: vec!["[::1]:81", "10.0.0.2"],
        prod: vec!["10.0.0.3"],
    };
    Lists::parse(7, entries, 8080)
}

fn text() -> Vec<u8> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let address = |text: &str| text.parse().unwrap();
    let names = [
        ("app.".into(), vec![address("10.0.0.3"), address("::1")]),
        ("app1.internal".into(), vec![address("10.0.0.4")]),
    ];
    render(&KeptLists::from(Arc::new(lists())), &names, &store(), time)
}

fn store() -> StoreName {
    StoreName::of_file(Path::new("/etc/graygate/lists"))
}

#[test]
fn what_is_written_is_read_as_it_was_and_is_a_lists_file() {
    let text = text();
    let copy = parse(&text, 8080).unwrap();
    assert_eq!(copy.lists.digest, lists().digest);
    assert_eq!(copy.lists.gray.rules(), lists().gray.rules());
    assert_eq!(copy.lists.generation, 7);
    assert_eq!(copy.store, Some(store()));
    let mut names = copy
        .names
        .iter()
        .map(|it| format!("{it:?}"))
        .collect::<Vec<_>>();
    names.sort();
    let expected = [
        r#"("app.", [10.0.0.3, ::1])"#,
        r#"("app1.internal", [10.0.0.4])"#,
    ];
    assert_eq!(names, expected);
    let ports = |port| {
        let lists = parse(&text, port).unwrap().lists;
        let shown = lists.pre.peers().iter().map(ToString::to_string);
        (lists.digest, shown.collect::<Vec<_>>())
    };
    let (digest, peers) = ports(9000);
    assert_eq!(digest, lists().digest, "lists are what was written");
    assert_eq!(peers, ["10.0.0.2:9000", "[::1]:81"]);
    let time = humantime::format_rfc3339_millis(copy.written).to_string();
    assert_eq!(time, "2023-11-14T22:13:20.123Z");
    assert_eq!(copy.age(copy.written - Duration::from_secs(1)), None);
    format::parse(&text, 80).unwrap();
}

#[test]
fn a_copy_that_was_cut_or_changed_anywhere_is_refused() {
    let text = text();
    for cut in 0..text.len() {
        assert!(parse(&text[..cut], 80).is_err(), "cut at {cut}");
    }
    for at in 0..text.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut text = text.clone();
            text[at] ^= flip;
            assert!(parse(&text, 80).is_err(), "byte {at} xor {flip:#x}");
        }
    }
    let more = [&text[..], b"10.0.0.9\n"].concat();
    assert!(matches!(parse(&more, 80), Err(CopyError::WrongChecksum)));
}

#[test]
fn a_copy_of_version_1_has_its_ports_and_names_no_store() {
    let rest = "# time 2023-11-14T22:13:20.123Z\n# digest 0\n# generation 7\n\
                [gray]\n[pre]\n[prod]\n10.0.0.1:80\n";
    let text = format!(
        "{BEGIN}1, sha256 {}\n{rest}",
        checksum("1", rest.as_bytes())
    );
    let copy = parse(text.as_bytes(), 8080).unwrap();
    assert_eq!(copy.store, None);
    assert_eq!(copy.lists.prod.peers()[0].to_string(), "10.0.0.1:80");
    let text = text.replace("version 1", "version 2");
    let error = parse(text.as_bytes(), 80).unwrap_err().to_string();
    assert!(error.contains("of which store"), "{error}");
}

#[test]
fn a_copy_of_another_store_is_set_aside_or_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    let other = InTheWay::Other(StoreName::of_file(Path::new("/other")));
    let aside = other.place(&path);
    fs::write(&path, "theirs").unwrap();
    // It cannot be kept: then nothing takes its place.
    fs::create_dir(&aside).unwrap();
    assert!(write_copy(&path, &text(), LONGEST, Some(&other)).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    fs::remove_dir(&aside).unwrap();
    write_copy(&path, &text(), LONGEST, Some(&other)).unwrap();
    assert_eq!(fs::read(&aside).unwrap(), b"theirs");
    assert!(read(&path, 80).unwrap().is_some());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_copy_that_is_taken_is_not_written_until_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    let purpose = || Purpose {
        store: store(),
        ports: 80.into(),
        max_age: None,
        config: "/etc/a.ini".into(),
        succeeds: false,
    };
    let (first, _) = Keeper::start(&path, purpose()).unwrap();
    let (second, _) = Keeper::start(&path, purpose()).unwrap();
    let view = second.view();
    assert!(view.error.unwrap().contains("with /etc/a.ini"));
    second.keep(KeptLists::from(Arc::new(lists())), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(30);
    while second.view().failures == 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(second.view().failures, 1);
    assert!(!path.exists());
    first.end();
    second.end();
    let copy = read(&path, 80).unwrap().unwrap();
    assert_eq!(copy.lists.digest, lists().digest);
    assert_eq!(second.view().error, None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn another_version_is_named_and_so_is_what_is_no_copy() {
    let text = String::from_utf8(text()).unwrap();
    let other = text.replacen("version 2", "version 4", 1);
    let error = parse(other.as_bytes(), 80).unwrap_err().to_string();
    assert!(error.contains("version 4; known are 1, 2 and 3"), "{error}");
    for other in ["", "\n", "[gray]\n[pre]\n[prod]\n"] {
        let error = parse(other.as_bytes(), 80).unwrap_err();
        assert!(matches!(error, CopyError::NoCopy), "{error}");
    }
    let rest = "# time never\n[gray]\n[pre]\n[prod]\n";
    let first = format!("{BEGIN}1, sha256 {}\n", checksum("1", rest.as_bytes()));
    let error = parse((first + rest).as_bytes(), 80)
        .unwrap_err()
        .to_string();
    assert!(error.contains("it has no time"), "{error}");
}

#[test]
fn an_age_is_shown_in_units_that_fit_it() {
    for (seconds, shown) in [
        (0, "0s"),
        (4, "4s"),
        (60, "1m"),
        (61, "1m1s"),
        (3600, "1h"),
        (3601, "1h"),
        (2 * 3600 + 300, "2h5m"),
        (30 * 86400, "30d"),
        (30 * 86400 + 3600, "30d1h"),
        (1_795_656_654, "20783d"),
    ] {
        assert_eq!(shown_age(Duration::from_secs(seconds)), shown);
    }
}

#[test]
fn a_failed_write_leaves_the_old_copy_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    write(&path, b"old").unwrap();
    // A folder in the place of the new one.
    fs::create_dir(beside(&path, ".new")).unwrap();
    assert!(write(&path, b"new").is_err());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    fs::remove_dir(beside(&path, ".new")).unwrap();
    write(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_was_refused_is_kept_aside_once_and_only_when_the_next_one_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    let (new, aside) = (beside(&path, ".new"), beside(&path, ".damaged"));
    fs::write(&path, "garbage").unwrap();
    let write = |is_damaged: bool| {
        let in_the_way = is_damaged.then_some(&InTheWay::Damaged);
        write_copy(&path, &text(), LONGEST, in_the_way)
    };
    fs::create_dir(&new).unwrap();
    assert!(write(true).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"garbage");
    fs::remove_dir(&new).unwrap();
    write(true).unwrap();
    assert!(read(&path, 80).unwrap().is_some());
    assert_eq!(fs::read(&aside).unwrap(), b"garbage");
    write(false).unwrap();
    assert_eq!(fs::read(&aside).unwrap(), b"garbage");
    // Where it cannot be kept, the next copy is written all the same.
    fs::remove_file(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    fs::write(&path, "garbage").unwrap();
    write(true).unwrap();
    assert!(read(&path, 80).unwrap().is_some());
}

#[test]
fn a_copy_may_be_longer_than_a_lists_file_and_one_that_no_start_would_read_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    let text = text();
    let (first, rest) = text.split_at(text.iter().position(|it| *it == b'\n').unwrap() + 1);
    // Longer than a lists file may be, by a comment.
    let comment = format!("# {}\n", "x".repeat(65 * 1024 * 1024));
    let rest = [rest, comment.as_bytes()].concat();
    let begin = String::from_utf8_lossy(first);
    let begin = begin.split_once("sha256 ").unwrap().0;
    let first = format!("{begin}sha256 {}\n", checksum("2", &rest));
    let long = [first.as_bytes(), &rest].concat();
    write_copy(&path, &long, LONGEST, None).unwrap();
    assert!(format::read(&path).is_err());
    let copy = read(&path, 80).unwrap().unwrap();
    assert_eq!(copy.lists.digest, lists().digest);

    write(&path, &text).unwrap();
    let most = text.len() as u64;
    let error = write_copy(&path, &[&text[..], b"\n"].concat(), most, None).unwrap_err();
    assert!(
        error.to_string().contains("it would be longer than"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), text);
    write_copy(&path, &text, most, None).unwrap();
}
