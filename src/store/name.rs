//! The name of a store, by which a last-good copy says whose lists it holds.
//!
//! It contains what distinguishes one set of lists from another: the server (or the name of the master,
//! and its Sentinels), the database, the keys of each service; or the path of the lists file. It does
//! not contain how the server is reached: another user, password or TLS setting does not mean other
//! lists. Nor do services that only one of the two has: a service that is added or taken away leaves the
//! lists of the others what they are.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{self, Address, Store, Url};
use crate::lists::{ByList, ListName};

/// The service that the keys of `[redis]`, or the lists file, are of.
const SERVICE: &str = "default";

/// Which lists these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreName {
    place: StorePlace,
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum StorePlace {
    Redis {
        /// `host:port`, the path of a socket, or with Sentinels the name of the master.
        server: String,
        /// Sorted; none: the server is named by its address.
        sentinels: Vec<String>,
        db: i64,
        keys: ListKeys,
        /// Of the other services, by their names.
        services: BTreeMap<String, ListKeys>,
    },
    File(String),
}

/// The keys of gray, pre and prod.
type ListKeys = [String; 3];

impl StoreName {
    /// The most services whose keys are shown a person.
    const MOST_SHOWN: usize = 3;

    /// The name of a store that is configured.
    pub(crate) fn of(store: &Store) -> Self {
        match store {
            Store::Redis(settings) => Self::of_redis(settings),
            Store::File(path) => Self::of_file(path),
        }
    }

    /// The name of a lists file.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self {
            place: StorePlace::File(path.to_string_lossy().into_owned()),
            service: SERVICE.to_owned(),
        }
    }

    fn of_redis(settings: &config::RedisSettings) -> Self {
        let mut sentinels: Vec<String> = settings.sentinels.iter().map(address).collect();
        sentinels.sort_unstable();
        let server = match settings.url.address() {
            // The port in it means nothing.
            Address::Tcp { host, .. } if !sentinels.is_empty() => host.clone(),
            _ => address(&settings.url),
        };
        let keys_of = |lists: &ByList<String>| ListName::ALL.map(|list| lists[list].clone());
        let (mut keys, mut services) = (ListKeys::default(), BTreeMap::new());
        for it in &settings.services {
            match it.service.is_default() {
                true => keys = keys_of(&it.lists),
                false => drop(services.insert(it.service.to_string(), keys_of(&it.lists))),
            }
        }
        let place = StorePlace::Redis {
            server,
            sentinels,
            db: settings.url.login().db,
            keys,
            services,
        };
        Self {
            place,
            service: SERVICE.to_owned(),
        }
    }

    /// True when both mean the same lists. Sentinels are replaced one by one, so one in common is
    /// enough.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let same_place = match (&self.place, &other.place) {
            (
                StorePlace::Redis {
                    server,
                    sentinels,
                    db,
                    keys,
                    services,
                },
                StorePlace::Redis {
                    server: other_server,
                    sentinels: other_sentinels,
                    db: other_db,
                    keys: other_keys,
                    services: other_services,
                },
            ) => {
                let none = sentinels.is_empty() && other_sentinels.is_empty();
                let mut in_both = services
                    .iter()
                    .filter_map(|(name, keys)| Some((keys, other_services.get(name)?)));
                (server, db, keys) == (other_server, other_db, other_keys)
                    && in_both.all(|(one, other)| one == other)
                    && (none || sentinels.iter().any(|it| other_sentinels.contains(it)))
            }
            (one, other) => one == other,
        };
        same_place && self.service == other.service
    }

    /// The server and the database, whatever the keys; or the file.
    pub fn server(&self) -> String {
        match &self.place {
            StorePlace::Redis {
                server,
                sentinels,
                db,
                ..
            } => format!("redis {server} {} db {db}", sentinels.join(",")),
            StorePlace::File(path) => format!("file {path}"),
        }
    }

    /// One line, for the copy.
    pub(super) fn to_json(&self) -> String {
        let Self { place, service } = self;
        let page = match place {
            StorePlace::Redis {
                server,
                sentinels,
                db,
                keys,
                services,
            } => {
                let mut page = json!({
                    "redis": server,
                    "sentinels": sentinels,
                    "db": db,
                    "keys": keys,
                    "service": service,
                });
                // Without other services, the name is what it was before there were any.
                if !services.is_empty() {
                    page["services"] = json!(services);
                }
                page
            }
            StorePlace::File(path) => json!({ "file": path, "service": service }),
        };
        page.to_string()
    }

    /// Parses that line; `None` when it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let page: Value = serde_json::from_str(text).ok()?;
        let owned = |it: &Value| it.as_str().map(str::to_owned);
        let all = |it: &Value| it.as_array()?.iter().map(owned).collect::<Option<Vec<_>>>();
        let keys = |it: &Value| ListKeys::try_from(all(it)?).ok();
        let services = match &page["services"] {
            Value::Null => BTreeMap::new(),
            services => {
                let each = services.as_object()?.iter();
                let read = each.map(|(name, it)| Some((name.clone(), keys(it)?)));
                read.collect::<Option<_>>()?
            }
        };
        let place = match owned(&page["file"]) {
            Some(path) => StorePlace::File(path),
            None => StorePlace::Redis {
                server: owned(&page["redis"])?,
                sentinels: all(&page["sentinels"])?,
                db: page["db"].as_i64()?,
                keys: keys(&page["keys"])?,
                services,
            },
        };
        let service = owned(&page["service"])?;
        Some(Self { place, service })
    }

    /// A few characters that are unique to the store, for the name of a file.
    pub(super) fn mark(&self) -> String {
        let hash = Sha256::digest(self.to_json());
        hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            StorePlace::Redis {
                server,
                sentinels,
                db,
                keys,
                services,
            } => {
                write!(f, "redis {server}")?;
                if !sentinels.is_empty() {
                    write!(f, " of the Sentinels {}", sentinels.join(","))?;
                }
                write!(f, " db {db} keys {}", keys.join(","))?;
                for (name, keys) in services.iter().take(Self::MOST_SHOWN) {
                    write!(f, ", of {name} {}", keys.join(","))?;
                }
                if let Some(more) = services.len().checked_sub(Self::MOST_SHOWN + 1) {
                    write!(f, ", and of {} more services", more + 1)?;
                }
            }
            StorePlace::File(path) => write!(f, "file {path}")?,
        }
        if self.service != SERVICE {
            write!(f, " service {}", self.service)?;
        }
        Ok(())
    }
}

