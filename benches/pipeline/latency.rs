//! How long an event takes: from the moment it should be published to the DEL of its draft's key.
//!
//! The pipeline runs as a process of its own; Redis says when a key is deleted (keyspace
//! notifications, switched on for the while). An event counts from the time at which the rate wants
//! it published, so that a publisher that falls behind hides nothing.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contentflow::config::{Config, Kafka};
use contentflow::generate::{GeneratedEvent, Generator, Mix};
use contentflow::publish::{Event, Publisher};
use contentflow::source::consumer::consumer_config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::bare_update::Connection;
use super::events::{Batch, parse};
use super::process::snapshot;
use super::program::Running;
use super::results::{ratio, us_per_event};
use super::servers::{PARTITIONS, Servers, mix};

/// How long a rate is kept.
const SECONDS: u64 = 5;
/// The first events find connections that are not warm yet; they do not count.
const WARM_UP: u64 = 1;
/// No event takes so long.
const OVERDUE: Duration = Duration::from_secs(30);
/// Events of the bare sequence, one after the other: they take as long as a rate is kept, so that
/// both meet what the machine does meanwhile.
const BARE_EVENTS: u64 = 5_000;

/// Two percentiles, in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// The pipeline at a rate.
pub(crate) struct AtRate {
    pub(crate) latency: Latency,
    /// Microseconds on the CPUs of the pipeline's own process.
    pub(crate) cpu_us_per_event: f64,
}

/// The broker compiles what it does often, and needs some ten thousand requests and a seventh of
/// the machine for that. Whoever has a pipeline running has that behind him: nobody is measured
/// meanwhile.
pub(crate) fn warm_up(servers: &mut Servers) -> anyhow::Result<()> {
    servers.refill(servers.drafts())?;
    measure(servers, 10_000)?;
    Ok(())
}

/// The pipeline at a rate of events a second.
pub(crate) fn measure(servers: &mut Servers, rate: u64) -> anyhow::Result<AtRate> {
    let kafka = latency_topic(servers)?;
    let group = servers.new_group();
    let running = Running::start(servers, &kafka.topic, &group)?;
    let publisher = Publisher::new(&kafka)?;
    let cache = Cache::watch(&servers.config)?;
    let events = events(servers, rate * (WARM_UP + SECONDS))?;
    let mut deleted = cache.expect(&events)?;
    // Waits until the pipeline reads: the first event has come through.
    publish(&publisher, &events[0])?;
    deleted.await_first(&publisher)?;
    let (listening, listens) = std::sync::mpsc::channel();
    let receiving = std::thread::spawn(move || deleted.collect(&listening));
    listens.recv().context("the deletions cannot be listened to")?;
    let cpu = || snapshot(running.id()).map_or(Duration::ZERO, |it| it.cpu);
    let cpu_before = cpu();
    let began = Instant::now();
    let due = |number: u64| began + Duration::from_secs_f64(ratio(number, rate));
    for (number, event) in (1..).zip(&events[1..]) {
        sleep_until(due(number), &publisher);
        publish(&publisher, event)?;
    }
    publisher.finish()?;
    let at = receiving.join().expect("a panic ends the bench")?;
    let cpu_us_per_event =
        us_per_event(cpu().saturating_sub(cpu_before), rate * (WARM_UP + SECONDS));
    drop(running);
    let warm_up = usize::try_from(rate * WARM_UP)?;
    let latencies = (1..)
        .zip(&at[1..])
        .skip(warm_up)
        .map(|(number, at)| at.saturating_duration_since(due(number)));
    Ok(AtRate { latency: percentiles(latencies.collect()), cpu_us_per_event })
}

/// The bare sequence, one event at a time: produce, consume, one UPDATE, one DEL. An event follows
/// the one before as soon as that is through; at a rate it counts from the time at which the rate
/// wants it published, as in the pipeline: so the events that a pause of the machine holds up all
/// count, and not only the one that met it.
pub(crate) fn measure_bare(servers: &mut Servers, rate: Option<u64>) -> anyhow::Result<Latency> {
    let kafka = latency_topic(servers)?;
    let publisher = Publisher::new(&kafka)?;
    let consumer: BaseConsumer =
        consumer_config(&Kafka { group: servers.new_group(), ..kafka.clone() }).create()?;
    let mut ends = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        ends.add_partition_offset(&kafka.topic, partition, Offset::End)?;
    }
    consumer.assign(&ends)?;
    let (rows, mut cache) = servers.runtime.block_on(async {
        let cache = contentflow::redis::connect(&servers.config.cache).await?;
        anyhow::Ok((Connection::open(servers).await?, cache))
    })?;
    // Positions at the end are looked up by the first polls.
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(2) {
        drop(consumer.poll(Duration::from_millis(100)));
    }
    // What comes late at first, all that is behind it does.
    let warm_up = rate.unwrap_or_default() * WARM_UP;
    let events = events(servers, warm_up + BARE_EVENTS)?;
    let mut latencies = Vec::new();
    let start = Instant::now();
    for (number, event) in (1..).zip(events) {
        let due = rate.map(|rate| start + Duration::from_secs_f64(ratio(number, rate)));
        if let Some(due) = due {
            sleep_until(due, &publisher);
        }
        let began = due.unwrap_or_else(Instant::now);
        publish(&publisher, &event)?;
        let message = loop {
            ensure!(began.elapsed() < OVERDUE, "an event does not come back");
            publisher.idle(Duration::ZERO);
            match consumer.poll(Duration::from_millis(1)) {
                Some(Ok(message)) => break message,
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => return Err(error.into()),
            }
        };
        let event = parse(message.payload().unwrap_or_default())?;
        servers.runtime.block_on(async {
            let (ids, images) = (vec![event.event_draft_id], vec![event.image_urls.get()]);
            let key = servers.config.cache.key.key(event.event_draft_id);
            rows.update(&Batch { ids, images }).await?;
            let _found: u64 = redis::cmd("DEL").arg(key).query_async(&mut cache).await?;
            anyhow::Ok(())
        })?;
        latencies.push(began.elapsed());
    }
    Ok(percentiles(latencies.split_off(usize::try_from(warm_up)?)))
}

