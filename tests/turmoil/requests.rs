//! Requests by chance, of which much is what entries ask for.

use std::net::Ipv4Addr;

use fastrand::Rng;

use super::entries::Part;

/// Clients ask from so many addresses, from [`FIRST_CLIENT`] on.
pub(crate) const CLIENTS: u8 = 32;
pub(crate) const FIRST_CLIENT: u8 = 16;

/// The cookie of visitors.
const VISITOR: &str = "graygate_visitor";

/// A name and a value, as they are sent and as they are meant.
#[derive(Clone, Debug)]
struct Pair {
    sent: String,
    name: &'static str,
    value: String,
}

impl Pair {
    fn new(sent: impl Into<String>, name: &'static str, value: impl Into<String>) -> Self {
        Self {
            sent: sent.into(),
            name,
            value: value.into(),
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) client: Ipv4Addr,
    pub(crate) method: &'static str,
    /// As it is sent, perhaps with a port.
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    query: Vec<Pair>,
    /// Names as they are asked for.
    headers: Vec<Pair>,
    cookies: Vec<Pair>,
}

const HOSTS: [&str; 8] = [
    "test",
    "shop.test",
    "Shop.TEST:8080",
    "shop.test",
    "a.pop.test",
    "b.POP.test",
    "other.test",
    "pop.test",
];

const PATHS: [&str; 10] = [
    "/",
    "/v2/cart",
    "/v2",
    "/v20",
    "/exact",
    "/api/items",
    "/api",
    "/apis",
    "/wiki/page",
    "/v2/",
];

impl Asked {
    pub(crate) fn by_chance(rng: &mut Rng) -> Self {
        let last = FIRST_CLIENT + rng.u8(..CLIENTS);
        let mut asked = Self {
            client: Ipv4Addr::new(127, 0, 0, last),
            method: ["GET", "GET", "POST", "DELETE"][rng.usize(..4)],
            host: HOSTS[rng.usize(..HOSTS.len())],
            path: PATHS[rng.usize(..PATHS.len())],
            query: Vec::new(),
            headers: Vec::new(),
            cookies: Vec::new(),
        };
        for _ in 0..rng.u8(..3) {
            asked.query.push(parameter(rng));
        }
        for _ in 0..rng.u8(..3) {
            asked.headers.push(header(rng));
        }
        for _ in 0..rng.u8(..4) {
            asked.cookies.push(cookie(rng));
        }
        asked
    }

    /// The value of a part: of several of one name, that of the first.
    pub(crate) fn value(&self, part: Part) -> Option<String> {
        let first = |pairs: &[Pair], name: &str| {
            let mut named = pairs.iter().filter(|it| it.name == name);
            named.next().map(|it| it.value.clone())
        };
        match part {
            Part::Header(name) => first(&self.headers, name),
            Part::Cookie(name) => first(&self.cookies, name),
            Part::Query(name) => first(&self.query, name),
            Part::Path => Some(self.path.to_owned()),
            Part::Method => Some(self.method.to_owned()),
            Part::Host => Some(self.host_name()),
        }
    }

    /// Without the port, in lower case.
    pub(crate) fn host_name(&self) -> String {
        let name = self.host.split(':').next().unwrap();
        name.to_ascii_lowercase()
    }

    /// The visitor's cookie, if it is one of the gateway's.
    pub(crate) fn visitor(&self) -> Option<&str> {
        let is_one = |it: &&Pair| it.name == VISITOR && it.value.len() == 16;
        self.cookies.iter().find(is_one).map(|it| &*it.value)
    }

    /// Makes sure that it has one.
    pub(crate) fn into_visitor(mut self, rng: &mut Rng) -> Self {
        if self.visitor().is_none() {
            self.cookies.push(visitor(rng));
        }
        self
    }

    /// Adds a parameter that no entry asks for.
    pub(crate) fn with_mark(mut self, mark: u64) -> Self {
        self.query
            .push(Pair::new(format!("mark={mark}"), "mark", ""));
        self
    }

    pub(crate) fn target(&self) -> String {
        let query: Vec<&str> = self.query.iter().map(|it| &*it.sent).collect();
        match query.is_empty() {
            true => self.path.to_owned(),
            false => format!("{}?{}", self.path, query.join("&")),
        }
    }

    /// The lines of the head that entries may ask for, without Host.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.headers.iter().map(|it| it.sent.clone()).collect();
        // Several lines are one list.
        let (first, second) = self.cookies.split_at(self.cookies.len().div_ceil(2));
        for cookies in [first, second] {
            if !cookies.is_empty() {
                let sent: Vec<&str> = cookies.iter().map(|it| &*it.sent).collect();
                lines.push(format!("Cookie: {}", sent.join("; ")));
            }
        }
        lines
    }

    pub(crate) fn head(&self) -> String {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method,
            self.target(),
            self.host
        );
        for line in self.lines() {
            head += &line;
            head += "\r\n";
        }
        head + "Content-Length: 0\r\n\r\n"
    }
}

fn parameter(rng: &mut Rng) -> Pair {
    let uid = rng.u8(..40).to_string();
    match rng.u8(..7) {
        0 => Pair::new("v=2", "v", "2"),
        1 => Pair::new("%76=%32", "v", "2"),
        2 => Pair::new("v", "v", ""),
        3 => Pair::new("q=a+b", "q", "a b"),
        4 => Pair::new("q=a%20b", "q", "a b"),
        5 => Pair::new(format!("%75id={uid}"), "uid", uid),
        _ => Pair::new(format!("uid={uid}"), "uid", uid),
    }
}

fn header(rng: &mut Rng) -> Pair {
    let version = ["2.9.9", "2.10.3", "v2.10.3.0", "v2.11", "3", "3.0-rc1"][rng.usize(..6)];
    let user = ["alice", "Alice", "malice", "alicia", "Li Wei", "bob"][rng.usize(..6)];
    match rng.u8(..5) {
        0 | 1 => Pair::new(format!("X-User: {user}"), "x-user", user),
        2 => Pair::new(
            format!("x-app-VERSION:  {version} "),
            "x-app-version",
            version,
        ),
        3 => Pair::new(
            format!("X-App-Version: {version}"),
            "x-app-version",
            version,
        ),
        _ => Pair::new("X-Beta:", "x-beta", ""),
    }
}

fn visitor(rng: &mut Rng) -> Pair {
    let id = format!("{:016x}", rng.u64(..50) * 0x0123_4567_89ab);
    Pair::new(format!("{VISITOR}={id}"), VISITOR, id)
}

fn cookie(rng: &mut Rng) -> Pair {
    let uid = rng.u8(..40).to_string();
    match rng.u8(..8) {
        0..3 => Pair::new(format!("uid={uid}"), "uid", uid),
        3 => Pair::new("plan=Gold", "plan", "Gold"),
        4 => Pair::new("plan=GOLD", "plan", "GOLD"),
        5 => Pair::new("beta=", "beta", ""),
        6 => Pair::new(format!("{VISITOR}=mine"), VISITOR, "mine"),
        _ => visitor(rng),
    }
}
