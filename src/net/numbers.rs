//! Descriptor numbers. `may` delivers the events of a descriptor to the worker `number % workers`, so
//! each worker needs numbers of its own kind, while the kernel hands out the lowest free one.
//!
//! If that number does not fit, the worker asks for the lowest number of its kind that it has not given
//! out itself. F_DUPFD returns the first free one from there on, which is that number unless something
//! else holds it (a log, a pipe, a connection on its way to another worker). So one call is enough as a
//! rule; at worst it takes one for each number of this kind that others hold. Numbers stay as low as
//! what is open at the time allows, whatever was open before.
//!
//! A worker knows for sure what it has given out itself. What others hold it only remembers for a while,
//! so that it does not try the same numbers again and again.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use socket2::Socket;

use super::coroutines;

/// What others hold is forgotten after this many searches.
const MEMORY: u32 = 256;

thread_local! {
    static NUMBERS: RefCell<Numbers> = RefCell::new(Numbers::new(coroutines::workers(), coroutines::worker()));
}

/// A socket whose number belongs to the worker that uses it. It never leaves that worker.
pub(super) struct WorkerSocket(Socket, PhantomData<*const ()>);

impl WorkerSocket {
    /// Gives `socket` a number of the calling worker.
    ///
    /// # Errors
    /// EMFILE when there is none; the socket is returned unchanged: see [`duplicate`].
    pub(super) fn new(socket: Socket) -> Result<Self, (Socket, io::Error)> {
        if NUMBERS.with_borrow_mut(|numbers| numbers.take(socket.as_raw_fd())) {
            return Ok(Self(socket, PhantomData));
        }
        match duplicate(&socket) {
            Ok(own) => Ok(Self(own.into(), PhantomData)),
            Err(error) => Err((socket, error)),
        }
    }

    /// A second handle of the same socket, for the same worker.
    ///
    /// # Errors
    /// EMFILE when there is no number: see [`duplicate`].
    pub(super) fn twin(&self) -> io::Result<Self> {
        Ok(Self(duplicate(&self.0)?.into(), PhantomData))
    }
}

impl Deref for WorkerSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}

impl AsFd for WorkerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for WorkerSocket {
    fn drop(&mut self) {
        // Nothing else runs on this worker before the socket is closed. When the worker itself ends,
        // nothing needs to be noted.
        let number = self.0.as_raw_fd();
        let _ = NUMBERS.try_with(|numbers| numbers.borrow_mut().release(number));
    }
}

/// The same file under a number of the calling worker, for the worker's life: the number is never
/// released.
///
/// # Errors
/// As of [`duplicate`].
pub(super) fn with_fitting_number(file: OwnedFd) -> io::Result<OwnedFd> {
    match NUMBERS.with_borrow_mut(|numbers| numbers.take(file.as_raw_fd())) {
        true => Ok(file),
        false => duplicate(&file),
    }
}

