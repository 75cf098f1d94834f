//! The stacks of a process's coroutines, as the kernel sees them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use graygate::net::STACK_SIZE;

/// The longest ways of a request may use so much of a stack, in bytes, in a debug build too. What is
/// left up to half of a stack is for the report of a panic there.
pub(crate) const LONGEST_WAY: usize = 64 * 1024;

/// Size of a page, and of the guard below a stack.
const PAGE: usize = 4096;

/// What was found of a process's stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stacks {
    /// How many are in use, or are kept for use.
    pub(crate) count: usize,
    /// From the top of a stack to the lowest page that was ever touched, in bytes; of the stack
    /// where that is most.
    pub(crate) deepest: usize,
}

impl Stacks {
    /// The stacks of the process `pid` (or `self`): what lies above a page that nobody may touch.
    /// Page by page and not by `smaps`, since the kernel joins a stack with the memory above it.
    /// The stacks of threads look alike, but are larger, and so nobody has touched their lowest
    /// part.
    #[track_caller]
    pub(crate) fn of(pid: &str) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let pages = File::open(format!("/proc/{pid}/pagemap")).unwrap();
        let mut found = Self {
            count: 0,
            deepest: 0,
        };
        // The end of the guard page right before.
        let mut guarded = None;
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|it| usize::from_str_radix(it, 16).unwrap());
            let is_stack = rest.starts_with("rw-p") && end - start >= STACK_SIZE;
            if is_stack && guarded == Some(start) {
                found.add(depth(&pages, start));
            }
            let is_guard = rest.starts_with("---p") && end - start == PAGE;
            guarded = is_guard.then_some(end);
        }
        found
    }

    fn add(&mut self, depth: usize) {
        self.count += usize::from(depth > 0);
        self.deepest = self.deepest.max(depth);
    }
}

/// How deep the stack whose lowest byte is `bottom` was used.
fn depth(pages: &File, bottom: usize) -> usize {
    const COUNT: usize = STACK_SIZE / PAGE;
    let mut entries = [0; COUNT * 8];
    // A stack that has just been given back reads as nothing.
    let offset = (bottom / PAGE * 8) as u64;
    let read = pages.read_at(&mut entries, offset).unwrap();
    let entries = entries[..read].chunks_exact(8);
    // Bits 63 and 62: in memory, or swapped out (proc_pid_pagemap(5)).
    let mut touched = entries.map(|entry| entry[7] & 0b1100_0000 != 0);
    // The runtime itself marks the lowest page when it makes a stack.
    touched.next();
    let lowest = touched.position(|it| it).map(|it| it + 1);
    lowest.map_or(0, |lowest| STACK_SIZE - lowest * PAGE)
}
