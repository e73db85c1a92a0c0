//! How much memory the records in the graph take up, counted where it is taken and where it is
//! given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A count of bytes, shared by all who hold some of them.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<AtomicUsize>);

impl Held {
    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A share of that size, which is given back when it is dropped.
    pub fn share(&self, bytes: usize) -> Share {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Share { held: self.clone(), bytes }
    }
}

/// What one holder has taken.
#[derive(Debug)]
pub struct Share {
    held: Held,
    bytes: usize,
}

impl Share {
    /// Sets the share's size.
    pub fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.held.0.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.held.0.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Clone for Share {
    fn clone(&self) -> Share {
        self.held.share(self.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let held = Held::default();
        let mut first = held.share(5);
        let second = first.clone();
        first.set(7);
        assert_eq!(held.bytes(), 12);
        first.set(1);
        drop(second);
        assert_eq!(held.bytes(), 1);
        drop(first);
        assert_eq!(held.bytes(), 0);
    }
}
