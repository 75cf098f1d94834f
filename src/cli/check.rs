//! `graygate -t`: finds what would keep a gateway from starting, without disturbing one that runs.
//!
//! The ini file and the lists file are read in full. Addresses are not bound, and no log or pid file is
//! opened or created: only their folders must exist. Whether a port is free is not checked, since the
//! running gateway uses it. But what another gateway on this machine uses is reported.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};

use crate::admin::token;
use crate::config::{
    Config, LogTarget, REDIS_URL_VARIABLE, ServiceKeys, Store, Url, WebhookFormat,
};
use crate::lists::ByList;
use crate::logs::{syslog, writer};
use crate::process::Identity;
use crate::run::{self, neighbours};
use crate::store::copy::{self, Holder};
use crate::store::{self, StoreName};

/// Checks the ini file at `path`, and what it names. Returns what it says, and warnings, each on one line,
/// about what does not keep the gateway from starting.
///
/// # Errors
/// One line that says what is wrong, and where.
pub(crate) fn check(path: &Path) -> Result<(Config, Vec<String>), String> {
    let config = run::load(path)?;
    let settings = &config.gateway;
    let identity = Identity::find(settings.user.as_deref(), settings.group.as_deref());
    let identity = identity.map_err(|error| error.to_string())?;
    let mut unread = Vec::new();
    for (name, target) in [("access", &config.log.access), ("error", &config.log.error)] {
        if let LogTarget::Syslog(target) = target
            && let Some(error) = syslog::trouble_with(target)
        {
            unread.push(format!(
                "[log] {name}: the syslog server cannot be reached ({error}); lines are lost until it can be"
            ));
        }
        if let LogTarget::File(path) = target {
            place_of_log(path).map_err(|what| format!("[log] {name}: {what}"))?;
            if writer::is_unread_pipe(path) {
                let path = path.display();
                unread.push(format!(
                    "[log] {name}: {path} is a pipe (FIFO) that nobody reads; a start would wait for a reader, and fail"
                ));
            }
        }
    }
    if let Some(path) = &settings.pid_file {
        place_of_file(path).map_err(|what| format!("[gateway] pid_file: {what}"))?;
    }
    let (socket, token) = (&config.admin.socket, &config.admin.token_file);
    let socket = socket
        .as_ref()
        .and_then(|it| Some((it, place_of_socket(&it.path).err()?)));
    if let Some((socket, what)) = socket {
        let what = format!("[admin] socket: {what}");
        match socket.is_named {
            true => return Err(what),
            false => unread.push(format!("{what}; a start would go on without it")),
        }
    }
    if let Some(path) = token {
        let read = token::read(path).map(drop);
        read.map_err(|error| format!("[admin] token_file: {}: {error}", path.display()))?;
    }
    run::force_secret::read(&config.gray).map_err(|error| error.to_string())?;
    run::webhook_secret::read(config.webhook.as_ref()).map_err(|error| error.to_string())?;
    let masked = masked(&config);
    let mut warnings: Vec<String> = masked.chain(open_secrets(&config)).chain(unread).collect();
    warnings.extend(keys_apart(&config));
    warnings.extend(match identity {
        None => {
            read_lists(&config)?;
            place_of_copy(&config, None).into_iter().collect()
        }
        Some(identity) => {
            let name = identity.name().to_owned();
            // As after an installation: that the user cannot write there yet is normal.
            let copy = config.lists.last_good.as_deref();
            let is_new = |path: &Path| run::folders::is_new(folder_of(path)).unwrap_or(false);
            let looks_at_copy = !copy.is_some_and(is_new);
            let outcome = identity.act(|| read_as(&name, &config, looks_at_copy));
            outcome.map_err(|error| format!("[gateway] user = {name}: {error}"))??
        }
    });
    let shared = neighbours::shared(&config);
    warnings.extend(shared.iter().map(|it| format!("{it}; each needs its own")));
    Ok((config, warnings))
}

/// How many services there are, if there are others than the default one.
pub(crate) fn services(config: &Config) -> String {
    let (count, default) = match &*config.services {
        [default, others @ ..] => (others.len(), default.takes_rest),
        [] => (0, true),
    };
    let plural = if count == 1 { "" } else { "s" };
    match (count, default) {
        (0, _) => String::new(),
        (_, true) => format!(", with {count} service{plural} and the default one"),
        (_, false) => format!(", with {count} service{plural} and no default one"),
    }
}

/// The environment of this command takes precedence over the file.
fn masked(config: &Config) -> impl Iterator<Item = String> {
    config.masked.iter().map(|key| {
        format!("{key} has no effect: {REDIS_URL_VARIABLE} in the environment takes precedence")
    })
}

