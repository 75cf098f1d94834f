//! Sections `[service NAME]`, and those of their checks.

use super::*;

/// What is wrong with a file, without its path.
fn error(text: &str) -> String {
    let error = parse(text).unwrap_err().to_string();
    error.strip_prefix(FILE).unwrap().to_owned()
}

fn names(config: &Config) -> Vec<&str> {
    config.services.iter().map(|it| it.name.as_str()).collect()
}

/// A file with Redis in its first two lines, and then this.
fn with_services(text: &str) -> String {
    format!("{REDIS}{text}")
}

#[test]
fn services_come_after_the_default_one_in_the_order_of_the_file() {
    let text = with_services(
        "[service z]\nhosts = Z.example.COM., *.Z.example, 10.0.0.1, [2001:DB8:0::1]\npaths = /api/, /v2\n\
         [service health]\npaths = /\nsalt = \" a;b\"\n[upstream]\ntries = 4\n[service A.b_c-1]\nhosts = a\n",
    );
    let config = parse(&text).unwrap();
    assert_eq!(names(&config), ["default", "z", "health", "A.b_c-1"]);
    let [default, z, health, a] = &*config.services else {
        panic!()
    };
    let hosts: Vec<String> = z.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(
        hosts,
        ["z.example.com", "*.z.example", "10.0.0.1", "[2001:db8::1]"]
    );
    assert_eq!(z.hosts[1], HostPattern::Suffix(".z.example".to_owned()));
    assert_eq!(z.paths, ["/api", "/v2"]);
    assert_eq!(
        (&*health.paths, &*health.salt),
        (&["/".to_owned()][..], " a;b")
    );
    assert!(a.paths.is_empty() && a.gray_of.is_none());
    assert!(default.takes_rest && !z.takes_rest);
    for service in &config.services {
        assert_eq!(service.upstream, config.default_service().upstream);
        assert_eq!(service.health, config.default_service().health);
    }
    let keys = redis(config).services;
    assert_eq!(keys.len(), 4);
    assert_eq!(keys[1].service.as_str(), "z");
    let of_z: Vec<&str> = keys[1].lists.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(
        (of_z, &*keys[1].salt),
        (vec!["z:gray", "z:pre", "z:prod"], "z:salt")
    );
}

#[test]
fn what_a_service_does_not_say_holds_as_it_does_for_all() {
    let text = with_services(
        "[upstream]\nresolve_interval = 3s\ntries = 4\nread_timeout = 2s\n\
         [health]\npath = /all\nrise = 5\n[health pre]\nrise = 6\nfall = 6\n\
         [service a]\nhosts = a\ntries = 5\nread_timeout = 2m\n\
         [service a health]\npath = /a\nfall = 7\n[service a health prod]\nfall = 8\n\
         [service b]\nhosts = b\n[service b health pre]\npath =\n[service c]\nhosts = c\n",
    );
    let config = parse(&text).unwrap();
    let [_, a, b, c] = &*config.services else {
        panic!()
    };
    assert_eq!(
        (a.upstream.tries, a.upstream.read_timeout),
        (5, ms(120_000))
    );
    assert_eq!(a.upstream.stall_timeout, ms(120_000));
    assert_eq!(a.upstream.resolve_interval, ms(3000));
    assert_eq!((c.upstream.tries, c.upstream.read_timeout), (4, ms(2000)));
    let checks = |it: &ServiceSettings, pool| {
        let checks = it.health.of_pool(pool)?;
        Some((checks.path.clone(), checks.rise, checks.fall))
    };
    let some = |path: &str, rise, fall| Some((path.to_owned(), rise, fall));
    // What is said of the service goes before what is said of the pool.
    assert_eq!(checks(a, PoolName::Pre), some("/a", 6, 7));
    assert_eq!(checks(a, PoolName::Prod), some("/a", 5, 8));
    assert_eq!(checks(b, PoolName::Pre), None);
    assert_eq!(checks(b, PoolName::Prod), some("/all", 5, 3));
    assert_eq!(checks(c, PoolName::Pre), some("/all", 6, 6));
}

