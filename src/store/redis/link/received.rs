//! What was received on a connection, split into whole replies.

use std::io::Read;
use std::ops::Range;

use redis::RedisResult;

use crate::store::heavy;
use crate::store::redis::errors::closed;
use crate::store::redis::reply::{Bounds, Scan, ScanEnd};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// What was received and not taken yet.
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    /// Up to here it was taken.
    taken: usize,
    pub(super) scan: Scan,
    chunk: Box<[u8]>,
}

impl Default for Received {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            scan: Scan::default(),
            chunk: vec![0; CHUNK].into(),
        }
    }
}

impl Received {
    /// Takes the next whole reply. If the stream fails, what was received of it is kept.
    pub(super) fn reply(&mut self, stream: &mut impl Read, bounds: Bounds) -> RedisResult<Vec<u8>> {
        loop {
            match self.scan.end(&self.bytes[self.taken..], bounds)? {
                ScanEnd::Whole(length) => {
                    self.scan = Scan::default();
                    return Ok(self.take(length));
                }
                ScanEnd::Surplus(Range { start, end }) => {
                    let surplus = self.taken + start..self.taken + end;
                    self.bytes.drain(surplus);
                    continue;
                }
                ScanEnd::Partial => {}
            }
            // So that a long reply begins at the front and need not be copied.
            self.bytes.drain(..std::mem::take(&mut self.taken));
            match stream.read(&mut self.chunk)? {
                0 => return Err(closed().into()),
                length => {
                    let needed = self.bytes.len() + length;
                    if needed > self.bytes.capacity() {
                        self.bytes.reserve(heavy::room(needed) - self.bytes.len());
                    }
                    self.bytes.extend_from_slice(&self.chunk[..length]);
                }
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        if self.taken == 0 && length == self.bytes.len() {
            return std::mem::take(&mut self.bytes);
        }
        let start = self.taken;
        self.taken += length;
        self.bytes[start..self.taken].to_vec()
    }
}
