use std::time::{Duration, SystemTime};

use super::*;

/// What is said of a list at noon of 2026-12-01, one line each.
fn told(entries: &[&str]) -> Vec<String> {
    let list = GrayList::parse(entries);
    assert_eq!(list.skipped().count, 0, "{:?}", list.skipped());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_126_400);
    let notes = [list.remarks().notes.clone(), among(&list, now)];
    let named = notes.iter().flat_map(|it| &it.named);
    named
        .map(|it| {
            format!(
                "{} {}: {} ({})",
                it.kind.name(),
                it.entry,
                it.text,
                it.count
            )
        })
        .collect()
}

#[test]
fn likely_mistakes_are_told() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &[
                "header:X=a",
                "cookie:a=b",
                "10.0.0.1",
                "!10.0.0.2",
                "percent:5",
                "path:/v2/*",
            ],
            &[],
        ),
        (&["*"], &[]),
        (&["!*"], &[]),
        // Who is excluded from a large share is what an exclusion is for.
        (&["!header:X", "percent:5", "!10.0.0.1", "10.0.0.0/8"], &[]),
        (&["* until=2026-12-01T12:01Z", "10.0.0.1"], &[]),
        (
            &["!*", "10.0.0.1", "header:X"],
            &["unreachable !*: excludes everybody: the 2 other entries make no difference (1)"],
        ),
        (
            &["*", "10.0.0.1", "header:X", "!header:Y"],
            &[
                "unreachable *: admits everybody: the 2 other entries that admit somebody make no difference (1)",
            ],
        ),
        (
            &["percent:100", "header:X"],
            &[
                "unreachable percent:100: admits everybody: the 1 other entries that admit somebody make no difference (1)",
            ],
        ),
        (
            &["percent:0:cookie:uid"],
            &["unreachable percent:0:cookie:uid: is nobody: a share of 0 (1)"],
        ),
        (
            &["header:X=a", "!header:X=a"],
            &["unreachable header:x=a: is excluded by !header:x=a (1)"],
        ),
        (
            &["10.0.0.1", "!10.0.0.0/24", "11.0.0.1"],
            &["unreachable 10.0.0.1: is excluded by !10.0.0.0/24 (1)"],
        ),
        (
            &["10.0.0.0/8", "10.0.0.1 header:X"],
            &["unreachable 10.0.0.1 header:x: is gray anyway, by the entry 10.0.0.0/8 (1)"],
        ),
        (
            &["header:X", "header:X=a cookie:b"],
            &["unreachable header:x=a cookie:b: makes no difference beside header:x (1)"],
        ),
        (
            &["header:X note=a", "header:X note=b"],
            &[
                "unreachable header:x note=\"b\": makes no difference beside header:x note=\"a\" (1)",
            ],
        ),
        (
            &[
                "header:X until=2026-12-02T00:00Z",
                "header:X until=2026-12-03T00:00Z",
            ],
            &[
                "unreachable header:x until=2026-12-02T00:00Z: makes no difference beside header:x until=2026-12-03T00:00Z (1)",
            ],
        ),
        (
            &["method:GET method:POST"],
            &[
                "unreachable method:GET method:POST: no request has two values at once in method: (1)",
            ],
        ),
        (
            &[
                "percent:5",
                "percent:10",
                "percent:0.5",
                "percent:10:visitor",
            ],
            &[
                "shares-differ percent:10: is beside the shares 0.5, 5 by the same key; only the largest counts (2)",
            ],
        ),
        (
            &[
                "header:X percent:5",
                "percent:10:cookie:a",
                "cookie:b percent:10:cookie:a",
                "header:X percent:6",
            ],
            &[
                "unreachable cookie:b percent:10:cookie:a: makes no difference beside percent:10:cookie:a (1)",
                "shares-differ header:x percent:6: is beside the shares 5 by the same key; only the largest counts (1)",
            ],
        ),
        (
            &[
                "header:X until=2026-12-01T12:00Z",
                "!* until=2020-01-01T00:00Z",
            ],
            &[
                "expired header:x until=2026-12-01T12:00Z: has expired, and can be removed (1)",
                "expired !* until=2020-01-01T00:00Z: has expired, and can be removed (1)",
            ],
        ),
        (
            &["cookie:a=\"b c\""],
            &[
                "never-sent cookie:a=\"b c\": has a sign that few clients send in a cookie (RFC 6265 section 4.1.1): it is compared as it was sent, mostly with %20, %22, %2C and the like (1)",
            ],
        ),
        (&[r#"cookie:a="\"b\"""#], &[]),
        (
            &["header:X=\" a\"", "header:X=\"*b \""],
            &[
                "never-sent header:x=\" a\": has a blank at its end, which no value has when it is compared (1)",
                "never-sent header:x=\"*b \": has a blank at its end, which no value has when it is compared (1)",
            ],
        ),
        (
            &["header:X=\" a*\"", "header:X=\"* a\""],
            &[
                "never-sent header:x=\" a*\": has a blank at its end, which no value has when it is compared (1)",
            ],
        ),
        (
            &["query:a=b%20c"],
            &["never-sent query:a=b%20c: has a %XX, but is compared with the decoded value (1)"],
        ),
        (
            &["method:get"],
            &["never-sent method:get: methods are in capitals; is GET meant? (1)"],
        ),
        (
            &["header:Host=a", "percent:5:header:Cookie"],
            &[
                "other-term header:host=a: is host:NAME meant? It is without the port, and its case does not matter (1)",
                "other-term percent:5:header:cookie: is cookie:NAME=VALUE meant? A header field has all cookies in one value (1)",
            ],
        ),
        (
            &["!10.0.0.1/8 header:X"],
            &["host-bits !10.0.0.1/8 header:X: has host bits; taken as 10.0.0.0/8 (1)"],
        ),
    ];
    for (entries, expected) in table {
        assert_eq!(told(entries), *expected, "{entries:?}");
    }
}
