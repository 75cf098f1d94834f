//! The versions that are released: a server each, which may get a defect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::Origin;

pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    is_bad: Arc<AtomicBool>,
}

impl Version {
    pub(crate) fn start(number: usize) -> Self {
        let (name, is_bad) = (format!("v{number}"), Arc::new(AtomicBool::new(false)));
        let (text, bad) = (name.clone(), Arc::clone(&is_bad));
        // Nothing is recorded, since there is much of it.
        let origin = Origin::scripted(move |conn| {
            while conn.wire.head()?.is_some() {
                let status = match bad.load(Ordering::Relaxed) {
                    true => "500 Oops",
                    false => "200 OK",
                };
                let length = text.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}");
                conn.send(head.as_bytes())?;
            }
            Ok(())
        });
        Self {
            name,
            origin,
            is_bad,
        }
    }

    /// From now on it fails, or does not.
    pub(crate) fn set_bad(&self, is_bad: bool) {
        self.is_bad.store(is_bad, Ordering::Relaxed);
    }

    pub(crate) fn is_bad(&self) -> bool {
        self.is_bad.load(Ordering::Relaxed)
    }
}
