//! The name of a store, by which a last-good copy says whose lists it holds.
//!
//! It contains what distinguishes one set of lists from another: the server (or the name of the master,
//! and its Sentinels), the database, the keys and the service; or the path of the lists file. It does
//! not contain how the server is reached: another user, password or TLS setting does not mean other
//! lists.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{self, Address, Store, Url};
use crate::lists::ListName;

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
        /// Of gray, pre and prod.
        keys: [String; 3],
    },
    File(String),
}

impl StoreName {
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
        let place = StorePlace::Redis {
            server,
            sentinels,
            db: settings.url.login().db,
            keys: ListName::ALL.map(|list| settings.keys[list].clone()),
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
                },
                StorePlace::Redis {
                    server: other_server,
                    sentinels: other_sentinels,
                    db: other_db,
                    keys: other_keys,
                },
            ) => {
                let none = sentinels.is_empty() && other_sentinels.is_empty();
                (server, db, keys) == (other_server, other_db, other_keys)
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
            } => json!({
                "redis": server,
                "sentinels": sentinels,
                "db": db,
                "keys": keys,
                "service": service,
            }),
            StorePlace::File(path) => json!({ "file": path, "service": service }),
        };
        page.to_string()
    }

    /// Parses that line; `None` when it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let page: Value = serde_json::from_str(text).ok()?;
        let owned = |it: &Value| it.as_str().map(str::to_owned);
        let all = |it: &Value| it.as_array()?.iter().map(owned).collect::<Option<Vec<_>>>();
        let place = match owned(&page["file"]) {
            Some(path) => StorePlace::File(path),
            None => StorePlace::Redis {
                server: owned(&page["redis"])?,
                sentinels: all(&page["sentinels"])?,
                db: page["db"].as_i64()?,
                keys: all(&page["keys"])?.try_into().ok()?,
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
            } => {
                write!(f, "redis {server}")?;
                if !sentinels.is_empty() {
                    write!(f, " of the Sentinels {}", sentinels.join(","))?;
                }
                write!(f, " db {db} keys {}", keys.join(","))?;
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
    fn a_name_is_read_as_it_was_written_and_holds_no_secret() {
        for name in [
            name("url = redis://user:secret@h/3"),
            name("url = redis://:secret@mymaster; sentinels = [::1]:1, b"),
            name("url = unix:///a b?db=2"),
            StoreName::of_file(Path::new("/a \"b\"\n")),
        ] {
            let text = name.to_json();
            assert!(!text.contains('\n') && !text.contains("secret"), "{text}");
            assert!(!name.to_string().contains("secret"));
            assert_eq!(StoreName::parse(&text), Some(name));
        }
        for text in ["", "{}", "[]", "{\"redis\":\"h\"}", "{\"file\":1}"] {
            assert_eq!(StoreName::parse(text), None, "{text}");
        }
    }
}
