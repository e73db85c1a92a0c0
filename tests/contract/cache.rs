//! The DELs.

use super::*;

#[test]
fn a_delete_takes_the_keys_and_says_how_many_there_were() {
    on_both(|twin| {
        twin.cache("d1");
        twin.cache("d3");
        assert_eq!(twin.delete(&["d1", "d2"]).unwrap(), 1);
        assert_eq!([twin.is_cached("d1"), twin.is_cached("d3")], [false, true]);
    });
}

#[test]
fn a_delete_that_is_repeated_finds_nothing() {
    on_both(|twin| {
        twin.cache("d1");
        assert_eq!(twin.delete(&["d1"]).unwrap(), 1);
        assert_eq!(twin.delete(&["d1"]).unwrap(), 0);
    });
}

#[test]
fn f13_only_the_literal_key_is_deleted() {
    on_both(|twin| {
        for key in ["d1", "d 1", "d\u{1F600}", "d*", "d\r\nFLUSHALL\r\n"] {
            twin.cache(key);
        }
        assert_eq!(twin.delete(&["*", "d*", "d\r\nFLUSHALL\r\n"]).unwrap(), 2);
        for key in ["d1", "d 1", "d\u{1F600}"] {
            assert!(twin.is_cached(key), "{key:?}");
        }
    });
}