/// A new topic for each measurement: an older event of a draft would delete its key too early.
fn latency_topic(servers: &mut Servers) -> anyhow::Result<Kafka> {
    let topic = servers.new_topic()?;
    let mut kafka = Kafka { topic, ..servers.config.kafka.clone() };
    kafka.properties.insert("linger.ms".to_owned(), "0".to_owned());
    Ok(kafka)
}

/// New events for drafts that exist, newer than all others.
fn events(servers: &mut Servers, count: u64) -> anyhow::Result<Vec<GeneratedEvent>> {
    let (drafts, round) = (servers.drafts(), servers.next_round());
    ensure!(count <= drafts, "{count} events are too many for {drafts} drafts");
    let start_ms = mix(drafts).start_ms + 1_000_000_000 * i64::try_from(round)?;
    let mix = Mix { events: count, seed: round, start_ms, ..mix(drafts) };
    Ok(Generator::new(mix)?.collect())
}

fn publish(publisher: &Publisher, event: &GeneratedEvent) -> anyhow::Result<()> {
    publisher.send(&Event::from(event))?;
    publisher.idle(Duration::ZERO);
    Ok(())
}

fn sleep_until(due: Instant, publisher: &Publisher) {
    publisher.idle(due.saturating_duration_since(Instant::now()));
}

fn percentiles(mut latencies: Vec<Duration>) -> Latency {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let place = (latencies.len() * percent / 100).min(latencies.len() - 1);
        latencies[place].as_secs_f64() * 1e3
    };
    Latency { p50_ms: at(50), p99_ms: at(99) }
}

/// A cache that says which keys are deleted.
struct Cache {
    connection: redis::Connection,
    template: contentflow::config::KeyTemplate,
    notified_before: String,
}

impl Cache {
    fn watch(config: &Config) -> anyhow::Result<Cache> {
        let client = redis::Client::open(config.cache.url.expose())?;
        let mut connection = client.get_connection()?;
        let (_name, notified_before): (String, String) =
            redis::cmd("CONFIG").arg(&["GET", "notify-keyspace-events"]).query(&mut connection)?;
        redis::cmd("CONFIG").arg(&["SET", "notify-keyspace-events", "Eg"]).exec(&mut connection)?;
        Ok(Cache { connection, template: config.cache.key.clone(), notified_before })
    }

    /// Puts the keys of the events' drafts into the cache, and listens for their DELs.
    fn expect(mut self, events: &[GeneratedEvent]) -> anyhow::Result<Deleted> {
        let keys: Vec<String> = events.iter().map(|event| self.template.key(&event.key)).collect();
        for keys in keys.chunks(10_000) {
            let mut pipeline = redis::pipe();
            keys.iter().for_each(|key| {
                pipeline.set(key, "cached").ignore();
            });
            pipeline.exec(&mut self.connection)?;
        }
        self.connection.set_read_timeout(Some(OVERDUE))?;
        let places = keys.into_iter().zip(0..).collect::<HashMap<_, _>>();
        let at = vec![None; places.len()];
        Ok(Deleted { cache: self, places, at, missing: events.len() })
    }
}

/// When each key was deleted.
struct Deleted {
    cache: Cache,
    places: HashMap<String, usize>,
    at: Vec<Option<Instant>>,
    missing: usize,
}

impl Deleted {
    fn await_first(&mut self, publisher: &Publisher) -> anyhow::Result<()> {
        let since = Instant::now();
        let first = self.places.iter().find(|(_, place)| **place == 0).map(|(key, _)| key.clone());
        let first = first.context("there are no events")?;
        loop {
            publisher.idle(Duration::from_millis(5));
            let left: bool = redis::cmd("EXISTS").arg(&first).query(&mut self.cache.connection)?;
            if !left {
                self.missing -= 1;
                self.at[0] = Some(Instant::now());
                return Ok(());
            }
            ensure!(since.elapsed() < OVERDUE, "the pipeline does not begin");
        }
    }

    fn collect(mut self, listening: &Sender<()>) -> anyhow::Result<Vec<Instant>> {
        let mut deletions = self.cache.connection.as_pubsub();
        deletions.psubscribe("__keyevent@*__:del")?;
        listening.send(())?;
        while self.missing > 0 {
            let message = deletions.get_message().context("events are overdue")?;
            let now = Instant::now();
            let key: String = message.get_payload()?;
            if let Some(place) = self.places.get(&key)
                && self.at[*place].replace(now).is_none()
            {
                self.missing -= 1;
            }
        }
        drop(deletions);
        let before = &["SET", "notify-keyspace-events", &self.cache.notified_before];
        redis::cmd("CONFIG").arg(before).exec(&mut self.cache.connection)?;
        Ok(self.at.into_iter().flatten().collect())
    }
}
