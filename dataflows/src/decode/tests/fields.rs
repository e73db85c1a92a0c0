//! Ids, styles and URLs as they stand in an event.

use super::{
    IMAGES, Outcome, TEXT, check, check_ids, check_message, event, outcome, with_fancy,
    with_images, with_job_id, word,
};
use crate::validate::DraftIdType;

#[test]
fn of_several_faults_the_first_in_the_order_of_the_fields_is_reported() {
    let bad_images = r#"{"simple":"x","fancy":5}"#;
    check(event("\"\"", "null", bad_images), "blank-id");
    check(event("1", "null", bad_images), "wrong-type");
    check_message(
        event("1", "2", bad_images),
        "bad-url",
        "imageUrls.simple: expected an absolute http or https URL by RFC 3986, got text that breaks its grammar at byte 1",
    );
    check(event("1", "2", r#"{"trendy":"x","simple":"http://a/"}"#), "missing-style");
    check(event("1", "2", r#"{"simple":"x","gloomy":"y"}"#), "unknown-style");
}

#[test]
fn integers_are_ids_digit_for_digit() {
    check_ids(event("42", "-7", IMAGES), "42", "-7");
    check_ids(event("-0", "0", IMAGES), "-0", "0");
    check_ids(
        event("9007199254740993", "18446744073709551616", IMAGES),
        "9007199254740993",
        "18446744073709551616",
    );
    check_ids(with_job_id(&"9".repeat(255)), &"9".repeat(255), "draft-1");
    check(with_job_id(&"9".repeat(256)), "id-too-long");
    check(with_job_id(&"1".repeat(300)), "id-too-long");
    for number in ["1.0", "1e3", "1E3", "-0.0", "1e999"] {
        check(with_job_id(number), "wrong-type");
    }
}

#[test]
fn ids_are_measured_in_bytes_after_decoding() {
    let of = |text: &str| with_job_id(&format!("\"{text}\""));
    check(of(&"a".repeat(255)), "event");
    check(of(&"a".repeat(256)), "id-too-long");
    check(of(&"\\u0061".repeat(255)), "event");
    check(of(&"é".repeat(127)), "event");
    check(of(&format!("a{}", "é".repeat(127))), "event");
    check(of(&"é".repeat(128)), "id-too-long");
    check(of(&"\\u00e9".repeat(128)), "id-too-long");
    check(of(&"\u{1f600}".repeat(63)), "event");
    check(of(&"\u{1f600}".repeat(64)), "id-too-long");
}

#[test]
fn hostile_ids_are_exact_text_or_rejected() {
    let taken = [
        "*",
        "'; drop table event_drafts; --",
        "{x}",
        "trailing ",
        " leading",
        "a b",
        "\u{202e}rtl",
        "\u{200f}",
        "%00",
        "\u{200b}",
        "../..",
        "e\u{301}",
        "\u{fffd}",
        "<script>",
        "$1",
        "null",
        "\u{ad}",
    ];
    for id in taken {
        check_ids(event(&format!("\"{id}\""), &format!("\"{id}\""), IMAGES), id, id);
    }
    check_ids(with_job_id(r#""a\"b\\c""#), r#"a"b\c"#, "draft-1");
    for id in [r"a\r\nb", r"\u001b[31mred", r"a\u0000", r"\u007f", r"\u0085x", r"x\u009b", r"tab\t"]
    {
        check(with_job_id(&format!("\"{id}\"")), "id-control-character");
        check(event("1", &format!("\"{id}\""), IMAGES), "id-control-character");
    }
    for id in ["", " ", r"\t\n", "\u{a0}", "\u{3000}\u{2003}", r"\u2028", r"\u0085"] {
        check(with_job_id(&format!("\"{id}\"")), "blank-id");
        check(event("1", &format!("\"{id}\""), IMAGES), "blank-id");
    }
    let blank = " ".repeat(300);
    check(with_job_id(&format!("\"{blank}\"")), "blank-id");
}

#[test]
fn a_draft_id_takes_the_spelling_of_its_column() {
    let value = event("7", r#""{0E37DF36F69811E6-8DD4CB9CED3DF976}""#, IMAGES);
    match outcome(Some(value.as_bytes()), &[], DraftIdType::Uuid) {
        Outcome::Event { draft_id, .. } => {
            assert_eq!(draft_id, "0e37df36-f698-11e6-8dd4-cb9ced3df976")
        }
        other => panic!("{other:?}"),
    }
    let value = event("7", "12345678901", IMAGES);
    assert_eq!(word(&outcome(Some(value.as_bytes()), &[], DraftIdType::BigInt)), "event");
    assert_eq!(
        word(&outcome(Some(value.as_bytes()), &[], DraftIdType::Integer)),
        "invalid-draft-id"
    );
    assert_eq!(word(&outcome(Some(value.as_bytes()), &[], DraftIdType::Uuid)), "invalid-draft-id");
    // The rules for every id come first.
    let value = event("7", r#"" ""#, IMAGES);
    assert_eq!(word(&outcome(Some(value.as_bytes()), &[], DraftIdType::Uuid)), "blank-id");
}

#[test]
fn image_urls_may_be_an_array_in_any_order() {
    let images = r#"[{"style":"trendy","url":"http://t/","width":640},{"url":"http://s/","style":"simple"},
        {"style":"fan\u0063y","url":"http:\/\/f/","alt":{"style":1,"style":2}}]"#;
    match outcome(Some(with_images(images).as_bytes()), &[], TEXT) {
        Outcome::Event { urls, .. } => assert_eq!(urls, ["http://s/", "http://f/", "http://t/"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn exactly_the_three_styles_are_wanted_each_once() {
    let element = |style: &str| format!(r#"{{"style":"{style}","url":"http://a/"}}"#);
    let array = |styles: &[&str]| {
        with_images(&format!(
            "[{}]",
            styles.iter().copied().map(element).collect::<Vec<_>>().join(",")
        ))
    };
    check(array(&["fancy", "simple", "trendy"]), "event");
    check(array(&["fancy", "simple"]), "missing-style");
    check(array(&[]), "missing-style");
    check(with_images("{}"), "missing-style");
    check(array(&["fancy", "simple", "fancy"]), "duplicate-style");
    check(array(&["fancy", "simple", "trendy", "trendy"]), "duplicate-style");
    check(array(&["fancy", "simple", "trendy", "gloomy"]), "unknown-style");
    check(array(&["Fancy", "simple", "trendy"]), "unknown-style");
    check(array(&["fancy ", "simple", "trendy"]), "unknown-style");
    check(array(&[""]), "unknown-style");
    check(with_images(&IMAGES.replace('}', r#","gloomy":"https://cdn/g.png"}"#)), "unknown-style");
    check(with_images(&IMAGES.replace('}', r#","extra":null}"#)), "unknown-style");
    check(with_images(&IMAGES.replace("simple\"", "Simple\"")), "unknown-style");
    check_message(
        with_images(&format!(r#"{{"\u001b\n{}":1}}"#, "x".repeat(500))),
        "unknown-style",
        &format!(
            "imageUrls: expected simple, fancy or trendy, got \"\\u{{1b}}\\n{}…\"",
            "x".repeat(55)
        ),
    );
    check_message(
        with_images(r#"{"simple":"http://a/","trendy":"http://a/"}"#),
        "missing-style",
        "imageUrls: expected simple, fancy and trendy, fancy is missing",
    );
    check_message(
        array(&["simple", "simple"]),
        "duplicate-style",
        "imageUrls[1].style: expected each style once, got simple again",
    );
    check(
        with_images(&format!("[{}]", vec![element("simple"); 20_000].join(","))),
        "duplicate-style",
    );
}

#[test]
fn elements_of_image_urls_have_a_style_and_a_url() {
    let cases = [
        (
            r#"["http://a/"]"#,
            "wrong-type",
            "imageUrls[0]: expected an object with style and url, got a string",
        ),
        ("[null]", "wrong-type", "imageUrls[0]: expected an object with style and url, got null"),
        ("[[]]", "wrong-type", "imageUrls[0]: expected an object with style and url, got an array"),
        (r#"[{"url":"http://a/"}]"#, "missing-field", "imageUrls[0].style: missing"),
        (r#"[{"style":"fancy"}]"#, "missing-field", "imageUrls[0].url: missing"),
        (
            r#"[{"style":1,"url":"http://a/"}]"#,
            "wrong-type",
            "imageUrls[0].style: expected a string, got an integer",
        ),
        (
            r#"[{"style":"fancy","url":"http://a/"},{"style":"simple","url":null},{"style":"trendy","url":"http://a/"}]"#,
            "wrong-type",
            "imageUrls[1].url: expected a string, got null",
        ),
    ];
    for (images, code, message) in cases {
        check_message(with_images(images), code, message);
    }
}

#[test]
fn urls_are_checked_as_they_decode() {
    for url in ["null", "5", "{}", "[\"http://a/\"]", "true"] {
        check(with_fancy(url), "wrong-type");
    }
    check(with_fancy(r#""https://cdn/\u0000""#), "bad-url");
    check(with_fancy(r#""https://cdn/\u00e9""#), "bad-url");
    check(with_fancy(r#""https://cdn/\n""#), "bad-url");
    check(with_fancy(r#""""#), "bad-url");
    let of_length = |len: usize| format!(r#""https://a/{}""#, "x".repeat(len - 10));
    check(with_fancy(&of_length(2_048)), "event");
    check_message(
        with_fancy(&of_length(2_049)),
        "url-too-long",
        "imageUrls.fancy: expected at most 2048 bytes, got 2049",
    );
    // The length comes first, so that nothing long is ever parsed.
    check(with_fancy(&format!("\"{}\"", "é ".repeat(2_000))), "url-too-long");
}
