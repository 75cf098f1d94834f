//! The format of a lists file: the three lists, one entry a line, under `[gray]`, `[pre]` and `[prod]`;
//! those of a service under `[NAME gray]` and so on; and under `[salt]`, or `[NAME salt]`, a line with the
//! salt of its shares, if it has one.
//!
//! A file is written by hand, so the rules are stricter than for Redis: all sections of lists of all services
//! must be there, and those of no others, the last line must be complete, and a single bad entry makes the
//! whole version invalid. So one that is still being written, or is wrong, is refused. A service that shares
//! the gray list of another one has no section for it.
//!
//! Lines that begin with `#` or `;` are comments, and so is what follows a `#` after an entry, unless it is
//! within quotes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::libc;

use super::{Entries, Reading, ServiceReading};
use crate::config::ServiceSettings;
use crate::lists::{self, ByList, ListName, ServiceName, WrongEntry};

/// No lists file is longer than this, in bytes: millions of addresses.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Why a version of the file is not used.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be read.
    Io(io::Error),
    /// What is wrong, and the line, from 1.
    Line(usize, String),
    /// A section is missing.
    Missing(ServiceName, ListName),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line(line, what) => write!(f, "line {line}: {what}"),
            Self::Missing(service, list) => {
                write!(f, "there is no section [{}]", title(service, list.name()))
            }
        }
    }
}

/// What stands between the brackets above the section of this name.
pub(crate) fn title(service: &ServiceName, section: &str) -> String {
    match service.is_default() {
        true => section.to_owned(),
        false => format!("{service} {section}"),
    }
}

/// Reads the file at `path` as it is now, but no more bytes than a lists file may have.
///
/// # Errors
/// The kernel's; or it is too long, or not a regular file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_up_to(path, LONGEST)
}

/// As [`read`], with another limit in bytes.
pub(super) fn read_up_to(path: &Path, longest: u64) -> Result<Vec<u8>, FileError> {
    // Opening a pipe would wait for a writer.
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let refused = |what: &str| Err(FileError::Io(io::Error::other(what)));
    if metadata.is_dir() {
        return refused("a folder, not a file");
    }
    if !metadata.is_file() {
        return refused("not a regular file");
    }
    let mut text = Vec::new();
    // It may have grown meanwhile.
    if metadata.len() <= longest {
        file.take(longest + 1).read_to_end(&mut text)?;
    }
    if metadata.len().max(text.len() as u64) > longest {
        return refused(&format!("longer than {} MiB", longest >> 20));
    }
    Ok(text)
}

/// Parses a version of a file that has the lists of the default service and no others.
///
/// # Errors
/// Why it must not be used.
pub fn parse(text: &[u8], peer_port: u16) -> Result<Reading, FileError> {
    let check = |_: &ServiceName, list: ListName, entry: &[u8]| check(list, entry, peer_port);
    let mut sections = read_sections(text, ServiceName::is_default, check)?;
    let sections = sections.remove(&ServiceName::default());
    sections
        .unwrap_or_default()
        .reading(&ServiceName::default())
}

/// Parses a version of a file with the lists of these services.
///
/// # Errors
/// Why it must not be used.
pub(crate) fn parse_services(
    text: &[u8],
    services: &[Arc<ServiceSettings>],
) -> Result<Vec<ServiceReading>, FileError> {
    let settings = |name: &ServiceName| services.iter().find(|it| it.name == *name);
    let is_known = |name: &ServiceName| settings(name).is_some();
    let check = |name: &ServiceName, list: ListName, entry: &[u8]| {
        let port = settings(name).map_or(80, |it| it.upstream.peer_port);
        check(list, entry, port)
    };
    readings(read_sections(text, is_known, check)?, services)
}

/// As [`parse_services`], but entries that cannot be read are among the others; without `services`, of those
/// that the file is about.
///
/// # Errors
/// What is wrong with the file otherwise.
pub(crate) fn parse_leniently(
    text: &[u8],
    services: Option<&[Arc<ServiceSettings>]>,
) -> Result<Vec<ServiceReading>, FileError> {
    let is_known =
        |name: &ServiceName| services.is_none_or(|all| all.iter().any(|it| it.name == *name));
    let mut all = read_sections(text, is_known, |_, _, _| Ok(()))?;
    if let Some(services) = services {
        return readings(all, services);
    }
    let own = ServiceName::default();
    if all.is_empty() || all.contains_key(&own) {
        all.entry(own.clone()).or_default();
    }
    // The default one first. Others may share a gray list, and need none of their own.
    let mut names: Vec<ServiceName> = all.keys().cloned().collect();
    names.sort_by_key(|it| !it.is_default());
    let readings = names.into_iter().map(|service| {
        let mut sections = all.remove(&service).unwrap_or_default();
        if !service.is_default() {
            sections.lists.gray.get_or_insert_default();
        }
        let salt = sections.salt.take().flatten();
        let lists = sections.reading(&service)?;
        Ok(ServiceReading {
            service,
            salt,
            ..ServiceReading::settled(lists)
        })
    });
    readings.collect()
}