fn address(url: &Url) -> String {
    match url.address() {
        Address::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
        Address::Tcp { host, port, .. } => format!("{}:{port}", host.to_ascii_lowercase()),
        Address::Unix(path) => path.to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn name(redis: &str) -> StoreName {
        let text = format!("[redis]\n{}\n", redis.replace("; ", "\n"));
        let config = Config::parse(Path::new("/etc/graygate.ini"), &text, None);
        StoreName::of(&config.unwrap().store)
    }

    #[test]
    fn a_store_is_known_by_what_makes_its_lists_others() {
        let sentinels = |all: &str| name(&format!("url = redis://mymaster; sentinels = {all}"));
        let one = name("url = redis://h:6379/0");
        for same in [
            "url = redis://h",
            "url = rediss://H:6379",
            "url = redis://user:secret@h:6379/0",
            "url = redis://h; accept_key = other; node = other; timeout = 1s",
        ] {
            assert!(one.is(&name(same)), "{same}");
        }
        for other in [
            "url = redis://h:6380",
            "url = redis://h/1",
            "url = redis://g",
            "url = redis://h; gray_key = other",
            "url = redis://h; gray_key = prod; prod_key = gray",
            "url = redis://h; sentinels = s",
            "url = unix:///h",
        ] {
            assert!(!one.is(&name(other)), "{other}");
            assert!(!name(other).is(&one), "{other}");
        }
        assert!(sentinels("a, b, c").is(&sentinels("d, b")));
        assert!(!sentinels("a, b, c").is(&sentinels("d, e")));
        let file = |path: &str| StoreName::of_file(Path::new(path));
        assert!(file("/a").is(&file("/a")) && !file("/a").is(&file("/b")) && !file("/a").is(&one));
    }

    #[test]
    fn services_that_both_have_are_the_same_and_others_do_not_matter() {
        let of = |services: &str| name(&format!("url = redis://h; {services}"));
        let section =
            |name: &str, more: &str| format!("[service {name}]; hosts = {name}; {more}; ");
        let none = of("");
        let [a, b] = ["a", "b"].map(|it| of(&section(it, "")));
        let both = of(&(section("b", "") + &section("a", "")));
        let other = of(&section("a", "pre_key = other"));
        for (one, two) in [(&none, &a), (&a, &b), (&a, &both), (&none, &other)] {
            assert!(one.is(two) && two.is(one), "{one}; {two}");
        }
        assert!(!a.is(&other) && !other.is(&both) && b.is(&other));
        // A gateway without services has the name that it always had.
        assert_eq!(
            none.to_json(),
            r#"{"db":0,"keys":["gray","pre","prod"],"redis":"h:6379","sentinels":[],"service":"default"}"#
        );
        assert_eq!(none.to_string(), "redis h:6379 db 0 keys gray,pre,prod");
        assert_eq!(a.to_string(), format!("{none}, of a a:gray,a:pre,a:prod"));
        let many: Vec<String> = (0..5).map(|it| section(&format!("s{it}"), "")).collect();
        assert!(
            of(&many.concat())
                .to_string()
                .ends_with("s2:prod, and of 2 more services")
        );
    }

    #[test]
    fn a_name_is_read_as_it_was_written_and_holds_no_secret() {
        for name in [
            name("url = redis://user:secret@h/3"),
            name("url = redis://:secret@mymaster; sentinels = [::1]:1, b"),
            name("url = unix:///a b?db=2"),
            name("url = redis://h; [service a]; hosts = a; [service b]; hosts = b; gray = a"),
            StoreName::of_file(Path::new("/a \"b\"\n")),
        ] {
            let text = name.to_json();
            assert!(!text.contains('\n') && !text.contains("secret"), "{text}");
            assert!(!name.to_string().contains("secret"));
            assert_eq!(StoreName::parse(&text), Some(name));
        }
        let odd = name("url = redis://h")
            .to_json()
            .replace('}', r#","services":{"a":["x"]}}"#);
        for text in ["", "{}", "[]", "{\"redis\":\"h\"}", "{\"file\":1}", &odd] {
            assert_eq!(StoreName::parse(text), None, "{text}");
        }
    }
}
