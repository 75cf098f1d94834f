//! Byte buffers that are lent from a free list of the worker.
//!
//! A connection holds a buffer only while bytes are in flight, so that memory follows the number of
//! active requests and not of open connections. Two sizes are kept for reuse: [`SMALL`] for heads and
//! small bodies, [`BIG`] while a big body flows (fewer system calls per byte).

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::memory::free_list::FreeList;

/// Size of an ordinary buffer, in bytes: room for a body of 16 KiB with its head, so that such an answer
/// takes one read. (With half of that it takes two reads and two writes: a third more CPU time.)
pub const SMALL: usize = 32 * 1024;

/// Size of a buffer for a big body, in bytes.
pub const BIG: usize = 256 * 1024;

/// Buffers of each size that a worker keeps for reuse. Of the small ones there are enough for every
/// request of a crowd; those that are no longer needed are freed bit by bit ([`trim`]).
const KEPT_SMALL: usize = 4096;
const KEPT_BIG: usize = 16;
/// Small ones that are kept even when they are not needed.
const LEAST_SMALL: usize = 8;

/// Most big buffers that a worker has in use. Clients that do not read hold theirs for as long as they
/// are allowed to, so without a limit a crowd of them would cost a crowd of big buffers.
pub const MOST_BIG: usize = 128;

thread_local! {
    static FREE: RefCell<Free> = const {
        RefCell::new(Free {
            small: FreeList::new(LEAST_SMALL, KEPT_SMALL),
            big: Vec::new(),
            big_in_use: 0,
        })
    };
}

struct Free {
    small: FreeList<Vec<u8>>,
    big: Vec<Vec<u8>>,
    big_in_use: usize,
}

/// Bytes received and not yet used. Takes memory from the worker's free list when it is first
/// needed, and gives it back when dropped or [released](Buffer::release).
#[derive(Default)]
pub(crate) struct Buffer {
    /// Every byte is initialised, so that sockets can read into any part of it.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The memory counts towards [`MOST_BIG`]: it has not just grown for a large head.
    counted: bool,
    /// Its worker counts it, so it must not leave that worker.
    own: PhantomData<*const ()>,
}

impl Buffer {
    /// A buffer without memory.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            counted: false,
            own: PhantomData,
        }
    }

    /// The bytes received and not yet used.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// True when every byte was used.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Marks the first `count` bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count.min(self.end - self.start);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room after the bytes, at least one byte; doubles the memory when it is full.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = take_small();
        }
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
            } else {
                let larger = self.bytes.len() * 2;
                self.bytes.resize(larger, 0);
            }
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// Notes that `count` bytes were written into the room.
    pub(crate) fn added(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Appends `bytes`.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.added(now.len());
            bytes = later;
        }
    }

    /// Exchanges the memory for [`BIG`], if it is smaller and the worker does not have too many of these
    /// in use.
    pub(crate) fn enlarge(&mut self) {
        if self.bytes.len() < BIG
            && let Some(mut larger) = take_big()
        {
            let length = self.end - self.start;
            larger[..length].copy_from_slice(self.filled());
            self.give_back();
            (self.bytes, self.counted) = (larger, true);
            (self.start, self.end) = (0, length);
        }
    }

    /// Gives the memory back if it is not in use.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            self.give_back();
            (self.start, self.end) = (0, 0);
        }
    }

    fn give_back(&mut self) {
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            give(bytes, std::mem::take(&mut self.counted));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn take_small() -> Vec<u8> {
    let kept = FREE.with_borrow_mut(|free| free.small.take());
    kept.unwrap_or_else(|| vec![0; SMALL])
}

/// Frees half of the calling worker's small buffers that were not needed since the last call, but keeps
/// a few; true while there is more to free.
pub(crate) fn trim() -> bool {
    FREE.with_borrow_mut(|free| free.small.trim())
}

fn take_big() -> Option<Vec<u8>> {
    FREE.with_borrow_mut(|free| {
        (free.big_in_use < MOST_BIG).then(|| {
            free.big_in_use += 1;
            free.big.pop().unwrap_or_else(|| vec![0; BIG])
        })
    })
}

fn give(bytes: Vec<u8>, counted: bool) {
    FREE.with_borrow_mut(|free| {
        free.big_in_use -= usize::from(counted);
        match bytes.len() {
            SMALL => free.small.give(bytes),
            BIG if free.big.len() < KEPT_BIG => free.big.push(bytes),
            // Other sizes come from large heads, which are rare.
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_the_memory_does() {
        let mut buffer = Buffer::new();
        let bytes: Vec<u8> = (0..50_000).map(|at| (at % 251) as u8).collect();
        buffer.put(&bytes[..20_000]);
        buffer.consume(5_000);
        buffer.put(&bytes[20_000..40_000]);
        buffer.enlarge();
        buffer.put(&bytes[40_000..]);
        assert_eq!(buffer.filled(), &bytes[5_000..]);
        buffer.consume(45_000);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_crowd_gets_small_buffers_where_the_big_ones_are_in_use() {
        let enlarged = || {
            let mut buffer = Buffer::new();
            buffer.put(b"x");
            buffer.enlarge();
            buffer
        };
        let mut crowd: Vec<Buffer> = (0..=MOST_BIG).map(|_| enlarged()).collect();
        let sizes: Vec<usize> = crowd.iter().map(|it| it.bytes.len()).collect();
        assert_eq!(sizes[..MOST_BIG], [BIG; MOST_BIG]);
        assert_eq!(sizes[MOST_BIG], SMALL);
        crowd.truncate(MOST_BIG - 1);
        assert_eq!(enlarged().bytes.len(), BIG);
    }

    #[test]
    fn what_grows_beside_the_big_ones_lets_no_more_and_no_fewer_of_them_be_in_use() {
        let enlarged = || {
            let mut buffer = Buffer::new();
            buffer.enlarge();
            buffer
        };
        let mut crowd: Vec<Buffer> = (0..MOST_BIG).map(|_| enlarged()).collect();
        let mut head = Buffer::new();
        head.put(&vec![b'x'; BIG]);
        assert_eq!(head.bytes.len(), BIG, "as large as a big one");
        drop(head);
        assert!(enlarged().bytes.is_empty(), "one too many");
        if let Some(grown) = crowd.last_mut() {
            grown.put(&vec![b'x'; BIG + 1]);
            assert!(grown.bytes.len() > BIG, "larger than it was");
        }
        crowd.pop();
        assert_eq!(enlarged().bytes.len(), BIG);
    }

    #[test]
    fn memory_is_reused() {
        let mut first = Buffer::new();
        let place = first.room().as_ptr();
        first.release();
        assert_eq!(Buffer::new().room().as_ptr(), place);
    }
}