#[test]
fn the_verdict_of_a_service_goes_before_that_of_all_key_by_key() {
    let text = with_services(
        "[verdict]\nmode = enforce\nmargin_list = 3\n[service a]\nhosts = a\n\
         [service a verdict]\nmode = off\nclient = header:X-User\n[service b]\nhosts = b\n",
    );
    let config = parse(&text).unwrap();
    let [default, a, b] = &*config.services else {
        panic!()
    };
    assert_eq!(b.verdict, default.verdict);
    let expected = VerdictSettings {
        mode: VerdictMode::Off,
        client: UnitKey::Header("X-User".to_owned()),
        ..default.verdict.clone()
    };
    assert_eq!(a.verdict, expected);
    assert_eq!(default.verdict.mode, VerdictMode::Enforce);
    assert_eq!(a.verdict.margin_list, 3.0);
}

#[test]
fn each_key_of_a_service_has_an_effect_and_a_reload_takes_it_on() {
    let base = with_services("[service b]\nhosts = b\n[service a]\nhosts = a\n");
    let of_upstream = OTHERS.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("upstream.")?;
        (name != "resolve_interval").then_some((name, *value))
    });
    let own = [
        ("hosts", "c"),
        ("paths", "/c"),
        ("gray", "b"),
        ("gray_key", "x"),
        ("pre_key", "x"),
        ("prod_key", "x"),
        ("salt_key", "x"),
        ("tripped_key", "y"),
        ("release_key", "z"),
        ("history_key", "w"),
        ("salt", "x"),
    ];
    let expected: Vec<&str> = KEYS.of_services().map(|it| it.name).collect();
    assert_eq!(own.map(|(name, _)| name), *expected);
    let old = parse(&base).unwrap();
    for (name, value) in own.into_iter().chain(of_upstream) {
        let text = match name {
            "hosts" => base.replace("hosts = a", "hosts = c"),
            _ => format!("{base}{name} = {value}\n"),
        };
        let new = parse(&text).unwrap();
        assert_ne!(old, new, "{name}");
        assert_eq!(old.reload(new.clone()), (new.clone(), vec![]), "{name}");
        let written = new.written().iter().find(|it| {
            &*it.section == "service a" && it.key.name == name && it.in_force.text == value
        });
        let line = text.lines().count();
        let origin = written.map(|it| it.in_force.origin);
        let expected = if name == "hosts" {
            line
        } else {
            1 + base.lines().count()
        };
        assert_eq!(origin, Some(ValueOrigin::File(expected)), "{name}");
    }
    for (name, value) in OTHERS
        .iter()
        .filter(|(name, _)| name.starts_with("health."))
    {
        let name = name.strip_prefix("health.").unwrap();
        for section in ["health", "health pre", "health prod"] {
            let base = format!("{base}[service a {section}]\npath = /\n");
            let new = match name {
                "path" => base.replace("path = /", "path = /x"),
                _ => format!("{base}{name} = {value}\n"),
            };
            assert_ne!(
                parse(&base).unwrap(),
                parse(&new).unwrap(),
                "{section} {name}"
            );
        }
    }
    for (name, value) in OTHERS {
        let Some(name) = name.strip_prefix("verdict.") else {
            continue;
        };
        // All services have one webhook.
        if name.starts_with("webhook") {
            continue;
        }
        let text = format!("{base}[service a verdict]\n{name} = {value}\n");
        let new = parse(&text).unwrap();
        let [old_a, new_a] = [&old, &new].map(|it| it.services[2].verdict.clone());
        assert_ne!(old_a, new_a, "{name}");
        assert_eq!(new.services[1], old.services[1], "{name}");
        assert_eq!(old.reload(new.clone()), (new, vec![]), "{name}");
    }
    // Services come and go.
    let none = parse(REDIS).unwrap();
    assert_eq!(none.reload(old.clone()).0.services, old.services);
    assert_eq!(old.reload(none.clone()), (none.clone(), vec![]));
}

#[test]
fn a_service_shares_the_list_and_the_salt_of_another() {
    let text = with_services(
        "salt_key = s\n[service a]\nhosts = a\ngray = shop\n[service shop]\nhosts = shop\nsalt_key = t\n\
         [service b]\nhosts = b\ngray = default\npre_key = p\n",
    );
    let config = parse(&text).unwrap();
    let gray_of = |at: usize| {
        config.services[at]
            .gray_of
            .as_ref()
            .map(ServiceName::as_str)
    };
    assert_eq!(
        [gray_of(1), gray_of(2), gray_of(3)],
        [Some("shop"), None, Some("default")]
    );
    let keys = redis(config.clone()).services;
    let shown: Vec<[&str; 4]> = keys
        .iter()
        .map(|it| [&*it.lists.gray, &*it.lists.pre, &*it.lists.prod, &*it.salt])
        .collect();
    assert_eq!(
        shown,
        [
            ["gray", "pre", "prod", "s"],
            ["shop:gray", "a:pre", "a:prod", "t"],
            ["shop:gray", "shop:pre", "shop:prod", "t"],
            ["gray", "p", "b:prod", "s"],
        ]
    );
    let of_keys = keys.iter().map(|it| it.gray_of.clone());
    let of_settings = config.services.iter().map(|it| it.gray_of.clone());
    assert!(of_keys.eq(of_settings));
}

