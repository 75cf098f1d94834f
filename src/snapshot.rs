//! One value, published by the control plane and read by every worker without a lock.
//!
//! [`Published`] is the cell: a writer replaces the whole value with one pointer swap. A worker reads
//! through its own `Reader`, which keeps the value it saw last and compares one number per request.
//! What a request holds across its waits is a `Snapshot`, whose reference count only this worker
//! touches, so that workers do not contend for a shared cache line, and no `ArcSwap` guard is held
//! across a wait.
//!
//! A reader keeps its last value alive until it looks again: a replaced value is released when the last
//! worker has served one more request, or was told to `Reader::refresh`, which idle ones must be (see
//! `Published::tell`). It is not freed there, since that takes long for a million entries: the cell
//! keeps what it replaced, and the control plane frees it at one of its next looks, once nobody else has
//! it.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;

/// A value that is replaced as a whole.
pub struct Published<T> {
    shared: Arc<Shared<T>>,
    /// Values that a reader may still have, and must not be the last to release. For the control plane.
    replaced: Mutex<Vec<Arc<T>>>,
    /// Tells the readers that there is a new value.
    tell: OnceLock<fn()>,
}

/// What a writer and all readers have together.
struct Shared<T> {
    value: ArcSwap<T>,
    /// How often it was replaced; counted afterwards.
    replacements: AtomicU64,
}

impl<T> Published<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self {
            shared: Arc::new(Shared {
                value: ArcSwap::from_pointee(value),
                replacements: AtomicU64::new(0),
            }),
            replaced: Mutex::default(),
            tell: OnceLock::new(),
        }
    }

    /// From now on `tell` is called whenever there is a new value, to make idle readers look: otherwise
    /// each of them would keep its last value for as long as it is idle.
    pub(crate) fn tell(&self, tell: fn()) {
        // One is enough.
        let _ = self.tell.set(tell);
    }

    /// The value now in force. For the control plane: it touches a counter that is shared, and frees
    /// replaced values.
    pub fn load(&self) -> Arc<T> {
        self.tidy();
        self.shared.value.load_full()
    }

    /// Replaces the value, for every reader at once.
    pub fn store(&self, value: T) {
        let before = self.shared.value.swap(Arc::new(value));
        self.shared.replacements.fetch_add(1, Ordering::Release);
        let replaced = self.replaced.lock();
        replaced
            .unwrap_or_else(PoisonError::into_inner)
            .push(before);
        if let Some(tell) = self.tell.get() {
            tell();
        }
        self.tidy();
    }

    /// Frees the replaced values that no reader has any more. The cell does not hand them out, so none
    /// of them can get a new reader.
    pub(crate) fn tidy(&self) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = |it: &mut Arc<T>| Arc::strong_count(it) == 1;
        let unused: Vec<Arc<T>> = replaced.extract_if(.., alone).collect();
        // Freed without the lock.
        drop(replaced);
        drop(unused);
    }
}

/// A value as one worker saw it, to be held across waits; cheap to clone on that worker.
#[allow(clippy::redundant_allocation)] // The outer counter is the point: see above.
pub(crate) struct Snapshot<T>(Rc<Arc<T>>);

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Deref for Snapshot<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// One worker's view of a [`Published`] value.
pub(crate) struct Reader<T> {
    shared: Arc<Shared<T>>,
    /// How often the value had been replaced, at least, when it was last looked at.
    seen: Cell<u64>,
    last: RefCell<Snapshot<T>>,
}

impl<T> Reader<T> {
    /// A view of `published`, for the calling worker.
    pub(crate) fn new(published: &Published<T>) -> Self {
        let shared = Arc::clone(&published.shared);
        // In this order: what is replaced meanwhile is looked at again.
        let seen = Cell::new(shared.replacements.load(Ordering::Acquire));
        let last = RefCell::new(Snapshot(Rc::new(shared.value.load_full())));
        Self { shared, seen, last }
    }

    /// The value now in force.
    pub(crate) fn snapshot(&self) -> Snapshot<T> {
        self.refresh();
        self.last.borrow().clone()
    }

    /// How often the value had been replaced, at least, when it was last looked at: another number, another
    /// value.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.get()
    }

    /// Lets go of a value that was replaced.
    pub(crate) fn refresh(&self) {
        let replacements = self.shared.replacements.load(Ordering::Acquire);
        if replacements != self.seen.get() {
            self.look(replacements);
        }
    }

    #[cold]
    fn look(&self, replacements: u64) {
        let current = self.shared.value.load_full();
        let mut last = self.last.borrow_mut();
        if !Arc::ptr_eq(&current, &last.0) {
            *last = Snapshot(Rc::new(current));
        }
        self.seen.set(replacements);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_a_new_value_at_its_next_look_and_keeps_the_old_one_whole() {
        let cell = Arc::new(Published::new(1));
        let reader = Reader::new(&cell);
        let before = reader.snapshot();
        cell.store(2);
        assert_eq!((*before, *reader.snapshot()), (1, 2));
    }

    #[test]
    fn a_replaced_value_is_freed_once_the_reader_has_looked_again() {
        let value = Arc::new(());
        let cell = Arc::new(Published::new(Arc::clone(&value)));
        let reader = Reader::new(&cell);
        cell.store(Arc::new(()));
        assert_eq!(Arc::strong_count(&value), 2);
        reader.refresh();
        cell.tidy();
        assert_eq!(Arc::strong_count(&value), 1);
    }

    /// Says where it is freed.
    struct Told(std::sync::mpsc::Sender<std::thread::ThreadId>);

    impl Drop for Told {
        fn drop(&mut self) {
            // A test that has failed does not listen any more.
            let _ = self.0.send(std::thread::current().id());
        }
    }

    #[test]
    fn a_replaced_value_is_freed_by_the_control_plane_and_not_by_the_last_reader() {
        let (freed, told) = std::sync::mpsc::channel();
        let (other, _kept) = std::sync::mpsc::channel();
        let cell = Arc::new(Published::new(Told(freed)));
        let (step, steps) = std::sync::mpsc::channel();
        let (done, dones) = std::sync::mpsc::channel();
        let readers = Arc::clone(&cell);
        let worker = std::thread::spawn(move || {
            let reader = Reader::new(&readers);
            let held = reader.snapshot();
            done.send(()).unwrap();
            steps.recv().unwrap();
            // A request goes on with the old value while others see the new one.
            reader.refresh();
            done.send(()).unwrap();
            steps.recv().unwrap();
            drop(held);
            done.send(()).unwrap();
            steps.recv().unwrap();
        });
        dones.recv().unwrap();
        cell.store(Told(other));
        for _ in 0..2 {
            step.send(()).unwrap();
            // Held by the reader, then by the request, and then by nobody, but freed by nobody.
            assert!(told.try_recv().is_err());
            dones.recv().unwrap();
            assert!(told.try_recv().is_err());
        }
        drop(cell.load());
        assert_eq!(told.try_recv(), Ok(std::thread::current().id()));
        step.send(()).unwrap();
        worker.join().unwrap();
    }
}
