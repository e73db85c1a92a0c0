use dataflows::reject::Reason;

use super::*;

fn fault(value: &str) -> Reason {
    checked(value.as_bytes()).unwrap_err().reason
}

#[test]
fn the_key_of_an_event_is_its_draft() {
    let value = r#"{"jobId":"j","eventDraftId":42,"imageUrls":{"simple":"https://a/s","fancy":"https://a/f","trendy":"https://a/t"}}"#;
    assert_eq!(checked(value.as_bytes()), Ok("42".to_owned()));
}

#[test]
fn what_a_consumer_would_reject_or_skip_is_not_published() {
    assert_eq!(fault("not json"), Reason::NotJson);
    assert_eq!(fault(r#"{"jobId":"j"}"#), Reason::MissingField);
    assert_eq!(fault(r#"{"eventType":"DraftDeleted"}"#), Reason::WrongType);
}

#[test]
fn generated_timestamps_keep_step_with_the_rate() {
    assert_eq!(spacing_us(None), 1);
    assert_eq!(spacing_us(Some(1_000)), 1_000);
    assert_eq!(spacing_us(Some(5_000_000)), 0);
}