/// Warns about files with secrets that everybody on this machine can read.
fn open_secrets(config: &Config) -> Vec<String> {
    let mut secrets = secrets_of_store(config);
    secrets.push(("[admin] token_file", config.admin.token_file.as_deref()));
    let force = config.gray.force_secret_file.as_deref();
    secrets.push(("[gray] force_secret_file", force));
    let webhook = config.webhook.as_ref();
    let signs = webhook.and_then(|it| it.secret_file.as_deref());
    secrets.push(("[verdict] webhook_secret_file", signs));
    // Whoever can read it can write there.
    let webhook = webhook.filter(|it| it.format != WebhookFormat::Json);
    let own = webhook.map(|_| config.path.as_path());
    secrets.push(("[verdict] webhook", own));
    let is_open = |path: &Path| fs::metadata(path).is_ok_and(|it| it.mode() & 0o004 != 0);
    let open = secrets.into_iter().filter_map(|(what, path)| {
        let path = path.filter(|path| is_open(path))?.display();
        Some(format!(
            "{what}: everybody can read {path}: chmod o-r, and chgrp to the group of the user in [gateway]"
        ))
    });
    open.collect()
}

/// The files with secrets of the store, each with its key.
fn secrets_of_store(config: &Config) -> Vec<(&'static str, Option<&Path>)> {
    let Store::Redis(redis) = &config.store else {
        return Vec::new();
    };
    let urls = || redis.sentinels.iter().chain([&redis.url]);
    let is_in_file = |url: &Url| url.has_password();
    let is_masked = std::env::var_os(REDIS_URL_VARIABLE).is_some_and(|it| !it.is_empty());
    let has_password =
        redis.sentinels.iter().any(is_in_file) || !is_masked && is_in_file(&redis.url);
    let own = has_password.then_some(config.path.as_path());
    let key = redis.tls.own.as_ref().map(|(_, key)| key);
    let key = key.filter(|_| urls().any(Url::is_tls));
    let passwords = &redis.passwords;
    vec![
        ("[redis] password_file", passwords.server.as_deref()),
        (
            "[redis] sentinel_password_file",
            passwords.sentinels.as_deref(),
        ),
        ("[redis] tls_key", key.map(PathBuf::as_path)),
        ("a password in the ini file", own),
    ]
}

/// The server is not asked whether it is a cluster; but hash tags mean that it is one.
fn keys_apart(config: &Config) -> Vec<String> {
    let Store::Redis(redis) = &config.store else {
        return Vec::new();
    };
    let keyring = store::redis::Keyring::new(redis.services.clone());
    let warning = |at: usize| {
        let ServiceKeys {
            service,
            lists,
            gray_of,
            ..
        } = &redis.services[at];
        let section = match service.is_default() {
            true => "redis".to_owned(),
            false => format!("service {service}"),
        };
        let ByList { gray, pre, prod } = lists;
        let (names, keys) = match gray_of {
            // What is shared is read for the service that it is of.
            Some(_) => ("pre_key, prod_key", format!("{pre} and {prod}")),
            None => (
                "gray_key, pre_key, prod_key",
                format!("{gray}, {pre} and {prod}"),
            ),
        };
        format!(
            "[{section}] {names}: {keys} have hash tags, and are in several slots: \
             a Redis Cluster does not allow reading them in one transaction; give all of them the same tag"
        )
    };
    keyring.apart().into_iter().map(warning).collect()
}

/// What is wrong with the last-good copy, or its place, for the user who will write it, if that is
/// another one. A gateway starts without it.
fn place_of_copy(config: &Config, user: Option<&str>) -> Option<String> {
    let path = config.lists.last_good.as_deref()?;
    let warning = |what: &dyn std::fmt::Display| Some(format!("[lists] last_good: {what}"));
    if let Err(what) = place_of_log(path) {
        return warning(&what);
    }
    let folder = folder_of(path);
    // What is missing is created by the user who starts the gateway.
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    // The current user of this process, not the one who started it.
    if folder.is_dir() && eaccess(folder, wanted).is_err() {
        let folder = folder.display();
        let user = user.map(|it| format!(" for the user {it} of [gateway]"));
        return warning(&format!(
            "{folder} is not writable{}",
            user.unwrap_or_default()
        ));
    }
    if let Some(what) = wrong_lock(&copy::place_of_lock(path)) {
        return warning(&format!("{what}, so no copy is written: remove it"));
    }
    if let Some(by) = copy::holder(path).filter(|it| !is_of(it, &config.path)) {
        let path = path.display();
        return warning(&format!(
            "{path} is kept by {by}; each gateway needs its own, or goes without"
        ));
    }
    let unused = |why: &str| format!("{} will not be used: {why}", path.display());
    match copy::read(path, config.default_service().upstream.peer_port) {
        Ok(found) => {
            let found = found?;
            let other = found.other_store(&StoreName::of(&config.store))?;
            let aside = copy::place_aside(path, other);
            let (why, aside) = (unused(&copy::of_another(other)), aside.display());
            warning(&format!(
                "{why}; once lists have been read, it is set aside as {aside}"
            ))
        }
        Err(error) => warning(&unused(&error.to_string())),
    }
}

