use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::Config;

/// The services of this configuration, which has no default one if `default` is off.
fn services(sections: &[(&[HostPattern], &[&str])], takes_rest: bool) -> Vec<Arc<ServiceSettings>> {
    let text = "[redis]\nurl = redis://h\n";
    let config = Config::parse(std::path::Path::new("g.ini"), text, None).unwrap();
    let mut default = (*config.services[0]).clone();
    default.takes_rest = takes_rest;
    let others = sections.iter().map(|(hosts, paths)| ServiceSettings {
        hosts: hosts.to_vec(),
        paths: paths.iter().map(|&it| it.to_owned()).collect(),
        takes_rest: false,
        ..default.clone()
    });
    let all = std::iter::once(default.clone()).chain(others);
    all.map(Arc::new).collect()
}

fn exact(name: &str) -> HostPattern {
    HostPattern::Exact(name.to_owned())
}

fn suffix(name: &str) -> HostPattern {
    HostPattern::Suffix(name.to_owned())
}

#[test]
fn exact_hosts_go_before_suffixes_and_those_before_services_without_hosts() {
    let services = services(
        &[
            (&[exact("shop.example.com"), exact("[2001:db8::1]")], &[]),
            (&[suffix(".example.com")], &[]),
            (&[suffix(".eu.example.com"), exact("10.0.0.1")], &["/api"]),
            (&[], &["/v2", "/v2/beta/"]),
            (&[exact("shop.example.com")], &["/v2/beta", "/admin"]),
            (&[], &["/v2/beta/x"]),
        ],
        true,
    );
    let table = ServiceTable::new(&services);
    for (host, path, expected) in [
        ("shop.example.com", "/", 1),
        ("SHOP.Example.COM.", "/v2/x", 1),
        ("shop.example.com", "/v2/beta/x", 5),
        ("shop.example.com", "/v2/betas", 1),
        ("shop.example.com", "/admin", 5),
        ("a.example.com", "/v2", 2),
        ("a.b.example.com", "*", 2),
        ("A.EU.example.com", "/api/x", 3),
        // That suffix has services, but not for this path.
        ("a.eu.example.com", "/apis", 2),
        ("eu.example.com", "/api", 2),
        ("example.com", "/", 0),
        (".example.com", "/", 0),
        ("example.com", "/v2", 4),
        ("example.com", "/v2/", 4),
        ("example.com", "/v20", 0),
        ("example.com", "/V2", 0),
        ("example.com", "/%762", 0),
        ("example.com", "/v2/beta", 4),
        ("example.com", "/v2/beta/x/y", 6),
        ("10.0.0.1", "/api", 3),
        ("10.0.0.1", "/", 0),
        ("[2001:DB8:0::1]", "/v2", 1),
        ("[2001:db8::2]", "/v2", 4),
        ("[2001:db8::2]", "/", 0),
        ("", "/v2", 4),
        ("", "/", 0),
        (".", "/", 0),
        ("..example.com", "/", 2),
    ] {
        let found = table.find(host.as_bytes(), path.as_bytes());
        assert_eq!(found, Ok(expected), "{host} {path}");
    }
}

#[test]
fn a_host_that_no_name_can_be_as_long_as_has_its_suffix() {
    let services = services(&[(&[suffix(".example.com")], &[])], true);
    let table = ServiceTable::new(&services);
    for length in [1, 240, 241, 242, 243, 300, 9000] {
        let host = format!("{}.EXAMPLE.com", "a".repeat(length));
        assert_eq!(table.find(host.as_bytes(), b"/"), Ok(1), "{length}");
        let host = format!("{}.com", "a.".repeat(length));
        assert_eq!(table.find(host.as_bytes(), b"/"), Ok(0), "{length}");
    }
}

#[test]
fn without_a_default_service_it_is_said_what_is_not_known() {
    let with_hosts: &[(&[HostPattern], &[&str])] = &[
        (&[exact("a.example")], &["/api"]),
        (&[suffix(".b.example")], &["/api"]),
    ];
    let table = ServiceTable::new(&services(with_hosts, false));
    for (host, path, expected) in [
        ("a.example", "/api", Ok(1)),
        ("a.example", "/", Err(UnknownService::Path)),
        ("x.b.example", "/", Err(UnknownService::Path)),
        ("x.b.example", "/api/x", Ok(2)),
        ("b.example", "/api", Err(UnknownService::Host)),
        ("", "/api", Err(UnknownService::Host)),
    ] {
        let found = table.find(host.as_bytes(), path.as_bytes());
        assert_eq!(found, expected, "{host} {path}");
    }
    let without = ServiceTable::new(&services(&[(&[], &["/api"])], false));
    assert_eq!(without.find(b"any", b"/api/"), Ok(1));
    assert_eq!(without.find(b"any", b"/"), Err(UnknownService::Path));
    let nothing = ServiceTable::new(&services(&[], false));
    assert_eq!(nothing.find(b"any", b"/"), Err(UnknownService::Host));
    assert_eq!(UnknownService::Host.refusal().status(), 421);
    assert_eq!(UnknownService::Path.refusal().status(), 404);
}

