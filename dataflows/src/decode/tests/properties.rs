//! What holds for every record, tried on random ones. A failure prints the record and the seed, and
//! keeps both under `proptest-regressions`.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{IMAGES, Outcome, TEXT, outcome, word};
use crate::decode::{EventType, event_by_grammar, plain};
use crate::validate::{DraftIdType, STYLES};

fn config() -> ProptestConfig {
    ProptestConfig::with_cases(2_000)
}

const GOOD_URLS: [&str; 4] =
    ["http://a", "https://cdn/a.png?x=%20", "HTTPS://[::1]:8080/a#b", "https://cdn:/"];
const BAD_URLS: [&str; 5] = ["", "https:///a", "ftp://a/", "https://u@a/", "https://a/\u{e9}"];

fn draft_ids() -> impl Strategy<Value = DraftIdType> {
    prop_oneof![
        Just(TEXT),
        (0_u32..40).prop_map(|max| DraftIdType::Text { max_chars: Some(max) }),
        Just(DraftIdType::Uuid),
        Just(DraftIdType::BigInt),
        Just(DraftIdType::Integer),
    ]
}

fn id() -> impl Strategy<Value = Value> {
    prop_oneof![
        24 => "[a-z0-9-]{1,12}".prop_map(Value::from),
        6 => any::<i64>().prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => "[ \u{3000}]{0,3}".prop_map(Value::from),
        1 => "x{250,260}".prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => Just(Value::Null),
    ]
}

fn url() -> impl Strategy<Value = Value> {
    prop_oneof![
        12 => proptest::sample::select(GOOD_URLS.to_vec()).prop_map(Value::from),
        1 => proptest::sample::select(BAD_URLS.to_vec()).prop_map(Value::from),
        1 => Just(json!(5)),
    ]
}

fn style() -> impl Strategy<Value = String> {
    prop_oneof![6 => proptest::sample::select(STYLES.to_vec()).prop_map(String::from), 1 => "[a-z]{1,6}"]
}

fn image_urls() -> impl Strategy<Value = Value> {
    let all_three = [url(), url(), url()]
        .prop_map(|urls| Value::Object(STYLES.into_iter().map(String::from).zip(urls).collect()));
    let object = proptest::collection::vec((style(), url()), 2..5)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    let element =
        (style(), url()).prop_map(|(style, url)| json!({"style": style, "url": url, "width": 1}));
    let array = proptest::collection::vec(element, 2..5).prop_map(Value::from);
    let array_of_three =
        (Just(STYLES.to_vec()).prop_shuffle(), [url(), url(), url()]).prop_map(|(styles, urls)| {
            styles
                .into_iter()
                .zip(urls)
                .map(|(style, url)| json!({"style": style, "url": url}))
                .collect()
        });
    prop_oneof![5 => all_three, 3 => array_of_three, 1 => object, 1 => array, 1 => Just(json!("text"))]
}

fn event_type() -> impl Strategy<Value = Option<Value>> {
    let some = |value: Value| Just(Some(value));
    prop_oneof![
        12 => Just(None),
        12 => some(json!("ContentCreated")),
        1 => some(json!("")),
        1 => some(json!("Other")),
        1 => some(json!(7)),
    ]
}

fn optional<T: Strategy<Value = Value>>(value: T) -> impl Strategy<Value = Option<Value>> {
    proptest::option::weighted(0.97, value)
}

fn fields() -> impl Strategy<Value = Map<String, Value>> {
    (optional(id()), optional(id()), optional(image_urls()), event_type(), any::<Option<i8>>())
        .prop_map(|(job_id, draft_id, images, event_type, extra)| {
            let extra = extra.map(|number| json!({"jobId": number}));
            let members = [
                ("jobId", job_id),
                ("eventDraftId", draft_id),
                ("imageUrls", images),
                ("eventType", event_type),
                ("extra", extra),
            ];
            members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
        })
}

/// A well-formed event: flat, in an envelope, or in two.
fn event() -> impl Strategy<Value = Value> {
    (fields(), event_type(), event_type(), 0..5, fields()).prop_map(
        |(fields, top_type, plain_type, form, other)| {
            let mut top = match form {
                0 | 1 => return Value::Object(fields),
                2 => json!({"data": fields}),
                3 => json!({"payload": fields}),
                _ => json!({"payload": fields, "data": other}),
            };
            top["specversion"] = json!("1.0");
            for (key, value) in [("eventType", top_type), ("type", plain_type)] {
                if let Some(value) = value {
                    top[key] = value;
                }
            }
            top
        },
    )
}

