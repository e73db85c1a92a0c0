//! Spans: what a collector is told of a run, and that nothing depends on it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::interruptions::mixed;
use crate::world::collector::{Answer, Collector, attribute};
use crate::world::{World, event, eventually, record};

/// A world that has a collector.
fn traced(name: &str) -> (World, Collector) {
    let mut world = World::new(name);
    let collector = Collector::start();
    world.variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    (world, collector)
}

/// The `traceparent` of the trace with that number.
fn parent(number: u64, flags: &str) -> String {
    format!("00-{number:032x}-{number:016x}-{flags}")
}

/// The numbers of the traces that spans are linked to, each once.
fn linked(spans: &[Span]) -> BTreeSet<u64> {
    let links = spans.iter().flat_map(|span| &span.links);
    links.map(|link| u64::from_be_bytes(link.span_id.clone().try_into().unwrap())).collect()
}

fn said(span: &Span, key: &str) -> Option<String> {
    attribute(&span.attributes, key)
}

#[test]
fn a_batch_has_spans_that_are_linked_to_the_traces_of_its_records() {
    let (world, collector) = traced("traces");
    world.drafts(["d1", "d2", "d3", "d4", "d5"]);
    let ghost = event("ghost", "job-6").with("traceparent", parent(6, "01"));
    world.publish([
        event("d1", "job-1").with("traceparent", parent(1, "01")).with("tracestate", "vendor=x"),
        event("d2", "job-2").with("traceparent", parent(2, "01")),
        event("d3", "job-3").with("traceparent", parent(3, "00")),
        event("d4", "job-4").with("traceparent", "00-nonsense-\u{1b}[2J").with("tracestate", "a=b"),
        event("d5", "job-5").with_null("traceparent"),
        ghost.clone().with("tracestate", "odd, =\u{7f}"),
        record("no event").with("traceparent", parent(7, "01")),
    ]);

    assert_eq!(world.run_until_caught_up().outcomes(), [7, 5, 0, 0, 0, 2]);

    let requests = collector.requests();
    assert!(requests[0].head.starts_with("post /v1/traces http/1.1\r\n"), "{}", requests[0].head);
    assert!(requests[0].head.contains("content-type: application/x-protobuf\r\n"));
    let resource = requests[0].spans.resource_spans[0].resource.clone().unwrap().attributes;
    assert_eq!(attribute(&resource, "service.name").unwrap(), "contentflow");

    let process = collector.named(&format!("process {}", world.topic()));
    // The sixth reached the table, where it has no row.
    assert_eq!(linked(&process), [1, 2, 6].into());
    for span in &process {
        assert_eq!(span.kind(), SpanKind::Consumer);
        assert!(span.parent_span_id.is_empty() && span.start_time_unix_nano > 0);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        assert_eq!(said(span, "messaging.system").unwrap(), "kafka");
        assert_eq!(said(span, "messaging.operation.type").unwrap(), "process");
        assert_eq!(said(span, "messaging.destination.name").unwrap(), world.topic());
        assert_eq!(said(span, "messaging.consumer.group.name").unwrap(), world.name);
    }
    let states: BTreeSet<_> = process
        .iter()
        .flat_map(|span| &span.links)
        .map(|link| (link.trace_id.last().copied().unwrap(), link.trace_state.clone()))
        .collect();
    let states: Vec<_> = states.iter().map(|(trace, state)| (*trace, state.as_str())).collect();
    assert_eq!(states, [(1, "vendor=x"), (2, ""), (6, "")]);

    let (updates, deletes) =
        (collector.named("UPDATE event_drafts"), collector.named("PIPELINE DEL"));
    assert_eq!(updates.len() + deletes.len(), process.len());
    for (calls, system) in [(&updates, "postgresql"), (&deletes, "redis")] {
        assert!(!calls.is_empty());
        for call in calls {
            let outer = process.iter().find(|span| span.span_id == call.parent_span_id).unwrap();
            assert_eq!((call.kind(), &call.trace_id), (SpanKind::Client, &outer.trace_id));
            assert_eq!(said(call, "db.system.name").unwrap(), system);
            assert_eq!(said(call, "server.address").unwrap(), "127.0.0.1");
            assert!(call.links.is_empty());
        }
    }
    assert_eq!(said(&updates[0], "db.collection.name").unwrap(), "event_drafts");
    assert_eq!(said(&updates[0], "db.operation.name").unwrap(), "UPDATE");
    assert!(world.database.url.ends_with(&said(&updates[0], "db.namespace").unwrap()));

    let sends = collector.named(&format!("send {}", world.dead_letter_topic()));
    assert_eq!(linked(&sends), [6, 7].into());
    assert!(sends.iter().all(|span| span.kind() == SpanKind::Producer));
    // The record's own trace goes on with its dead letter, byte for byte.
    let letters = world.dead_letters();
    let letter = letters.iter().find(|letter| letter.header("dlq.reason") == Some("unknown-draft"));
    assert_eq!(letter.unwrap().own().headers, ghost.with("tracestate", "odd, =\u{7f}").headers);
}

