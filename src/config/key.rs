//! A key of the ini file: its name, default and explanation, whether a reload changes it, and how its
//! value is parsed. Each section's file declares its keys, each in one place.

use std::path::Path;

use super::error::ValueResult;

/// A key of the ini file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The section it belongs to, without brackets.
    pub section: &'static str,
    /// Its name within the section.
    pub name: &'static str,
    /// Both, as `gateway.listen`.
    pub full_name: &'static str,
    /// The default, as it would be written in the file.
    pub default: &'static str,
    /// One line of explanation. `(restart)` at its end: a reload does not change it.
    pub text: &'static str,
    /// Only a restart changes it.
    pub restart: bool,
    /// No error shows its value: it may hold a password.
    pub secret: bool,
}

/// A key, and how its value is parsed.
pub(super) struct Setting<T> {
    pub(super) key: Key,
    /// Parses a value; relative paths start at the file's folder.
    pub(super) read: fn(&str, &Path) -> ValueResult<T>,
}

/// Declares the keys of a section, in the order of the shipped file: `CONSTANT: type = name, default,
/// (reload | restart | secret), parser, explanation;`. A reload changes a secret one, too.
macro_rules! settings {
    (
        [$section:ident]
        $( $constant:ident: $kind:ty = $name:ident, $default:literal, $change:ident, $read:expr, $text:literal; )*
    ) => {
        $(
            pub(super) const $constant: $crate::config::key::Setting<$kind> = $crate::config::key::Setting {
                key: $crate::config::key::key!($change, $section, $name, $default, $text),
                read: $read,
            };
        )*

        /// The keys of the section.
        pub(super) const KEYS: &[$crate::config::key::Key] = &[$( $constant.key ),*];
    };
}

macro_rules! key {
    (reload, $section:ident, $name:ident, $default:literal, $text:literal) => {
        $crate::config::key::key!($section, $name, $default, $text, false, false)
    };
    (restart, $section:ident, $name:ident, $default:literal, $text:literal) => {
        $crate::config::key::key!(
            $section,
            $name,
            $default,
            concat!($text, " (restart)"),
            true,
            false
        )
    };
    (secret, $section:ident, $name:ident, $default:literal, $text:literal) => {
        $crate::config::key::key!($section, $name, $default, $text, false, true)
    };
    ($section:ident, $name:ident, $default:literal, $text:expr, $restart:literal, $secret:literal) => {
        $crate::config::key::Key {
            section: stringify!($section),
            name: stringify!($name),
            full_name: concat!(stringify!($section), ".", stringify!($name)),
            default: $default,
            text: $text,
            restart: $restart,
            secret: $secret,
        }
    };
}

pub(super) use {key, settings};

/// Sections that hold for one pool, each with the one for both, whose keys it has and before which it goes.
const OF_POOLS: [(&str, &str); 2] = [("health pre", "health"), ("health prod", "health")];

/// What the keys that only services have are declared for; no section has this name.
const SERVICE: &str = "service";

/// Sections that each service may have, with a name in place of `NAME`.
const OF_SERVICES: [&str; 5] = [
    "service NAME",
    "service NAME health",
    "service NAME health pre",
    "service NAME health prod",
    "service NAME verdict",
];

/// The keys that hold for all services, though others of their section may be given for one.
const FOR_ALL_SERVICES: [&str; 6] = [
    "upstream.resolve_interval",
    "verdict.webhook",
    "verdict.webhook_format",
    "verdict.webhook_secret_file",
    "verdict.webhook_ca",
    "verdict.webhook_timeout",
];

/// The service that a section is about, and what of it: `health`, `health pre`, `health prod`, `verdict`, or
/// nothing for the section with its own keys. `None` for a section that is about no service.
pub(super) fn service_part(section: &str) -> Option<(&str, &str)> {
    let rest = section.strip_prefix(SERVICE)?.strip_prefix(' ')?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

/// All keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyTable {
    /// A slice for each section that there is once.
    pub(super) once: &'static [&'static [Key]],
    /// What each service has of its own, besides keys of other sections.
    pub(super) service: &'static [Key],
}

impl KeyTable {
    /// Every key of the sections that there are once, in the order of the shipped file.
    pub fn iter(self) -> impl Iterator<Item = &'static Key> {
        self.once.iter().copied().flatten()
    }

    /// Every key that `[service NAME]` has and no other section.
    pub fn of_services(self) -> impl Iterator<Item = &'static Key> {
        self.service.iter()
    }

    /// The keys of `section`, which may be that of a pool or of a service; none when there is no such
    /// section.
    pub(super) fn of(self, section: &str) -> impl Iterator<Item = &'static Key> {
        let is_service = service_part(section).is_some();
        let (own, section) = match service_part(section) {
            Some((_, "")) => (self.service, "upstream"),
            Some((_, part)) if part.starts_with("health") || part == "verdict" => (&[][..], part),
            // It has no other parts.
            Some(_) => (&[][..], ""),
            None => (&[][..], section),
        };
        let of_pool = OF_POOLS.iter().find(|(it, _)| *it == section);
        let section = of_pool.map_or(section, |(_, general)| general);
        let first = move |keys: &&[Key]| keys.first().is_some_and(|it| it.section == section);
        let found = self.once.iter().copied().find(first).unwrap_or_default();
        let is_for_one =
            move |key: &&Key| !is_service || !FOR_ALL_SERVICES.contains(&key.full_name);
        own.iter().chain(found.iter().filter(is_for_one))
    }

    /// The key called `name` of `section`.
    pub(super) fn find(self, section: &str, name: &str) -> Option<&'static Key> {
        self.of(section).find(|key| key.name == name)
    }

    /// The sections that there are once, in the order of the table.
    pub(super) fn sections(self) -> Vec<&'static str> {
        let firsts = self.once.iter().filter_map(|keys| keys.first());
        let with_pools = firsts.flat_map(|key| {
            let of_pools = OF_POOLS.iter().filter(|(_, it)| *it == key.section);
            std::iter::once(key.section).chain(of_pools.map(|(name, _)| *name))
        });
        with_pools.collect()
    }

    /// All sections that a file may have, as they are told a person.
    pub(super) fn allowed_sections(self) -> Vec<&'static str> {
        [self.sections(), OF_SERVICES.to_vec()].concat()
    }
}