#[test]
fn the_default_service_alone_has_everything() {
    let table = ServiceTable::new(&services(&[], true));
    assert!(table.0.is_none());
    assert_eq!(table.find(b"any", b"/any"), Ok(0));
}

/// The same, as it would be told a person: every service is looked at.
fn naive(
    services: &[Arc<ServiceSettings>],
    host: &str,
    path: &str,
) -> Result<usize, UnknownService> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let address = |host: &str| {
        let inner = host.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok()
    };
    // How well a host is met: by its name, by so many bytes of a suffix, by any.
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) if *name == host => Some(usize::MAX),
        HostPattern::Exact(name) => {
            let (one, other) = (address(name)?, address(&host)?);
            (one == other).then_some(usize::MAX)
        }
        HostPattern::Suffix(suffix) if host.starts_with('[') || host.len() <= suffix.len() => None,
        HostPattern::Suffix(suffix) => host.ends_with(suffix.as_str()).then_some(suffix.len()),
    };
    let fit = |prefix: &str| {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let fits = prefix.is_empty() || path == prefix || path.starts_with(&format!("{prefix}/"));
        fits.then_some(prefix.len())
    };
    let mut best: Option<((usize, usize), usize)> = None;
    let mut is_known = false;
    for (index, service) in services.iter().enumerate().skip(1) {
        let ranks: Vec<usize> = match service.hosts.is_empty() {
            true => vec![0],
            false => service.hosts.iter().filter_map(rank).collect(),
        };
        is_known |= !ranks.is_empty();
        let fits: Vec<usize> = match service.paths.is_empty() {
            true => vec![0],
            false => service.paths.iter().filter_map(|it| fit(it)).collect(),
        };
        for rank in ranks {
            for fit in &fits {
                let this = (rank, *fit);
                if best.is_none_or(|(that, _)| that < this) {
                    best = Some((this, index));
                }
            }
        }
    }
    match best {
        Some((_, index)) => Ok(index),
        None if services[0].takes_rest => Ok(0),
        None if is_known => Err(UnknownService::Path),
        None => Err(UnknownService::Host),
    }
}

/// A few labels, so that they are often the same.
fn host() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "ab", "com"]);
    prop_oneof![
        8 => vec(label, 1..5).prop_map(|it| it.join(".")),
        1 => prop::sample::select(vec!["[::1]", "[::2]", "10.0.0.1"]).prop_map(str::to_owned),
    ]
}

fn pattern() -> impl Strategy<Value = HostPattern> {
    (host(), any::<bool>()).prop_map(|(host, is_suffix)| {
        match is_suffix && !host.starts_with('[') {
            true => HostPattern::Suffix(format!(".{host}")),
            false => HostPattern::Exact(host),
        }
    })
}

/// With segments that begin as others do, and bytes on both sides of the slash.
fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "aa", "a-", "a.", "a0", "-", ""]);
    vec(segment, 0..5).prop_map(|it| format!("/{}", it.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_table_finds_what_looking_at_every_service_finds(
        sections in vec((vec(pattern(), 0..3), vec(path(), 0..4)), 0..12),
        takes_rest in any::<bool>(),
        asked in vec((host(), path(), any::<[bool; 2]>()), 1..20),
    ) {
        let owned: Vec<(Vec<HostPattern>, Vec<&str>)> = sections
            .iter()
            .map(|(hosts, paths)| (hosts.clone(), paths.iter().map(String::as_str).collect()))
            .collect();
        let borrowed: Vec<(&[HostPattern], &[&str])> =
            owned.iter().map(|(hosts, paths)| (&hosts[..], &paths[..])).collect();
        let services = services(&borrowed, takes_rest);
        let table = ServiceTable::new(&services);
        for (host, path, [upper, dot]) in asked {
            let host = if upper { host.to_uppercase() } else { host };
            let host = if dot { format!("{host}.") } else { host };
            let found = table.find(host.as_bytes(), path.as_bytes());
            prop_assert_eq!(found, naive(&services, &host, &path), "{} {}", host, path);
        }
    }
}