fn readings(
    mut all: BTreeMap<ServiceName, ServiceSections>,
    services: &[Arc<ServiceSettings>],
) -> Result<Vec<ServiceReading>, FileError> {
    let readings = services.iter().map(|settings| {
        let name = &settings.name;
        let mut sections = all.remove(name).unwrap_or_default();
        if let Some(owner) = &settings.gray_of {
            if let Some(line) = sections.lines.gray {
                let title = title(name, ListName::Gray.name());
                let what = format!("[{title}]: this service has the gray list of {owner}");
                return Err(FileError::Line(line, what));
            }
            sections.lists.gray = Some(Entries::default());
        }
        if !settings.takes_rest && name.is_default() {
            // Nobody is served by it.
            let lists = sections.lists.as_mut();
            lists.map(Option::get_or_insert_default);
        }
        let salt = sections.salt.take().flatten();
        Ok(ServiceReading {
            service: name.clone(),
            gray_of: settings.gray_of.clone(),
            salt,
            ..ServiceReading::settled(sections.reading(name)?)
        })
    });
    readings.collect()
}

/// The sections of a service.
#[derive(Debug, Default)]
pub(super) struct ServiceSections {
    /// The entries of each list that has a section.
    pub(super) lists: ByList<Option<Entries>>,
    /// The salt, if there is a section for it, and a line in it.
    salt: Option<Option<Vec<u8>>>,
    /// Where they begin.
    lines: ByList<Option<usize>>,
}

impl ServiceSections {
    fn reading(self, service: &ServiceName) -> Result<Reading, FileError> {
        let is_missing = |list: &ListName| self.lists[*list].is_none();
        if let Some(list) = ListName::ALL.into_iter().find(is_missing) {
            return Err(FileError::Missing(service.clone(), list));
        }
        Ok(self.lists.map(|entries| Ok(entries.unwrap_or_default())))
    }
}

/// What a line with brackets begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SectionKind {
    List(ListName),
    Salt,
}

/// The section of a salt.
const SALT: &str = "salt";

impl SectionKind {
    /// What stands between the brackets; `None` where that is no section.
    fn parse(title: &str) -> Option<(ServiceName, Self)> {
        let (service, section) = match title.split_once(' ') {
            None => (ServiceName::default(), title),
            Some((name, section)) => (ServiceName::parse(name)?, section.trim_start()),
        };
        let kind = match section {
            SALT => Self::Salt,
            _ => Self::List(ListName::ALL.into_iter().find(|it| it.name() == section)?),
        };
        Some((service, kind))
    }
}

/// The sections of a file, by service.
pub(super) fn read_sections(
    text: &[u8],
    is_known: impl Fn(&ServiceName) -> bool,
    check: impl Fn(&ServiceName, ListName, &[u8]) -> Result<(), WrongEntry>,
) -> Result<BTreeMap<ServiceName, ServiceSections>, FileError> {
    // Invisible in most editors, and not part of an entry.
    if text.starts_with(b"\xef\xbb\xbf") {
        let what = "it begins with a byte order mark (EF BB BF); save it as UTF-8 without one";
        return Err(FileError::Line(1, what.to_owned()));
    }
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        let what = "it is UTF-16; save it as UTF-8 without a byte order mark";
        return Err(FileError::Line(1, what.to_owned()));
    }
    let mut all: BTreeMap<ServiceName, ServiceSections> = BTreeMap::new();
    // Moved to the others when it is complete: there may be a million entries.
    let mut current: Option<(ServiceName, SectionKind, Entries)> = None;
    let mut put = |(service, kind, entries): (ServiceName, SectionKind, Entries)| {
        let sections = all.entry(service).or_default();
        match kind {
            SectionKind::List(list) => sections.lists[list] = Some(entries),
            SectionKind::Salt => {
                sections.salt = Some(entries.into_iter().next().map(<[u8]>::to_vec));
            }
        }
    };
    let mut begun: HashMap<(ServiceName, SectionKind), usize> = HashMap::new();
    for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let wrong = |what: &str| Err(FileError::Line(at + 1, what.to_owned()));
        let Some(line) = line.strip_suffix(b"\n") else {
            return wrong("the last line has no line feed; is the file still being written?");
        };
        let end = lists::comment(line).unwrap_or(line.len());
        let line = line[..end].trim_ascii();
        if line.is_empty() || line.starts_with(b";") {
            continue;
        }
        if line.starts_with(b"[") && !line.contains(&b':') {
            let section = section_of(line, &is_known);
            let (service, kind) = section.map_err(|what| FileError::Line(at + 1, what))?;
            if begun.insert((service.clone(), kind), at + 1).is_some() {
                return wrong("this section stands twice");
            }
            let before = current.replace((service, kind, Entries::default()));
            before.into_iter().for_each(&mut put);
            continue;
        }
        let Some((service, kind, entries)) = &mut current else {
            return wrong("an entry before the first section");
        };
        match kind {
            SectionKind::List(list) => {
                if let Err(reason) = check(service, *list, line) {
                    let what = format!("{:?}: {reason}", line.escape_ascii().to_string());
                    return Err(FileError::Line(at + 1, what));
                }
            }
            SectionKind::Salt if !entries.is_empty() => {
                return wrong("a salt is one line, and this is another one");
            }
            SectionKind::Salt => {}
        }
        entries.push(line);
    }
    current.into_iter().for_each(&mut put);
    for ((service, kind), line) in begun {
        if let (SectionKind::List(list), Some(sections)) = (kind, all.get_mut(&service)) {
            sections.lines[list] = Some(line);
        }
    }
    Ok(all)
}

