//! Other gateways on this machine, and which of their resources this one would use, too.
//!
//! Two gateways need two ini files that differ in what each must have for itself: addresses, pid file,
//! logs, copy, and the names by which they are known in Redis. If one of these is forgotten, that is
//! noticed late: two logs in one file, or one name for two gateways. So each gateway announces what it
//! uses, and one that starts, or is checked by `-t`, reports what it would share with others.
//!
//! The announcements are names of sockets in the abstract namespace (unix(7)). Nothing is ever sent to
//! these sockets: everybody can read the names in /proc/net/unix, and the kernel removes them with the
//! process. Anybody on the machine can create such a name, so it is a reason for a warning and no more.
//! The last-good copy has a lock of its own ([`crate::store::copy`]), and the pid file another.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::{Config, LogTarget, Store};
use crate::store::StoreName;

/// What all names begin with.
const BEGIN: &str = "graygate:";

/// The longest rest of a socket's name, in bytes, leaving room for its beginning.
const LONGEST: usize = 100;

/// Something that each gateway must have for itself.
struct Use {
    kind: UseKind,
    /// The key of the ini file, and its value.
    what: String,
    /// A short hash of what is used.
    mark: String,
    /// Gateways of the same lists may share it.
    lists: Option<String>,
}

/// The kinds of things that can be used; a letter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum UseKind {
    /// An ini file: the gateway that runs with it is this one.
    Config = b'i',
    PidFile = b'p',
    Log = b'l',
    Address = b'a',
    Node = b'n',
    Accept = b'k',
    Socket = b's',
}

impl Use {
    fn of(kind: UseKind, what: String, used: &str) -> Self {
        Self {
            kind,
            what,
            mark: mark(used),
            lists: None,
        }
    }

    /// As it is written in the name of a socket.
    fn token(&self) -> String {
        let lists = self.lists.as_deref().unwrap_or_default();
        let letter = char::from(self.kind as u8);
        format!("{letter}{}{lists}", self.mark)
    }

    /// True when using what `token` says conflicts with this.
    fn is_shared_by(&self, token: &str) -> bool {
        let begin = format!("{}{}", char::from(self.kind as u8), self.mark);
        token
            .strip_prefix(&begin)
            .is_some_and(|lists| self.lists.as_deref().is_none_or(|own| own != lists))
    }
}

/// Something that another gateway uses, too.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The key of the ini file, and its value.
    what: String,
    pid: u32,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, pid } = self;
        write!(f, "{what} is in use by another gateway, process {pid}")
    }
}

/// What a gateway has announced, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Announcement {
    of: Config,
    sockets: Vec<UnixDatagram>,
}

impl Announcement {
    /// Announces what a gateway with this configuration uses, as far as that is possible.
    pub(crate) fn make(config: &Config) -> Self {
        Self {
            of: config.clone(),
            sockets: Self::announce(config),
        }
    }

    /// Announces what a gateway with this configuration uses instead of what was used so far, and names
    /// in the log what is shared then.
    pub(crate) fn change(&mut self, config: Config) {
        let tokens = |it: &Config| uses(it).iter().map(Use::token).collect::<Vec<_>>();
        let is_same = tokens(&self.of) == tokens(&config);
        self.of = config;
        if is_same {
            return;
        }
        // Most of the names are the same.
        self.sockets.clear();
        self.sockets = Self::announce(&self.of);
        tell(&self.of);
    }

    fn announce(config: &Config) -> Vec<UnixDatagram> {
        let pid = std::process::id();
        let tokens: Vec<String> = uses(config).iter().map(Use::token).collect();
        let mut names = vec![String::new()];
        for token in tokens {
            if names
                .last()
                .is_some_and(|it| it.len() + token.len() > LONGEST)
            {
                names.push(String::new());
            }
            if let Some(name) = names.last_mut() {
                if name.is_empty() {
                    *name = format!("{BEGIN}{pid}:");
                }
                name.push_str(&token);
                name.push('.');
            }
        }
        let made = names.iter().filter_map(|name| {
            let made =
                SocketAddr::from_abstract_name(name).and_then(|it| UnixDatagram::bind_addr(&it));
            let failed =
                |error: &io::Error| log::debug!("claim-failed error={:?}", error.to_string());
            made.inspect_err(failed).ok()
        });
        made.collect()
    }
}

