//! Clean-up for when a panic keeps a coroutine from reaching its end.

/// Runs an action when it is dropped without having been [disarmed](Failsafe::disarm).
pub(super) struct Failsafe<F: FnMut()>(F);

impl<F: FnMut()> Failsafe<F> {
    pub(super) fn new(action: F) -> Self {
        Self(action)
    }

    /// All went well: the action is not run.
    pub(super) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl<F: FnMut()> Drop for Failsafe<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
