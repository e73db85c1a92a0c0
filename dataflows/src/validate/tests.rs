//! Ids and URLs by themselves.

use std::borrow::Cow;

use proptest::prelude::*;

use super::{DraftIdType, draft_id, excerpt, is_plain_id, is_plain_url, url, url_by_grammar};

fn check_draft_id(column: DraftIdType, text: &str, expected: Option<&str>) {
    let spelt = draft_id("eventDraftId", Cow::Borrowed(text), column).ok();
    assert_eq!(spelt.as_deref(), expected, "{text:?} as {column:?}");
    // The spelling of the column is the one that stays.
    if let Some(expected) = expected {
        let again = draft_id("eventDraftId", Cow::Borrowed(expected), column);
        assert!(matches!(again, Ok(Cow::Borrowed(same)) if same == expected), "{expected:?} again");
    }
}

fn check_url(text: &str, expected: &str) {
    let found = url(&"imageUrls.fancy", text).map_or_else(|fault| fault.reason.code(), |()| "ok");
    assert_eq!(found, expected, "{text:?}");
}

#[test]
fn uuids_are_read_as_postgresql_reads_them() {
    let canonical = Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    for text in [
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
    ] {
        check_draft_id(DraftIdType::Uuid, text, canonical);
    }
    for text in [
        "",
        "{}",
        "draft-1",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
        "-a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0-eebc999c0b4ef8bb6d6bb9bd380a11",
        "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        "{{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}}",
        " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 ",
        "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99_9c0b_4ef8_bb6d_6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380aé",
        "éééééééééééééééé",
        "urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ] {
        check_draft_id(DraftIdType::Uuid, text, None);
    }
}

#[test]
fn integers_are_read_as_postgresql_reads_them() {
    let long_zero = "0".repeat(250);
    for column in [DraftIdType::BigInt, DraftIdType::Integer] {
        for (text, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("+0", "0"),
            ("7", "7"),
            ("+7", "7"),
            ("-7", "-7"),
            ("007", "7"),
            ("-007", "-7"),
            ("+007", "7"),
            ("10", "10"),
            ("2147483647", "2147483647"),
            ("-2147483648", "-2147483648"),
            (&long_zero, "0"),
            (&format!("{long_zero}12"), "12"),
        ] {
            check_draft_id(column, text, Some(canonical));
        }
        for text in [
            "",
            "-",
            "+",
            "--1",
            "+-1",
            "1.0",
            "1e3",
            " 1",
            "1 ",
            "0x1f",
            "1_000",
            "١",
            "draft-1",
            "9223372036854775808",
        ] {
            check_draft_id(column, text, None);
        }
    }
    for text in ["2147483648", "-2147483649"] {
        check_draft_id(DraftIdType::BigInt, text, Some(text));
        check_draft_id(DraftIdType::Integer, text, None);
    }
    for text in ["9223372036854775807", "-9223372036854775808"] {
        check_draft_id(DraftIdType::BigInt, text, Some(text));
    }
    check_draft_id(DraftIdType::BigInt, "-9223372036854775809", None);
}

#[test]
fn text_is_kept_and_measured_in_characters() {
    let text = DraftIdType::Text { max_chars: None };
    for id in ["draft-1", "A0EEBC99", "007", " x "] {
        check_draft_id(text, id, Some(id));
        check_draft_id(DraftIdType::Text { max_chars: Some(8) }, id, Some(id));
    }
    check_draft_id(DraftIdType::Text { max_chars: Some(4) }, "éééé", Some("éééé"));
    check_draft_id(DraftIdType::Text { max_chars: Some(4) }, "ééééé", None);
    check_draft_id(DraftIdType::Text { max_chars: Some(4) }, "abcd ", None);
}

#[test]
fn a_message_about_a_draft_id_names_the_column_type() {
    for (column, text, message) in [
        (
            DraftIdType::Uuid,
            "x\"\u{202e}",
            r#"eventDraftId: expected a uuid, as its column is, got "x\"\u{202e}""#,
        ),
        (
            DraftIdType::BigInt,
            "x",
            r#"eventDraftId: expected an integer of 64 bits, as its column is, got "x""#,
        ),
        (
            DraftIdType::Integer,
            "x",
            r#"eventDraftId: expected an integer of 32 bits, as its column is, got "x""#,
        ),
        (
            DraftIdType::Text { max_chars: Some(2) },
            "xyz",
            "eventDraftId: expected at most 2 characters, as its column holds, got 3",
        ),
    ] {
        let fault =
            draft_id("eventDraftId", Cow::Borrowed(text), column).expect_err("does not fit");
        assert_eq!((fault.reason.code(), &*fault.message), ("invalid-draft-id", message));
    }
}