fn section_of(
    line: &[u8],
    is_known: impl Fn(&ServiceName) -> bool,
) -> Result<(ServiceName, SectionKind), String> {
    let title = std::str::from_utf8(line).ok();
    let title = title.and_then(|it| it.strip_prefix('[')?.strip_suffix(']'));
    let Some((service, kind)) = title.and_then(SectionKind::parse) else {
        return Err(
            "an unknown section; there are [gray], [pre], [prod] and [salt], and of a service \
                    [NAME gray] and so on"
                .to_owned(),
        );
    };
    if !is_known(&service) {
        return Err(format!(
            "a section of a service that is not configured: there is no [service {service}]"
        ));
    }
    Ok((service, kind))
}

/// What a line of a good lists file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileLine<'a> {
    /// The title of a section: of a list, or else of a salt.
    Title(ServiceName, Option<ListName>),
    /// An entry, or a salt, without what stands around it.
    Entry(&'a [u8]),
    /// A comment, or nothing.
    Other,
}

/// What this line of a good file is, for whoever changes some of it and leaves the rest as it was written.
pub(crate) fn file_line(line: &[u8]) -> FileLine<'_> {
    let end = lists::comment(line).unwrap_or(line.len());
    let line = line[..end].trim_ascii();
    if line.is_empty() || line.starts_with(b";") {
        return FileLine::Other;
    }
    if line.starts_with(b"[") && !line.contains(&b':') {
        return match section_of(line, |_| true) {
            Ok((service, SectionKind::List(list))) => FileLine::Title(service, Some(list)),
            Ok((service, SectionKind::Salt)) => FileLine::Title(service, None),
            Err(_) => FileLine::Other,
        };
    }
    FileLine::Entry(line)
}

