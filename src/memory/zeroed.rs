//! Memory that is zero, and takes none of the machine's before it is written to.

// There is no other way to make a slice of atomics without writing each of them.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU8;

/// So many zeros. A mebibyte and more is mapped by itself (see
/// [`return_large_blocks`](super::advice::return_large_blocks)): of such, pages that nobody writes to are not
/// there, also when they are read.
pub(crate) fn bytes(count: usize) -> Box<[AtomicU8]> {
    let zeroed = Box::<[AtomicU8]>::new_zeroed_slice(count);
    // SAFETY: an `AtomicU8` is a byte, and any byte is one, zero too.
    unsafe { zeroed.assume_init() }
}
