//! Locking a mutex where nobody has to think of poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it. A panic on any thread ends the process ([`crate::cli::failure`]), so that a lock which
/// one has left behind is met in tests at most.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