/// Whether an entry can be read.
pub(super) fn check(list: ListName, entry: &[u8], peer_port: u16) -> Result<(), WrongEntry> {
    let text = std::str::from_utf8(entry).map_err(|_| "not text")?;
    match list {
        ListName::Gray => lists::gray_entry(text).map(drop),
        ListName::Pre | ListName::Prod => lists::peer_entry(text, peer_port).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# a comment\n[gray]\n 10.0.0.1 # office\n\n; another\n[pre]\n[::1]:81 weight=2\n\
                        [prod]\n10.0.2.1\nhost:81 weight=3 # new\n";

    #[test]
    fn a_file_holds_three_lists() {
        let reading = parse(GOOD.as_bytes(), 80).unwrap();
        let list = |entries: Result<Entries, _>| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (&entries.unwrap())
                .into_iter()
                .map(text)
                .collect::<Vec<_>>()
        };
        assert_eq!(list(reading.gray), ["10.0.0.1"]);
        assert_eq!(list(reading.pre), ["[::1]:81 weight=2"]);
        assert_eq!(list(reading.prod), ["10.0.2.1", "host:81 weight=3"]);
    }

    #[test]
    fn a_version_that_is_wrong_or_not_whole_is_refused_with_its_line() {
        for (text, said) in [
            ("", "no section [gray]"),
            ("[gray]\n[pre]\n", "no section [prod]"),
            ("[gray]\n[pre]\n[prod]\n10.0.0.1", "line 4: the last line"),
            ("[gray]\n[pre]\n[prod", "line 3: the last line"),
            (
                "10.0.0.1\n[gray]\n[pre]\n[prod]\n",
                "line 1: an entry before",
            ),
            (
                "[gray]\n[pre]\n[gray]\n[prod]\n",
                "line 3: this section stands twice",
            ),
            ("[grey]\n", "line 1: an unknown section"),
            (
                "\u{feff}[gray]\n[pre]\n[prod]\n",
                "line 1: it begins with a byte order mark",
            ),
            (
                "[gray]\n10.0.0\n[pre]\n[prod]\n",
                "line 2: \"10.0.0\": neither",
            ),
            (
                "[gray]\n[pre]\n[prod]\nhost:80:80\n",
                "line 4: \"host:80:80\": neither",
            ),
            (
                "[gray]\n[pre]\nhost:80 weigth=3\n[prod]\n",
                "line 3: \"host:80 weigth=3\": \"weigth\" is unknown",
            ),
        ] {
            let error = parse(text.as_bytes(), 80).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_comment_begins_at_a_number_sign_that_is_not_in_quotes() {
        let text = r##"[gray]
header:X="a#b" # "a comment"
cookie:a="\"#" note="#1"# it's "open
percent:5 # half
; a "comment # in another
[pre]
[prod]
"##;
        let gray = parse(text.as_bytes(), 80).unwrap().gray.unwrap();
        let entries = (&gray).into_iter().map(String::from_utf8_lossy);
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [
                r##"header:X="a#b""##,
                r##"cookie:a="\"#" note="#1""##,
                "percent:5"
            ]
        );
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_unless_whole_lines_of_the_last_list_remain() {
        let last_section = GOOD.find("[prod]\n").unwrap() + "[prod]\n".len();
        for cut in 0..GOOD.len() {
            let whole_lines = cut >= last_section && GOOD[..cut].ends_with('\n');
            let outcome = parse(&GOOD.as_bytes()[..cut], 80);
            assert_eq!(outcome.is_ok(), whole_lines, "cut at {cut}");
        }
    }

    fn services() -> Vec<Arc<ServiceSettings>> {
        let named = |name: &str, gray_of: Option<&str>| {
            Arc::new(ServiceSettings {
                name: ServiceName::parse(name).unwrap_or_default(),
                gray_of: gray_of.and_then(ServiceName::parse),
                ..ServiceSettings::default()
            })
        };
        vec![
            named("default", None),
            named("shop", None),
            named("api", Some("shop")),
        ]
    }

    const SERVICES: &str = "[gray]\n10.0.0.1\n[pre]\n[prod]\n1.1.1.1\n\
        [shop salt]\n2026-12 # 5 % first\n[shop gray]\n10.0.0.2\n[shop pre]\n[shop prod]\n2.2.2.2\n\
        [api  prod]\n3.3.3.3\n[api pre]\n";

    #[test]
    fn a_file_holds_the_lists_of_all_services() {
        let all = parse_services(SERVICES.as_bytes(), &services()).unwrap();
        let shown = all.iter().map(|it| {
            let lists = it.lists.iter().map(|(_, it)| it.as_ref().unwrap().len());
            let salt = it.salt.clone().map(|it| String::from_utf8(it).unwrap());
            let gray_of = it.gray_of.as_ref().map(ToString::to_string);
            (it.service.to_string(), lists.collect(), salt, gray_of)
        });
        let shown: Vec<(_, Vec<_>, _, _)> = shown.collect();
        let text = |it: &str| it.to_owned();
        assert_eq!(
            shown,
            [
                (text("default"), vec![1, 0, 1], None, None),
                (text("shop"), vec![1, 0, 1], Some(text("2026-12")), None),
                (text("api"), vec![0, 0, 1], None, Some(text("shop"))),
            ]
        );
    }

    #[test]
    fn a_section_that_lacks_or_is_of_no_service_is_named() {
        for (from, to, said) in [
            ("[shop pre]\n", "", "there is no section [shop pre]"),
            ("[api pre]\n", "", "there is no section [api pre]"),
            ("[pre]\n[prod]", "[prod]", "there is no section [pre]"),
            (
                "[api pre]",
                "[api gray]",
                "[api gray]: this service has the gray list of shop",
            ),
            (
                "[api pre]",
                "[web pre]",
                "line 15: a section of a service that is not configured: there is no [service web]",
            ),
            ("[api pre]", "[api rep]", "line 15: an unknown section"),
            ("[api pre]", "[default pre]", "line 15: an unknown section"),
            (
                "[api pre]",
                "[shop  pre]",
                "line 15: this section stands twice",
            ),
            (
                "[shop gray]",
                "other\n[shop gray]",
                "line 8: a salt is one line",
            ),
            ("2.2.2.2", "2.2.2.2:x", "line 12: \"2.2.2.2:x\""),
        ] {
            let text = SERVICES.replacen(from, to, 1);
            let error = parse_services(text.as_bytes(), &services()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(said), "{to:?}: {error}");
        }
    }
}