/// The rules once more, as simply as can be: the event, `None` for skipped, or no more than that it
/// is rejected.
fn reference(top: &Value) -> Result<Option<(String, String, [String; 3])>, ()> {
    const FIELDS: [&str; 3] = ["jobId", "eventDraftId", "imageUrls"];
    let has = |object: &Value, keys: &[&str]| keys.iter().any(|key| object.get(key).is_some());
    let is_flat = has(top, &FIELDS);
    let envelopes: Vec<&Value> = ["data", "payload"]
        .into_iter()
        .filter_map(|key| top.get(key))
        .filter(|value| value.is_object())
        .collect();
    let looks_right = |object: &&Value| has(object, &FIELDS) || has(object, &["eventType"]);
    let holder = match envelopes.iter().copied().find(looks_right).or(envelopes.first().copied()) {
        _ if is_flat => Some(top),
        envelope => envelope,
    };
    let named =
        [top.get("eventType"), top.get("type"), holder.and_then(|holder| holder.get("eventType"))];
    for named in named.into_iter().flatten() {
        match named.as_str().ok_or(())? {
            "" => {}
            "ContentCreated" => break,
            _ => return Ok(None),
        }
    }
    let id = |key: &str| {
        let id = match holder.and_then(|holder| holder.get(key)) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
            _ => return Err(()),
        };
        let is_good = !id.trim().is_empty() && id.len() <= 255 && !id.contains(char::is_control);
        if is_good { Ok(id) } else { Err(()) }
    };
    let (job_id, draft_id) = (id("jobId")?, id("eventDraftId")?);
    let urls: Vec<(String, &Value)> = match holder.and_then(|holder| holder.get("imageUrls")) {
        Some(Value::Object(members)) => {
            members.iter().map(|(style, url)| (style.clone(), url)).collect()
        }
        Some(Value::Array(elements)) => elements
            .iter()
            .map(|element| (element["style"].as_str().unwrap_or("?").to_owned(), &element["url"]))
            .collect(),
        _ => return Err(()),
    };
    if urls.len() != 3 {
        return Err(());
    }
    let by_style: HashMap<String, &Value> = urls.into_iter().collect();
    let url = |style: &str| {
        let url = by_style.get(style).and_then(|url| url.as_str()).ok_or(())?;
        if GOOD_URLS.contains(&url) { Ok(url.to_owned()) } else { Err(()) }
    };
    Ok(Some((job_id, draft_id, [url("simple")?, url("fancy")?, url("trendy")?])))
}

/// A valid event that a few bytes were changed in, as tables of edits: where, and what to put
/// there.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let valid = format!(
        r#"{{"type":"ContentCreated","data":{{"jobId":"j\u00e9","eventDraftId":12,"imageUrls":{IMAGES},"n":[1e9,{{}}]}}}}"#
    );
    prop_oneof![damaged(Just(valid), 1..4), damaged(plain(), 1..4)]
}

/// An event of the plainest shape.
fn plain() -> impl Strategy<Value = String> {
    nearly_plain("[!#-\\[\\]-~]{1,9}")
}

/// The same with such ids.
fn nearly_plain(id: &'static str) -> impl Strategy<Value = String> {
    let urls = ["s", "f", "t"].map(|style| format!("\"https://cdn/{style}.png\""));
    let images: Vec<_> = STYLES.into_iter().zip(urls).collect();
    let space = || proptest::sample::select(vec!["", " ", "\n\t"]);
    let object = |members: Vec<(&str, String)>, space: &str| {
        let members: Vec<_> = members
            .into_iter()
            .map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}"))
            .collect();
        format!("{space}{{{}}}{space}", members.join(","))
    };
    let id = || id.prop_map(|id| format!("\"{id}\""));
    ([id(), id()], Just(images).prop_shuffle(), space(), space()).prop_flat_map(
        move |([job, draft], images, outer, inner)| {
            let images = object(images, inner);
            let fields = vec![("jobId", job), ("eventDraftId", draft), ("imageUrls", images)];
            Just(fields).prop_shuffle().prop_map(move |fields| object(fields, outer))
        },
    )
}