/// What a gateway with this configuration would use that another running gateway uses already. One with
/// the same ini file is not another one.
pub(crate) fn shared(config: &Config) -> Vec<Conflict> {
    let names = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    shared_with(&uses(config), &others(&names))
}

/// Names in the log what is shared.
pub(crate) fn tell(config: &Config) {
    for Conflict { what, pid } in shared(config) {
        log::warn!(
            "neighbour-shares what={what:?} process={pid} remedy=\"each gateway needs its own\""
        );
    }
}

/// An error of the start, with its possible reason.
pub(crate) fn named(error: io::Error, config: &Config) -> io::Error {
    let shared = shared(config);
    if shared.is_empty() {
        return error;
    }
    let shared: Vec<String> = shared.iter().map(ToString::to_string).collect();
    io::Error::new(error.kind(), format!("{error}; {}", shared.join("; ")))
}

/// What each process but this one has announced, by this table of the kernel.
fn others(table: &str) -> Vec<(u32, Vec<&str>)> {
    let own = std::process::id();
    let names = table.lines().filter_map(|it| it.split_whitespace().nth(7));
    let names = names.filter_map(|it| it.strip_prefix('@')?.strip_prefix(BEGIN));
    let mut others: Vec<(u32, Vec<&str>)> = Vec::new();
    for (pid, tokens) in names.filter_map(|it| it.split_once(':')) {
        let Some(pid) = pid.parse().ok().filter(|it| *it != own) else {
            continue;
        };
        let tokens = tokens.split('.').filter(|it| !it.is_empty());
        match others.iter_mut().find(|(it, _)| *it == pid) {
            Some((_, all)) => all.extend(tokens),
            None => others.push((pid, tokens.collect())),
        }
    }
    others
}

fn shared_with(uses: &[Use], others: &[(u32, Vec<&str>)]) -> Vec<Conflict> {
    let (own, uses): (Vec<&Use>, Vec<&Use>) =
        uses.iter().partition(|it| it.kind == UseKind::Config);
    let is_own = |tokens: &[&str]| own.iter().any(|it| tokens.contains(&&*it.token()));
    let mut shared = Vec::new();
    for (pid, tokens) in others.iter().filter(|(_, tokens)| !is_own(tokens)) {
        let common = uses
            .iter()
            .filter(|it| tokens.iter().any(|token| it.is_shared_by(token)));
        shared.extend(common.map(|it| Conflict {
            what: it.what.clone(),
            pid: *pid,
        }));
    }
    shared
}

fn uses(config: &Config) -> Vec<Use> {
    let path = |path: &Path| resolved(path);
    let mut uses = vec![Use::of(UseKind::Config, String::new(), &path(&config.path))];
    if let Some(pid_file) = &config.gateway.pid_file {
        let what = format!("[gateway] pid_file {}", pid_file.display());
        uses.push(Use::of(UseKind::PidFile, what, &path(pid_file)));
    }
    for (name, target) in [("access", &config.log.access), ("error", &config.log.error)] {
        if let LogTarget::File(file) = target {
            let what = format!("[log] {name} {}", file.display());
            uses.push(Use::of(UseKind::Log, what, &path(file)));
        }
    }
    let listen = config
        .gateway
        .listen
        .iter()
        .map(|it| ("gateway", "listen", it.addr));
    let admin = [
        ("listen", config.admin.listen),
        ("metrics", config.admin.metrics),
    ];
    let admin = admin
        .into_iter()
        .filter_map(|(key, it)| Some(("admin", key, it?)));
    // Port 0 means a different port for each.
    for (section, key, addr) in listen.chain(admin).filter(|(_, _, addr)| addr.port() != 0) {
        let what = format!("[{section}] {key} {addr}");
        uses.push(Use::of(UseKind::Address, what, &addr.to_string()));
    }
    if let Some(socket) = &config.admin.socket {
        let what = format!("[admin] socket {}", socket.path.display());
        uses.push(Use::of(UseKind::Socket, what, &path(&socket.path)));
    }
    if let Store::Redis(settings) = &config.store {
        let name = StoreName::of(&config.store);
        let server = name.server();
        if settings.fleet.heartbeat.is_some() {
            let what = format!("[redis] node {}", settings.fleet.node);
            let key = settings.fleet.key_of(&settings.fleet.node);
            uses.push(Use::of(UseKind::Node, what, &format!("{server} {key}")));
        }
        let what = format!("[redis] accept_key {} of other lists", settings.accept_key);
        let used = format!("{server} {}", settings.accept_key);
        uses.push(Use {
            lists: Some(mark(&name.to_string())),
            ..Use::of(UseKind::Accept, what, &used)
        });
    }
    // Both logs may be one file.
    let mut seen = BTreeSet::new();
    uses.retain(|it| seen.insert(it.token()));
    uses
}

