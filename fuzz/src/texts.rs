//! Files that operators write.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use graygate::config::{Config, ConfigError, Keepalive, Store, Url};
use graygate::lists::{self, GrayEntry, GrayList, ListName, PeerList, Place};
use graygate::store::{Entries, format};

use super::noise;

const PORT: u16 = 80;

/// The entries of the three lists, as they stand in the file.
type Lists = [Entries; 3];

fn read(text: &[u8]) -> Result<Lists, String> {
    let reading = format::parse(text, PORT).map_err(|error| error.to_string())?;
    let lists = [reading.gray, reading.pre, reading.prod];
    Ok(lists.map(|list| list.unwrap_or_else(|fault| panic!("{fault:?} in a file"))))
}

/// What a lists file gives can be read as lists, and written anew it gives the same; one that is
/// still being written gives nothing.
pub fn lists_file(text: &[u8]) {
    let cut = noise(text).usize(..=text.len());
    if !text[..cut].ends_with(b"\n") {
        assert!(read(&text[..cut]).is_err());
    }
    let entries = match read(text) {
        Ok(entries) => entries,
        Err(error) => return assert!(!error.is_empty() && !error.contains('\n'), "{error}"),
    };
    let [gray, pre, prod] = &entries;
    let mut anew = Vec::new();
    for (name, list) in [("gray", gray), ("pre", pre), ("prod", prod)] {
        anew.extend_from_slice(format!("[{name}]\n").as_bytes());
        for entry in list {
            anew.extend_from_slice(entry);
            anew.push(b'\n');
        }
    }
    assert_eq!(read(&anew).as_ref(), Ok(&entries));
    gray_list(gray);
    for list in [pre, prod] {
        peer_list(list);
    }
}

fn gray_list(entries: &Entries) {
    let list = GrayList::parse(entries);
    assert_eq!(list.skipped().count, 0);
    let canonical: Vec<String> = list.entries().collect();
    let again = GrayList::parse(&canonical);
    assert_eq!(again.skipped().count, 0);
    assert_eq!(again.entries().collect::<Vec<_>>(), canonical);
    let nets: Vec<_> = canonical
        .iter()
        .filter_map(|entry| match lists::gray_entry(entry) {
            Ok(GrayEntry::Net(net)) => Some(net),
            _ => None,
        })
        .collect();
    assert_eq!(nets.len() + list.rules().len(), canonical.len());
    // The borders of every net, and their neighbours.
    for net in &nets {
        assert_eq!(net.addr(), net.network(), "an entry with host bits");
        let neighbours =
            [net.network(), net.broadcast()].map(|it| [before(it), Some(it), after(it)]);
        for address in neighbours.into_iter().flatten().flatten() {
            let covered = nets.iter().any(|net| net.contains(&address));
            assert_eq!(list.contains(address), covered, "{address}");
        }
    }
}

/// An entry of the gray list survives being written in its canonical form, which is no longer than an entry
/// may be, and a line of a lists file; and what cannot be read is told in one line.
pub fn entry(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return assert_eq!(GrayList::parse([bytes]).skipped().count, 1);
    };
    let list = GrayList::parse([text]);
    assert_eq!(list.len() + list.skipped().count, 1);
    let entry = match lists::gray_entry(text.trim_ascii()) {
        Ok(entry) => entry,
        Err(what) => return assert!(!what.is_empty() && !what.contains('\n'), "{what}"),
    };
    let canonical = entry.to_string();
    assert!(canonical.len() <= 1024 && !canonical.contains(char::is_control));
    assert_eq!(
        lists::gray_entry(&canonical).as_ref(),
        Ok(&entry),
        "{canonical}"
    );
    let of_canonical = GrayList::parse([&canonical]);
    assert_eq!(of_canonical.entries().collect::<Vec<_>>(), [&*canonical]);
    // Blanks around an entry count for its length.
    if text.len() <= 1024 {
        assert_eq!(list.entries().collect::<Vec<_>>(), [&*canonical]);
        assert_eq!(list.digest(), of_canonical.digest());
    }
    let file = format!("[gray]\n{canonical} # a comment\n[pre]\n[prod]\n");
    let [gray, _, _] = read(file.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (&gray).into_iter().collect::<Vec<_>>(),
        [canonical.as_bytes()]
    );
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => Some(IpAddr::V4(it.to_bits().checked_sub(1)?.into())),
        IpAddr::V6(it) => Some(IpAddr::V6(it.to_bits().checked_sub(1)?.into())),
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => Some(IpAddr::V4(it.to_bits().checked_add(1)?.into())),
        IpAddr::V6(it) => Some(IpAddr::V6(it.to_bits().checked_add(1)?.into())),
    }
}