#[test]
fn urls_that_rfc_3986_allows_are_taken() {
    for text in [
        "http://a",
        "https://cdn.example.com/a/b.png",
        "HTTPS://CDN.EXAMPLE.COM/A.PNG",
        "https://cdn/a?x=1&y=%C3%A9#part",
        "https://cdn?x",
        "https://cdn#x",
        "https://cdn:443/a",
        "https://cdn:/a",
        "https://cdn:0/a",
        "https://cdn:65535/a",
        "https://cdn:00080/a",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://[2001:db8::7]:8443/a",
        "https://[::ffff:192.0.2.1]/a",
        "https://[v1.fe80::a+en1]/a",
        "https://xn--mnchen-3ya.example/a",
        "https://a_b/c",
        "https://%65xample/a",
        "https://cdn/a;b=c,d'(e)!*~$",
        "https://cdn//a/../b/./c",
        "https://cdn/user@host",
        "https://cdn/a?b=@",
        "https://cdn/%00",
    ] {
        check_url(text, "ok");
    }
}

#[test]
fn urls_that_rfc_3986_or_we_do_not_allow_are_rejected() {
    for text in [
        "",
        "x",
        "/a.png",
        "//cdn/a.png",
        "cdn.example.com/a.png",
        "https",
        "https:",
        "https:/cdn/a",
        "https:cdn/a",
        "https://",
        "https:///a",
        "https://:80/a",
        "https://?x",
        "https://@/a",
        "https://@cdn/a",
        "https://user@cdn/a",
        "https://user:secret@cdn/a",
        "https://:@cdn/a",
        "https://a@b@cdn/a",
        "ftp://cdn/a",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "httpss://cdn/a",
        "1http://cdn/a",
        "https://cdn:65536/a",
        "https://cdn:99999999999999999999/a",
        "https://cdn:80a/a",
        "https://cdn:-1/a",
        "https://cdn:80:80/a",
        "https://::1/a",
        "https://[::1/a",
        "https://[::1]x/a",
        "https://[::1%25eth0]/a",
        "https://[:::1]/a",
        "https://[1:2:3:4:5:6:7:8:9]/a",
        "https://[::1]:65536/a",
        "https://[]/a",
        "https://cdn/a b",
        " https://cdn/a",
        "https://cdn/a ",
        "https://cdn/a\n",
        "https://cdn/\0",
        "https://cdn/\t",
        "https://cdn/\u{7f}",
        "https://cdn/é",
        "https://münchen.example/a",
        "https://cdn/\u{202e}gnp",
        "https://cdn/%",
        "https://cdn/%2",
        "https://cdn/%zz",
        "https://cdn/\"",
        "https://cdn/\\",
        "https:\\\\cdn\\a",
        "https://cdn/<a>",
        "https://cdn/{a}",
        "https://cdn/a|b",
        "https://cdn/a^b`c",
        "https://cdn/[a]",
        "https://cdn/a#b#c",
    ] {
        check_url(text, "bad-url");
    }
}

#[test]
fn a_message_about_a_url_quotes_nothing_of_it() {
    for text in [
        "https://user:secret@cdn/a",
        "https://cdn/a b?token=secret",
        "secret://cdn/a",
        "https://cdn:99999/secret",
    ] {
        let fault = url(&"imageUrls.fancy", text).expect_err("is a bad URL");
        assert!(
            fault.message.starts_with("imageUrls.fancy: expected an absolute http or https URL")
        );
        assert!(!fault.message.contains("secret"), "{}", fault.message);
    }
}

#[test]
fn an_excerpt_is_short_and_on_one_line() {
    assert_eq!(excerpt("plain"), "\"plain\"");
    assert_eq!(excerpt("a\r\n\u{1b}[0m\"\\\u{202e}"), r#""a\r\n\u{1b}[0m\"\\\u{202e}""#);
    let long = excerpt(&"\u{7f}".repeat(100));
    assert!(long.len() <= 64 + "…\"".len() && long.ends_with("\\u{7f}…\""), "{long}");
}

#[test]
fn most_urls_are_plain() {
    assert!(is_plain_url("https://images.example/d-1/simple_2~.png"));
    for other in
        ["https://", "https:///d1", "https://h:80/", "https://u@h/", "ftp://h/", "https://h/?a"]
    {
        assert!(!is_plain_url(other), "{other}");
    }
}

#[test]
fn every_byte_of_a_plain_text_is_looked_at_wherever_it_stands() {
    // More than twice the sixteen that are looked at together.
    for length in 1..50 {
        for (place, byte) in (0..length).flat_map(|place| (0..=127_u8).map(move |it| (place, it))) {
            let mut text = vec![b'a'; length];
            text[place] = byte;
            let text = String::from_utf8(text).unwrap();
            let is_id = byte.is_ascii_graphic() && byte != b'\\';
            assert_eq!(is_plain_id(&text), is_id, "{text:?}");
            let is_url = byte.is_ascii_alphanumeric() || place > 0 && b"-._~/".contains(&byte);
            assert_eq!(is_plain_url(&format!("https://{text}")), is_url, "{text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5_000) })]

    #[test]
    fn what_is_plain_keeps_the_grammar(text in "(https?://)?[a-zA-Z0-9./_~:@?#%\\[\\] -]{0,12}") {
        if is_plain_url(&text) {
            prop_assert!(url_by_grammar(&"url", &text).is_ok(), "{text}");
        }
    }
}
