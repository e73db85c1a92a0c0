//! What is JSON, and how much of it.

use super::{
    FIELDS, IMAGES, check, check_ids, check_message, check_with, with_fancy, with_images,
    with_job_id,
};

/// An event that an ignored field makes exactly this deep.
fn nested(depth: usize) -> String {
    let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
    format!(r#"{{{FIELDS},"extra":{open}{close}}}"#)
}

#[test]
fn a_tombstone_is_not_an_empty_value() {
    check_with(None, &[], "null-value");
    check("", "not-json");
}

#[test]
fn what_is_not_utf8_is_rejected_wherever_it_stands() {
    check(b"\xff", "not-utf8");
    check(b"\xef\xbb", "not-utf8");
    // In an ignored field, which the parser itself would let pass; in an ignored key; and after the
    // value.
    check([b"{\"note\":\"\xc3\x28\",".as_slice(), FIELDS.as_bytes(), b"}"].concat(), "not-utf8");
    check([b"{\"\xc3\x28\":1,".as_slice(), FIELDS.as_bytes(), b"}"].concat(), "not-utf8");
    check([b"{".as_slice(), FIELDS.as_bytes(), b"}\xff"].concat(), "not-utf8");
    // A surrogate and an overlong form are no UTF-8 either.
    check(
        [b"{\"note\":\"\xed\xa0\x80\",".as_slice(), FIELDS.as_bytes(), b"}"].concat(),
        "not-utf8",
    );
    check([b"{\"note\":\"\xc0\xaf\",".as_slice(), FIELDS.as_bytes(), b"}"].concat(), "not-utf8");
    // UTF-16, as some producers send it.
    check(b"\xff\xfe{\0}\0", "not-utf8");
}

#[test]
fn what_is_not_one_json_text_is_rejected() {
    for value in [
        " ",
        "\n",
        "{",
        "}",
        "{]",
        "nul",
        "'a'",
        "{'jobId':1}",
        "{jobId:1}",
        "01",
        "1.",
        "-",
        "+1",
        "NaN",
    ] {
        check(value, "not-json");
    }
    let broken = [
        format!("\u{feff}{{{FIELDS}}}"),
        format!("{{{FIELDS}}}{{{FIELDS}}}"),
        format!("{{{FIELDS}}} x"),
        format!("{{{FIELDS}}}\0"),
        format!("{{{FIELDS}}},"),
        format!("{{{FIELDS},}}"),
        format!("{{{FIELDS}"),
        format!("{{{FIELDS},\"a\"}}"),
        format!("{{{FIELDS},\"a\":}}"),
        format!("{{{FIELDS},\"a\":[1,]}}"),
        format!("{{{FIELDS},\"a\":01}}"),
        format!("{{{FIELDS},\"a\":1.e3}}"),
        format!("{{{FIELDS},\"a\":tru}}"),
        format!("{{{FIELDS},\"a\":\"\n\"}}"),
        format!("{{{FIELDS},\"a\":\"\\x41\"}}"),
        format!("{{{FIELDS},\"a\":\"\\u12\"}}"),
        format!("{{{FIELDS},\"a\":\"\\"),
        format!("{{{FIELDS},1:2}}"),
        format!("{{{FIELDS}}} // done"),
        format!("[{{{FIELDS}}}] x"),
    ];
    for value in broken {
        check(value, "not-json");
    }
}

#[test]
fn a_lone_surrogate_is_rejected_wherever_it_stands() {
    for escapes in [
        r"\ud800",
        r"\uDBFF",
        r"\udc00",
        r"\uDFFF",
        r"\ud83d\ud83d\ude00",
        r"\ud83dx\ude00",
        r"\\\ud800",
    ] {
        check(format!(r#"{{{FIELDS},"note":"{escapes}"}}"#), "not-json");
        check(format!(r#"{{{FIELDS},"deep":[{{"{escapes}":1}}]}}"#), "not-json");
        check(with_job_id(&format!("\"{escapes}\"")), "not-json");
    }
    // Pairs, and backslashes that only look like an escape.
    for escapes in [
        r"\ud83d\ude00",
        r"\\ud800",
        r"\uD7FF\uE000",
        r"\\\ud83d\ude00",
        r"\n\ud83d\ude00\ud83d\ude00",
    ] {
        check(format!(r#"{{{FIELDS},"note":"{escapes}"}}"#), "event");
    }
    check_ids(with_job_id(r#""\ud83d\ude00""#), "\u{1f600}", "draft-1");
}

#[test]
fn json_that_is_not_an_object_is_told_apart_from_what_is_not_json() {
    let around = [format!("[{{{FIELDS}}}]"), format!("[\"job-1\",\"draft-1\",{IMAGES}]")];
    for value in
        ["null", "true", "0", "-1.5e9", "1e999", "\"ContentCreated\"", "[]", " [1] ", "\t\"\"\n"]
    {
        check(value, "not-an-object");
    }
    for value in around {
        check(value, "not-an-object");
    }
    check_message("[1,2]", "not-an-object", "expected a JSON object, got an array");
}

#[test]
fn numbers_of_any_size_may_stand_in_ignored_fields() {
    for number in ["1e999", "-1e-999", "123456789012345678901234567890", "1.0e+400", "-0", "0.000"]
    {
        check(format!(r#"{{{FIELDS},"n":{number},"m":[{number}]}}"#), "event");
    }
}

#[test]
fn a_byte_order_mark_is_called_by_its_name() {
    check_message(
        format!("\u{feff}{{{FIELDS}}}"),
        "not-json",
        "expected a JSON object, got a byte-order mark before it",
    );
}

#[test]
fn unknown_fields_are_ignored_and_may_repeat() {
    check(format!(r#"{{"a":1,"a":2,{FIELDS},"b":{{"jobId":1,"jobId":2}},"":null}}"#), "event");
    check(format!(r#"{{"$serde_json::private::RawValue":"x",{FIELDS}}}"#), "event");
    check(format!(r#"{{"JobId":1,"jobid":2,{FIELDS}}}"#), "event");
}

#[test]
fn white_space_of_json_may_surround_everything() {
    check(format!("\r\n\t {{{FIELDS}}} \r\n"), "event");
    check(format!("\u{c}{{{FIELDS}}}"), "not-json");
    check(format!("\u{a0}{{{FIELDS}}}"), "not-json");
}

#[test]
fn keys_and_values_are_compared_decoded() {
    let value = format!(
        r#"{{"job\u0049d":"\u006aob","eventDraft\u0049d":"d\/1","image\u0055rls":{IMAGES}}}"#
    );
    check_ids(value, "job", "d/1");
    check(format!(r#"{{"jobI\u0064":"again",{FIELDS}}}"#), "duplicate-key");
    check(format!(r#"{{"event\u0054ype":"Content\u0043reated",{FIELDS}}}"#), "event");
    check(with_images(&IMAGES.replace("fancy\"", "f\\u0061ncy\"")), "event");
    check(with_fancy(r#""https:\/\/cdn\/f.png""#), "event");
}

#[test]
fn a_value_of_one_mebibyte_is_taken_and_one_byte_more_is_not() {
    let value = format!("{{{FIELDS}}}");
    let filled = |len: usize| format!("{value}{}", " ".repeat(len - value.len()));
    check(filled(1_048_576), "event");
    check(filled(1_048_577), "value-too-large");
    check(vec![0xff; 1_048_577], "value-too-large");
    check(vec![0xff; 5_000_000], "value-too-large");
}

#[test]
fn nesting_of_64_levels_is_taken_and_of_65_is_not() {
    check(nested(64), "event");
    check(nested(65), "too-deep");
    check(format!("{}{}", "[".repeat(64), "]".repeat(64)), "not-an-object");
    check(format!("{}{}", "[".repeat(65), "]".repeat(65)), "too-deep");
    check("[".repeat(1_000_000), "too-deep");
    check("{\"a\":".repeat(100_000), "too-deep");
}

#[test]
fn brackets_that_do_not_nest_are_not_counted() {
    let wide = format!(r#"{{{FIELDS},"a":[{}[]]}}"#, "[{}],".repeat(1_000));
    check(wide, "event");
    let in_string = format!(
        r#"{{{FIELDS},"a":"{}","b":"\"{}","{}":1}}"#,
        "[".repeat(300),
        "{".repeat(300),
        "[{".repeat(99)
    );
    check(in_string, "event");
    let after_escape = format!(r#"{{{FIELDS},"a":"\\","b":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    check(after_escape, "too-deep");
}
