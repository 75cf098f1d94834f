//! Requests and entries by chance that have something to do with each other.

use proptest::sample::select;

use super::*;

/// A request as its parts, from which its text is made.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) client: IpAddr,
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) host: &'static str,
    pub(super) fields: Vec<(String, String)>,
}

impl Request {
    pub(super) fn text(&self) -> String {
        let Self {
            method,
            target,
            host,
            ..
        } = self;
        let fields = self.fields.iter();
        let fields: String = fields
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
    }
}

/// What a tester or a proxy may say.
const SAID: [&str; 8] = [
    "pre",
    "prod",
    "PRE",
    "",
    "pre, prod",
    "pre:correct-horse-battery",
    "prod:correct-horse-battery",
    "pre:correct-horse-batterz",
];

/// Cookies that mean something to the gateway itself, or nearly.
const OWN_COOKIES: [&str; 9] = [
    "v=0123456789abcdef",
    "v=00000000000000a1",
    "v=0123456789ABCDEF",
    "v=x",
    "V=0123456789abcdef",
    "force=pre",
    "force=prod:correct-horse-battery",
    "force=",
    "Force=pre",
];

/// Few, so that entries and requests have something to do with each other.
fn names() -> impl Strategy<Value = String> {
    select(&["a", "uid", "X-Ver", "x-ver", "UID", "a.b", "q"][..]).prop_map(str::to_owned)
}

fn values() -> impl Strategy<Value = String> {
    let plain = select(
        &[
            "",
            "1",
            "alice",
            "Alice",
            "v2.1",
            "2.1.0",
            "2.10",
            "2",
            "a b",
            "x%20y",
            "a=b",
            "2.",
            "bob*",
            "caf\u{e9}",
        ][..],
    );
    prop_oneof![9 => plain.prop_map(str::to_owned), 1 => "[ -~]{0,12}".prop_map(|it| it.trim().to_owned())]
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    let v4 = (0_u8..3, 0_u8..3).prop_map(|(a, b)| IpAddr::from([10, 0, a, b]));
    let v6 =
        (0_u16..2, 0_u16..3).prop_map(|(a, b)| IpAddr::from([0x2001, 0xdb8, 0, a, 0, 0, 0, b]));
    prop_oneof![v4, v6]
}

pub(super) fn requests() -> impl Strategy<Value = Request> {
    let piece = prop_oneof![
        4 => (names(), values()).prop_map(|(name, value)| format!("{name}={value}")),
        1 => values(),
        1 => (names(), values()).prop_map(|(name, value)| format!(" {name} = {value}\t")),
        1 => select(&OWN_COOKIES[..]).prop_map(str::to_owned),
    ];
    let cookies =
        vec(piece, 0..6).prop_map(|it| ("Cookie".to_owned(), it.join(";").trim().to_owned()));
    let said = (
        select(&["X-Force", "x-force", "X-Graygate-Pool"][..]),
        select(&SAID[..]),
    );
    let said = said.prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    let field = prop_oneof![3 => cookies, 6 => (names(), values()), 1 => said];
    let code = |text: String| {
        text.replace(' ', "+")
            .replace('"', "%22")
            .replace('#', "%2")
            .replace('\u{e9}', "%C3%A9")
    };
    let parameter = prop_oneof![
        4 => (names(), values()).prop_map(|(name, value)| format!("{name}={value}")),
        1 => names().prop_map(|name| format!("%{:02X}{}", name.as_bytes()[0], &name[1..])),
        1 => values(),
    ];
    let query = vec(parameter, 0..5).prop_map(move |it| code(it.join("&")));
    let path = select(
        &[
            "/",
            "/v2/",
            "/v2/x",
            "/v20",
            "http://h.example/v2/x",
            "http://h.example",
        ][..],
    );
    let target = (path, proptest::option::of(query));
    let target = target.prop_map(|(path, query)| match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    });
    let host = select(
        &[
            "shop.example.com",
            "SHOP.example.com:80",
            "x",
            "shop.example.com.",
            "[::1]:8",
        ][..],
    );
    let method = select(&["GET", "POST", "get"][..]);
    (addresses(), method, target, host, vec(field, 0..6)).prop_map(
        |(client, method, target, host, fields)| Request {
            client,
            method,
            target,
            host,
            fields,
        },
    )
}

fn named_parts() -> impl Strategy<Value = Part> {
    prop_oneof![
        names().prop_map(|it| Part::Header(it.to_ascii_lowercase().into())),
        names().prop_map(|it| cookie(&it)),
        names().prop_map(|it| query(&it)),
    ]
}

fn parts() -> impl Strategy<Value = Part> {
    prop_oneof![
        9 => named_parts(),
        1 => Just(Part::Path),
        1 => Just(Part::Method),
        1 => Just(Part::Host),
    ]
}

fn tests() -> impl Strategy<Value = Test> {
    use Comparison::{AtLeast, AtMost, Equal, Greater, Less};
    let others = select(&["/v2/", "/", "GET", "shop.example.com", ".example.com", "li"][..]);
    let texts = prop_oneof![values(), others.prop_map(str::to_owned)];
    let like = (any::<bool>(), texts.clone(), any::<bool>(), any::<bool>());
    let like = like.prop_map(|(open_start, value, open_end, any_case)| Test::Like {
        open_start,
        text: text(&value),
        open_end,
        any_case,
    });
    let numbers = select(std::vec![
        vec![],
        vec![2],
        vec![2, 1],
        vec![2, 10],
        vec![2, 1, 1]
    ]);
    let comparison = select(&[Less, AtMost, Equal, AtLeast, Greater][..]);
    let version = (comparison, numbers).prop_map(|(comparison, numbers)| {
        let numbers: Box<[u64]> = numbers.into();
        let text: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let text = text.join(".").into();
        Test::Version(comparison, AppVersion { text, numbers })
    });
    prop_oneof![
        1 => Just(Test::Present),
        4 => texts.clone().prop_map(|it| Test::Is(text(&it))),
        1 => texts.prop_map(|it| Test::IsInAnyCase(text(&it))),
        2 => like,
        2 => version,
    ]
}

pub(super) fn nets() -> impl Strategy<Value = IpNet> {
    (addresses(), 0_u8..=32).prop_map(|(address, shorter)| {
        let longest = IpNet::from(address).max_prefix_len();
        let length = longest - shorter.min(longest);
        IpNet::new(address, length).unwrap().trunc()
    })
}

fn terms() -> impl Strategy<Value = Term> {
    let keys = prop_oneof![
        Just(ShareKey::Client),
        Just(ShareKey::Visitor),
        // Without a filter, which has a limit that a million cases would come to.
        named_parts().prop_map(ShareKey::Part),
    ];
    let limits = prop_oneof![Just(0), Just(10_000), 0_u16..=10_000];
    prop_oneof![
        1 => Just(Term::Everybody),
        2 => nets().prop_map(Term::Net),
        8 => (parts(), tests()).prop_map(|(part, test)| Term::Part(part, test)),
        2 => (limits, keys).prop_map(|(limit, by)| Term::Share { limit, by }),
    ]
}

pub(in crate::lists) fn rules() -> impl Strategy<Value = Rule> {
    let until = proptest::option::weighted(0.2, select(&[NOW - 1, NOW, NOW + 1][..]));
    (any::<bool>(), vec(terms(), 1..4), until).prop_map(|(excludes, terms, until)| Rule {
        excludes,
        terms: terms.into(),
        until: until.map(at),
        note: None,
    })
}
