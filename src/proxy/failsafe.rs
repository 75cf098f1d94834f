//! What has to be done when a panic keeps a coroutine from coming to its end.

/// Does something when it is dropped before it was [disarmed](Failsafe::disarm).
pub(super) struct Failsafe<F: FnMut()>(F);

impl<F: FnMut()> Failsafe<F> {
    pub(super) fn new(action: F) -> Self {
        Self(action)
    }

    /// All went well.
    pub(super) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl<F: FnMut()> Drop for Failsafe<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
