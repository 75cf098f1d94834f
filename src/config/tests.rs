use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::http::limits::Limits;
use crate::lists::{ByList, PoolName, ServiceName};

/// Where the tables' files pretend to be.
const FILE: &str = "/etc/gray/graygate.ini";

const REDIS: &str = "[redis]\nurl = redis://127.0.0.1:6379/0\n";

mod services;

const SHIPPED: &str = include_str!("../../etc/graygate.ini");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new(FILE), text, None)
}

/// The configuration of one key, with a source of lists beside it.
fn with(name: &str, value: &str) -> Result<Config, ConfigError> {
    let (section, key) = name.split_once('.').unwrap();
    let line = format!("[{section}]\n{key} = {value}\n");
    match section {
        "lists" if key == "file" => parse(&line),
        "redis" if key == "url" => parse(&line),
        _ => parse(&format!("{line}{REDIS}")),
    }
}

fn redis(config: Config) -> RedisSettings {
    match config.store {
        Store::Redis(redis) => redis,
        Store::File(path) => panic!("{path:?}"),
    }
}

fn verdict(config: &Config) -> &VerdictSettings {
    &config.default_service().verdict
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn listen(addr: &str, proxy: bool) -> Listen {
    let addr = addr.parse().unwrap();
    Listen { addr, proxy }
}

#[test]
fn a_listener_for_proxies_needs_proxies_that_are_trusted() {
    let text = "[gateway]\nlisten = 1.2.3.4:80, [::1]:81 \tproxy\ntrusted_proxies = 10.0.0.1\n";
    let config = parse(&format!("{text}{REDIS}")).unwrap();
    let expected = [listen("1.2.3.4:80", false), listen("[::1]:81", true)];
    assert_eq!(config.gateway.listen, expected);
    let error = with("gateway.listen", "1.2.3.4:80 proxy").unwrap_err();
    let said = "a listener with `proxy` to which nobody may connect;";
    assert!(error.to_string().contains(said), "{error}");
}

#[test]
fn an_admin_listener_in_the_way_of_another_is_named_with_its_line() {
    let table = [
        (
            "[gateway]\nlisten = 1.2.3.4:81, 127.0.0.1:80\n[admin]\nlisten = 127.0.0.1:80\n",
            ":4: [admin] listen = 127.0.0.1:80: [gateway] listen has 127.0.0.1:80; allowed: ",
        ),
        (
            "[admin]\nlisten = 127.0.0.1:80\n",
            ":2: [admin] listen = 127.0.0.1:80: [gateway] listen has 0.0.0.0:80; allowed: ",
        ),
        (
            "[gateway]\nlisten = 127.0.0.1:82\n[admin]\nlisten = 0.0.0.0:82\n",
            ":4: [admin] listen = 0.0.0.0:82: [gateway] listen has 127.0.0.1:82; allowed: ",
        ),
        // The admin listener takes IPv4 there, too.
        (
            "[gateway]\nlisten = 127.0.0.1:82\n[admin]\nlisten = [::]:82\n",
            ":4: [admin] listen = [::]:82: [gateway] listen has 127.0.0.1:82; allowed: ",
        ),
        (
            "[gateway]\nworkers = 1\nlisten = 0.0.0.0:9180\n",
            ":3: [gateway] listen = 0.0.0.0:9180: [admin] listen is 127.0.0.1:9180; allowed: ",
        ),
    ];
    for (text, expected) in table {
        let error = parse(&format!("{text}{REDIS}")).unwrap_err().to_string();
        let expected = format!("{FILE}{expected}");
        assert!(
            error.starts_with(&expected),
            "{error}\nexpected: {expected}"
        );
    }
    for text in [
        "[gateway]\nlisten = [::]:82\n[admin]\nlisten = 127.0.0.1:82\n",
        "[gateway]\nlisten = 127.0.0.1:82\n[admin]\nlisten = 127.0.0.2:82\n",
        "[gateway]\nlisten = 127.0.0.1:0\n[admin]\nlisten = [::]:0\ntoken_file = t\n",
        "[gateway]\nlisten = 0.0.0.0:9180\n[admin]\nlisten = off\n",
    ] {
        parse(&format!("{text}{REDIS}")).unwrap();
    }
}

#[test]
fn a_group_without_a_user_is_an_error() {
    let error = parse(&format!("[gateway]\nuser =\ngroup = adm\n{REDIS}"));
    let error = error.unwrap_err().to_string();
    let expected = format!("{FILE}:3: [gateway] group = adm: a group without a user; ");
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn the_admin_address_is_found_whatever_is_wrong_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graygate.ini");
    let admin_of = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let admin = Config::admin_of(&path).map_err(|error| error.to_string());
        admin.map(|it| it.listen)
    };
    let address = |text: &str| Ok(Some(text.parse().unwrap()));
    let admin = "[admin]\nlisten = 127.0.0.1:82\n";
    for text in [
        "",
        "[redis]\nurl = nonsense\n",
        "[gateway]\nlisten = 127.0.0.1:82\nnonsense\n",
        "nonsense\n[nonsense]\nlisten = 1\n",
        "[upstream\ntries = 1\ntries = 1 # one\n\t= 2\n",
    ] {
        assert_eq!(admin_of(&format!("{text}{admin}")), address("127.0.0.1:82"));
        assert_eq!(
            admin_of(&format!("{admin}[log]\n{text}")),
            address("127.0.0.1:82"),
            "{text}"
        );
    }
    assert_eq!(admin_of("[gateway]\nnonsense\n"), address("127.0.0.1:9180"));
    assert_eq!(admin_of(""), address("127.0.0.1:9180"));
    assert_eq!(admin_of("[admin]\nlisten = off\n"), Ok(None));

    let place = path.display();
    for (text, expected) in [
        (
            "[gateway]\nnonsense\n[admin]\nlisten = 82\n",
            ":4: [admin] listen = 82: 82 is a port without an address; allowed: ",
        ),
        ("[nonsense]\n[admin]\nlisten\n", ":3: a line without =; "),
        (
            "[admin]\nlisten = off\n\nlisten = off\n",
            ":4: [admin] listen: given twice, first on line 2; ",
        ),
        (
            "[admin]\nport = 82\n",
            ":2: [admin] port: not a key of this",
        ),
        ("#!/bin/sh\necho on\n", ":2: a line without =; "),
        ("listen = off\n", ":1: listen: a key without a section; "),
    ] {
        let error = admin_of(text).unwrap_err();
        assert!(error.starts_with(&format!("{place}{expected}")), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = Config::admin_of(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{place}: cannot be read: ")),
        "{error}"
    );
}

#[test]
fn reloads_are_counted_and_the_last_error_goes_with_the_next_good_one() {
    let reloads = Reloads::new();
    let since = reloads.state().taken_on;
    reloads.begin();
    assert!(reloads.state().under_way);
    reloads.end(Ok(vec!["gateway.workers"]));
    reloads.begin();
    reloads.end(Err("bad".to_owned()));
    let mut expected = reload::ReloadState {
        ok: 1,
        failed: 1,
        under_way: false,
        error: Some("bad".to_owned()),
        ignored: vec!["gateway.workers"],
        // A failed one takes nothing on.
        taken_on: reloads.state().taken_on,
    };
    assert!(expected.taken_on >= since);
    assert_eq!(reloads.state(), expected);
    reloads.begin();
    reloads.end(Ok(Vec::new()));
    expected.taken_on = reloads.state().taken_on;
    (expected.ok, expected.error, expected.ignored) = (2, None, Vec::new());
    assert_eq!(reloads.state(), expected);
}

#[test]
fn an_empty_file_has_the_documented_defaults() {
    let config = parse(REDIS).unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let expected = Config {
        path: FILE.into(),
        masked: Vec::new(),
        written: config.written.clone(),
        gateway: GatewaySettings {
            listen: vec![listen("0.0.0.0:80", false)],
            workers: cpus.min(256),
            max_connections: 10_000,
            limits: Limits {
                line: 8 * 1024,
                head: 32 * 1024,
                fields: 100,
            },
            raw_target: true,
            max_body: None,
            max_discard: Some(256 << 20),
            head_timeout: ms(10_000),
            body_timeout: ms(30_000),
            send_timeout: ms(30_000),
            min_rate: NonZeroU64::new(500),
            keepalive_timeout: ms(75_000),
            tunnel_timeout: ms(3_600_000),
            tunnel_grace: Some(ms(30_000)),
            drain_timeout: ms(30_000),
            drain_tunnel_timeout: ms(1_000),
            upgrade_timeout: ms(30_000),
            trusted_proxies: Vec::new(),
            request_id: false,
            pid_file: Some("/run/graygate.pid".into()),
            user: Some("nobody".to_owned()),
            group: None,
        },
        store: Store::Redis(RedisSettings {
            services: vec![ServiceKeys {
                service: ServiceName::default(),
                gray_of: None,
                lists: ByList {
                    gray: "gray".to_owned(),
                    pre: "pre".to_owned(),
                    prod: "prod".to_owned(),
                },
                salt: "graygate:salt".to_owned(),
                tripped: Some("graygate:tripped".to_owned()),
                release: Some("graygate:release".to_owned()),
                has_verdict: true,
                history: Some("graygate:history".to_owned()),
            }],
            url: "redis://127.0.0.1:6379/0".parse().unwrap(),
            sentinels: Vec::new(),
            passwords: PasswordFiles::default(),
            tls: Tls::default(),
            accept_key: "graygate:accept".to_owned(),
            notify: Notify::Auto,
            check_interval: ms(10_000),
            poll_interval: ms(1_000),
            timeout: ms(2_000),
            max_reply: 256 << 20,
            fleet: FleetSettings {
                heartbeat: Some(ms(2_000)),
                node: redis::node("").unwrap(),
                node_key: "graygate:node".to_owned(),
            },
        }),
        services: vec![Arc::new(ServiceSettings {
            name: ServiceName::default(),
            hosts: Vec::new(),
            paths: Vec::new(),
            takes_rest: true,
            gray_of: None,
            salt: String::new(),
            upstream: UpstreamSettings {
                peer_port: 80,
                resolve_interval: ms(10_000),
                connect_timeout: ms(1_000),
                send_timeout: ms(1_000),
                read_timeout: ms(1_000),
                stall_timeout: ms(60_000),
                deadline: None,
                tries: 3,
                retry_budget: 20,
                balance: Balance::Random,
                max_fails: 3,
                fail_statuses: vec![],
                fail_timeout: ms(10_000),
                max_out: 50,
                slow_start: ms(10_000),
                keepalive: Keepalive::Auto,
                keepalive_timeout: ms(30_000),
                fallback: true,
            },
            health: HealthSettings::default(),
            verdict: VerdictSettings {
                mode: VerdictMode::Observe,
                slow: VerdictMode::Observe,
                margin_list: 2.0,
                margin_percent: 1.0,
                alpha: 0.001,
                tolerate: 0.01,
                client: UnitKey::Address,
            },
        })],
        lists: ListsSettings {
            last_good: Some("/var/lib/graygate/lists".into()),
            last_good_max_age: None,
            guard_share: 50,
            guard_timeout: None,
        },
        gray: GraySettings {
            visitor_cookie: "graygate_visitor".to_owned(),
            visitor_max_age: Duration::from_secs(365 * 24 * 60 * 60),
            visitor_private: false,
            force_header: None,
            force_cookie: None,
            force_secret_file: None,
            force_secret: None,
            mark: false,
            mark_header: "X-Graygate-Pool".to_owned(),
            follow_mark: false,
            expose: Exposed::Nobody,
            withheld: String::new(),
        },
        webhook: None,
        log: LogSettings {
            access: LogTarget::File("/var/log/graygate/access.log".into()),
            error: LogTarget::File("/var/log/graygate/error.log".into()),
            format: LogFormat::Main,
            sample: Sampling::default(),
            own_lines: Some(1000),
            level: ::log::LevelFilter::Info,
        },
        admin: AdminSettings {
            socket: Some(AdminSocketPath {
                path: "/run/graygate/admin.sock".into(),
                is_named: false,
            }),
            listen: Some("127.0.0.1:9180".parse().unwrap()),
            expose: Expose::Status,
            token_file: None,
            metrics: None,
            hosts: Vec::new(),
        },
    };
    assert_eq!(config, expected);
}

#[test]
fn the_shipped_file_equals_the_defaults() {
    let mut defaults = parse(REDIS).unwrap();
    // The only difference that it makes to be named in the file.
    defaults.admin.socket.as_mut().unwrap().is_named = true;
    // An installation has a user of its own; files of earlier versions without a user go on as they did.
    assert_eq!(defaults.gateway.user.as_deref(), Some("nobody"));
    defaults.gateway.user = Some("graygate".to_owned());
    assert_eq!(parse(SHIPPED).unwrap(), defaults);
}

#[test]
fn the_shipped_file_names_every_key_in_order_with_default_and_explanation() {
    let mut section = "";
    let mut before = "";
    let mut keys = KEYS.iter();
    for line in SHIPPED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').unwrap();
        } else if !line.is_empty() && !line.starts_with('#') {
            let key = keys.next().unwrap();
            let (name, value) = line.split_once('=').unwrap();
            assert_eq!((section, name.trim()), (key.section, key.name));
            assert_eq!(before, format!("# {}", key.text));
            let expected = match (section, key.name) {
                ("redis", "url") => ("redis://127.0.0.1:6379/0", ""),
                ("gateway", "user") => ("graygate", "nobody"),
                _ => (key.default, key.default),
            };
            assert_eq!((value.trim(), key.default), expected, "{name}");
        }
        before = line;
    }
    assert_eq!(keys.next(), None);
}

