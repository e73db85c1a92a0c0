//! Whose event it is, and where its fields stand.

use super::{FIELDS, Headers, IMAGES, check, check_ids, check_message, check_with, with_images};

#[test]
fn a_header_decides_the_type_before_the_value_is_looked_at() {
    let plain = format!("{{{FIELDS}}}");
    let deleted = format!(r#"{{"eventType":"ContentDeleted",{FIELDS}}}"#);
    let large = vec![0xff; 2_000_000];
    for name in ["ce_type", "eventType"] {
        let other: Headers<'_> = &[(name, Some(b"ContentDeleted"))];
        check_with(None, other, "skipped");
        for value in [plain.as_bytes(), b"", b"garbage \xff", &large] {
            check_with(Some(value), other, "skipped");
        }
        let ours: Headers<'_> = &[(name, Some(b"ContentCreated"))];
        check_with(Some(plain.as_bytes()), ours, "event");
        check_with(Some(deleted.as_bytes()), ours, "event");
        check_with(None, ours, "null-value");
        check_with(Some(plain.as_bytes()), &[(name, Some(b"contentcreated"))], "skipped");
        check_with(Some(plain.as_bytes()), &[(name, Some(b" ContentCreated"))], "skipped");
        check_with(Some(plain.as_bytes()), &[(name, Some(b"\xff"))], "wrong-type");
    }
    check_with(Some(deleted.as_bytes()), &[("CE_TYPE", Some(b"ContentCreated"))], "skipped");
    check_with(Some(plain.as_bytes()), &[("type", Some(b"ContentDeleted"))], "event");
}

#[test]
fn of_several_headers_the_first_named_that_is_not_empty_counts() {
    let value = format!("{{{FIELDS}}}");
    let cases: [(Headers<'_>, &str); 7] = [
        (&[("eventType", Some(b"Other")), ("ce_type", Some(b"ContentCreated"))], "event"),
        (&[("eventType", Some(b"ContentCreated")), ("ce_type", Some(b"Other"))], "skipped"),
        (&[("ce_type", Some(b"")), ("eventType", Some(b"Other"))], "skipped"),
        (&[("ce_type", None), ("eventType", Some(b"Other"))], "skipped"),
        (&[("ce_type", Some(b"Other")), ("ce_type", Some(b"ContentCreated"))], "event"),
        (&[("ce_type", Some(b"Other")), ("ce_type", None)], "event"),
        (&[("ce_type", Some(b"ContentCreated")), ("eventType", Some(b"\xff"))], "event"),
    ];
    for (headers, expected) in cases {
        check_with(Some(value.as_bytes()), headers, expected);
    }
}

#[test]
fn the_first_type_in_the_body_that_is_not_empty_counts() {
    let cases = [
        (r#""eventType":"ContentCreated","type":"Other""#, "event"),
        (r#""type":"Other","eventType":"ContentCreated""#, "event"),
        (r#""eventType":"Other","type":"ContentCreated""#, "skipped"),
        (r#""eventType":"","type":"Other""#, "skipped"),
        (r#""eventType":"","type":"""#, "event"),
        (r#""type":"com.example.ContentCreated""#, "skipped"),
        (r#""type":"contentCreated""#, "skipped"),
        (r#""type":" ""#, "skipped"),
        (r#""eventType":"ContentCreated\u0000""#, "skipped"),
        // Reached and not a string, which null is not either; and not reached.
        (r#""eventType":null"#, "wrong-type"),
        (r#""eventType":1"#, "wrong-type"),
        (r#""eventType":["ContentCreated"]"#, "wrong-type"),
        (r#""eventType":"","type":{}"#, "wrong-type"),
        (r#""type":false"#, "wrong-type"),
        (r#""eventType":"ContentCreated","type":5"#, "event"),
        (r#""eventType":"Other","type":5"#, "skipped"),
    ];
    for (types, expected) in cases {
        check(format!("{{{types},{FIELDS}}}"), expected);
        check(format!(r#"{{{types},"data":{{{FIELDS}}}}}"#), expected);
    }
    check_message(
        format!(r#"{{"type":null,{FIELDS}}}"#),
        "wrong-type",
        "type: expected a string, got null",
    );
}

#[test]
fn another_type_is_skipped_whatever_else_is_wrong() {
    check(r#"{"eventType":"Other"}"#, "skipped");
    check(r#"{"eventType":"Other","jobId":1,"jobId":2}"#, "skipped");
    check(r#"{"eventType":"Other","type":"x","type":"y"}"#, "skipped");
    check(r#"{"eventType":"Other","data":1,"data":2,"imageUrls":null}"#, "skipped");
    check(r#"{"data":{"eventType":"Other","jobId":1,"jobId":2}}"#, "skipped");
    check(r#"{"data":{"eventType":"Other"},"payload":1,"payload":2}"#, "skipped");
    // But it has to be JSON, or nobody knows what type it is.
    check(r#"{"eventType":"Other""#, "not-json");
    check(r#"{"eventType":"Other"} x"#, "not-json");
    check(r#"{"eventType":"Other","note":"\ud800"}"#, "not-json");
}

#[test]
fn the_fields_may_stand_in_data_or_payload() {
    let fields = format!("{{{FIELDS}}}");
    let cases = [
        (format!(r#"{{"data":{fields}}}"#), "event"),
        (format!(r#"{{"payload":{fields}}}"#), "event"),
        (format!(r#"{{"data":null,"payload":{fields}}}"#), "event"),
        (format!(r#"{{"data":"text","payload":{fields}}}"#), "event"),
        (format!(r#"{{"data":{{"traceId":1}},"payload":{fields}}}"#), "event"),
        (format!(r#"{{"data":{fields},"payload":{{"eventType":"Other"}}}}"#), "event"),
        (format!(r#"{{"data":{{"eventType":"ContentCreated",{FIELDS}}}}}"#), "event"),
        (format!(r#"{{"data":{{"eventType":"",{FIELDS}}}}}"#), "event"),
        (format!(r#"{{"data":{{"eventType":null,{FIELDS}}}}}"#), "wrong-type"),
        (
            format!(r#"{{"eventType":"ContentCreated","data":{{"eventType":"Other",{FIELDS}}}}}"#),
            "event",
        ),
        (format!(r#"{{"data":{{"eventType":"Other"}},"payload":{fields}}}"#), "skipped"),
        // Inside an envelope `type` is any field, and there is no second envelope.
        (format!(r#"{{"data":{{"type":"Other","type":1,{FIELDS}}}}}"#), "event"),
        (format!(r#"{{"data":{{"payload":{fields}}}}}"#), "missing-field"),
        (r#"{"data":{},"payload":{}}"#.to_owned(), "missing-field"),
        (r#"{"data":{},"payload":"x"}"#.to_owned(), "missing-field"),
        (r#"{"data":null,"payload":null}"#.to_owned(), "missing-field"),
        ("{}".to_owned(), "missing-field"),
    ];
    for (value, expected) in cases {
        check(value, expected);
    }
    check_message(
        r#"{"data":[{}],"payload":1}"#,
        "wrong-type",
        "data: expected an object, got an array",
    );
    check_message(
        r#"{"payload":"{\"jobId\":1}"}"#,
        "wrong-type",
        "payload: expected an object, got a string",
    );
}

#[test]
fn fields_at_the_top_level_leave_data_and_payload_out_of_account() {
    check(format!(r#"{{{FIELDS},"data":{{"eventType":"Other","jobId":5}},"payload":7}}"#), "event");
    check(format!(r#"{{"jobId":"job-1","data":{{{FIELDS}}}}}"#), "missing-field");
    check(format!(r#"{{"jobId":null,"data":{{{FIELDS}}}}}"#), "wrong-type");
}

#[test]
fn events_as_cloud_events_and_debezium_wrap_them() {
    let cloud_event = |r#type: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"A234","source":"/content","type":"{type}","time":"2024-04-05T17:31:00Z",
                "datacontenttype":"application/json","subject":null,"data":{{{FIELDS}}}}}"#
        )
    };
    check_ids(cloud_event("ContentCreated"), "job-1", "draft-1");
    check(cloud_event("ContentDeleted"), "skipped");
    let outbox = format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"type":"string","optional":false,"field":"jobId"}}]}},
            "payload":{{"eventType":"ContentCreated",{FIELDS}}}}}"#
    );
    check_ids(&outbox, "job-1", "draft-1");
    check(outbox.replace(r#""ContentCreated""#, r#""ContentDeleted""#), "skipped");
    let base64 = r#"{"specversion":"1.0","type":"ContentCreated","data_base64":"e30="}"#;
    check(base64, "missing-field");
}

#[test]
fn a_repeated_key_is_rejected_in_every_object_that_counts() {
    let two = |key: &str, value: &str| format!(r#"{{"{key}":{value},{FIELDS},"{key}":{value}}}"#);
    for key in ["data", "payload"] {
        check(two(key, "1"), "duplicate-key");
        check(format!(r#"{{"{key}":{{{FIELDS}}},"{key}":{{{FIELDS}}}}}"#), "duplicate-key");
    }
    for key in ["eventType", "type"] {
        check(two(key, r#""ContentCreated""#), "duplicate-key");
        check(two(key, r#""Other""#), "duplicate-key");
        check(two(key, r#""""#), "duplicate-key");
    }
    for key in ["jobId", "eventDraftId", "imageUrls"] {
        check(format!(r#"{{{FIELDS},"{key}":1}}"#), "duplicate-key");
        check(format!(r#"{{"data":{{"{key}":null,{FIELDS}}}}}"#), "duplicate-key");
    }
    check(
        format!(r#"{{"data":{{"eventType":"Other","eventType":"Other",{FIELDS}}}}}"#),
        "duplicate-key",
    );
    check(with_images(&IMAGES.replace('}', r#","fancy":"https://cdn/f.png"}"#)), "duplicate-key");
    let element = r#"[{"style":"fancy","url":"http://a/","url":"http://a/"}]"#;
    check_message(
        with_images(element),
        "duplicate-key",
        "imageUrls[0].url: expected once, got the key again in the same object",
    );
    check(with_images(r#"[{"style":"fancy","style":"fancy","url":"http://a/"}]"#), "duplicate-key");
    // Also where another object was chosen, or another type.
    check(format!(r#"{{"data":{{{FIELDS}}},"payload":1,"payload":2}}"#), "duplicate-key");
    check(r#"{"data":{"eventType":"Other"},"data":{}}"#, "duplicate-key");
    check(
        format!(r#"{{"eventType":"ContentCreated","type":"x","type":"y","data":{{{FIELDS}}}}}"#),
        "duplicate-key",
    );
    // A repeated type that a header makes irrelevant is still a repeated key.
    let value = two("eventType", r#""Other""#);
    check_with(Some(value.as_bytes()), &[("ce_type", Some(b"ContentCreated"))], "duplicate-key");
}

#[test]
fn fields_that_are_missing_or_of_another_type_are_named() {
    let cases = [
        (r#"{"jobId":"j"}"#, "missing-field", "eventDraftId: missing"),
        (r#"{"imageUrls":{}}"#, "missing-field", "jobId: missing"),
        (r#"{"jobId":"j","eventDraftId":"d"}"#, "missing-field", "imageUrls: missing"),
        (r#"{}"#, "missing-field", "jobId: missing"),
        (
            r#"{"jobId":true}"#,
            "wrong-type",
            "jobId: expected a string or an integer, got a boolean",
        ),
        (r#"{"jobId":null}"#, "wrong-type", "jobId: expected a string or an integer, got null"),
        (
            r#"{"jobId":["j"]}"#,
            "wrong-type",
            "jobId: expected a string or an integer, got an array",
        ),
        (
            r#"{"jobId":1,"eventDraftId":{}}"#,
            "wrong-type",
            "eventDraftId: expected a string or an integer, got an object",
        ),
        (
            r#"{"jobId":1,"eventDraftId":2,"imageUrls":"x"}"#,
            "wrong-type",
            "imageUrls: expected an object or an array, got a string",
        ),
    ];
    for (value, code, message) in cases {
        check_message(value, code, message);
    }
    check(with_images("null"), "wrong-type");
    check(with_images("7"), "wrong-type");
}