fn peer_list(entries: &Entries) {
    let list = PeerList::parse(entries, PORT);
    assert_eq!(list.skipped().count, 0);
    assert_eq!(list.is_empty(), entries.is_empty());
    let written: Vec<String> = list.written().iter().map(ToString::to_string).collect();
    let again = PeerList::parse(&written, PORT);
    assert_eq!(again.skipped().count, 0);
    assert_eq!(again.digest(ListName::Pre), list.digest(ListName::Pre));
    assert_eq!(again.written(), list.written());
    for peer in list.peers() {
        assert_eq!(lists::peer_entry(&peer.to_string(), 1), Ok(peer.clone()));
        assert!((1..=1000).contains(&peer.weight()));
        let port = match peer.place() {
            Place::Address(address) => {
                assert!(!address.ip().is_unspecified() && !address.ip().is_multicast());
                address.port()
            }
            Place::Name(name, port) => {
                assert!(name.len() <= 254 && !name.bytes().any(|it| it.is_ascii_uppercase()));
                // To the C library, what ends in a number is an address.
                let last = name.trim_end_matches('.').rsplit('.').next();
                let is_number = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
                assert!(last.is_some_and(|it| !is_number(it)), "{name}");
                *port
            }
        };
        assert_ne!(port, 0);
    }
}

/// An ini file gives settings within their bounds, or one line that says what is wrong; a comment
/// changes nothing.
pub fn ini_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parse = |text: &str| Config::parse(Path::new("/etc/graygate.ini"), text, None);
    let config = parse(text);
    let commented = format!("# listen = no\n{text}\n; a comment\n");
    match config {
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("/etc/graygate.ini"), "{error}");
            assert!(error.contains("; allowed: "), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
            assert!(parse(&commented).is_err(), "{error}");
        }
        Ok(config) => {
            assert_eq!(parse(&commented).as_ref(), Ok(&config));
            is_within_bounds(&config);
            if let Store::Redis(redis) = &config.store {
                hides_its_password(text, redis.url.as_str(), &redis.url, &parse);
            }
        }
    }
}

fn is_within_bounds(config: &Config) {
    let (gateway, upstream) = (&config.gateway, &config.default_service().upstream);
    assert!(!gateway.listen.is_empty());
    assert!((1..=256).contains(&gateway.workers));
    assert!((1..=1_000_000).contains(&gateway.max_connections));
    for size in [gateway.limits.line, gateway.limits.head] {
        assert!((1024..=1024 * 1024).contains(&size), "{size}");
    }
    assert!((1..=256).contains(&gateway.limits.fields));
    assert!((1..=10).contains(&upstream.tries));
    assert!(match upstream.keepalive {
        Keepalive::Auto => true,
        Keepalive::AtMost(most) => most <= 10_000,
    });
    assert_ne!(upstream.peer_port, 0);
    let times = [
        gateway.head_timeout,
        gateway.body_timeout,
        gateway.send_timeout,
        gateway.keepalive_timeout,
        gateway.tunnel_timeout,
        gateway.drain_timeout,
        gateway.drain_tunnel_timeout,
        upstream.connect_timeout,
        upstream.send_timeout,
        upstream.read_timeout,
        upstream.keepalive_timeout,
    ];
    let allowed = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
    for time in times {
        assert!(allowed.contains(&time), "{time:?}");
    }
    let proxied = gateway.listen.iter().any(|it| it.proxy);
    assert!(!proxied || !gateway.trusted_proxies.is_empty());
    match &config.store {
        Store::Redis(redis) => {
            let keys = &redis.services[0].lists;
            assert!(keys.gray != keys.pre && keys.gray != keys.prod && keys.pre != keys.prod);
        }
        Store::File(path) => assert!(path.is_absolute()),
    }
}

/// With another password the same is shown of a URL.
fn hides_its_password(
    text: &str,
    url: &str,
    shown: &Url,
    parse: &impl Fn(&str) -> Result<Config, ConfigError>,
) {
    let Some((before, behind)) = around_password(url) else {
        return;
    };
    if text.matches(url).count() > 1 {
        return;
    }
    let other = text.replace(url, &format!("{before}another{behind}"));
    if let Ok(Config {
        store: Store::Redis(redis),
        ..
    }) = parse(&other)
    {
        assert_eq!(redis.url.to_string(), shown.to_string());
        assert_eq!(format!("{:?}", redis.url), format!("{shown:?}"));
    }
}

/// What stands before and behind the password of a URL.
fn around_password(url: &str) -> Option<(&str, &str)> {
    let start = url.find("://")? + 3;
    let (password, end) = if url.starts_with("redis://") || url.starts_with("rediss://") {
        let length = url[start..].find(['/', '?']).unwrap_or(url.len() - start);
        let end = start + url[start..start + length].rfind('@')?;
        (start + url[start..end].find(':')? + 1, end)
    } else {
        let query = url.find('?')?;
        let password = query + url[query..].find("pass=")? + 5;
        let length = url[password..].find('&').unwrap_or(url.len() - password);
        (password, password + length)
    };
    Some((&url[..password], &url[end..]))
}
