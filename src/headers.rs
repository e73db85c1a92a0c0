//! The headers of a record that anybody may have published, read without trusting their names.
//!
//! The protocol calls a header's name a string, but the broker takes any bytes, and the client
//! library panics on a name that is not UTF-8. Such a record would end the process each time it is
//! read, so that panic is caught here, header by header.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Header, Headers, Message};

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Stands for the name of an unreadable header: it is not UTF-8 either.
pub const UNREADABLE_NAME: &[u8] = b"\xff";

/// A header whose name is not UTF-8: neither its name nor its value can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Whether a panic on this thread, now, is one that is expected and caught here.
pub fn is_guarded() -> bool {
    IS_GUARDED.get()
}

/// The headers of a record in their order.
pub fn of<'a>(
    message: &'a BorrowedMessage<'_>,
) -> impl Iterator<Item = Result<Header<'a, &'a [u8]>, Unreadable>> {
    message.headers().into_iter().flat_map(all)
}

fn all<H: Headers>(headers: &H) -> impl Iterator<Item = Result<Header<'_, &[u8]>, Unreadable>> {
    (0..headers.count()).map(|index| {
        IS_GUARDED.set(true);
        // Nothing is changed by the call that could be left half done.
        let header = catch_unwind(AssertUnwindSafe(|| headers.get(index)));
        IS_GUARDED.set(false);
        header.map_err(|_panic| Unreadable)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two headers, the first of which is read as the client library reads a name that is not
    /// UTF-8.
    struct Hostile;

    impl Headers for Hostile {
        fn count(&self) -> usize {
            2
        }

        fn try_get(&self, index: usize) -> Option<Header<'_, &[u8]>> {
            assert!(is_guarded());
            let name: &[u8] = if index == 0 { b"\xff" } else { b"name" };
            let key = std::str::from_utf8(name).unwrap();
            Some(Header { key, value: Some(b"value") })
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_costs_only_itself() {
        let headers: Vec<_> = all(&Hostile).collect();
        let readable = Header { key: "name", value: Some(b"value".as_slice()) };
        assert_eq!(headers, [Err(Unreadable), Ok(readable)]);
        assert!(!is_guarded(), "any other panic is a bug");
    }
}
