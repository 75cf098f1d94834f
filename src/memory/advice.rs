//! What the allocator, the kernel and the processor are told about the memory of long lists: that
//! it is wanted back, and that it is looked at here and there. It is advice; where they know
//! nothing to do with it, nothing changes.

// They are told by calls of C and by addresses.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use nix::libc;

/// Large blocks are given back to the kernel as soon as they are free.
///
/// Without that glibc takes blocks of up to 32 MiB from its heap after the first has been freed,
/// where what a long list took for a moment stays: after some refreshes of a million entries a
/// gateway had up to 114 MB, with this 47 (`tests/lists_million.rs`).
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// In bytes: blocks from that length on are mapped, each by itself. No request takes one.
        const LARGE: libc::c_int = 1 << 20;

        // SAFETY: it sets a number of the allocator, under the allocator's lock.
        let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        debug_assert_eq!(set, 1);
    }
}

/// Moves what is looked at here and there into pages of 2 MiB, if the kernel has some.
///
/// In small pages nearly each look at some 16 MB costs a walk through the page tables as well: of a
/// million IPv6 addresses that was a quarter of a search.
pub(crate) fn put_in_large_pages<T>(elements: &[T]) {
    /// In bytes. No page is smaller, or they are all of them larger.
    const PAGE: usize = 4096;
    /// With less there may be no whole large page in it.
    const LEAST: usize = 4 << 20;
    /// MADV_COLLAPSE of madvise(2), which not every libc has a name for.
    #[cfg(target_os = "linux")]
    const COLLAPSE: libc::c_int = 25;

    let length = size_of_val(elements);
    if length < LEAST {
        return;
    }
    let start = elements.as_ptr().cast::<u8>().cast_mut();
    let before = start.align_offset(PAGE);
    let pages = (length - before) / PAGE * PAGE;
    #[cfg(target_os = "linux")]
    // SAFETY: the pages are within the elements, and what they hold stays what it is. A kernel from
    // before 6.1, and one that has no large page left, say so, and then nothing was moved.
    let _ = unsafe { libc::madvise(start.wrapping_add(before).cast(), pages, COLLAPSE) };
}

/// Begins to bring an element into the caches. What is asked for in vain costs nothing, so nobody
/// looks whether there is one at that place.
pub(crate) fn prefetch<T>(elements: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        // SAFETY: it reads nothing, and does not mind an address at which there is nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(elements.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (elements, at);
}
