//! The versions that are released: a server each, which may get a defect, for all who ask or for those who
//! come by one gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::Origin;

pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    /// A bit for each gateway by which it fails.
    bad: Arc<AtomicU8>,
}

/// The field by which clients say through which gateway they come.
pub(crate) const BY: &str = "X-By";

impl Version {
    pub(crate) fn start(number: usize) -> Self {
        let (name, bad) = (format!("v{number}"), Arc::new(AtomicU8::new(0)));
        let (text, fails) = (name.clone(), Arc::clone(&bad));
        // Nothing is recorded, since there is much of it.
        let origin = Origin::scripted(move |conn| {
            while let Some(head) = conn.wire.head()? {
                let by: u32 = head.field(BY).map_or(0, |it| it.parse().unwrap());
                let status = match fails.load(Ordering::Relaxed) >> by & 1 {
                    1 => "500 Oops",
                    _ => "200 OK",
                };
                let length = text.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}");
                conn.send(head.as_bytes())?;
            }
            Ok(())
        });
        Self { name, origin, bad }
    }

    /// From now on it fails for those who come by these gateways, a bit for each.
    pub(crate) fn set_bad(&self, bad: u8) {
        self.bad.store(bad, Ordering::Relaxed);
    }

    /// It fails for those who come by one gateway.
    pub(crate) fn is_bad_for_one(&self) -> bool {
        self.bad.load(Ordering::Relaxed).is_power_of_two()
    }

    pub(crate) fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Relaxed) != 0
    }
}