#[test]
fn what_is_wrong_with_a_service_is_said_with_its_line() {
    const ONE: &str = "[service a]\nhosts = a\n";
    let table = [
        (
            "[service]\n",
            ":3: [service]: an unknown section; allowed: [gateway], ",
        ),
        (
            "[service default]\n",
            ":3: [service default]: the default service has no section of its own; allowed: its keys in [redis], ",
        ),
        (
            "[service ]\n",
            ":3: [service]: an unknown section; allowed: [gateway], ",
        ),
        (
            "[service  a]\n",
            ":3: [service  a]: it is not the name of a service; allowed: [service NAME], after one blank ",
        ),
        (
            "[service a/b]\n",
            ":3: [service a/b]: it is not the name of a service; ",
        ),
        ("[Service a]\n", ":3: [Service a]: an unknown section; "),
        (
            "[service a log]\n",
            ":3: [service a log]: an unknown section; ",
        ),
        (
            "[service a upstream]\n",
            ":3: [service a upstream]: an unknown section; ",
        ),
        (
            "[service a health all]\n",
            ":3: [service a health all]: an unknown section; ",
        ),
        (
            "[service a]\n",
            ":3: [service a]: it has neither hosts nor paths; allowed: ",
        ),
        (
            "[service a]\nhosts =\npaths =\n",
            ":3: [service a]: it has neither hosts nor paths; ",
        ),
        (
            "[service a health]\n",
            ":3: [service a health]: there is no [service a]; allowed: ",
        ),
        (
            "[service a]\nhosts = a\n\n[service b health pre]\npath = /\n",
            ":6: [service b health pre]: there is no [service b]; ",
        ),
        (
            "[service a]\nhosts = a\n[service b verdict]\nmode = off\n",
            ":5: [service b verdict]: there is no [service b]; ",
        ),
        (
            "[service a]\nhosts = a\n[service a verdict]\nalpha = 1\n",
            ":6: [service a verdict] alpha = 1: it is out of range; ",
        ),
        (
            "[service a]\nhosts = a\n[log]\n[service a]\n",
            ":6: [service a]: given twice, first on line 3; allowed: each service once",
        ),
        (
            "[service a]\nhosts = a\n[service a health]\n[service a health]\n",
            ":6: [service a health]: given twice, first on line 5; ",
        ),
        (
            "[service a]\nhosts = a\nhosts = b\n",
            ":5: [service a] hosts: given twice, first on line 4; ",
        ),
        (
            "[service a]\nhost = a\n",
            ":4: [service a] host: not a key of this section, but one of [health]; allowed: hosts, paths, gray, ",
        ),
        (
            "[service a]\nresolve_interval = 1s\n",
            ":4: [service a] resolve_interval: not a key of this section, but one of [upstream]; ",
        ),
        (
            "[upstream]\npaths = /a\n",
            ":4: [upstream] paths: not a key of this section, but one of [service NAME]; ",
        ),
        (
            "[service a]\nhosts = \"a\n",
            ":4: [service a] hosts: a quote that does not enclose the value; ",
        ),
        (
            "[service a]\nhosts = a\ntries = 0\n",
            ":5: [service a] tries = 0: it is out of range; ",
        ),
        (
            "[service a]\nhosts = a\n[service a health pre]\nrise = 0\n",
            ":6: [service a health pre] rise = 0: it is out of range; ",
        ),
        (
            "[service a]\nhosts = a\n[service a health]\nrise = 0\n",
            ":6: [service a health] rise = 0: it is out of range; ",
        ),
        (
            "[service a]\nhosts = a\npre_key =\n",
            ":5: [service a] pre_key = : it is empty; ",
        ),
        (
            "[service a]\nhosts = a\ngray = b\n",
            ":5: [service a] gray = b: there is no service b; allowed: ",
        ),
        (
            "[service a]\nhosts = a\ngray = a b\n",
            ":5: [service a] gray = a b: there is no service a b; ",
        ),
        (
            "[service a]\nhosts = a\ngray = a\n",
            ":5: [service a] gray = a: that is the service itself; ",
        ),
        (
            "[service a]\nhosts = a\ngray = b\n[service b]\nhosts = b\ngray = default\n",
            ":5: [service a] gray = b: b has no list of its own, but shares that of default ([service b] gray on line 8); ",
        ),
        (
            "[service a]\nhosts = a\ngray = default\ngray_key = x\n",
            ":6: [service a] gray_key = x: [service a] gray on line 5 says that the list and its salt are those of default; ",
        ),
        (
            "[service a]\nhosts = a\nsalt = x\ngray = default\n",
            ":5: [service a] salt = x: [service a] gray on line 6 says that the list and its salt are those of default; ",
        ),
        (
            "[gateway]\ndefault_service = off\n",
            ":4: [gateway] default_service = off: there is no [service NAME], so nothing would be served; ",
        ),
        (
            "[service a]\nhosts = a, b\n[service b]\nhosts = c, B.\n",
            ":6: [service b] hosts = c, B.: b with paths from / on: [service a] hosts on line 4 has that, too; ",
        ),
        (
            "[service a]\nhosts = *.a\npaths = /x/\n[service b]\nhosts = *.a\npaths = /y, /x\n",
            ":7: [service b] hosts = *.a: *.a with paths from /x on: [service a] hosts on line 4 has that, too; ",
        ),
        (
            "[service a]\npaths = /\n[service b]\npaths = /x, /\n",
            ":6: [service b] paths = /x, /: requests of any host with paths from / on: [service a] paths on line 4 has that, too; ",
        ),
        (
            "[service a]\nhosts = [::1]\n[service b]\nhosts = [0:0::1]\n",
            ":6: [service b] hosts = [0:0::1]: [::1] with paths from / on: [service a] hosts on line 4 has that, too; ",
        ),
    ];
    for (text, expected) in table {
        let said = error(&with_services(text));
        assert!(said.starts_with(expected), "{said}\nexpected: {expected}");
    }
    parse(&with_services(&format!(
        "{ONE}paths = /x\n[service b]\nhosts = a\npaths = /y\n"
    )))
    .unwrap();
    parse(&with_services(&format!(
        "{ONE}[gateway]\ndefault_service = off\n"
    )))
    .unwrap();
}