/// A text that a few bytes are changed in.
fn damaged(
    valid: impl Strategy<Value = String>,
    edits: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<u8>> {
    let interesting = proptest::sample::select(br#"{}[]",:\/ud8e019-.+ntf"#.to_vec());
    let byte = prop_oneof![3 => interesting, 1 => any::<u8>()];
    let edit = (any::<proptest::sample::Index>(), proptest::option::of(byte), any::<bool>());
    (valid, proptest::collection::vec(edit, edits)).prop_map(move |(valid, edits)| {
        let mut value = valid.into_bytes();
        for (index, byte, insert) in edits {
            let at = index.index(value.len());
            match byte {
                Some(byte) if insert => value.insert(at, byte),
                Some(byte) => value[at] = byte,
                None => {
                    value.remove(at);
                }
            }
        }
        value
    })
}

/// What every outcome keeps to, however wild the record.
fn check_promises(value: &[u8], draft_ids: DraftIdType) -> Result<(), TestCaseError> {
    match outcome(Some(value), &[], draft_ids) {
        Outcome::Event { job_id, draft_id, urls } => {
            for id in [job_id, draft_id] {
                prop_assert!(
                    !id.trim().is_empty() && id.len() <= 255 && !id.contains(char::is_control)
                );
            }
            for url in urls {
                prop_assert_eq!(serde_json::to_string(&url).unwrap(), format!("\"{url}\""));
            }
        }
        Outcome::Skipped => {}
        Outcome::Rejected(fault) => {
            prop_assert!(
                fault.message.len() < 400 && !fault.message.contains(char::is_control),
                "{}",
                fault.message
            );
            prop_assert!(!fault.message.ends_with('.'));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_have_an_outcome(value: Vec<u8>, draft_ids in draft_ids()) {
        check_promises(&value, draft_ids)?;
    }

    #[test]
    fn any_text_has_an_outcome(value: String, draft_ids in draft_ids()) {
        check_promises(value.as_bytes(), draft_ids)?;
    }

    #[test]
    fn any_damaged_event_has_an_outcome(value in mutated(), draft_ids in draft_ids()) {
        check_promises(&value, draft_ids)?;
    }

    /// What the short cut takes, the long way takes too; and it takes what it is for.
    #[test]
    fn the_short_cut_comes_to_where_the_long_way_does(
        whole in plain(),
        odd in nearly_plain("[ -~\u{e9}\n\\\\\\\\]{0,4}"),
        value in damaged(plain(), 0..4),
        draft_ids in draft_ids(),
    ) {
        for value in [whole.as_bytes(), odd.as_bytes(), &value] {
            if let Some(event) = plain::event(value, draft_ids) {
                let by_grammar = event_by_grammar(Some(value), EventType::Unnamed, draft_ids);
                prop_assert_eq!(by_grammar, Ok(Some(event)));
            }
        }
        prop_assert!(plain::event(whole.as_bytes(), TEXT).is_some(), "{whole}");
    }

    /// serde_json's tree is strict about all of a text, also where we skip; but it cannot hold
    /// numbers like 1e999.
    #[test]
    fn not_json_is_what_the_parser_of_whole_trees_refuses(value in mutated()) {
        let tree: Result<Value, _> = serde_json::from_slice(&value);
        let is_json = tree.as_ref().map_or_else(|error| error.to_string().contains("out of range"), |_| true);
        let outcome = outcome(Some(&value), &[], TEXT);
        prop_assert_eq!(!is_json, matches!(word(&outcome), "not-json" | "not-utf8"), "{:?} but {:?}", tree, outcome);
    }

    #[test]
    fn well_formed_events_are_judged_as_the_reference_does(event in event(), pretty: bool) {
        let print = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        let value = print(&event).unwrap();
        let found = match outcome(Some(value.as_bytes()), &[], TEXT) {
            Outcome::Event { job_id, draft_id, urls } => Ok(Some((job_id, draft_id, urls))),
            Outcome::Skipped => Ok(None),
            Outcome::Rejected(_) => Err(()),
        };
        prop_assert_eq!(found, reference(&event));
    }
}
