use super::*;

#[test]
fn key_and_lease_share_the_hash_tag() {
    assert_eq!(lease_key("event:draft:42"), "{event:draft:42}:lease");
}