#[test]
fn a_key_of_redis_is_of_one_list_of_one_service() {
    let table = [
        (
            "[service a]\nhosts = a\ngray_key = gray\n",
            ":5: [service a] gray_key = gray: [redis] gray_key by default has the same value; allowed: a key of its own",
        ),
        (
            "prod_key = a:pre\n[service a]\nhosts = a\n",
            ":4: [service a]: its pre_key is a:pre by default, and [redis] prod_key on line 3 has the same value; ",
        ),
        (
            "[service a]\nhosts = a\npre_key = x\nprod_key = x\n",
            ":6: [service a] prod_key = x: [service a] pre_key on line 5 has the same value; ",
        ),
        (
            "[service a]\nhosts = a\n[service b]\nhosts = b\nsalt_key = a:gray\n",
            ":7: [service b] salt_key = a:gray: [service a] gray_key by default has the same value; ",
        ),
        (
            "[service a]\nhosts = a\npre_key = graygate:accept\n",
            ":5: [service a] pre_key = graygate:accept: [redis] accept_key by default has the same value; ",
        ),
        (
            "[service a]\nhosts = a\npre_key = graygate:salt\n",
            ":5: [service a] pre_key = graygate:salt: [redis] salt_key by default has the same value; ",
        ),
        (
            "node_key = a\n[service a]\nhosts = a\n",
            ":4: [service a]: its gray_key is a:gray by default, and it begins like the heartbeats of the nodes: [redis] node_key on line 3; ",
        ),
        (
            "[service a]\nhosts = a\npre_key = graygate:nodes\n",
            ":5: [service a] pre_key = graygate:nodes: it is the index of the nodes: [redis] node_key by default; ",
        ),
        (
            "salt_key = prod\n",
            ":3: [redis] salt_key = prod: [redis] prod_key by default has the same value; ",
        ),
        (
            "salt_key = graygate:accept\n",
            ":3: [redis] salt_key = graygate:accept: [redis] accept_key by default has the same value; ",
        ),
        (
            "salt_key = graygate:node:x\n",
            ":3: [redis] salt_key = graygate:node:x: it begins like the heartbeats",
        ),
        (
            "[service a]\nhosts = a\ntripped_key = graygate:tripped\n[service b]\nhosts = b\nrelease_key = graygate:tripped\n",
            ":8: [service b] release_key = graygate:tripped: [service a] tripped_key on line 5 has the same value; ",
        ),
        (
            "history_key = graygate:salt\n",
            ":3: [redis] history_key = graygate:salt: [redis] salt_key by default has the same value; ",
        ),
    ];
    for (text, expected) in table {
        let said = error(&with_services(text));
        assert!(said.starts_with(expected), "{said}\nexpected: {expected}");
    }
    // Shared by name, and a file from before there were salts.
    for text in [
        "[service a]\nhosts = a\n[service b]\nhosts = b\ngray = a\n",
        "gray_key = graygate:salt\n",
        "node_key = graygate\naccept_key = x\n",
    ] {
        parse(&with_services(text)).unwrap();
    }
    // It is said also where the lists come from a file.
    let said = error("[lists]\nfile = l\n[service a]\nhosts = a\ngray_key = pre\n");
    assert!(
        said.starts_with(":5: [service a] gray_key = pre: "),
        "{said}"
    );
}