#[test]
fn a_span_has_so_many_links_and_says_how_many_more_there_were() {
    let (mut world, collector) = traced("traces-many");
    world.set("run.workers", 1);
    world.set("run.linger_ms", 1_000);
    world.drafts((1..=300).map(|number| format!("d{number}")));
    let events = (1..=300).map(|number| {
        event(&format!("d{number}"), &format!("job-{number}"))
            .on(0)
            .with("traceparent", parent(number, "01"))
    });
    world.publish(events);

    assert_eq!(world.run_until_caught_up().applied, 300);

    let updates: BTreeSet<Vec<u8>> = collector
        .named("UPDATE event_drafts")
        .into_iter()
        .map(|update| update.parent_span_id)
        .collect();
    let number =
        |span: &Span, key| said(span, key).map_or(0, |text| text.parse::<usize>().unwrap());
    let (mut linked, mut omitted, mut messages) = (0, 0, 0);
    for span in collector.named(&format!("process {}", world.topic())) {
        assert!(span.links.len() <= 128);
        if updates.contains(&span.span_id) {
            linked += span.links.len();
            omitted += number(&span, "contentflow.links_omitted");
            messages += number(&span, "messaging.batch.message_count");
        }
    }
    assert_eq!((linked + omitted, messages), (300, 300));
    assert!(omitted > 0, "they came in one batch, or almost: {linked}");
}

#[test]
fn only_traces_that_are_recorded_are_told_of_unless_the_sampler_says_otherwise() {
    let (mut world, collector) = traced("traces-sampled");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").with("traceparent", parent(1, "00"))]);
    assert_eq!(world.run_until_caught_up().applied, 1);
    assert!(collector.spans().is_empty(), "its trace is not recorded");

    world.variable("OTEL_TRACES_SAMPLER", "always_on");
    world.publish([event("d1", "job-2").with("traceparent", parent(2, "00"))]);
    assert_eq!(world.run_until_caught_up().applied, 1);
    assert_eq!(collector.named("UPDATE event_drafts").len(), 1);
    assert!(linked(&collector.spans()).is_empty(), "there is nothing to be found behind it");
}

#[test]
fn nothing_is_told_unless_somebody_asks_for_it() {
    let (mut world, collector) = traced("traces-off");
    world.variable("OTEL_SDK_DISABLED", "true");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").with("traceparent", parent(1, "01"))]);
    assert_eq!(world.run_until_caught_up().applied, 1);
    world.variable("OTEL_SDK_DISABLED", "false");
    world.variable("OTEL_TRACES_EXPORTER", "none");
    world.publish([event("d1", "job-2").with("traceparent", parent(2, "01"))]);
    assert_eq!(world.run_until_caught_up().applied, 1);
    assert!(collector.requests().is_empty());
    // It was this that kept it from it.
    world.variable("OTEL_TRACES_EXPORTER", "otlp");
    world.publish([event("d1", "job-3").with("traceparent", parent(3, "01"))]);
    assert_eq!(world.run_until_caught_up().applied, 1);
    assert!(!collector.requests().is_empty());
}

#[test]
fn a_collector_that_fails_changes_nothing_and_is_told_once() {
    for answer in [Some(Answer::Status(500)), Some(Answer::Refused(i64::MAX)), None] {
        let (mut world, collector) = traced("traces-fails");
        match answer {
            Some(answer) => collector.answer(answer),
            // Nobody listens there.
            None => world.variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        }
        world.set("run.epoch_records", 100);
        world.set("run.retry_backoff_ms", 5);
        let load = world.load(mixed(7, 2_000));
        // Longer than it takes until the first spans are delivered.
        let running = world.start_run();
        eventually("all is done", || world.committed() == world.ends());
        eventually("it is told", || running.err().contains("does not take spans"));
        let ended = running.stop();
        assert_eq!(ended.report().read, load.events());
        world.assert_done(&load);
        assert_eq!(ended.err.matches("does not take spans").count(), 1, "{}", ended.err);
        assert_eq!(ended.err.matches("spans were dropped").count(), 1, "{}", ended.err);
        assert!(ended.err.lines().count() < 12, "{}", ended.err);
    }
}

