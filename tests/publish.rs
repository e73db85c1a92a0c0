//! The reference publisher.

use std::io::Cursor;
use std::time::{Duration, Instant};

use contentflow::clock::now_ms;
use contentflow::generate::{Generator, Mix};
use contentflow::publish::{self, PublishError, Publisher};

use crate::support::Corner;

fn line(number: u32) -> String {
    format!(
        r#"{{"jobId":"j{number}","eventDraftId":"d{number}","imageUrls":{{"simple":"https://a/s","fancy":"https://a/f","trendy":"https://a/t"}}}}"#
    )
}

#[test]
fn an_event_is_keyed_by_its_draft_and_says_its_type() {
    let corner = Corner::new("one", 3);
    let urls = ["https://a/s", "https://a/f", "https://a/t"].map(str::to_owned);
    let published = publish::publish_one(&corner.config.kafka, "j", "draft \"1\"", &urls).unwrap();
    assert_eq!(published.events, 1);
    let record = corner.read(corner.topic()).remove(0);
    assert_eq!(record.key, Some(b"draft \"1\"".to_vec()));
    assert_eq!(record.header("eventType").unwrap(), "ContentCreated");
    assert!((now_ms() - record.timestamp_ms).abs() < 60_000);

    let refused = publish::publish_one(&corner.config.kafka, " ", "d", &urls).unwrap_err();
    assert!(refused.to_string().contains("blank-id"), "{refused}");
    assert_eq!(corner.read(corner.topic()).len(), 1);
}

#[test]
fn lines_are_published_as_they_are_up_to_the_first_bad_one() {
    let corner = Corner::new("lines", 1);
    let good = format!("{}\r\n\n  {} \n{}", line(1), line(2), line(3));
    let published = publish::publish_lines(&corner.config.kafka, &mut Cursor::new(&good)).unwrap();
    assert_eq!(published.events, 3);
    let values: Vec<_> =
        corner.read(corner.topic()).into_iter().filter_map(|record| record.value).collect();
    let expected = [line(1), format!("  {} ", line(2)), line(3)].map(String::into_bytes);
    assert_eq!(values, expected);

    let bad = format!("{}\n{{\"jobId\":7}}\n{}\n", line(4), line(5));
    let error = publish::publish_lines(&corner.config.kafka, &mut Cursor::new(&bad)).unwrap_err();
    assert!(matches!(error, PublishError::Line { line: 2, published: 1, .. }), "{error}");
    assert!(
        error.to_string().contains("line 2: ") && error.to_string().contains("missing-field"),
        "{error}"
    );
    assert_eq!(corner.read(corner.topic()).len(), 4);
}

#[test]
fn a_generated_mix_arrives_whole_and_in_the_order_of_each_draft() {
    let corner = Corner::new("mix", 4);
    let mix = Mix {
        events: 20_000,
        drafts: 100,
        start_ms: 1_600_000_000_000,
        duplicates: 0.1,
        stale: 0.1,
        bad: 0.1,
        foreign: 0.1,
        ..Mix::default()
    };
    let mut seen = 0;
    let published =
        publish::publish_generated(&corner.config.kafka, mix.clone(), None, &mut |sent| {
            seen = sent
        })
        .unwrap();
    assert_eq!((published.events, seen), (20_000, 20_000));
    assert_eq!(published.by_kind.values().sum::<u64>(), 20_000);
    let mut records = corner.read(corner.topic());
    let mut generated: Vec<_> = Generator::new(mix).unwrap().collect();
    // The sorts are stable: within a draft, the order of publication and that of offsets must be
    // the same.
    records.sort_by(|left, right| left.key.cmp(&right.key));
    generated.sort_by(|left, right| left.key.cmp(&right.key));
    assert_eq!(records.len(), generated.len());
    for (record, event) in records.iter().zip(&generated) {
        assert_eq!(record.value, event.value);
        assert_eq!(record.timestamp_ms, event.timestamp_ms);
        assert_eq!(record.headers.len(), event.headers.len());
    }
}

#[test]
fn a_rate_is_kept() {
    let corner = Corner::new("rate", 1);
    let started = Instant::now();
    let mix = Mix { events: 1_000, start_ms: now_ms(), ..Mix::default() };
    publish::publish_generated(&corner.config.kafka, mix, Some(500), &mut |_| ()).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!((1.9..4.0).contains(&seconds), "{seconds} s for two seconds of events");
}

/// How long this thread has been on a processor.
fn on_cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn who_waits_for_the_next_event_does_not_keep_a_processor_busy() {
    let corner = Corner::new("idle", 1);
    let publisher = Publisher::new(&corner.config.kafka).unwrap();
    let (began, before) = (Instant::now(), on_cpu());
    // As at a thousand events a second: never a whole millisecond, which is what the client counts
    // in.
    while began.elapsed() < Duration::from_secs(1) {
        publisher.idle(Duration::from_micros(900));
    }
    let busy = on_cpu() - before;
    assert!(busy < Duration::from_millis(500), "{busy:?} of a second");
}

#[test]
fn a_missing_topic_is_an_error_and_is_not_made() {
    let corner = Corner::new("missing", 1);
    let mut kafka = corner.config.kafka.clone();
    kafka.topic.push_str("-mistyped");
    let mix = || Mix { events: 1, ..Mix::default() };
    for _ in 0..2 {
        let error = publish::publish_generated(&kafka, mix(), None, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
}

#[test]
fn what_the_broker_refuses_is_reported_with_how_many_got_through() {
    let corner = Corner::new("refused", 1);
    let narrow = format!("{}-narrow", corner.topic());
    corner.create_topic(&narrow, 1, &[("max.message.bytes", "700")]);
    let kafka = contentflow::config::Kafka { topic: narrow, ..corner.config.kafka.clone() };
    let long = line(2).replace("/f", &format!("/{}", "f".repeat(1_500)));
    let lines = format!("{}\n{long}\n", line(1));
    let error = publish::publish_lines(&kafka, &mut Cursor::new(&lines)).unwrap_err();
    let PublishError::Delivery { failed, acknowledged, .. } = error else { panic!("{error}") };
    assert_eq!(failed + acknowledged, 2);
    assert!(failed >= 1, "{error}");
}
