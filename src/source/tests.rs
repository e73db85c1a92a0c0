//! What the poll loop concludes from a poll, with the real client.

use dataflows::peers::Waker;
use rdkafka::consumer::BaseConsumer;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::client::Context;
use super::consumer::consumer_config;
use super::*;
use crate::commit::Committer;
use crate::ingest::Entrance;
use crate::progress::progress;

const RECORDS: u64 = 5_000;

#[test]
fn behind_what_the_client_calls_back_for_records_may_wait() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let mut config = Config::default();
    config.kafka.brokers = cluster.bootstrap_servers();
    config.kafka.topic = "t".to_owned();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &config.kafka.brokers).create().unwrap();
    for _ in 0..RECORDS {
        producer.send(BaseRecord::<(), str>::to("t").partition(0).payload("{}")).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();

    let (queue, _fed) = crossbeam_channel::unbounded();
    let waker = Waker::of_nobody();
    let (progress, watch) = progress();
    let entrances = vec![Entrance { queue, waker }];
    let ingest = Ingest::new(entrances, config.run.clone(), Arc::new(progress), watch);
    let (committer, _commits) = Committer::new();
    let state = State::new(ingest, committer, Arc::default(), Arc::default(), &config.run);
    let context = Context::new(config.kafka.clone(), state);
    // It calls back a thousand times a second.
    let client: BaseConsumer<Context> = consumer_config(&config.kafka)
        .set("statistics.interval.ms", "1")
        .create_with_context(context)
        .unwrap();
    let mut start = TopicPartitionList::new();
    start.add_partition_offset("t", 0, Offset::Offset(0)).unwrap();
    client.assign(&start).unwrap();

    let taken_in = || client.context().state().ingest.read();
    while taken_in() == 0 {
        read(&client, &config, Duration::from_millis(20)).unwrap();
    }
    // All of them are fetched by then.
    std::thread::sleep(Duration::from_secs(1));
    while taken_in() < RECORDS {
        read(&client, &config, Duration::ZERO).unwrap();
        let (taken_in, more_waits) = (taken_in(), client.context().state().ingest.more_waits());
        assert!(more_waits || taken_in == RECORDS, "after {taken_in} records");
    }
    let more_waits = || client.context().state().ingest.more_waits();
    while more_waits() {
        read(&client, &config, Duration::ZERO).unwrap();
    }
}