#[test]
fn a_collector_that_never_answers_keeps_nobody_waiting() {
    let (mut world, collector) = traced("traces-hangs");
    collector.answer(Answer::Nothing);
    world.set("run.epoch_records", 100);
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(8, 2_000));
    let running = world.start_run();
    eventually("it waits for the collector", || !collector.requests().is_empty());
    let waits_since = Instant::now();
    eventually("all is done", || world.committed() == world.ends());
    let ended = running.stop();
    assert_eq!(ended.report().read, load.events());
    world.assert_done(&load);
    assert!(ended.err.contains("spans were dropped"), "{}", ended.err);
    // Had it waited for the answer, it would have given up on it, which is told.
    let gave_up = ended.err.contains("does not take spans");
    assert!(!gave_up || waits_since.elapsed() > Duration::from_secs(10), "{}", ended.err);
}

#[test]
fn a_collector_that_comes_back_has_what_is_told_from_then_on() {
    let (world, collector) = traced("traces-back");
    collector.answer(Answer::Status(503));
    world.drafts(["d1"]);
    let running = world.start_run();
    world.publish([event("d1", "job-1").with("traceparent", parent(1, "01"))]);
    eventually("it is told", || running.err().contains("does not take spans"));
    collector.answer(Answer::Taken);
    world.publish([event("d1", "job-2").with("traceparent", parent(2, "01"))]);
    eventually("it takes them again", || running.err().contains("takes spans again"));
    let ended = running.stop();
    assert!(ended.err.contains("spans were dropped"), "the first ones: {}", ended.err);
    assert!(linked(&collector.spans()).contains(&2));
}

#[test]
fn a_batch_that_waits_for_its_server_says_so_in_its_span() {
    let (mut world, collector) = traced("traces-held");
    let wire = world.wire_to_database();
    world.drafts(["d1"]);
    let running = world.start_run();
    eventually("it is there", || running.says_partitions("assigned"));
    wire.cut();
    world.publish([event("d1", "job-1").with("traceparent", parent(1, "01"))]);
    eventually("it is held", || running.err().contains("held:"));
    wire.open();
    eventually("it is written", || world.row("d1").job().is_some());
    running.stop().report();
    let updates = collector.named("UPDATE event_drafts");
    let held: Vec<_> = updates.iter().flat_map(|update| &update.events).collect();
    assert_eq!(held.iter().filter(|event| event.name == "held").count(), held.len());
    let message = attribute(&held[0].attributes, "exception.message").unwrap();
    assert!(!message.is_empty());
}

#[test]
fn j4_what_the_collector_is_given_as_a_secret_appears_in_no_output() {
    const SECRET: &str = "s3cret-senTinel";
    let (mut world, collector) = traced("traces-secret");
    world.variable("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer%20{SECRET}"));
    world.variable("RUST_LOG", "trace");
    world.drafts(["d1"]);
    for (number, answer) in [(1, Answer::Taken), (2, Answer::Status(401))] {
        collector.answer(answer);
        world.publish([
            event("d1", &format!("job-{number}")).with("traceparent", parent(number, "01"))
        ]);
        let ended = world.call(&["run", "--until-caught-up"]);
        ended.success();
        assert!(ended.err.contains("TRACE ureq"), "a lot is logged");
        assert!(!ended.err.contains(SECRET) && !ended.out.contains(SECRET), "{}", ended.err);
    }
    let heads: Vec<String> = collector.requests().into_iter().map(|request| request.head).collect();
    let header = format!("authorization: bearer {}\r\n", SECRET.to_lowercase());
    assert!(heads.iter().all(|head| head.contains(&header)), "{heads:?}");

    for (key, value) in [
        ("traces.headers", format!("a b={SECRET}")),
        ("traces.endpoint", format!("http://user:{SECRET}@127.0.0.1:1")),
        ("traces.endpoint", format!("http://127.0.0.1:1?token={SECRET}")),
    ] {
        world.set(key, &value);
        let ended = world.call(&["run"]);
        let error = ended.failure(2);
        assert!(error.contains(key) && !error.contains(SECRET), "{error}");
        world.unset(key);
    }
}
