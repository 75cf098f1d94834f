//! The table of all keys: what may stand in the ini file, and what holds when it does not.

/// A key of the ini file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The section it belongs to, without brackets.
    pub section: &'static str,
    /// Its name within the section.
    pub name: &'static str,
    /// The value that holds when the key is absent, as it would be written in the file.
    pub default: &'static str,
    /// One line of explanation. `(restart)` at its end: a reload does not change it.
    pub text: &'static str,
}

/// Builds the table, section by section.
macro_rules! keys {
    ($( [$section:ident] $( $name:ident = $default:literal, $text:literal; )* )*) => {
        &[ $( $( Key {
            section: stringify!($section),
            name: stringify!($name),
            default: $default,
            text: $text,
        }, )* )* ]
    };
}

/// Every key, in the order of the shipped file.
#[rustfmt::skip] // One key a line reads as the table that it is.
pub const KEYS: &[Key] = keys! {
    [gateway]
    listen = "0.0.0.0:80", "Addresses to listen on, separated by commas, as [::]:80; `proxy` after one: PROXY protocol. (restart)";
    workers = "auto", "Threads that serve connections, 1 to 256; auto: one per CPU. (restart)";
    max_connections = "10000", "Largest number of active client connections, 1 to 1000000; 503 above that.";
    max_line = "8k", "Longest request line, in bytes, 1k to 1m; 414 above that.";
    max_head = "32k", "Largest head of a message, in bytes, 1k to 1m; 431 above that.";
    max_fields = "100", "Largest number of header fields of a message, 1 to 256; 431 above that.";
    raw_target = "pass", "Bytes from 0x80 on in a target, as curl, old browsers and crawlers send them: pass, unchanged, or refuse; 400 then.";
    max_body = "unlimited", "Largest body of a request, in bytes, or unlimited; 413 above that.";
    max_discard = "256m", "Bytes of a body that are still read after the final answer, so that the client gets to see it; or unlimited.";
    head_timeout = "10s", "Time for the whole head of a request to arrive.";
    body_timeout = "30s", "Longest silence of a client within the body of its request.";
    send_timeout = "30s", "Longest time in which a client reads nothing of its response.";
    min_rate = "500", "Slowest pace of a client in a large body, in bytes a second, beyond the two times above (a small one or a stream: a hundredth); or off.";
    keepalive_timeout = "75s", "Longest silence of a client between two requests.";
    tunnel_timeout = "1h", "Longest silence on an upgraded connection (WebSocket), and longest time in which a side reads nothing.";
    drain_timeout = "30s", "Time for open requests to end when the gateway stops.";
    trusted_proxies = "", "Addresses or CIDRs, separated by commas, whose X-Forwarded-For is believed.";
    pid_file = "/run/graygate.pid", "File for the process id; empty: none. (restart)";
    user = "nobody", "User to become once the ports are open; empty: stay as started. (restart)";
    group = "", "Group to become; empty: the user's own. (restart)";

    [redis]
    url = "", "Server: redis://[[user]:password@]host[:port][/db], rediss://… with TLS, or unix:///path[?db=0]. (restart)";
    sentinels = "", "Sentinels, as host[:26379] or redis[s]://…, separated by commas; the host in url is then the master's name. (restart)";
    password_file = "", "File with the password of the server and nothing else, read at each connection; empty: as the URL says. (restart)";
    sentinel_password_file = "", "The same for Sentinels that have none in their URLs. (restart)";
    tls_ca = "", "PEM file of the certificate authorities to trust, or the server's own certificate; empty: the system's. (restart)";
    tls_cert = "", "PEM file of the gateway's own certificate, for a server that asks for one; empty: none. (restart)";
    tls_key = "", "PEM file of its private key, readable to the user in [gateway]. (restart)";
    tls_name = "", "Name that the server's certificate must hold; empty: the host in url, or what the Sentinels say. (restart)";
    gray_key = "gray", "Key of the clients that get the new version. (restart)";
    pre_key = "pre", "Key of the new version's servers. (restart)";
    prod_key = "prod", "Key of the old version's servers. (restart)";
    accept_key = "graygate:accept", "Key, a string or a set, that names the digests of held changes to accept. (restart)";
    notify = "auto", "How to learn of changes: events (keyspace events), tracking (client tracking), poll, or auto: the first that works. (restart)";
    check_interval = "10s", "Time between two full checks of the lists, events or not. (restart)";
    poll_interval = "1s", "Time between two reads where there are no events. (restart)";
    timeout = "2s", "Time for Redis to accept a connection or to answer. (restart)";
    max_reply = "256m", "Longest answer with all lists, 64k to 4g; above that they stay as they are. A million IPv6 entries take 46m. (restart)";
    heartbeat = "2s", "Time between two heartbeats, 100ms or more, by which `graygate fleet` knows this gateway; or off. (restart)";
    node = "", "Name of this gateway, unique among those on the same Redis; empty: the host's. (restart)";
    node_key = "graygate:node", "What the keys of the heartbeats begin with; a colon and the name follow, and for their index an s. (restart)";

    [lists]
    file = "", "Lists file, used when no Redis URL is set. (restart)";
    last_good = "/var/lib/graygate/lists", "Copy of the lists in force, for a start with Redis down; empty: none. (restart)";
    last_good_max_age = "unlimited", "Age above which a start does not use that copy, as 12h or 30d, some check_intervals at least; or unlimited. (restart)";
    guard_share = "50", "Share of prod's servers, in percent, that one change may remove, 0 to 100; more is held.";
    guard_timeout = "off", "Time after which a held change that still stands comes into force; or off.";

    [upstream]
    peer_port = "80", "Port of the servers that are listed without one, 1 to 65535. (restart)";
    connect_timeout = "1s", "Time for a server to accept a connection.";
    send_timeout = "1s", "Longest time in which a server reads nothing of a request.";
    read_timeout = "1s", "Time for the head of a response, and longest silence within its body.";
    tries = "3", "Largest number of servers to try for a request, 1 to 10.";
    keepalive = "64", "Idle connections that each worker keeps per server, 0 to 10000.";
    keepalive_timeout = "30s", "Time that an idle connection to a server is kept.";
    fallback = "on", "Try the old version when no server of the new one can answer: on or off.";

    [log]
    access = "/var/log/graygate/access.log", "Access log: a file, stdout (or -), stderr or off. (restart)";
    error = "/var/log/graygate/error.log", "Error log: a file, stdout (or -), stderr or off. (restart)";
    own_lines = "1000", "Lines a second of the access log for requests of a listener that need no server, 1 to 1000000, or unlimited.";
    level = "info", "Least severe events in the error log: error, warn, info or debug.";

    [admin]
    listen = "127.0.0.1:9180", "Address of the admin listener, or off. It has no passwords. (restart)";
    hosts = "", "Names, separated by commas, by which it may be requested, besides IP addresses and localhost.";
};

/// The keys of `section`; none when there is no such section.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// The key called `name` of `section`.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    keys_of(section).find(|key| key.name == name)
}

/// The sections, in the order of the table.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}
