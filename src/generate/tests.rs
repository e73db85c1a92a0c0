use dataflows::decode::{Decoded, decode};
use dataflows::record::Chunk;
use dataflows::validate::DraftIdType;

use super::*;
use std::collections::HashMap;
use std::collections::HashSet;

const START_MS: i64 = 1_700_000_000_000;

fn generate(mix: Mix) -> Vec<GeneratedEvent> {
    Generator::new(Mix { start_ms: START_MS, ..mix }).unwrap().collect()
}

fn a_bit_of_everything() -> Mix {
    Mix {
        events: 20_000,
        drafts: 700,
        duplicates: 0.1,
        stale: 0.1,
        bad: 0.1,
        foreign: 0.1,
        ..Mix::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_gives_other_jobs() {
    let events = generate(a_bit_of_everything());
    assert_eq!(events, generate(a_bit_of_everything()));
    let values = |events: Vec<GeneratedEvent>| -> HashSet<Vec<u8>> {
        events
            .into_iter()
            .filter(|event| event.kind == Kind::Fresh)
            .filter_map(|event| event.value)
            .collect()
    };
    let others = values(generate(Mix { seed: 2, ..a_bit_of_everything() }));
    assert!(values(events).is_disjoint(&others));
}

#[test]
fn every_kind_has_about_its_share() {
    let mut counts: HashMap<&str, i32> = HashMap::new();
    for event in generate(a_bit_of_everything()) {
        *counts.entry(event.kind.name()).or_default() += 1;
    }
    for (kind, expected) in [
        ("fresh", 12_000),
        ("duplicate", 2_000),
        ("stale", 2_000),
        ("bad", 2_000),
        ("foreign", 2_000),
    ] {
        let count = counts[kind];
        assert!(
            (count - expected).abs() < 250,
            "{count} {kind} events instead of about {expected}"
        );
    }
}

#[test]
fn fresh_events_visit_every_draft_once_in_a_scrambled_order() {
    for drafts in [1, 2, 3, 10, 1000, 1024, 30_030] {
        let events = generate(Mix { events: drafts, drafts, seed: 7, ..Mix::default() });
        let keys: HashSet<&str> = events.iter().map(|event| event.key.as_str()).collect();
        assert_eq!(keys.len(), events.len(), "{drafts} drafts");
        for number in 1..=drafts {
            assert!(
                keys.contains(DraftIds::Text.id(number).as_str()),
                "draft {number} of {drafts}"
            );
        }
        let in_order = events.windows(2).filter(|pair| pair[0].key < pair[1].key).count();
        assert!(drafts < 1000 || in_order < events.len() * 7 / 10, "{drafts} drafts come in order");
    }
}

#[test]
fn a_duplicate_is_an_earlier_event_once_more_and_a_stale_one_is_a_new_job_older_than_its_draft() {
    let mut published: HashSet<(String, Vec<u8>, i64)> = HashSet::new();
    let mut newest: HashMap<String, i64> = HashMap::new();
    let mut values: HashSet<Vec<u8>> = HashSet::new();
    for event in generate(a_bit_of_everything()) {
        let value = event.value.clone().unwrap_or_default();
        let at = newest.get(&event.key).copied();
        match event.kind {
            Kind::Duplicate => assert!(published.contains(&(event.key, value, event.timestamp_ms))),
            Kind::Stale => {
                assert!(at.is_some_and(|at| event.timestamp_ms < at));
                assert!(values.insert(value), "a stale event is a new job");
            }
            Kind::Fresh => {
                assert!(at.is_none_or(|at| event.timestamp_ms >= at));
                assert!(values.insert(value.clone()), "a fresh event is a new job");
                newest.insert(event.key.clone(), event.timestamp_ms);
                published.insert((event.key, value, event.timestamp_ms));
            }
            Kind::Foreign | Kind::Bad(_) => {}
        }
    }
}

#[test]
fn every_reason_gets_its_turn() {
    for ids in [DraftIds::Text, DraftIds::Number, DraftIds::Uuid] {
        let mix = Mix { events: 18, bad: 1.0, draft_ids: ids, ..Mix::default() };
        let kinds: HashSet<Kind> = generate(mix).into_iter().map(|event| event.kind).collect();
        let expected: HashSet<Kind> =
            bad_reasons(ids).iter().map(|reason| Kind::Bad(*reason)).collect();
        assert_eq!(kinds, expected);
    }
}

#[test]
fn timestamps_start_where_they_are_told_and_advance_with_the_spacing() {
    let events = generate(Mix { events: 4, drafts: 9, spacing_us: 1500, ..Mix::default() });
    let at: Vec<i64> = events.iter().map(|event| event.timestamp_ms - START_MS).collect();
    assert_eq!(at, [0, 1, 3, 4]);
}

#[test]
fn a_typical_event_has_about_330_bytes() {
    let event = generate(Mix { events: 1, ..Mix::default() }).remove(0);
    let bytes = event.value.unwrap().len();
    assert!((300..370).contains(&bytes), "{bytes} bytes");
}

#[test]
fn impossible_mixes_are_refused_with_what_is_wrong() {
    let refusal = |mix: Mix| Generator::new(mix).unwrap_err().to_string();
    assert!(refusal(Mix { drafts: 0, ..Mix::default() }).contains("at least 1"));
    assert!(refusal(Mix { stale: -0.1, ..Mix::default() }).contains("stale events is -0.1"));
    assert!(refusal(Mix { bad: f64::NAN, ..Mix::default() }).contains("bad"));
    assert!(refusal(Mix { bad: 0.6, foreign: 0.6, ..Mix::default() }).contains("1.2"));
    let all = Mix { duplicates: 0.7, stale: 0.2, bad: 0.1, ..Mix::default() };
    assert!(Generator::new(all).is_ok());
}

/// What the consumer makes of an event.
fn decoded(event: &GeneratedEvent, column: DraftIdType) -> Result<&'static str, Reason> {
    let mut chunk = Chunk::default();
    chunk.push(
        event.record_at(0, 0),
        event.headers.iter().map(|(key, value)| (*key, Some(value.as_bytes()))),
    );
    match decode(chunk.record(0), column) {
        Decoded::Event(decoded) => {
            assert_eq!(decoded.draft_id, event.key);
            Ok("event")
        }
        Decoded::Skipped => Ok("skipped"),
        Decoded::Rejected(fault) => Err(fault.reason),
    }
}

#[test]
fn the_consumer_takes_every_event_for_what_it_is_meant_to_be() {
    let columns = [
        (DraftIds::Text, DraftIdType::Text { max_chars: None }),
        (DraftIds::Number, DraftIdType::BigInt),
        (DraftIds::Uuid, DraftIdType::Uuid),
    ];
    for (draft_ids, column) in columns {
        let mix = Mix { draft_ids, bad: 0.4, ..a_bit_of_everything() };
        for event in generate(mix) {
            let expected = match event.kind {
                Kind::Fresh | Kind::Duplicate | Kind::Stale => Ok("event"),
                // Only the database knows.
                Kind::Bad(Reason::UnknownDraft) => Ok("event"),
                Kind::Foreign => Ok("skipped"),
                Kind::Bad(reason) => Err(reason),
            };
            let text =
                String::from_utf8_lossy(event.value.as_deref().unwrap_or_default()).into_owned();
            assert_eq!(decoded(&event, column), expected, "{text:.600}");
        }
    }
}