/// The canonical form of a path, as far as it exists.
fn resolved(path: &Path) -> String {
    let folder = path.parent().and_then(|it| fs::canonicalize(it).ok());
    let whole = fs::canonicalize(path).ok();
    let joined = || Some(folder?.join(path.file_name()?));
    let resolved = whole.or_else(joined);
    resolved
        .as_deref()
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

/// A short hash of a text.
fn mark(text: &str) -> String {
    let hash = Sha256::digest(text);
    hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("[redis]\nurl = redis://h\nnode = a\n{text}");
        Config::parse(Path::new("/etc/one.ini"), &text, None).unwrap()
    }

    /// The table with a socket of each of these tokens, of process 7.
    fn table(uses: &[Use]) -> String {
        let line = |it: &Use| {
            format!(
                "0000: 00000002 00000000 00000000 0002 01 123 @graygate:7:{}.\n",
                it.token()
            )
        };
        let head = "Num       RefCount Protocol Flags    Type St Inode Path\n0: 2 0 0 2 1 9 /run/x\n0: 2 0 0 2 1 9\n";
        head.to_owned() + &uses.iter().map(line).collect::<String>()
    }

    #[test]
    fn what_two_gateways_share_is_named_and_the_rest_is_not() {
        let one = uses(&config(""));
        let table = table(&one);
        let others = others(&table);
        assert_eq!(others.len(), 1);
        // The same ini file: it is this very gateway.
        assert_eq!(shared_with(&one, &others), []);
        let of = |text: &str| {
            let mut config = config(text);
            config.path = "/etc/two.ini".into();
            let shared = shared_with(&uses(&config), &others);
            shared.into_iter().map(|it| it.what).collect::<Vec<_>>()
        };
        let [pid, access, error] = [
            "/run/graygate.pid",
            "/var/log/graygate/access.log",
            "/var/log/graygate/error.log",
        ];
        assert_eq!(
            of(""),
            [
                format!("[gateway] pid_file {pid}"),
                format!("[log] access {access}"),
                format!("[log] error {error}"),
                "[gateway] listen 0.0.0.0:80".to_owned(),
                "[admin] listen 127.0.0.1:9180".to_owned(),
                "[admin] socket /run/graygate/admin.sock".to_owned(),
                "[redis] node a".to_owned(),
            ]
        );
        let own = "gray_key = g\nnode_key = n\n[gateway]\nlisten = 0.0.0.0:81\npid_file =\n\
                   [log]\naccess = /x\nerror = stderr\n[admin]\nlisten = off\nsocket = off\n";
        assert_eq!(
            of(own),
            ["[redis] accept_key graygate:accept of other lists"]
        );
        assert_eq!(of(&format!("accept_key = other\n{own}")), [""; 0]);
        let off = own
            .replace("node_key = n", "heartbeat = off")
            .replace("gray_key = g\n", "");
        assert_eq!(of(&off), [""; 0]);
    }

    #[test]
    fn nonsense_in_the_table_is_nobody() {
        let text = "x\n0: 2 0 0 2 1 9 @graygate:\n0: 2 0 0 2 1 9 @graygate:x:p00\n0: 2 0 0 2 1 9 @graygate:-1:p\n\
                    0: 2 0 0 2 1 9 @other:7:p00\n";
        assert_eq!(others(text), []);
    }
}