/// What is wrong with the lock on a copy: it is opened for writing, without following links.
fn wrong_lock(path: &Path) -> Option<String> {
    let shown = path.display();
    let found = fs::symlink_metadata(path).ok()?.file_type();
    if found.is_file() {
        let is_writable = eaccess(path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
        return (!is_writable).then(|| format!("the lock {shown} is not writable"));
    }
    let what = match found {
        it if it.is_dir() => "a folder",
        it if it.is_symlink() => "a symbolic link",
        _ => "not a regular file",
    };
    Some(format!("the lock {shown} is {what}"))
}

/// True when the gateway that holds a copy is the one of this ini file.
fn is_of(holder: &Holder, config: &Path) -> bool {
    let id = |path: &Path| {
        let found = fs::metadata(path).ok();
        found.map(|it| (it.dev(), it.ino()))
    };
    holder
        .config
        .as_deref()
        .is_some_and(|it| it == config || id(it).is_some_and(|it| Some(it) == id(config)))
}

/// The folder of a log is created if its parent exists.
fn place_of_log(path: &Path) -> Result<(), String> {
    let folder = folder_of(path);
    match look_at(folder)? {
        Found::Nothing => place_of_file(folder),
        _ => place_of_file(path),
    }
}

/// The folder of a socket is created if its parent exists, and a socket that is there is replaced unless a
/// process has it.
fn place_of_socket(path: &Path) -> Result<(), String> {
    place_of_log(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Err(format!("{} is not a socket", path.display()))
        }
        _ => Ok(()),
    }
}

/// A file is possible if its folder exists, and there is no folder in its place.
fn place_of_file(path: &Path) -> Result<(), String> {
    let folder = folder_of(path);
    match look_at(folder)? {
        Found::Folder | Found::Hidden => {}
        Found::Other => return Err(format!("{} is not a folder", folder.display())),
        Found::Nothing => return Err(format!("there is no folder {}", folder.display())),
    }
    match look_at(path)? {
        Found::Folder => Err(format!("{} is a folder", path.display())),
        _ => Ok(()),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// What is at a path.
enum Found {
    Nothing,
    Folder,
    Other,
    /// It cannot be seen by this user, but maybe by another one such as root.
    Hidden,
}

fn look_at(path: &Path) -> Result<Found, String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Found::Folder),
        Ok(_) => Ok(Found::Other),
        Err(error) => match error.kind() {
            // Below something that is not a folder there is nothing.
            ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(Found::Nothing),
            ErrorKind::PermissionDenied => Ok(Found::Hidden),
            _ => Err(format!("{}: {error}", path.display())),
        },
    }
}

/// Reads what the gateway reads again while it runs, as the user `name` that it will be.
fn read_as(name: &str, config: &Config, looks_at_copy: bool) -> Result<Vec<String>, String> {
    let as_user = format!("as the user {name} of [gateway]");
    read_lists(config).map_err(|error| format!("{error} ({as_user})"))?;
    let path = &config.path;
    let warning = |error| {
        let path = path.display();
        format!("{path}: cannot be read {as_user}, so every reload will fail: {error}")
    };
    let unreadable = fs::File::open(path).err().map(warning);
    let copy = looks_at_copy.then(|| place_of_copy(config, Some(name)));
    let copy = copy.flatten();
    Ok(unreadable.into_iter().chain(copy).collect())
}

fn read_lists(config: &Config) -> Result<(), String> {
    let path = match &config.store {
        Store::File(path) => path,
        Store::Redis(settings) => {
            let outcome = store::redis::check_files(settings);
            return outcome.map_err(|error| format!("[redis] {error}"));
        }
    };
    let services = &config.services;
    let outcome = store::format::read(path);
    let outcome = outcome.and_then(|text| store::format::parse_services(&text, services));
    outcome
        .map(drop)
        .map_err(|error| format!("{}: {error}", path.display()))
}