/// The same file under another number, which is noted as given out by the calling worker.
///
/// # Errors
/// The kernel's; EMFILE when it allows no number that fits.
fn duplicate(file: &impl AsFd) -> io::Result<OwnedFd> {
    let from = |lowest| {
        let number = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
        // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    NUMBERS.with_borrow_mut(|numbers| numbers.search(from))
}

/// What one worker knows of the numbers of its kind.
struct Numbers {
    workers: usize,
    worker: usize,
    /// Of its numbers in order, 64 a word.
    words: Vec<BitWord>,
    /// Words below this one have no number left.
    lowest: usize,
    /// Searches since what others hold was forgotten.
    searches: u32,
}

#[derive(Clone, Copy, Default)]
struct BitWord {
    /// Given out by this worker.
    own: u64,
    /// Held by others, when last seen.
    others: u64,
}

impl Numbers {
    fn new(workers: usize, worker: usize) -> Self {
        Self {
            workers,
            worker,
            words: Vec::new(),
            lowest: 0,
            searches: 0,
        }
    }

    /// Notes `number` as given out, if it is of this worker's kind.
    fn take(&mut self, number: RawFd) -> bool {
        let fits = number as usize % self.workers == self.worker;
        if fits {
            let (at, bit) = self.place(number);
            if self.words.len() <= at {
                self.words.resize(at + 1, BitWord::default());
            }
            let word = &mut self.words[at];
            debug_assert_eq!(word.own & bit, 0, "{number} was given out already");
            word.own |= bit;
            word.others &= !bit;
        }
        fits
    }

    /// Notes that `number` was closed.
    fn release(&mut self, number: RawFd) {
        let (at, bit) = self.place(number);
        self.words[at].own &= !bit;
        self.lowest = self.lowest.min(at);
        while self.words.last().is_some_and(|word| word.own == 0) {
            self.words.pop();
        }
    }

    /// A descriptor with a number of this kind, made by `duplicate_from`, which uses the first free
    /// number from the given one on.
    fn search<T: AsRawFd>(
        &mut self,
        duplicate_from: impl Fn(RawFd) -> io::Result<T>,
    ) -> io::Result<T> {
        self.searches += 1;
        let mut looks_anew = self.searches < MEMORY;
        if !looks_anew {
            self.forget_others();
        }
        let mut from = 0;
        loop {
            let lowest = self.lowest_from(from);
            match duplicate_from(lowest) {
                Ok(made) => {
                    let number = made.as_raw_fd();
                    self.note_others(lowest, number);
                    if self.take(number) {
                        return Ok(made);
                    }
                    from = number;
                }
                Err(error) if !is_at_the_limit(&error) => return Err(error),
                // The numbers that others held may be free by now.
                Err(_) if looks_anew => {
                    looks_anew = false;
                    self.forget_others();
                    from = 0;
                }
                Err(_) => return Err(io::Error::from_raw_os_error(libc::EMFILE)),
            }
        }
    }

    /// The lowest number of this kind, from `from` on, that is free as far as is known.
    fn lowest_from(&mut self, from: RawFd) -> RawFd {
        while self.words.get(self.lowest).is_some_and(BitWord::is_full) {
            self.lowest += 1;
        }
        let first = self.index_from(from);
        let mut at = (first / 64).max(self.lowest);
        let index = loop {
            let word = self.words.get(at).copied().unwrap_or_default();
            let free = !(word.own | word.others) & bits_from(first, at);
            if free != 0 {
                break at * 64 + free.trailing_zeros() as usize;
            }
            at += 1;
        };
        RawFd::try_from(index * self.workers + self.worker).unwrap_or(RawFd::MAX)
    }

    /// Notes that somebody else holds each number from `from` to before `to` that is not this worker's.
    fn note_others(&mut self, from: RawFd, to: RawFd) {
        let (first, end) = (self.index_from(from), self.index_from(to));
        if self.words.len() < end.div_ceil(64) {
            self.words.resize(end.div_ceil(64), BitWord::default());
        }
        for at in first / 64..end.div_ceil(64) {
            let word = &mut self.words[at];
            let held = bits_from(first, at) & !bits_from(end, at);
            word.others |= held & !word.own;
        }
    }

    fn forget_others(&mut self) {
        self.searches = 0;
        self.lowest = 0;
        for word in &mut self.words {
            word.others = 0;
        }
    }

    /// The index, among this worker's numbers, of the first one from `number` on.
    fn index_from(&self, number: RawFd) -> usize {
        let above = (number as usize).saturating_sub(self.worker);
        above.div_ceil(self.workers)
    }

    /// Where `number`, which is one of this worker's, is noted.
    fn place(&self, number: RawFd) -> (usize, u64) {
        let index = number as usize / self.workers;
        (index / 64, 1 << (index % 64))
    }
}

impl BitWord {
    fn is_full(&self) -> bool {
        self.own | self.others == u64::MAX
    }
}

/// The bits of the word `at` for the index `first` and those after it.
fn bits_from(first: usize, at: usize) -> u64 {
    match first.saturating_sub(at * 64) {
        below @ 0..64 => u64::MAX << below,
        _ => 0,
    }
}

/// True when there is no free number from the requested one on; EINVAL means that even that one is above
/// the limit (fcntl(2), F_DUPFD).
fn is_at_the_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMFILE))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use super::*;

    /// The descriptors of a process: the kernel gives out the lowest number that is free.
    #[derive(Clone)]
    struct Kernel {
        open: Rc<RefCell<BTreeSet<RawFd>>>,
        limit: RawFd,
        calls: Rc<Cell<usize>>,
    }

    struct Open {
        kernel: Kernel,
        number: RawFd,
    }

    impl AsRawFd for Open {
        fn as_raw_fd(&self) -> RawFd {
            self.number
        }
    }

    impl Drop for Open {
        fn drop(&mut self) {
            self.kernel.open.borrow_mut().remove(&self.number);
        }
    }

    impl Kernel {
        fn new(limit: RawFd) -> Self {
            let (open, calls) = (Rc::default(), Rc::default());
            Self { open, limit, calls }
        }

        fn open(&self) -> io::Result<Open> {
            self.open_from(0)
        }

        fn open_from(&self, lowest: RawFd) -> io::Result<Open> {
            self.calls.set(self.calls.get() + 1);
            let error = |code| Err(io::Error::from_raw_os_error(code));
            if lowest >= self.limit {
                return error(libc::EINVAL);
            }
            let mut open = self.open.borrow_mut();
            match (lowest..self.limit).find(|it| !open.contains(it)) {
                None => error(libc::EMFILE),
                Some(number) => {
                    open.insert(number);
                    let kernel = self.clone();
                    Ok(Open { kernel, number })
                }
            }
        }

        /// Takes a number for a file that is no worker's.
        fn hold(&self, number: RawFd) -> Open {
            let open = self.open_from(number).unwrap();
            assert_eq!(open.number, number);
            open
        }

        fn highest(&self) -> RawFd {
            self.open.borrow().last().copied().unwrap_or(-1)
        }
    }

    /// A socket of `numbers`' worker, as [`WorkerSocket::new`] makes it.
    fn own(numbers: &mut Numbers, kernel: &Kernel) -> io::Result<Open> {
        let socket = kernel.open()?;
        if numbers.take(socket.number) {
            return Ok(socket);
        }
        numbers.search(|lowest| kernel.open_from(lowest))
    }

    fn close(numbers: &mut Numbers, open: Open) {
        numbers.release(open.number);
    }

    #[test]
    fn the_number_that_the_kernel_gives_is_taken_as_it_is_when_it_fits() {
        let (kernel, mut numbers) = (Kernel::new(100), Numbers::new(1, 0));
        let _open: Vec<Open> = (0..10)
            .map(|_| own(&mut numbers, &kernel).unwrap())
            .collect();
        assert_eq!(kernel.calls.get(), 10);
    }

    #[test]
    fn one_call_finds_a_number_however_many_of_its_worker_and_of_others_are_open() {
        let kernel = Kernel::new(100_000);
        let mut numbers = [Numbers::new(2, 0), Numbers::new(2, 1)];
        // Many of the one worker, none of the other: between them everything is free.
        let _many: Vec<Open> = (0..10_000)
            .map(|_| own(&mut numbers[0], &kernel).unwrap())
            .collect();
        assert_eq!(kernel.highest(), 19_998);
        let before = kernel.calls.get();
        let one = own(&mut numbers[0], &kernel).unwrap();
        assert_eq!((one.number, kernel.calls.get() - before), (20_000, 2));
    }

    #[test]
    fn numbers_are_those_of_what_is_open_whatever_was_open_before() {
        const LIMIT: RawFd = 300;
        for workers in [2, 3, 4, 7] {
            let kernel = Kernel::new(LIMIT);
            let mut numbers: Vec<_> = (0..workers).map(|at| Numbers::new(workers, at)).collect();
            let mut random = fastrand::Rng::with_seed(7);
            let mut open: Vec<Vec<Open>> = (0..workers).map(|_| Vec::new()).collect();
            for _ in 0..20 {
                // Up to nearly all that there are, down to a few that are spread over all of them.
                for (numbers, open) in numbers.iter_mut().zip(&mut open) {
                    while open.len() < LIMIT as usize / workers - 1 {
                        open.push(own(numbers, &kernel).unwrap());
                    }
                }
                for (numbers, open) in numbers.iter_mut().zip(&mut open) {
                    random.shuffle(open);
                    open.drain(random.usize(..5)..)
                        .for_each(|it| close(numbers, it));
                }
                for _ in 0..200 {
                    let worker = random.usize(..workers);
                    let (numbers, open) = (&mut numbers[worker], &mut open[worker]);
                    let it = own(numbers, &kernel).unwrap();
                    let lower = it.number as usize / workers;
                    assert!(lower <= open.len(), "{} with {}", it.number, open.len());
                    match random.bool() && open.len() < 10 {
                        true => open.push(it),
                        false => close(numbers, it),
                    }
                }
            }
        }
    }

    #[test]
    fn what_others_hold_is_stepped_over_and_remembered() {
        let (kernel, mut numbers) = (Kernel::new(1_000), Numbers::new(2, 0));
        // Of the even ones, and so that an odd one is free behind each.
        let others: Vec<Open> = (0..20).map(|at| kernel.hold(2 * at)).collect();
        let last = own(&mut numbers, &kernel).unwrap();
        assert_eq!((last.number, kernel.calls.get()), (40, 20 + 1 + 20));
        let next = own(&mut numbers, &kernel).unwrap();
        assert_eq!((next.number, kernel.calls.get()), (42, 41 + 2));
        // When they are gone, their numbers are used again, soon.
        drop(others);
        for _ in 0..MEMORY {
            let held = kernel.hold(1);
            let it = numbers.search(|lowest| kernel.open_from(lowest)).unwrap();
            drop(held);
            close(&mut numbers, it);
        }
        let again = numbers.search(|lowest| kernel.open_from(lowest)).unwrap();
        assert_eq!(again.number, 0);
    }

    #[test]
    fn at_the_limit_it_is_out_of_descriptors_and_goes_on_when_one_is_closed() {
        for limit in 1..200 {
            let kernel = Kernel::new(limit);
            let mut numbers = [Numbers::new(2, 0), Numbers::new(2, 1)];
            let mut open = Vec::new();
            let error = loop {
                match numbers[1].search(|lowest| kernel.open_from(lowest)) {
                    Ok(it) => open.push(it),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            assert_eq!(open.len(), limit as usize / 2, "all that fit");
            if let Some(it) = open.pop() {
                let number = it.number;
                close(&mut numbers[1], it);
                let it = numbers[1]
                    .search(|lowest| kernel.open_from(lowest))
                    .unwrap();
                assert_eq!(it.number, number);
                close(&mut numbers[1], it);
            }
            // Others hold the rest, too, and then let go of it.
            let others: Vec<Open> = std::iter::from_fn(|| kernel.open().ok()).collect();
            let none = numbers[0].search(|lowest| kernel.open_from(lowest));
            assert_eq!(none.err().unwrap().raw_os_error(), Some(libc::EMFILE));
            drop(others);
            assert!(numbers[0].search(|lowest| kernel.open_from(lowest)).is_ok());
        }
    }

    #[test]
    fn another_error_is_told_as_it_is() {
        let mut numbers = Numbers::new(2, 0);
        let failed = numbers.search::<Open>(|_| Err(io::Error::from_raw_os_error(libc::EBADF)));
        assert_eq!(failed.err().unwrap().raw_os_error(), Some(libc::EBADF));
    }
}
