//! What is measured: the table of scenarios.

use std::time::Duration;

use crate::client::Request;
use crate::figures::Metric;
use crate::others::browser_head;
use crate::proxies::{Proxy, Setting};
use crate::site::{CHANGING, CLIENTS, HALF, MILLION, OTHERS, STILL};

/// A scenario: the same traffic through several proxies.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// As `--only` takes it.
    pub(crate) name: &'static str,
    /// As a headline; of idle connections without their number, for which see `Measured::title`.
    pub(crate) title: &'static str,
    /// In the order in which they have their turns.
    pub(crate) settings: &'static [Setting],
    pub(crate) traffic: Traffic,
    /// What the table shows beside rates and latencies.
    pub(crate) cost: Metric,
    /// Rounds at most.
    pub(crate) rounds: usize,
    /// Length of each run at least.
    pub(crate) measured: Duration,
}

impl Scenario {
    const fn new(
        name: &'static str,
        title: &'static str,
        settings: &'static [Setting],
        traffic: Traffic,
        cost: Metric,
    ) -> Self {
        Self {
            name,
            title,
            settings,
            traffic,
            cost,
            rounds: usize::MAX,
            measured: Duration::ZERO,
        }
    }

    /// For what hardly differs between rounds, but takes long.
    const fn with_rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    /// For what is not the same at all times: the lists are checked every ten seconds.
    const fn with_seconds(self, seconds: u64) -> Self {
        let measured = Duration::from_secs(seconds);
        Self { measured, ..self }
    }
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Traffic {
    /// Each connection sends its next request once the answer is there.
    Closed {
        connections: usize,
        content: Content,
    },
    /// At so many percent of what nginx does at best.
    Offered { percent: u8, connections: usize },
    /// Small requests beside downloads that do not end.
    Beside {
        connections: usize,
        downloads: usize,
    },
    /// Connections that are silent after one request each.
    Idle { connections: usize },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content {
    /// A 128-byte answer.
    Small,
    /// The same, and each connection is another client's.
    OfMany,
    /// The same on a connection that ends with it.
    Single,
    /// The same, with 30 fields in the request and in the answer.
    Fields,
    /// The same, asked for by a browser: a query, fifteen fields, ten cookies.
    Browser,
    /// An answer of this length, from this path.
    Answer(&'static str, u64),
    /// A request's body of this length, answered with 128 bytes.
    Upload(usize),
}

impl Content {
    pub(crate) fn request(self) -> Request {
        let (path, answer) = match self {
            Self::Answer(path, length) => (path, length),
            Self::Fields => ("/fields", 128),
            _ => ("/128", 128),
        };
        let method = if matches!(self, Self::Upload(_)) {
            "POST"
        } else {
            "GET"
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: www.example.com\r\n");
        if self == Self::Browser {
            return Request {
                bytes: browser_head(path).into_bytes(),
                answer,
                close: false,
                of_many: false,
            };
        }
        match self {
            Self::Single => head.push_str("Connection: close\r\n"),
            Self::Upload(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            // With Host.
            Self::Fields => (1..30).for_each(|at| {
                head.push_str(&format!("X-Field-{at}: the value of field {at}\r\n"));
            }),
            _ => {}
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if let Self::Upload(length) = self {
            bytes.resize(bytes.len() + length, b'x');
        }
        Request {
            bytes,
            answer,
            close: self == Self::Single,
            of_many: self == Self::OfMany,
        }
    }
}

const fn with(proxy: Proxy, workers: u8) -> Setting {
    Setting {
        proxy,
        workers,
        gray: STILL,
    }
}

const fn graygate_with(gray: &'static str) -> Setting {
    Setting {
        proxy: Proxy::Graygate,
        workers: 1,
        gray,
    }
}

const ALL: &[Setting] = &[
    with(Proxy::Graygate, 1),
    with(Proxy::Nginx, 1),
    with(Proxy::Haproxy, 1),
    with(Proxy::Floor, 1),
    with(Proxy::OpenResty, 1),
    with(Proxy::OpenRestyPool, 1),
    with(Proxy::Graygate, 2),
    with(Proxy::Nginx, 2),
    with(Proxy::Haproxy, 2),
    with(Proxy::OpenResty, 2),
    with(Proxy::OpenRestyPool, 2),
];
const MANY: &[Setting] = &[
    with(Proxy::Graygate, 1),
    with(Proxy::Nginx, 1),
    with(Proxy::Haproxy, 1),
    with(Proxy::Floor, 1),
    with(Proxy::Graygate, 2),
    with(Proxy::Nginx, 2),
    with(Proxy::Haproxy, 2),
    with(Proxy::OpenResty, 2),
];
const SHIPPED: &[Setting] = &[
    with(Proxy::Graygate, 1),
    with(Proxy::GraygateTuned, 1),
    with(Proxy::Nginx, 1),
    with(Proxy::Haproxy, 1),
    with(Proxy::Graygate, 2),
    with(Proxy::GraygateTuned, 2),
    with(Proxy::Nginx, 2),
    with(Proxy::Haproxy, 2),
];
const ONE_WORKER: &[Setting] = &[
    with(Proxy::Graygate, 1),
    with(Proxy::Nginx, 1),
    with(Proxy::Haproxy, 1),
    with(Proxy::Floor, 1),
];
const WITHOUT_FLOOR: &[Setting] = &[
    with(Proxy::Graygate, 1),
    with(Proxy::Nginx, 1),
    with(Proxy::Haproxy, 1),
];
const WITHOUT_FLOOR_BOTH: &[Setting] = &[
    with(Proxy::Graygate, 1),
    with(Proxy::Nginx, 1),
    with(Proxy::Haproxy, 1),
    with(Proxy::Graygate, 2),
    with(Proxy::Nginx, 2),
    with(Proxy::Haproxy, 2),
];
const STILL_AND_MILLION: &[Setting] = &[graygate_with(STILL), graygate_with(MILLION)];
const MILLION_AND_OTHERS: &[Setting] = &[graygate_with(MILLION), graygate_with(OTHERS)];
const WATCHED_AND_NOT: &[Setting] = &[
    graygate_with(HALF),
    Setting {
        proxy: Proxy::GraygateUnwatched,
        ..graygate_with(HALF)
    },
];
const STILL_AND_CHANGING: &[Setting] = &[graygate_with(STILL), graygate_with(CHANGING)];

/// The scenario of the main table.
pub(crate) const MAIN: &str = "small";

const fn closed(connections: usize, content: Content) -> Traffic {
    Traffic::Closed {
        connections,
        content,
    }
}

const BUILDS_BOTH: &[Setting] = &[
    with(Proxy::Graygate, 1),
    with(Proxy::OtherBuild, 1),
    with(Proxy::Graygate, 2),
    with(Proxy::OtherBuild, 2),
];
const BUILDS: &[Setting] = &[with(Proxy::Graygate, 1), with(Proxy::OtherBuild, 1)];

/// Of two builds of the gateway, in place of the others: what its C library and its allocator may
/// make of it.
pub(crate) const OF_BUILDS: &[Scenario] = &[
    Scenario::new(
        "builds-small",
        "Two builds: 128-byte answers on 64 keep-alive connections",
        BUILDS_BOTH,
        closed(64, Content::Small),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "builds-fields",
        "Two builds: 30 header fields in the request and in the answer, on 64 connections",
        BUILDS,
        closed(64, Content::Fields),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "builds-connections",
        "Two builds: a new connection for every request, 64 at a time",
        BUILDS,
        closed(64, Content::Single),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "builds-answers-16k",
        "Two builds: 16 KiB answers on 64 connections",
        BUILDS,
        closed(64, Content::Answer("/16k", 16 << 10)),
        Metric::CpuGigabyte,
    ),
];

/// All others, in the order in which they run.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        MAIN,
        "128-byte answers on 64 keep-alive connections",
        ALL,
        closed(64, Content::Small),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "many",
        "128-byte answers on 1,000 keep-alive connections",
        MANY,
        closed(1000, Content::Small),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "crowd-512",
        "128-byte answers on 512 keep-alive connections, as shipped and with more idle connections",
        SHIPPED,
        closed(512, Content::Small),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "crowd-2000",
        "128-byte answers on 2,000 keep-alive connections, as shipped and with more idle connections",
        SHIPPED,
        closed(2000, Content::Small),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "offered-50",
        "128-byte answers at 50 % of nginx's best rate, on 64 connections",
        WITHOUT_FLOOR_BOTH,
        Traffic::Offered {
            percent: 50,
            connections: 64,
        },
        Metric::CpuRequest,
    ),
    Scenario::new(
        "offered-80",
        "128-byte answers at 80 % of nginx's best rate, on 64 connections",
        WITHOUT_FLOOR_BOTH,
        Traffic::Offered {
            percent: 80,
            connections: 64,
        },
        Metric::CpuRequest,
    ),
    Scenario::new(
        "answers-16k",
        "16 KiB answers on 64 connections",
        ONE_WORKER,
        closed(64, Content::Answer("/16k", 16 << 10)),
        Metric::CpuGigabyte,
    ),
    Scenario::new(
        "answers-1m",
        "1 MiB answers on 16 connections",
        ONE_WORKER,
        closed(16, Content::Answer("/1m", 1 << 20)),
        Metric::CpuGigabyte,
    ),
    Scenario::new(
        "answers-64m",
        "64 MiB answers on 4 connections",
        ONE_WORKER,
        closed(4, Content::Answer("/64m", 64 << 20)),
        Metric::CpuGigabyte,
    ),
    Scenario::new(
        "uploads-1k",
        "1 KiB uploads on 64 connections",
        ONE_WORKER,
        closed(64, Content::Upload(1 << 10)),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "uploads-1m",
        "1 MiB uploads on 16 connections",
        ONE_WORKER,
        closed(16, Content::Upload(1 << 20)),
        Metric::CpuGigabyte,
    ),
    Scenario::new(
        "connections",
        "A new connection for every request, 64 at a time",
        WITHOUT_FLOOR,
        closed(64, Content::Single),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "fields",
        "30 header fields in the request and in the answer, on 64 connections",
        ONE_WORKER,
        closed(64, Content::Fields),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "beside",
        "128-byte answers on 8 connections beside two endless downloads",
        WITHOUT_FLOOR,
        Traffic::Beside {
            connections: 8,
            downloads: 2,
        },
        Metric::Downloads,
    ),
    Scenario::new(
        "idle",
        "idle keep-alive connections",
        WITHOUT_FLOOR,
        Traffic::Idle {
            connections: 10_000,
        },
        Metric::Memory,
    )
    .with_rounds(2),
    Scenario::new(
        "million",
        "128-byte answers with a million entries in the gray list, on 64 connections",
        STILL_AND_MILLION,
        closed(64, Content::Small),
        Metric::CpuRequest,
    )
    .with_rounds(3)
    .with_seconds(11),
    Scenario::new(
        "others",
        "128-byte answers with a million addresses in the gray list and a hundred other entries, on 64 connections",
        MILLION_AND_OTHERS,
        closed(64, Content::Small),
        Metric::CpuRequest,
    )
    .with_seconds(11),
    Scenario::new(
        "others-browser",
        "The same for requests of browsers, with a query, fifteen fields and ten cookies",
        MILLION_AND_OTHERS,
        closed(64, Content::Browser),
        Metric::CpuRequest,
    )
    .with_seconds(11),
    Scenario::new(
        "changes",
        "128-byte answers while the gray list changes 100 times a second, on 64 connections",
        STILL_AND_CHANGING,
        closed(64, Content::Small),
        Metric::CpuRequest,
    ),
    Scenario::new(
        "verdict",
        "128-byte answers for 64 clients, half of them gray, counted for the verdict on the release, or not",
        WATCHED_AND_NOT,
        closed(CLIENTS, Content::OfMany),
        Metric::CpuRequest,
    ),
];
