//! One value, published by the control plane and read by every worker without a lock.
//!
//! [`Published`] is the cell: a writer replaces the whole value with one pointer swap. A worker
//! looks through its own [`Reader`], which keeps the value it saw last and compares one pointer
//! per request. What a request holds across its waits is a [`Snapshot`]: a clone of a counter
//! that only this worker touches, so that workers do not pull a shared cache line from each
//! other, and so that no `ArcSwap` guard is held across a wait.
//!
//! A reader keeps its last value alive until it looks again: a replaced value is freed when the
//! last worker has served one more request (or was told to [`Reader::refresh`]).

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that is replaced as a whole.
pub struct Published<T> {
    cell: ArcSwap<T>,
}

impl<T> Published<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self {
            cell: ArcSwap::from_pointee(value),
        }
    }

    /// The value now in force. For the control plane: it touches a counter that is shared.
    pub fn load(&self) -> Arc<T> {
        self.cell.load_full()
    }

    /// Replaces the value, for every reader at once.
    pub fn store(&self, value: T) {
        self.cell.store(Arc::new(value));
    }
}

/// A value as one worker saw it, to be held across waits; cheap to clone on that worker.
#[allow(clippy::redundant_allocation)] // The outer counter is the point: see above.
pub struct Snapshot<T>(Rc<Arc<T>>);

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
pub struct Reader<T> {
    published: Arc<Published<T>>,
    last: RefCell<Snapshot<T>>,
}

impl<T> Reader<T> {
    /// A view of `published`, for the calling worker.
    pub fn new(published: Arc<Published<T>>) -> Self {
        let last = RefCell::new(Snapshot(Rc::new(published.load())));
        Self { published, last }
    }

    /// The value now in force.
    pub fn snapshot(&self) -> Snapshot<T> {
        self.refresh();
        self.last.borrow().clone()
    }

    /// Lets go of a value that was replaced.
    pub fn refresh(&self) {
        let mut last = self.last.borrow_mut();
        // The guard lives for this comparison only.
        let current = self.published.cell.load();
        if !Arc::ptr_eq(&current, &last.0) {
            *last = Snapshot(Rc::new(Arc::clone(&current)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_a_new_value_at_its_next_look_and_keeps_the_old_one_whole() {
        let cell = Arc::new(Published::new(1));
        let reader = Reader::new(Arc::clone(&cell));
        let before = reader.snapshot();
        cell.store(2);
        assert_eq!((*before, *reader.snapshot()), (1, 2));
    }

    #[test]
    fn a_replaced_value_is_freed_once_the_reader_has_looked_again() {
        let value = Arc::new(());
        let cell = Arc::new(Published::new(Arc::clone(&value)));
        let reader = Reader::new(Arc::clone(&cell));
        cell.store(Arc::new(()));
        assert_eq!(Arc::strong_count(&value), 2);
        reader.refresh();
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
