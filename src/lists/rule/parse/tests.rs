use proptest::collection::vec;
use proptest::prelude::*;

use crate::lists::{GrayEntry, GrayList, gray_entry};

/// The canonical form, or what is wrong.
fn read(text: &str) -> String {
    match gray_entry(text) {
        Ok(entry) => entry.to_string(),
        Err(what) => format!("! {what}"),
    }
}

/// Entries in other forms than the canonical one, which is the first of each row.
const SAME: &[&[&str]] = &[
    &["*", "* *", " * ", "path:*", "method:*", "* path:\"*\""],
    &[
        "10.0.0.0/8",
        "* 10.0.0.0/8",
        "10.1.2.3/8 note=\"\"",
        "\t10.0.0.0/8 ",
    ],
    &[
        "!10.0.0.1",
        "!10.0.0.1/32",
        "!::ffff:10.0.0.1",
        "!* 10.0.0.1",
    ],
    &["!2001:db8::/32", "!2001:0DB8::1/32"],
    &["!*", "!* path:*"],
    &[
        "header:x-user=alice",
        "header:X-User=alice",
        "header:x-USER=\"alice\"",
        "header:X-User header:X-User=alice",
        "header:X-User=alice *",
    ],
    &[
        "header:x-user",
        "header:X-User",
        "header:X-User=*",
        "header:X-User=\"**\"",
        "header:X-User~*",
    ],
    &[
        "header:x-user=\"\"",
        "header:X-User=\"\"",
        "header:X-User~\"\"",
    ],
    &[
        "header:x-user~alice",
        "header:X-User~Alice",
        "header:X-User~\"ALICE\"",
    ],
    &["header:x-user=123", "header:X-User~123"],
    &["header:x-user=\"1.20\"", "header:X-User~1.20"],
    &[
        "header:x-app-version=2.1",
        "header:X-App-Version=v2.1.0",
        "header:X-App-Version=V2.01",
    ],
    &["header:x-app-version=2.0", "header:X-App-Version=2.0.0.0"],
    &["header:x-app-version=0.0", "header:X-App-Version=v0.0"],
    &["header:x-app-version=2", "header:X-App-Version=\"2\""],
    &["header:x-app-version=v2", "header:X-App-Version=v2"],
    &[
        "header:x-app-version>=2.10.3",
        "header:X-App-Version>=v2.10.3.0",
        "header:X-App-Version>=\"2.10.3\"",
    ],
    &["header:x-app-version>=2", "header:X-App-Version>=2.0"],
    &["header:x-app-version<0", "header:X-App-Version<0.0"],
    &["header:x-app-version<=5.12.0.331"],
    &[
        "header:x-app-version<6 header:x-app-version>5",
        "header:x-app-version>5 header:x-app-version<6",
    ],
    &[
        "header:user-agent=*Firefox/1*",
        "header:User-Agent=\"*Firefox/1*\"",
    ],
    &["header:user-agent~*firefox*", "header:User-Agent~*Firefox*"],
    &["header:user-agent=*7*", "header:User-Agent~*7*"],
    &["header:x=\"*a b\"", "header:X=\"*a b\""],
    &[r#"header:x="\*a""#, r"header:x=\*a"],
    &[r#"header:x="\*\*""#, r"header:x=\*\*"],
    &[r#"header:x="*\**""#, r"header:x=*\**"],
    &[r#"header:x="a\\b\"c""#],
    &[r##"header:x="#fff""##, "header:X=#fff"],
    &["header:x=\"=1\""],
    &["header:x=*=1", "header:x=\"*=1\""],
    &["header:x=a=~<>b"],
    &["cookie:Uid=42", "cookie:Uid=\"42\""],
    &["cookie:uid"],
    &["cookie:a[b]=c"],
    &["cookie:x=2.*"],
    &[
        "query:a+b=\"c d\"",
        "query:a%20b=\"c d\"",
        "query:a+b=\"c d\"",
    ],
    &["query:a%3Ab", "query:a%3ab"],
    &["query:a%21=1", "query:%61%21=\"1\""],
    &["query:a%21", "query:a!"],
    &["header:x-a!"],
    &["query:a%2Bb%25", "query:a%2bb%"],
    &["query:%FF=1", "query:%ff=\"1\""],
    &["path:/v2/*", "path:\"/v2/*\""],
    &["path:*.js"],
    &["path:/exact"],
    &["path:/"],
    &["path:/*"],
    &["method:GET"],
    &["method:P*"],
    &[
        "host:shop.example.com",
        "host:Shop.Example.com.",
        "host:\"shop.example.com\"",
    ],
    &["host:*.example.com", "host:*.Example.COM"],
    &["host:*"],
    &["host:10.0.0.1"],
    &["host:[2001:db8::1]", "host:[2001:0DB8::1]"],
    &[
        "percent:5",
        "percent:5.00",
        "percent:5.0",
        "percent:10 percent:5",
    ],
    &["percent:0"],
    &["percent:0.01", "percent:0.0100"],
    &["percent:99.9", "percent:99.90"],
    &["percent:12.34:cookie:Uid"],
    &["percent:5:header:x-user", "percent:5.0:header:X-User"],
    &["percent:5:query:u+id", "percent:5:query:u%20id"],
    &["percent:5:visitor"],
    &["percent:100:visitor"],
    &[
        "percent:5 percent:10:visitor",
        "percent:10:visitor percent:5",
    ],
    &[
        "10.0.0.0/8 header:x=1 cookie:a=b path:/v2/* percent:5 until=2026-12-01T18:00Z note=\"a b\"",
        "note=\"a b\" percent:5 path:/v2/* cookie:a=b until=2026-12-01T18:00:00Z header:X=1 10.9.9.9/8",
    ],
    &[
        "* until=2026-12-01T18:00Z",
        "* until=2026-12-01T18:00:00+00:00",
        "* until=2026-12-02T02:00+08:00",
        "* until=2026-12-01t12:30:00-05:30",
        "* until=\"2026-12-01T18:00z\"",
    ],
    &["* until=2028-02-29T23:59:59Z"],
    &["* until=1970-01-01T00:00Z"],
    &["* until=9999-12-31T23:59:59Z"],
    &[
        "10.0.0.1 note=\"office\"",
        "10.0.0.1 note=office",
        "note=office 10.0.0.1",
    ],
    &[
        r#"10.0.0.1 note="* \"a\" \\ # é""#,
        r#"10.0.0.1 note="\* \"a\" \\ # é""#,
    ],
];

#[test]
fn what_means_the_same_has_one_canonical_form() {
    for same in SAME {
        for text in *same {
            assert_eq!(read(text), same[0], "{text}");
        }
    }
    // What differs stays apart.
    let all: Vec<String> = SAME.iter().map(|it| read(it[0])).collect();
    let mut apart = all.clone();
    apart.sort();
    apart.dedup();
    assert_eq!(apart.len(), all.len());
}

#[test]
fn what_cannot_be_read_is_told_in_words_that_say_what_is_right() {
    let many = "header:a ".repeat(17);
    let long = format!("header:a={}", "b".repeat(1024));
    // Its canonical form is longer than it is.
    let longer = format!("query:{}=1", "é".repeat(300));
    for (text, part) in [
        ("", "neither"),
        (
            "garbage",
            "neither an IP address, a net like 10.0.0.0/8, nor a term like",
        ),
        ("10.0.0.256", "neither"),
        ("header:X 10.0.0.256", "neither"),
        ("user:alice", "neither"),
        ("!", "!* excludes everybody"),
        ("! 10.0.0.1", "directly before the first term"),
        ("!note=a 10.0.0.1", "directly before the first term"),
        ("!!*", "stands once, at its beginning"),
        ("header:X !cookie:a", "stands once, at its beginning"),
        ("10.0.0.1 10.0.0.2", "each has an entry of its own"),
        ("10.0.0.1\n10.0.0.2", "each entry is pushed by itself"),
        ("header:X=\u{1b}[1m", "a control character"),
        ("header:X=\"a\tb\"", "a control character"),
        ("Header:X-User=alice", "in lower case"),
        ("HOST:a.example", "in lower case"),
        ("header=X", "a `:` is behind the kind"),
        ("percent=5", "a `:` is behind the kind"),
        ("cookie", "a `:` is behind the kind"),
        ("ip:10.0.0.1", "stands alone"),
        ("header:", "a name is missing"),
        ("header:=a", "a name is missing"),
        ("header:X-User: alice", "behind `=` and no blank"),
        ("header:X-User:alice", "behind `=` and no blank"),
        ("cookie:uid:42", "cookie:uid=42"),
        ("query:a:b", "%3A"),
        ("header:X-A!=2", "there is no `!=`"),
        ("cookie:a!~b", "there is no `!=`"),
        ("query:a!>=2", "there is no `!=`"),
        ("header:X-User=", "a value is missing; an empty one"),
        ("header:X User=a", "neither"),
        ("header:\"X\"=a", "a header field's name"),
        ("header:\u{e9}=a", "a header field's name"),
        ("header:X-*=a", "not for names"),
        (
            "cookie:a==b",
            "a value that begins with such a sign is in quotes",
        ),
        (
            "header:X=>2",
            "a value that begins with such a sign is in quotes",
        ),
        (
            "header:X>>2",
            "a value that begins with such a sign is in quotes",
        ),
        ("header:X>=2.1-rc1", "compare versions like 2.10.3"),
        ("header:X>=*", "compare versions"),
        ("header:X<", "a value is missing"),
        ("cookie:a=b;c", "no cookie has a `;`"),
        ("cookie:a=\"*b;c*\"", "no cookie has a `;`"),
        ("cookie:a,b=c", "no cookie has such a name"),
        ("query:a&b=1", "%XX"),
        ("header:X=a*b", "at either end of a value only"),
        ("path:/api/*/users", "at either end of a value only"),
        ("header:X=a**", "at either end of a value only"),
        ("header:X=a\"b", "a quote is not closed"),
        ("header:X=a\"b\"", "is in quotes"),
        ("header:X=\"a", "a quote is not closed"),
        ("header:X=\"a\"b", "is a blank missing"),
        (r"header:X=a\b", r"`\` stands only before"),
        ("header:X=a\\", r"`\` stands only before"),
        ("path:v2", "begins with `/` or `*`"),
        ("path:", "a value is missing"),
        ("path:/a?b=c", "query:NAME=VALUE"),
        ("path:\"/a b\"", "as it is sent"),
        ("method:G/T", "a method like GET"),
        ("method:\"\"", "a method like GET"),
        ("host:example.com:80", "without a port"),
        ("host:http://a", "without a port"),
        ("host:10.0.0.256", "a name like"),
        ("host:a..b", "a name like"),
        ("host:2001:db8::1", "in brackets"),
        ("host:[::1", "a name like"),
        ("host:\"\"", "a name like"),
        ("percent:", "from 0 to 100"),
        ("percent:5%", "without %"),
        ("percent:101", "from 0 to 100"),
        ("percent:100.01", "from 0 to 100"),
        ("percent:0.001", "at most two decimals"),
        ("percent:-1", "from 0 to 100"),
        ("percent:.5", "from 0 to 100"),
        ("percent:5.", "from 0 to 100"),
        ("percent:05", "from 0 to 100"),
        ("percent:1e1", "from 0 to 100"),
        ("percent:5:", "a share is by"),
        ("percent:5:ip", "a share is by"),
        ("percent:5:visitor:a", "a share is by"),
        ("percent:5:cookie", "needs its name"),
        ("percent:5:cookie:", "needs its name"),
        ("percent:5:cookie:uid=4", "a name without a value"),
        ("percent:5:cookie:a:b", "behind `=`"),
        ("* until=+2h", "cannot know when it was pushed"),
        ("* until=2h", "cannot know when it was pushed"),
        ("* until=2026-12-01", "a date without a time"),
        ("* until=2026-12-01 18:00Z", "a date without a time"),
        ("* until=2026-12-01T18:00", "without Z or an offset"),
        ("* until=2026-12-01T18:00:00.5Z", "in whole seconds"),
        ("* until=2026-02-29T18:00Z", "until is a moment like"),
        ("* until=2026-12-01T24:00Z", "until is a moment like"),
        ("* until=2026-12-01T18:00:60Z", "until is a moment like"),
        ("* until=2026-12-01T18:00+8", "until is a moment like"),
        ("* until=1970-01-01T00:00+01:00", "until is a moment like"),
        ("* until=9999-12-31T23:59-01:00", "until is a moment like"),
        ("* until=tomorrow", "until is a moment like"),
        ("* until=", "a value is missing"),
        (
            "* until=2026-12-01T18:00Z until=2026-12-01T18:00Z",
            "until stands twice",
        ),
        ("* note=a note=b", "note stands twice"),
        ("* Until=2026-12-01T18:00Z", "in lower case"),
        ("until=2026-12-01T18:00Z", "* is everybody"),
        ("note=\"a\"", "* is everybody"),
        ("10.0.0.1 weight=3", "a weight is for servers"),
        (&many, "more than 16 terms"),
        (&long, "1024 bytes"),
        (&longer, "1024 bytes"),
    ] {
        let said = read(text);
        assert!(
            said.starts_with("! ") && said.contains(part),
            "{text}: {said}"
        );
    }
}

/// Pieces of entries, among them what has a meaning of its own.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("header:"),
        Just("cookie:"),
        Just("query:"),
        Just("path:"),
        Just("method:"),
        Just("host:"),
        Just("percent:"),
        Just(":visitor"),
        Just("until="),
        Just("note="),
        Just("!"),
        Just("*"),
        Just("\""),
        Just("\\"),
        Just(" "),
        Just("="),
        Just("~"),
        Just("<"),
        Just(">"),
        Just(":"),
        Just("/"),
        Just("%"),
        Just("+"),
        Just("#"),
        Just("1.2"),
        Just("v2"),
        Just("A"),
        Just("b"),
        Just("."),
        Just("10.0.0.1/8"),
        Just("2026-12-01T18:00Z"),
        Just("5"),
        Just("0"),
        Just("é"),
        Just("%C3"),
        Just("\t"),
        Just("[::1]"),
        Just("::1"),
        Just(";"),
    ];
    vec(piece, 0..12).prop_map(|it| it.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn the_canonical_form_of_any_entry_is_read_as_the_same(text in prop_oneof![4 => pieces(), 1 => any::<String>()]) {
        let Ok(entry) = gray_entry(&text) else { return Ok(()) };
        let shown = entry.to_string();
        prop_assert!(shown.len() <= 1024);
        prop_assert_eq!(&gray_entry(&shown), &Ok(entry.clone()), "{} {}", text, shown);
        let list = GrayList::parse([&text]);
        prop_assert_eq!(list.entries().collect::<Vec<_>>(), [shown.clone()]);
        prop_assert_eq!(list.rules().len(), usize::from(matches!(entry, GrayEntry::Rule(_))));
        prop_assert_eq!(list.digest(), GrayList::parse([shown]).digest());
    }
}