#[test]
fn values_are_understood() {
    type Check = fn(Config) -> bool;
    let table: &[(&str, &str, Check)] = &[
        ("gateway.listen", "[::]:80, 127.0.0.1:0,127.0.0.1:0", |it| {
            let expected = ["[::]:80", "127.0.0.1:0", "127.0.0.1:0"];
            it.gateway.listen == expected.map(|it| listen(it, false))
        }),
        // An address of each family, and addresses that differ in the host or in the port.
        (
            "gateway.listen",
            "[::]:80,0.0.0.0:80,0.0.0.0:0,1.2.3.4:81,1.2.3.5:81,1.2.3.4:82",
            |it| it.gateway.listen.len() == 6,
        ),
        ("gateway.workers", "1", |it| it.gateway.workers == 1),
        ("gateway.workers", "256", |it| it.gateway.workers == 256),
        ("gateway.max_line", "1k", |it| {
            it.gateway.limits.line == 1024
        }),
        ("gateway.max_head", "1m", |it| {
            it.gateway.limits.head == 1 << 20
        }),
        ("gateway.max_head", "2000", |it| {
            it.gateway.limits.head == 2000
        }),
        ("gateway.max_fields", "256", |it| {
            it.gateway.limits.fields == 256
        }),
        ("gateway.max_body", "unlimited", |it| {
            it.gateway.max_body.is_none()
        }),
        ("gateway.max_body", "1", |it| it.gateway.max_body == Some(1)),
        ("gateway.raw_target", "refuse", |it| !it.gateway.raw_target),
        ("gateway.max_discard", "unlimited", |it| {
            it.gateway.max_discard.is_none()
        }),
        ("gateway.max_body", "5g", |it| {
            it.gateway.max_body == Some(5 << 30)
        }),
        ("gateway.min_rate", "off", |it| {
            it.gateway.min_rate.is_none()
        }),
        ("gateway.min_rate", "2k", |it| {
            it.gateway.min_rate == NonZeroU64::new(2048)
        }),
        ("gateway.head_timeout", "1ms", |it| {
            it.gateway.head_timeout == ms(1)
        }),
        ("gateway.head_timeout", "7s", |it| {
            it.gateway.head_timeout == ms(7_000)
        }),
        ("gateway.head_timeout", "2m", |it| {
            it.gateway.head_timeout == ms(120_000)
        }),
        ("gateway.head_timeout", "24h", |it| {
            it.gateway.head_timeout == ms(86_400_000)
        }),
        (
            "gateway.trusted_proxies",
            "10.1.2.3, 10.1.2.3/8,::ffff:192.168.0.0/112, ::ffff:1.2.3.4, fd00::1/8, ::/0",
            |it| {
                let expected = [
                    "10.1.2.3/32",
                    "10.0.0.0/8",
                    "192.168.0.0/16",
                    "1.2.3.4/32",
                    "fd00::/8",
                    "::/0",
                ];
                it.gateway.trusted_proxies == expected.map(|it| it.parse().unwrap())
            },
        ),
        ("gateway.pid_file", "", |it| it.gateway.pid_file.is_none()),
        ("gateway.pid_file", "x.pid", |it| {
            it.gateway.pid_file == Some("/etc/gray/x.pid".into())
        }),
        ("gateway.user", "", |it| it.gateway.user.is_none()),
        ("gateway.group", "adm", |it| {
            it.gateway.group.as_deref() == Some("adm")
        }),
        ("redis.url", "unix:///run/redis.sock?db=2", |it| {
            redis(it).url.as_str() == "unix:///run/redis.sock?db=2"
        }),
        ("redis.gray_key", "gray list", |it| {
            redis(it).services[0].lists.gray == "gray list"
        }),
        ("redis.notify", "events", |it| {
            redis(it).notify == Notify::Events
        }),
        ("redis.notify", "tracking", |it| {
            redis(it).notify == Notify::Tracking
        }),
        ("redis.notify", "poll", |it| {
            redis(it).notify == Notify::Poll
        }),
        ("lists.file", "lists", |it| {
            it.store == Store::File("/etc/gray/lists".into())
        }),
        ("lists.file", "/a/lists", |it| {
            it.store == Store::File("/a/lists".into())
        }),
        ("redis.accept_key", "x", |it| redis(it).accept_key == "x"),
        ("redis.max_reply", "4g", |it| redis(it).max_reply == 4 << 30),
        ("redis.heartbeat", "off", |it| {
            redis(it).fleet.heartbeat.is_none()
        }),
        ("redis.heartbeat", "100ms", |it| {
            redis(it).fleet.heartbeat == Some(ms(100))
        }),
        ("redis.node", "gw-1.example:80/a", |it| {
            redis(it).fleet.node == "gw-1.example:80/a"
        }),
        ("redis.node", "", |it| !redis(it).fleet.node.is_empty()),
        ("redis.node_key", "shop:node", |it| {
            redis(it).fleet.key_of("a") == "shop:node:a"
        }),
        ("lists.last_good", "", |it| it.lists.last_good.is_none()),
        ("lists.last_good", "copy", |it| {
            it.lists.last_good == Some("/etc/gray/copy".into())
        }),
        ("lists.last_good_max_age", "90s", |it| {
            it.lists.last_good_max_age == Some(ms(90_000))
        }),
        ("lists.last_good_max_age", "3650d", |it| {
            it.lists.last_good_max_age == Some(ms(3650 * 86_400_000))
        }),
        ("lists.guard_share", "0", |it| it.lists.guard_share == 0),
        ("lists.guard_share", "100", |it| it.lists.guard_share == 100),
        ("lists.guard_timeout", "10m", |it| {
            it.lists.guard_timeout == Some(ms(600_000))
        }),
        ("upstream.peer_port", "65535", |it| {
            it.default_service().upstream.peer_port == 65535
        }),
        ("upstream.tries", "10", |it| {
            it.default_service().upstream.tries == 10
        }),
        ("upstream.keepalive", "0", |it| {
            it.default_service().upstream.keepalive == Keepalive::AtMost(0)
        }),
        ("upstream.keepalive", "10000", |it| {
            it.default_service().upstream.keepalive == Keepalive::AtMost(10_000)
        }),
        ("upstream.keepalive", "auto", |it| {
            it.default_service().upstream.keepalive == Keepalive::Auto
        }),
        ("upstream.fallback", "off", |it| {
            !it.default_service().upstream.fallback
        }),
        ("log.access", "off", |it| it.log.access == LogTarget::Off),
        ("log.access", "-", |it| it.log.access == LogTarget::Stdout),
        ("log.access", "stdout", |it| {
            it.log.access == LogTarget::Stdout
        }),
        ("log.error", "stderr", |it| {
            it.log.error == LogTarget::Stderr
        }),
        ("log.error", "e.log", |it| {
            it.log.error == LogTarget::File("/etc/gray/e.log".into())
        }),
        ("log.error", "./syslog", |it| {
            it.log.error == LogTarget::File("/etc/gray/./syslog".into())
        }),
        (
            "log.error",
            "syslog:server=10.0.0.1,tag=x",
            |it| matches!(&it.log.error, LogTarget::Syslog(target) if target.tag == "x"),
        ),
        ("log.error", "/dev/null", |it| {
            it.log.error == LogTarget::File("/dev/null".into())
        }),
        ("log.format", "main", |it| it.log.format == LogFormat::Main),
        // Quotes within a value are part of it, and so are braces and brackets.
        ("log.format", "escape=json {\"a\":[\"${status}\"]}", |it| {
            format!("{:?}", it.log.format).contains("Json")
        }),
        ("log.own_lines", "unlimited", |it| {
            it.log.own_lines.is_none()
        }),
        ("log.own_lines", "1000000", |it| {
            it.log.own_lines == Some(1_000_000)
        }),
        ("log.level", "debug", |it| {
            it.log.level == ::log::LevelFilter::Debug
        }),
        ("log.level", "error", |it| {
            it.log.level == ::log::LevelFilter::Error
        }),
        ("admin.listen", "off", |it| it.admin.listen.is_none()),
        ("admin.socket", "off", |it| it.admin.socket.is_none()),
        ("verdict.mode", "off", |it| {
            verdict(&it).mode == VerdictMode::Off
        }),
        ("verdict.slow", "enforce", |it| {
            verdict(&it).slow == VerdictMode::Enforce
        }),
        ("verdict.margin_list", "1", |it| {
            verdict(&it).margin_list == 1.0
        }),
        ("verdict.margin_list", "100.0", |it| {
            verdict(&it).margin_list == 100.0
        }),
        ("verdict.margin_percent", "2.25", |it| {
            verdict(&it).margin_percent == 2.25
        }),
        ("verdict.alpha", "0.000001", |it| {
            verdict(&it).alpha == 0.000_001
        }),
        ("verdict.alpha", "0.1", |it| verdict(&it).alpha == 0.1),
        ("verdict.tolerate", "0.01%", |it| {
            (verdict(&it).tolerate - 0.0001).abs() < 1e-12
        }),
        ("verdict.tolerate", "50 %", |it| {
            verdict(&it).tolerate == 0.5
        }),
        ("verdict.client", "cookie:uid", |it| {
            verdict(&it).client == UnitKey::Cookie("uid".to_owned())
        }),
        ("verdict.client", "header:X-User", |it| {
            verdict(&it).client == UnitKey::Header("X-User".to_owned())
        }),
        ("admin.socket", "", |it| it.admin.socket.is_none()),
        ("admin.socket", "s", |it| {
            let socket = it.admin.socket.as_ref().unwrap();
            socket.is_named && socket.path == Path::new("/etc/gray/s")
        }),
        ("admin.expose", "full", |it| it.admin.expose == Expose::Full),
        ("admin.token_file", "t", |it| {
            it.admin.token_file.as_deref() == Some(Path::new("/etc/gray/t"))
        }),
        ("admin.metrics", "0.0.0.0:9181", |it| {
            it.admin.metrics == Some("0.0.0.0:9181".parse().unwrap())
        }),
        ("admin.listen", "[::1]:0", |it| {
            it.admin.listen == Some("[::1]:0".parse().unwrap())
        }),
    ];
    for (name, value, check) in table {
        match with(name, value) {
            Ok(config) => assert!(check(config), "{name} = {value}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_what_is_allowed() {
    let table = [
        (
            "gateway.listen",
            "80",
            "80 is a port without an address; allowed: IP addresses with",
        ),
        (
            "gateway.listen",
            "::1",
            "::1 is an address without a port; allowed: IP",
        ),
        (
            "gateway.listen",
            "localhost:80",
            "localhost:80 is not an IP address with a port;",
        ),
        (
            "gateway.listen",
            "1.2.3.4:65536",
            "1.2.3.4:65536 is not an IP address with a port;",
        ),
        ("gateway.listen", "", "an address is missing;"),
        ("gateway.listen", "proxy", "proxy is not an IP address"),
        (
            "gateway.listen",
            "1.2.3.4:80proxy",
            "1.2.3.4:80proxy is not an IP address",
        ),
        (
            "gateway.listen",
            "1.2.3.4:80 proxies",
            "1.2.3.4:80 proxies is not an IP address",
        ),
        ("gateway.listen", "1.2.3.4:80,", "an address is missing;"),
        (
            "gateway.listen",
            "1.2.3.4:80,1.2.3.4:80",
            "1.2.3.4:80 is given twice;",
        ),
        (
            "gateway.listen",
            "1.2.3.4:80,[::]:80, 0.0.0.0:80",
            "1.2.3.4:80 and 0.0.0.0:80 conflict;",
        ),
        (
            "gateway.listen",
            "[::]:80,[::1]:80",
            "[::]:80 and [::1]:80 conflict;",
        ),
        (
            "gateway.workers",
            "0",
            "it is out of range; allowed: auto, or a whole number from 1 to 256",
        ),
        ("gateway.workers", "257", "it is out of range;"),
        ("gateway.workers", "+2", "it is not a whole number;"),
        ("gateway.workers", "Auto", "it is not a whole number;"),
        ("gateway.max_connections", "0", "it is out of range;"),
        (
            "gateway.max_connections",
            "99999999999999999999999",
            "it is out of range;",
        ),
        (
            "gateway.max_line",
            "1023",
            "it is out of range; allowed: bytes, or a number with k or m",
        ),
        ("gateway.max_head", "2m", "it is out of range;"),
        ("gateway.max_head", "8K", "its unit is unknown;"),
        ("gateway.max_head", "8 k", "its unit is unknown;"),
        ("gateway.max_head", "k", "it is not a size;"),
        (
            "gateway.max_fields",
            "257",
            "it is out of range; allowed: a whole number from 1 to 256",
        ),
        (
            "gateway.max_body",
            "0",
            "it is 0, which is ambiguous; allowed: unlimited",
        ),
        (
            "gateway.raw_target",
            "on",
            "it is not one of the values of this key; allowed: pass, refuse",
        ),
        ("gateway.max_body", "99999999999g", "it is out of range;"),
        (
            "gateway.min_rate",
            "0",
            "it is 0, which is ambiguous; allowed: off",
        ),
        ("gateway.min_rate", "on", "it is not a size;"),
        (
            "gateway.max_body",
            "99999999999999999999",
            "it is out of range;",
        ),
        ("gateway.max_body", "-1", "it is not a size;"),
        (
            "log.format",
            "Main",
            "it is neither the name of a format nor has it variables; allowed: main, combined, json, or text",
        ),
        (
            "log.format",
            "$remote_adr",
            "`$remote_adr` is not a variable; allowed: main",
        ),
        (
            "log.sample",
            "5xx:10",
            "`5xx` is not a status below 400 or a class of them; allowed: statuses below 400",
        ),
        ("log.sample", "404:10", "`404` is not a status below 400"),
        ("log.sample", "2xx", "`2xx` is not STATUS:NUMBER;"),
        ("log.sample", "2xx:0", "`0` is not such a number;"),
        ("log.sample", "2xx:+1", "`+1` is not such a number;"),
        ("log.sample", "2xx:1,", "`` is not STATUS:NUMBER;"),
        ("log.sample", "2xx:1,2xx:2", "2xx is given twice;"),
        (
            "verdict.mode",
            "on",
            "it is not one of the values of this key; allowed: off, observe, enforce",
        ),
        ("verdict.slow", "", "it is not one of the values"),
        (
            "verdict.margin_list",
            "0.99",
            "it is out of range; allowed: a number from 1 to 100",
        ),
        ("verdict.margin_list", "101", "it is out of range;"),
        ("verdict.margin_percent", "+2", "it is not a number;"),
        ("verdict.margin_percent", "inf", "it is not a number;"),
        ("verdict.margin_percent", "1.", "it is not a number;"),
        (
            "verdict.alpha",
            "0",
            "it is out of range; allowed: a number from 0.000001 to 0.1",
        ),
        ("verdict.alpha", "0.2", "it is out of range;"),
        ("verdict.alpha", "1e-3", "it is not a number;"),
        (
            "verdict.tolerate",
            "0.01",
            "it has no %; allowed: a number from 0.01 to 50 with %",
        ),
        ("verdict.tolerate", "0%", "it is out of range;"),
        ("verdict.tolerate", "51%", "it is out of range;"),
        (
            "verdict.client",
            "user",
            "it is not one of the values of this key; allowed: address, cookie:NAME, header:NAME",
        ),
        (
            "verdict.client",
            "cookie:a b",
            "it is not the name of a cookie;",
        ),
        (
            "verdict.client",
            "header:",
            "it is not the name of a header field;",
        ),
        ("log.own_lines", "0", "it is out of range;"),
        ("log.own_lines", "1000001", "it is out of range;"),
        ("log.own_lines", "off", "it is not a number;"),
        (
            "lists.last_good_max_age",
            "3651d",
            "it is out of range; allowed: unlimited, or a whole number with its unit s, m, h or d",
        ),
        ("lists.last_good_max_age", "0d", "it is out of range;"),
        (
            "lists.last_good_max_age",
            "99999999999999999999d",
            "it is out of range;",
        ),
        ("lists.last_good_max_age", "7", "it has no unit;"),
        ("lists.last_good_max_age", "7w", "its unit is unknown;"),
        ("lists.last_good_max_age", "off", "it is not an age;"),
        (
            "lists.guard_share",
            "101",
            "it is out of range; allowed: a whole number from 0 to 100",
        ),
        ("lists.guard_share", "50%", "it is not a whole number;"),
        (
            "lists.guard_timeout",
            "0s",
            "it is 0, and every wait needs a deadline; allowed: off, or a whole number",
        ),
        ("redis.accept_key", "prod", "it is the key of a list;"),
        ("redis.accept_key", "", "it is empty;"),
        (
            "redis.max_reply",
            "65535",
            "it is out of range; allowed: bytes, or a number with k, m or g, from 64k to 4g",
        ),
        ("redis.max_reply", "5g", "it is out of range;"),
        ("redis.max_reply", "unlimited", "it is not a size;"),
        ("redis.heartbeat", "99ms", "it is less than 100ms;"),
        (
            "redis.heartbeat",
            "on",
            "it is not a time; allowed: off, or",
        ),
        (
            "redis.node",
            "a b",
            "it is not a valid name of a gateway; allowed: 1 to",
        ),
        ("redis.node", "grün", "it is not a valid name of a gateway;"),
        ("redis.node_key", "", "it is empty;"),
        (
            "redis.node_key",
            "graygate",
            "the key graygate:accept begins with it;",
        ),
        (
            "gateway.head_timeout",
            "10",
            "it has no unit; allowed: a whole number with its unit ms, s",
        ),
        (
            "gateway.head_timeout",
            "0",
            "it is 0, and every wait needs a deadline;",
        ),
        (
            "gateway.head_timeout",
            "0s",
            "it is 0, and every wait needs a deadline;",
        ),
        ("gateway.head_timeout", "", "it is not a time;"),
        ("gateway.head_timeout", "s", "it is not a time;"),
        ("gateway.head_timeout", "1.5s", "its unit is unknown;"),
        ("gateway.head_timeout", "1d", "its unit is unknown;"),
        ("gateway.head_timeout", "25h", "it is longer than 24h;"),
        (
            "gateway.head_timeout",
            "99999999999999999999s",
            "it is longer than 24h;",
        ),
        (
            "gateway.head_timeout",
            "18446744073709551615h",
            "it is longer than 24h;",
        ),
        (
            "gateway.trusted_proxies",
            "10.0.0.0/33",
            "`10.0.0.0/33` is not an address or CIDR;",
        ),
        (
            "gateway.trusted_proxies",
            "010.0.0.0/8",
            "`010.0.0.0/8` is not an address or CIDR;",
        ),
        (
            "gateway.trusted_proxies",
            "10.0.0.1,",
            "`` is not an address or CIDR;",
        ),
        (
            "gateway.trusted_proxies",
            "all",
            "`all` is not an address or CIDR; allowed: IP",
        ),
        ("redis.gray_key", "", "it is empty; allowed: a name"),
        ("redis.gray_key", "pre", ""),
        (
            "redis.notify",
            "push",
            "it is not one of the values of this key; allowed: auto, events, tracking, poll",
        ),
        ("redis.timeout", "2", "it has no unit;"),
        (
            "upstream.peer_port",
            "0",
            "it is not a port; allowed: a whole number from 1 to 65535",
        ),
        ("upstream.peer_port", "65536", "it is not a port;"),
        (
            "health.path",
            "healthz",
            "it is no path of a URL; allowed: a path,",
        ),
        ("health.path", "/a b", "it is no path of a URL;"),
        ("health.path", "/a\\b", "it is no path of a URL;"),
        ("health.interval", "99ms", "it is less than 100ms;"),
        ("health.timeout", "1", "it has no unit;"),
        ("health.rise", "0", "it is out of range;"),
        ("health.fall", "1001", "it is out of range;"),
        (
            "health.expect",
            "100",
            "it is no list of statuses; allowed: statuses from 200 to 599",
        ),
        ("health.expect", "299-200", "it is no list of statuses;"),
        ("health.expect", "200,", "it is no list of statuses;"),
        ("health.expect", "200-", "it is no list of statuses;"),
        ("health.expect", "", "it is no list of statuses;"),
        ("health.host", "a b", "it is no host;"),
        ("health.host", "a/b", "it is no host;"),
        ("health.host", ":80", "it is no host;"),
        ("health.host", "a:65536", "it is no host;"),
        ("health.host", "a:b:c", "it is no host;"),
        ("health.host", "[::1", "it is no host;"),
        ("health pre.fall", "0", "it is out of range;"),
        (
            "upstream.tries",
            "11",
            "it is out of range; allowed: a whole number from 1 to 10",
        ),
        (
            "upstream.keepalive",
            "10001",
            "it is out of range; allowed: auto, or a whole number from 0 to 10000",
        ),
        (
            "upstream.keepalive",
            "Auto",
            "it is not a whole number; allowed: auto, or a whole number from 0 to 10000",
        ),
        (
            "upstream.fallback",
            "yes",
            "it is not one of the values of this key; allowed: on, off",
        ),
        (
            "log.access",
            "",
            "it is empty; allowed: off, stdout (or -), stderr, syslog:…, or the path of a file",
        ),
        (
            "log.access",
            "Off",
            "it is neither one of the values of this key nor the path of a log; allowed: off, stdout",
        ),
        ("log.access", "'off'", "it is neither one of the values"),
        ("log.access", "none", "it is neither one of the values"),
        ("log.error", "syslog", "it is neither one of the values"),
        (
            "log.error",
            "syslog:facility=local8",
            "`local8` is no facility of syslog; allowed: syslog: for /dev/log, or after it",
        ),
        ("log.error", "STDERR", "it is neither one of the values"),
        ("log.error", "error log", "it is neither one of the values"),
        (
            "log.level",
            "trace",
            "it is not one of the values of this key; allowed: error, warn, info",
        ),
        (
            "admin.listen",
            "9180",
            "9180 is a port without an address; allowed: off, or an IP",
        ),
        ("admin.listen", "", "an address is missing;"),
    ];
    for (name, value, expected) in table {
        let error = match name {
            // In one section, for the others stand in [redis], too.
            "redis.gray_key" | "redis.notify" | "redis.timeout" => {
                let key = name.strip_prefix("redis.").unwrap();
                parse(&format!("# A comment.\n\n{REDIS}{key} = {value}\n"))
            }
            _ => {
                let (section, key) = name.split_once('.').unwrap();
                parse(&format!(
                    "# A comment.\n{REDIS}[{section}]\n{key} = {value}\n"
                ))
            }
        };
        let error = error.unwrap_err().to_string();
        let (section, key) = name.split_once('.').unwrap();
        let expected = match (key, value) {
            // The default of another key is the one in the way.
            ("gray_key", "pre") => format!("{FILE}: [redis] pre_key = pre: gray_key has the same"),
            _ => format!("{FILE}:5: [{section}] {key} = {value}: {expected}"),
        };
        assert!(
            error.starts_with(&expected),
            "{error}\nexpected: {expected}"
        );
        assert!(error.contains("; allowed: "), "{error}");
    }
}

#[test]
fn a_line_that_could_be_read_in_two_ways_is_an_error_with_its_number() {
    let table = [
        (
            "[gateway]\nmax_boby = 1k\n",
            ":2: [gateway] max_boby: not a key of this section; allowed: listen, workers, max_connections, ",
        ),
        (
            "[gateway]\ntries = 2\n",
            ":2: [gateway] tries: not a key of this section, but one of [upstream]; allowed: listen,",
        ),
        (
            "[gateway]\nListen = 1.2.3.4:80\n",
            ":2: [gateway] Listen: not a key of this section; allowed: listen,",
        ),
        (
            "\n[gatway]\n",
            ":2: [gatway]: an unknown section; allowed: [gateway], [redis], [lists], [gray], [upstream], [health], [health pre], [health prod], [verdict], [log], [admin]",
        ),
        ("[]\n", ":1: []: an unknown section; allowed: [gateway],"),
        (
            "[gateway\n",
            ":1: a line that begins like a section and does not end with ]; allowed: [gateway],",
        ),
        (
            "[gateway] # here\n",
            ":1: a line that begins like a section and does not end with ];",
        ),
        (
            "workers = 1\n[gateway]\n",
            ":1: workers: a key without a section; allowed: keys below one of [gateway], [redis],",
        ),
        (
            "[gateway]\nworkers = 1\n\nworkers = 1\n",
            ":4: [gateway] workers: given twice, first on line 2; allowed: each key once",
        ),
        (
            "[log]\nlevel = info\n[gateway]\n[log]\nlevel = warn\n",
            ":5: [log] level: given twice, first on line 2;",
        ),
        (
            "[gateway]\n\nworkers\n",
            ":3: a line without =; allowed: key = value, [section], # comment",
        ),
        ("[gateway]\nworkers: 1\n", ":2: a line without =;"),
        (
            "[gateway]\nworkers : = 1\n",
            ":2: the text before = is not the name of a key; allowed: key = value",
        ),
        (
            "[gateway]\n= 1\n",
            ":2: the text before = is not the name of a key;",
        ),
        (
            "[gateway]\n  workers = 1\n",
            ":2: an indented line; allowed: lines that begin in the first column;",
        ),
        (
            "[gateway]\nlisten = 1.2.3.4:80,\n\t1.2.3.5:80\n",
            ":3: an indented line;",
        ),
        (
            "[gateway]\nworkers = 1 # one\n",
            ":2: [gateway] workers = 1 # one: a # or ; within the value; allowed: comments on lines",
        ),
        (
            "[gateway]\nworkers = 1;one\n",
            ":2: [gateway] workers = 1;one: a # or ; within the value;",
        ),
        (
            "[gateway]\nuser = a\0b\n",
            ":2: a control character; allowed: text",
        ),
        (
            "\u{feff}[gateway]\n",
            ":1: a byte order mark; allowed: UTF-8",
        ),
        (
            "",
            ": no source for the lists; allowed: url in [redis] or the variable GRAYGATE_REDIS_URL, or file in [lists]",
        ),
        (
            "[redis]\nurl =\n[lists]\nfile =\n",
            ": no source for the lists;",
        ),
        (
            "[lists]\nfile = redis://h\n",
            ":2: [lists] file = (hidden): it is a URL; allowed: the path of a file",
        ),
        (
            "[redis]\ngray_key = a\nprod_key = a\n",
            ":3: [redis] prod_key = a: gray_key has the same value; allowed: three different keys",
        ),
        (
            "[redis]\nprod_key = pre\n",
            ":2: [redis] prod_key = pre: pre_key has the same value;",
        ),
    ];
    for (text, expected) in table {
        let error = parse(text).unwrap_err().to_string();
        let expected = format!("{FILE}{expected}");
        assert!(
            error.starts_with(&expected),
            "{error}\nexpected: {expected}"
        );
        assert!(error.contains("; allowed: "), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn comments_blanks_and_windows_line_ends_do_no_harm() {
    let text =
        "; one\r\n  # two\r\n\r\n[ gateway ]\r\nworkers\t=\t3  \r\nuser=\r\n[lists]\r\nfile = l";
    let config = parse(text).unwrap();
    assert_eq!((config.gateway.workers, config.gateway.user), (3, None));
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graygate.ini");
    let error = || Config::load(&path, None).unwrap_err().to_string();
    let place = path.display();

    let expected = format!("{place}: cannot be read: No such file or directory (os error 2)");
    assert_eq!(error(), expected);

    std::fs::write(&path, b"[gateway]\n# gr\xfc\xdf\n").unwrap();
    assert!(
        error().starts_with(&format!("{place}:2: not UTF-8; ")),
        "{}",
        error()
    );

    std::fs::write(&path, vec![b'\n'; 16 * 1024 * 1024 + 1]).unwrap();
    assert!(
        error().starts_with(&format!("{place}: is too long; ")),
        "{}",
        error()
    );

    std::fs::write(&path, "[lists]\nfile = lists\n").unwrap();
    let config = Config::load(&path, None).unwrap();
    assert_eq!(config.store, Store::File(dir.path().join("lists")));
    assert_eq!(config.path, path);
}

#[test]
fn relative_paths_of_a_relative_file_become_absolute() {
    let config = Config::parse(Path::new("g.ini"), "[lists]\nfile = lists\n", None).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.path, here.join("g.ini"));
    assert_eq!(config.store, Store::File(here.join("lists")));
}

#[test]
fn the_variable_goes_before_the_file_unless_empty() {
    let variable = |text, url: &str| Config::parse(Path::new(FILE), text, Some(url.to_owned()));
    let url = "redis://h:1/2";
    for text in [
        REDIS,
        "[lists]\nfile = l\n",
        "",
        "[redis]\nurl = nonsense\n",
    ] {
        assert_eq!(redis(variable(text, url).unwrap()).url.as_str(), url);
    }
    assert_eq!(variable(REDIS, "").unwrap(), parse(REDIS).unwrap());
    assert_eq!(
        variable("[lists]\nfile = l\n", "").unwrap().store,
        Store::File("/etc/gray/l".into())
    );
    let error = variable(REDIS, "http://:secret@h").unwrap_err().to_string();
    let expected = "GRAYGATE_REDIS_URL: it does not begin with redis://, rediss:// or unix://; allowed: redis:";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_url_is_shown_without_user_and_password() {
    let table = [
        ("redis://h", "redis://h:6379/0"),
        ("redis://hunter2:hunter2@h:1/2", "redis://h:1/2"),
        ("redis://:hunter2@[::1]:1", "redis://[::1]:1/0"),
        ("rediss://hunter2:hunter2@h/4", "rediss://h:6379/4"),
        ("rediss://:hunter2@[::1]:1", "rediss://[::1]:1/0"),
        ("redis://hunter2@h?protocol=3", "redis://h:6379/0"),
        (
            "redis://h?db=5&user=hunter2&password=hunter2",
            "redis://h:6379/5",
        ),
        ("rediss://h/1?protocol=resp2&db=1", "rediss://h:6379/1"),
        ("redis://:hunter2@hunter2@h/1", "redis://h:6379/1"),
        ("redis://:hunter2%23%2F%40@h/1", "redis://h:6379/1"),
        (
            "unix:///run/r.sock?db=3&user=hunter2&pass=hunter2",
            "unix:///run/r.sock?db=3",
        ),
        (
            "redis+unix:///run/r.sock?pass=hunter2",
            "unix:///run/r.sock?db=0",
        ),
    ];
    for (text, shown) in table {
        let config = with("redis.url", text).unwrap();
        assert!(
            !format!("{config:?} {config:#?}").contains("hunter2"),
            "{config:?}"
        );
        let url = redis(config).url;
        assert_eq!((url.as_str(), url.to_string().as_str()), (text, shown));
        assert_eq!(format!("{url:?}"), format!("Url({shown:?})"));
    }
}

#[test]
fn what_the_query_of_a_url_says_counts_as_for_other_clients() {
    for (text, user, password, db) in [
        ("redis://h?db=5", None, None, 5),
        ("redis://h/?db=5", None, None, 5),
        ("redis://h/5?db=5&db=5", None, None, 5),
        ("rediss://h?password=p%26%23", None, Some("p&#"), 0),
        ("redis://h?pass=p&username=u&db=1", Some("u"), Some("p"), 1),
        ("redis://u:p@h/2?user=u&password=p", Some("u"), Some("p"), 2),
        ("redis://u@h?password=p&protocol=3", Some("u"), Some("p"), 0),
        ("redis://h?", None, None, 0),
        (
            "unix:///s?username=u&password=p&db=3",
            Some("u"),
            Some("p"),
            3,
        ),
    ] {
        let url = redis(with("redis.url", text).unwrap()).url;
        let login = url.login();
        let in_url = match &login.password {
            Password::Text(text) => Some(text.as_str()),
            _ => None,
        };
        let read = (login.user.as_deref(), in_url, login.db);
        assert_eq!(read, (user, password, db), "{text}");
    }
}

#[test]
fn a_bad_url_is_an_error_that_does_not_show_it() {
    let table = [
        (
            "rediss:secret@h",
            "it does not begin with redis://, rediss:// or unix://",
        ),
        ("rediss://:secret@", "it is malformed"),
        ("rediss://user:12/secret@h", "it has an @ after the host"),
        (
            "http://:secret@h",
            "it does not begin with redis://, rediss:// or unix://",
        ),
        (
            "secret",
            "it does not begin with redis://, rediss:// or unix://",
        ),
        (
            "h:6379",
            "it does not begin with redis://, rediss:// or unix://",
        ),
        ("redis://:secret@", "it is malformed"),
        ("redis://:secret@h:99999", "it is malformed"),
        ("redis://:secret/secret@h", "it is malformed"),
        ("redis://:secret@h/secret", "Invalid database number"),
        ("redis://:secret@h/-1", "its database is less than 0"),
        ("redis://user:12/secret@h", "it has an @ after the host"),
        ("redis://user:12?secret@h", "it has an @ after the host"),
        (
            "redis://:secret@h?protocol=secret",
            "its protocol is neither 2 nor 3",
        ),
        (
            "redis://:secret%zz@h",
            "it has a % without two hexadecimal digits after it; a % itself is %25",
        ),
        (
            "redis://:secret@h?user=50%",
            "it has a % without two hexadecimal digits after it; a % itself is %25",
        ),
        (
            "unix:///secret%2?db=1",
            "it has a % without two hexadecimal digits after it; a % itself is %25",
        ),
        (
            "redis://h?password=secret%ff",
            "an escape in its query is not UTF-8",
        ),
        ("redis://h?secret", "a part of its query has no ="),
        ("redis://h?db=1&secret", "a part of its query has no ="),
        (
            "redis://h/0?socket_timeout=5",
            "`socket_timeout` is unknown in its query",
        ),
        (
            "redis://h?Db=1&password=secret",
            "`Db` is unknown in its query",
        ),
        ("redis://h?sec%20ret=1", "a name is unknown in its query"),
        ("redis://h?db=", "Invalid database number"),
        ("redis://h?db=-1", "its database is less than 0"),
        ("redis://h/0?db=2", "it names two values for the database"),
        (
            "redis://h?db=1&db=2",
            "it names two values for the database",
        ),
        (
            "redis://secret@h?user=x",
            "it names two values for the user",
        ),
        (
            "redis://:secret@h?password=x",
            "it names two values for the password",
        ),
        (
            "unix:///s?pass=secret&password=x",
            "it names two values for the password",
        ),
        (
            "unix:///s?timeout=secret",
            "`timeout` is unknown in its query",
        ),
        (
            "redis://:secret@0.0.0.0",
            "Cannot connect to a wildcard address (0.0.0.0 or ::)",
        ),
        ("unix://secret", "Missing path"),
        ("unix:///s?db=secret", "Invalid database number"),
    ];
    for (text, what) in table {
        let error = with("redis.url", text).unwrap_err();
        let expected = format!("{FILE}:2: [redis] url = (hidden): {what}; allowed: redis://");
        assert!(
            error.to_string().starts_with(&expected),
            "{error}\nexpected: {expected}"
        );
        assert!(!format!("{error:?} {error}").contains("secret"), "{error}");
        let parsed = text.parse::<Url>().unwrap_err().to_string();
        assert!(
            parsed.starts_with(&format!("Redis URL: {what}; ")),
            "{parsed}"
        );
    }
    let error = "redis://:secret#1@h".parse::<Url>().unwrap_err();
    assert!(
        error.to_string().starts_with("Redis URL: it has a #; "),
        "{error}"
    );
}

#[test]
fn no_error_shows_a_password_wherever_it_stands() {
    let table = [
        "[redis]\nurl = redis://:secret#@h\n",
        "[redis]\nurl = redis://:sec;secret@h\n",
        "[redis]\nurl: redis://:secret@h\n",
        "[redis]\nurl =\n  redis://:secret@h\n",
        "[redis]\nurl =\nredis://:secret@h/?protocol=3\n",
        "[redis]\nurls = redis://:secret@h\n",
        "url = redis://:secret@h\n",
        "[redis]\nurl = redis://a\nurl = redis://:secret@h\n",
        "[redis]\ntimeout = redis://:secret@h\n",
        "[redis]\nsentinels = :secret@\n",
        "[redis]\nsentinels = a, secret@h/x\n",
        "[redis]\nsentinels = a, redis://:secret@h/1\n",
        "[redis]\nsentinels = redis://:secret#@h\n",
        "[redis]\ntls_ca = rediss://:secret@h\n",
        "[gateway]\nlisten = redis://:secret@h\n",
        "[gateway]\nlisten = :secret@h\n",
        "[gateway]\ntrusted_proxies = redis://:secret@h\n",
        "[lists]\nfile = redis://:secret@h\n",
        "[log]\naccess = redis://:secret@h\n",
        "[redis://:secret@h]\n",
        "[redis://:secret@h\n",
    ];
    for text in table {
        let error = parse(text).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("secret"), "{error}");
    }
}

#[test]
fn an_error_is_one_line_of_bounded_length() {
    let long = "ä".repeat(10_000);
    let error = with("upstream.tries", &long).unwrap_err().to_string();
    assert!(
        error.len() < 300 && error.contains("ä…: it is not"),
        "{error}"
    );
    let error = Config::load(Path::new("/no\nwhere"), None).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 1);
}

/// Another value than the default for each key.
const OTHERS: &[(&str, &str)] = &[
    ("gateway.listen", "127.0.0.1:81"),
    ("gateway.workers", "255"),
    ("gateway.max_connections", "1"),
    ("gateway.max_line", "1k"),
    ("gateway.max_head", "1k"),
    ("gateway.max_fields", "1"),
    ("gateway.raw_target", "refuse"),
    ("gateway.max_body", "1k"),
    ("gateway.max_discard", "1k"),
    ("gateway.head_timeout", "1ms"),
    ("gateway.body_timeout", "1ms"),
    ("gateway.send_timeout", "1ms"),
    ("gateway.min_rate", "1k"),
    ("gateway.keepalive_timeout", "1ms"),
    ("gateway.tunnel_timeout", "1ms"),
    ("gateway.tunnel_grace", "off"),
    ("gateway.drain_timeout", "1ms"),
    ("gateway.drain_tunnel_timeout", "1ms"),
    ("gateway.upgrade_timeout", "1ms"),
    ("gateway.trusted_proxies", "10.0.0.1"),
    ("gateway.request_id", "on"),
    ("gateway.default_service", "off"),
    ("gateway.pid_file", ""),
    ("gateway.user", ""),
    ("gateway.group", "x"),
    ("redis.url", "redis://h"),
    ("redis.sentinels", "a,b:1"),
    ("redis.password_file", "x"),
    ("redis.sentinel_password_file", "x"),
    ("redis.tls_ca", "x"),
    ("redis.tls_cert", "x"),
    ("redis.tls_key", "x"),
    ("redis.tls_name", "x"),
    ("redis.gray_key", "x"),
    ("redis.pre_key", "x"),
    ("redis.prod_key", "x"),
    ("redis.salt_key", "x"),
    ("redis.tripped_key", "x"),
    ("redis.release_key", "x"),
    ("redis.history_key", "x"),
    ("redis.accept_key", "x"),
    ("redis.notify", "poll"),
    ("redis.check_interval", "1ms"),
    ("redis.poll_interval", "1ms"),
    ("redis.timeout", "1ms"),
    ("redis.max_reply", "64k"),
    ("redis.heartbeat", "off"),
    ("redis.node", "x"),
    ("redis.node_key", "x"),
    ("lists.file", "x"),
    ("lists.last_good", "x"),
    ("lists.last_good_max_age", "1d"),
    ("lists.guard_share", "0"),
    ("lists.guard_timeout", "1ms"),
    ("gray.salt", "x"),
    ("gray.visitor_cookie", "x"),
    ("gray.visitor_max_age", "1d"),
    ("gray.visitor_private", "on"),
    ("gray.force_header", "X-Force"),
    ("gray.force_cookie", "force"),
    ("gray.force_secret_file", "x"),
    ("gray.mark", "on"),
    ("gray.mark_header", "X-Mark"),
    ("gray.follow_mark", "on"),
    ("gray.expose", "all"),
    ("upstream.peer_port", "81"),
    ("upstream.resolve_interval", "1ms"),
    ("upstream.connect_timeout", "1ms"),
    ("upstream.send_timeout", "1ms"),
    ("upstream.read_timeout", "1ms"),
    ("upstream.stall_timeout", "2m"),
    ("upstream.deadline", "1m"),
    ("upstream.tries", "1"),
    ("upstream.retry_budget", "1"),
    ("upstream.balance", "least"),
    ("upstream.max_fails", "1"),
    ("upstream.fail_statuses", "502"),
    ("upstream.fail_timeout", "1ms"),
    ("upstream.max_out", "1"),
    ("upstream.slow_start", "off"),
    ("upstream.keepalive", "1"),
    ("upstream.keepalive_timeout", "1ms"),
    ("upstream.fallback", "off"),
    ("health.path", "/x"),
    ("health.interval", "1m"),
    ("health.timeout", "1ms"),
    ("health.rise", "1"),
    ("health.fall", "1"),
    ("health.expect", "200"),
    ("health.host", "h"),
    ("health.check_before_use", "on"),
    ("verdict.mode", "enforce"),
    ("verdict.slow", "off"),
    ("verdict.margin_list", "1.5"),
    ("verdict.margin_percent", "1.5"),
    ("verdict.alpha", "0.05"),
    ("verdict.tolerate", "0.5%"),
    ("verdict.client", "cookie:uid"),
    ("verdict.webhook", "https://h/x"),
    ("verdict.webhook_format", "feishu"),
    ("verdict.webhook_secret_file", "x"),
    ("verdict.webhook_ca", "x"),
    ("verdict.webhook_timeout", "1s"),
    ("log.access", "off"),
    ("log.error", "off"),
    ("log.format", "json"),
    ("log.sample", "2xx:100"),
    ("log.own_lines", "1"),
    ("log.level", "warn"),
    ("admin.socket", "off"),
    ("admin.listen", "off"),
    ("admin.expose", "full"),
    ("admin.token_file", "t"),
    ("admin.metrics", "127.0.0.1:9181"),
    ("admin.hosts", "gw"),
];

#[test]
fn every_key_has_an_effect_and_a_reload_takes_on_those_without_restart_in_their_text() {
    assert_eq!(OTHERS.len(), KEYS.iter().count());
    for (key, (name, value)) in KEYS.iter().zip(OTHERS) {
        assert_eq!(format!("{}.{}", key.section, key.name), *name);
        let (old, new) = match (key.section, key.name) {
            ("lists", "file") => (with(name, "l"), with(name, value)),
            ("redis", "url") => (parse(REDIS), with(name, value)),
            // Without a path there are no checks.
            ("health", name) if name != "path" => {
                let text = format!("{REDIS}[health]\npath = /\n");
                (parse(&text), parse(&format!("{text}{name} = {value}\n")))
            }
            // Without a service, somebody must be served.
            ("gateway", "default_service") => {
                let text = format!("{REDIS}[service a]\npaths = /a\n");
                let changed = format!("{text}[gateway]\ndefault_service = {value}\n");
                (parse(&text), parse(&changed))
            }
            ("redis", "tls_ca" | "tls_cert" | "tls_key" | "tls_name") => {
                let text = "[redis]\nurl = rediss://h\ntls_ca = a\ntls_cert = a\ntls_key = a\ntls_name = a\n";
                let changed = format!("{} = {value}", key.name);
                let new = text.replace(&format!("{} = a", key.name), &changed);
                (parse(text), parse(&new))
            }
            ("redis", "sentinel_password_file") => {
                let text = format!("{REDIS}sentinels = a\n");
                (
                    parse(&text),
                    parse(&format!("{text}{} = {value}\n", key.name)),
                )
            }
            ("gray", "force_secret_file") => {
                let text = format!("{REDIS}[gray]\nforce_cookie = a\n");
                (
                    parse(&text),
                    parse(&format!("{text}{} = {value}\n", key.name)),
                )
            }
            // Without a webhook nothing is sent.
            ("verdict", name) if name.starts_with("webhook_") => {
                let text = format!("{REDIS}[verdict]\nwebhook = https://h/\n");
                (parse(&text), parse(&format!("{text}{name} = {value}\n")))
            }
            ("redis", _) => (
                parse(REDIS),
                parse(&format!("{REDIS}{} = {value}\n", key.name)),
            ),
            _ => (parse(REDIS), with(name, value)),
        };
        let (old, new) = (old.unwrap(), new.unwrap());
        assert_ne!(old, new, "{name}");
        let (running, kept) = old.reload(new.clone());
        if key.text.ends_with(" (restart)") {
            assert_eq!((running, kept), (old, vec![*name]));
        } else {
            assert_eq!((running, kept), (new, vec![]), "{name}");
        }
    }
}

#[test]
fn a_reload_of_the_same_file_changes_nothing_and_of_many_keys_tells_all() {
    let old = parse(REDIS).unwrap();
    assert_eq!(old.reload(old.clone()), (old.clone(), vec![]));

    let text = "[gateway]\nworkers = 255\nmax_line = 1k\nuser = x\n[lists]\nfile = l\n[admin]\nlisten = off\n";
    let (running, kept) = old.reload(parse(text).unwrap());
    assert_eq!(kept, ["gateway.workers", "gateway.user"]);
    assert_eq!(running.admin.listen, None);
    assert_eq!(running.store, Store::File("/etc/gray/l".into()));
    assert_eq!(running.gateway.limits.line, 1024);
}

#[test]
fn sentinels_are_hosts_or_urls_and_hide_their_passwords() {
    let sentinels = |value: &str| parse(&format!("{REDIS}sentinels = {value}\n"));
    let config = sentinels("a, [::1]:1,rediss://user:hunter2@b:2, :hunter2@10.0.0.1").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let shown = redis(config).sentinels;
    let shown: Vec<String> = shown.iter().map(ToString::to_string).collect();
    let expected = [
        "redis://a:26379/0",
        "redis://[::1]:1/0",
        "rediss://b:2/0",
        "redis://10.0.0.1:26379/0",
    ];
    assert_eq!(shown, expected);
    for (value, what) in [
        ("a,,b", "number 2: Missing hostname"),
        ("a,b:x", "number 2: it is malformed"),
        ("http://a", "number 1: it does not begin with redis://"),
        ("unix:///s", "number 1: it is not a host"),
        ("a/1", "number 1: it is not a host"),
        ("a?db=1", "number 1: it is not a host"),
        ("a?name=x", "number 1: `name` is unknown in its query"),
    ] {
        let error = sentinels(value).unwrap_err().to_string();
        let expected = format!("{FILE}:3: [redis] sentinels = (hidden): {what}");
        assert!(
            error.starts_with(&expected),
            "{error}\nexpected: {expected}"
        );
    }
    // The port at a master's name is nobody's.
    for (url, shown) in [
        ("redis://:hunter2@mymaster:6380/2", "redis://mymaster/2"),
        ("rediss://mymaster", "rediss://mymaster/0"),
    ] {
        let config = parse(&format!("[redis]\nurl = {url}\nsentinels = a\n")).unwrap();
        assert_eq!(config.store.to_string(), shown);
        assert_eq!(redis(config).url.as_str(), url);
    }
    let error = parse("[redis]\nurl = unix:///s\nsentinels = a\n").unwrap_err();
    assert!(error.to_string().contains("not a master"), "{error}");
}

#[test]
fn files_for_tls_come_in_pairs_and_where_tls_is_spoken() {
    for (text, what) in [
        (
            "url = rediss://h\ntls_cert = c\n",
            ":3: [redis] tls_cert = c: there is no tls_key",
        ),
        (
            "url = rediss://h\ntls_key = k\n",
            ":3: [redis] tls_key = k: there is no tls_cert",
        ),
        (
            "url = redis://h\ntls_ca = a\n",
            ":3: [redis] tls_ca = a: neither the URL of Redis nor a Sentinel begins with rediss://",
        ),
        (
            "url = unix:///s\ntls_cert = c\ntls_key = k\n",
            ":3: [redis] tls_cert = c: neither the URL",
        ),
        (
            "url = redis://h\ntls_name = n\n",
            ":3: [redis] tls_name = n: neither the URL",
        ),
        (
            "url = rediss://h\ntls_name = n:6379\n",
            ":3: [redis] tls_name = n:6379: it is not the name of a host",
        ),
    ] {
        let error = parse(&format!("[redis]\n{text}")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{FILE}{what}")), "{error}");
    }
    let text = "[redis]\nurl = redis://m\nsentinels = rediss://h\ntls_ca = a\ntls_cert = c\ntls_key = /k\n";
    let tls = redis(parse(text).unwrap()).tls;
    assert_eq!(tls.ca, Some("/etc/gray/a".into()));
    assert_eq!(tls.own, Some(("/etc/gray/c".into(), "/k".into())));
}

#[test]
fn a_password_stands_in_one_place_and_the_environment_goes_before_the_file() {
    for (text, what) in [
        (
            "url = redis://:secret@h\npassword_file = p\n",
            ":3: [redis] password_file = p: url has a password, too",
        ),
        (
            "url = redis://h?password=secret\npassword_file = p\n",
            ":3: [redis] password_file = p: url has a password, too",
        ),
        (
            "url = redis://h\nsentinel_password_file = p\n",
            ":3: [redis] sentinel_password_file = p: there are no sentinels",
        ),
        (
            "url = redis://h\nsentinels = redis://:secret@a\nsentinel_password_file = p\n",
            ":4: [redis] sentinel_password_file = p: each of the sentinels has a password",
        ),
    ] {
        let error = parse(&format!("[redis]\n{text}")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{FILE}{what}")), "{error}");
    }
    let text = "[redis]\nurl = redis://u@m\nsentinels = a, redis://:own@b\npassword_file = p\nsentinel_password_file = /s\n";
    let config = parse(text).unwrap();
    assert!(config.masked.is_empty());
    let settings = redis(config);
    let file = |key, path: &str| Password::File {
        key,
        path: path.into(),
    };
    let server = settings.url.login();
    assert_eq!(server.user.as_deref(), Some("u"));
    assert!(server.password == file("password_file", "/etc/gray/p"));
    let of_sentinel = |at: usize| settings.sentinels[at].login().password.clone();
    assert!(of_sentinel(0) == file("sentinel_password_file", "/s"));
    assert!(of_sentinel(1) == Password::Text("own".to_owned()));

    let in_file = "[redis]\nurl = redis://h\npassword_file = p\n";
    for (variable, masked) in [
        ("redis://h", vec![]),
        ("redis://g", vec!["redis.url"]),
        (
            "redis://:secret@h",
            vec!["redis.url", "redis.password_file"],
        ),
    ] {
        let config = Config::parse(Path::new(FILE), in_file, Some(variable.to_owned())).unwrap();
        assert_eq!(config.masked, masked, "{variable}");
        let password = redis(config).url.login().password.clone();
        let is_in_file = matches!(password, Password::File { .. });
        assert_eq!(is_in_file, !variable.contains("secret"));
    }
}

#[test]
fn a_value_in_quotes_is_what_stands_between_them_whatever_its_key() {
    let text = r#"[gateway]
user = "a;b"
workers = "3"
[redis]
url = "redis://127.0.0.1:6379/0"
gray_key = "gray#1"
pre_key = " pre ; \\ \"x\" = "
prod_key = it"s
[log]
access = "off"
"#;
    let config = parse(text).unwrap();
    assert_eq!(config.gateway.user.as_deref(), Some("a;b"));
    assert_eq!(config.gateway.workers, 3);
    assert_eq!(config.log.access, LogTarget::Off);
    let keys = redis(config).services.remove(0).lists;
    assert_eq!(keys.gray, "gray#1");
    assert_eq!(keys.pre, " pre ; \\ \"x\" = ");
    assert_eq!(keys.prod, "it\"s");
    for value in ["\"a", "\"a\" # b", "\"a\"b\"", "\"a\\b\"", "\"a\\\"", "\""] {
        let error = with("redis.gray_key", value).unwrap_err().to_string();
        let expected = ":2: [redis] gray_key: a quote that does not enclose the value; allowed: ";
        assert!(error.starts_with(&format!("{FILE}{expected}")), "{error}");
    }
    let error = with("redis.pre_key", "\"gray\"").unwrap_err().to_string();
    assert!(
        error.contains("[redis] pre_key = gray: gray_key has the same value"),
        "{error}"
    );
    let error = parse("[redis]\nurl = \"redis://:secret@h\n").unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

/// How the two pools are checked by these lines.
fn checks(text: &str) -> [Option<Checks>; 2] {
    let config = parse(&format!("{text}{REDIS}")).unwrap();
    let health = &config.default_service().health;
    PoolName::ALL.map(|it| health.of_pool(it).map(|it| Checks::clone(it)))
}

#[test]
fn servers_are_checked_as_the_section_says_and_before_it_that_of_their_pool() {
    let shipped = Checks {
        path: "/healthz".to_owned(),
        interval: ms(5_000),
        timeout: ms(1_000),
        rise: 2,
        fall: 3,
        expect: vec![200..=399],
        host: None,
        before_use: false,
    };
    assert_eq!(checks("[health]\nfall = 1\n"), [None, None]);
    let both = checks("[health]\npath = /healthz\n");
    assert_eq!(both, [Some(shipped.clone()), Some(shipped.clone())]);
    // In any order, and key by key.
    let text = "[health pre]\npath = /live?full=1\nexpect = 200-299, 304\nhost = [::1]:80\n\
                [health]\nfall = 1\n[health prod]\nfall = 2\ncheck_before_use = on\n";
    let of_pre = Checks {
        path: "/live?full=1".to_owned(),
        fall: 1,
        expect: vec![200..=299, 304..=304],
        host: Some("[::1]:80".to_owned()),
        ..shipped.clone()
    };
    assert_eq!(checks(text), [Some(of_pre), None]);
    let [pre, prod] =
        checks("[health]\npath = /healthz\ncheck_before_use = on\n[health pre]\npath =\n");
    let of_prod = Checks {
        before_use: true,
        ..shipped
    };
    assert_eq!((pre, prod), (None, Some(of_prod)));
}

#[test]
fn what_is_wrong_in_the_section_of_a_pool_is_named_with_that_section() {
    for (text, expected) in [
        (
            "[health]\nrise = 0\n[health pre]\nrise = 1\n[health prod]\nrise = 1\n",
            ":2: [health] rise = 0: it is out of range;",
        ),
        (
            "[health pre]\nrise = 1\n[health prod]\nrise = x\n",
            ":4: [health prod] rise = x: it is not a whole number;",
        ),
        (
            "[health pre]\nrise = 1\n[health]\nrise = 1\n[health pre]\nrise = 2\n",
            ":6: [health pre] rise: given twice, first on line 2;",
        ),
        (
            "[health pre]\ntries = 1\n",
            ":2: [health pre] tries: not a key of this section, but one of [upstream]; allowed: path,",
        ),
        (
            "[health gray]\n",
            ":1: [health gray]: an unknown section; allowed: [gateway],",
        ),
        (
            "[upstream pre]\n",
            ":1: [upstream pre]: an unknown section;",
        ),
        ("[health  pre]\n", ":1: [health  pre]: an unknown section;"),
    ] {
        let error = parse(&format!("{text}{REDIS}")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{FILE}{expected}")), "{error}");
    }
}