#[test]
fn a_file_with_something_else_under_a_default_key_of_a_release_has_no_such_key() {
    let keys = |text: &str| {
        let store = parse(&with_services(text)).unwrap().store;
        let Store::Redis(redis) = store else {
            panic!("{store:?}");
        };
        let text_of = |it: &Option<String>| it.clone().unwrap_or_default();
        let of = |it: &ServiceKeys| [&it.tripped, &it.release, &it.history].map(text_of);
        let all: Vec<_> = redis.services.iter().map(of).collect();
        all.concat().join(" ")
    };
    let own = "graygate:tripped graygate:release graygate:history";
    let table = [
        ("", own.to_owned()),
        (
            "gray_key = graygate:tripped\n",
            " graygate:release graygate:history".to_owned(),
        ),
        ("node_key = graygate\naccept_key = x\n", "  ".to_owned()),
        (
            "[service a]\nhosts = a\npre_key = graygate:history\nprod_key = a:release\n",
            "graygate:tripped graygate:release  a:tripped  a:history".to_owned(),
        ),
        // A key that is given is its own, whoever comes first.
        (
            "[service a]\nhosts = a\ngray = default\ntripped_key = graygate:tripped\n",
            " graygate:release graygate:history graygate:tripped a:release a:history".to_owned(),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(keys(text), expected, "{text}");
    }
}

#[test]
fn hosts_and_paths_are_what_a_request_can_have() {
    let table = [
        (
            "hosts",
            "a:80",
            "a:80: it has a port: services are told apart by hosts only; ",
        ),
        ("hosts", "10.0.0.1:80", "10.0.0.1:80: it has a port"),
        ("hosts", "::1", "::1: an IPv6 address is in brackets; "),
        (
            "hosts",
            "[::1]:80",
            "[::1]:80: it is not an IPv6 address in brackets, without a port; ",
        ),
        (
            "hosts",
            "[10.0.0.1]",
            "[10.0.0.1]: it is not an IPv6 address in brackets",
        ),
        ("hosts", "*", "*: for all hosts, leave hosts out; "),
        (
            "hosts",
            "a.*.b",
            "a.*.b: a star stands for the labels at the beginning only, as in *.example.com; ",
        ),
        ("hosts", "*a.b", "*a.b: a star stands for"),
        ("hosts", "*.", "*.: for all hosts, leave hosts out; "),
        (
            "hosts",
            "bücher.example",
            "bücher.example: write it in ASCII, as it is sent (xn--…); ",
        ),
        ("hosts", "a..b", "a..b: it is not the name of a host; "),
        ("hosts", "a b", "a b: it is not the name of a host; "),
        ("hosts", "http://a/", "(hidden): it has a port"),
        (
            "hosts",
            "10.0.0.256",
            "10.0.0.256: it is not an IPv4 address; ",
        ),
        ("hosts", "*.0.0.1", "*.0.0.1: it is not an IPv4 address; "),
        ("hosts", "a,,b", ": it is not the name of a host; "),
        ("hosts", "a, b, A.", "A. is given twice; "),
        ("paths", "api", "api: it does not begin with /; "),
        (
            "paths",
            "/a?b=1",
            "/a?b=1: services are told apart by paths only, not by queries; ",
        ),
        ("paths", "\"/a#b\"", "/a#b: no request has a fragment; "),
        (
            "paths",
            "/v2/*",
            "/v2/*: a path holds for all that begin with it, without a star; ",
        ),
        (
            "paths",
            "/a b",
            "/a b: write it as it is sent, with %20 for a blank and so on; ",
        ),
        ("paths", "/ü", "/ü: write it as it is sent"),
        ("paths", "/a//b", "/a//b: it has an empty segment; "),
        ("paths", "/a, /b, /a/", "/a/ is given twice; "),
    ];
    for (key, value, expected) in table {
        let said = error(&with_services(&format!("[service a]\n{key} = {value}\n")));
        let shown = match value {
            "http://a/" => "(hidden)",
            _ => value.trim_matches('"'),
        };
        let expected = format!(":4: [service a] {key} = {shown}: {expected}");
        assert!(said.starts_with(&expected), "{said}\nexpected: {expected}");
    }
    let long = format!("{}com", "a.".repeat(124));
    for (key, value) in [
        (
            "hosts",
            "xn--bcher-kva.example, localhost, a_b.c-d, *.com, 1.example",
        ),
        ("hosts", &*format!("{long}, *.{long}")),
        ("paths", "/, /%C3%BC, /a.b/~c, /a*b"),
    ] {
        parse(&with_services(&format!("[service a]\n{key} = {value}\n"))).unwrap();
    }
    let many = |count: usize, each: &str| {
        let all: Vec<String> = (0..count).map(|it| format!("{each}{it}")).collect();
        all.join(", ")
    };
    let (hosts, paths) = (many(101, "h"), many(100, "/p"));
    let said = error(&with_services(&format!(
        "[service a]\nhosts = {hosts}\npaths = {paths}\n"
    )));
    assert!(
        said.contains("101 hosts with 100 paths each; allowed: at most 10000"),
        "{said}"
    );
}

#[test]
fn a_thousand_services_are_read_in_a_moment() {
    use nix::time::{ClockId, clock_gettime};
    use std::fmt::Write as _;
    let mut text = REDIS.to_owned();
    for at in 0..1000 {
        write!(
            text,
            "[service s{at}]\nhosts = s{at}.example.com, *.s{at}.example.com\npaths = /a, /b\nread_timeout = 2s\n\
             tries = 2\n[service s{at} health]\npath = /live\n[service s{at} health pre]\nrise = 5\n"
        )
        .unwrap();
    }
    // However busy the machine is.
    let spent = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let before = spent();
    let config = parse(&text).unwrap();
    let (again, kept) = config.reload(parse(&text).unwrap());
    let took = spent() - before;
    assert_eq!((again.services.len(), kept), (1001, vec![]));
    // Unoptimized it is about one; what is quadratic takes minutes.
    assert!(took < Duration::from_secs(10), "{took:?}");
    println!("twice a thousand services in {took:?}");
}

#[test]
fn the_shipped_example_of_a_service_names_every_key_with_default_and_explanation() {
    let begin = SHIPPED.find("#[service shop]\n").unwrap();
    let mut lines = SHIPPED[begin..].lines().skip(1);
    for key in KEYS.of_services() {
        assert_eq!(lines.next(), Some(&*format!("# {}", key.text)));
        let value = match key.name {
            "hosts" => "shop.example.com, *.shop.example.com".to_owned(),
            _ => key.default.replace("NAME", "shop"),
        };
        assert_eq!(
            lines.next(),
            Some(format!("#{} = {value}", key.name).trim_end())
        );
    }
    assert_eq!(lines.next(), None);
    // It works as it is, and says nothing but the defaults.
    let taken = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = SHIPPED[begin..].lines().map(taken).collect();
    let text = format!("{}{}", &SHIPPED[..begin], all.join("\n"));
    let short = format!("{SHIPPED}[service shop]\nhosts = shop.example.com, *.shop.example.com\n");
    let (whole, short) = (parse(&text).unwrap(), parse(&short).unwrap());
    assert_eq!(names(&whole), ["default", "shop"]);
    assert_eq!(whole, short);
}
