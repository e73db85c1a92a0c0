use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::progress::progress;

/// A broker with an empty partition, and a replay that expects five records of it.
fn ends_early() -> (MockCluster<'static, DefaultProducerContext>, Config, Plan) {
    let cluster = MockCluster::new(1).unwrap();
    let mut config = Config::default();
    config.kafka.brokers = cluster.bootstrap_servers();
    cluster.create_topic(&config.kafka.topic, 1, 1).unwrap();
    (cluster, config, Plan::from([(0, Stretch { from: 0, to: 5 })]))
}

/// Has the broker lose its say at the next question where a partition begins and ends.
fn lose_a_leader(cluster: &MockCluster<'_, DefaultProducerContext>) {
    let moved = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[moved, moved]);
}

#[test]
fn where_a_partition_ends_is_asked_again_when_no_broker_has_told() {
    let (cluster, config, plan) = ends_early();
    let reader = reader(&config).unwrap();
    let mut reading = Reading::new(&config, &reader, &plan, Arc::default(), Arc::default());
    let (progress, watch) = progress();
    let mut ingest = Ingest::new(Vec::new(), config.run.clone(), Arc::new(progress), watch);
    lose_a_leader(&cluster);
    reading.assign().unwrap();
    let began = Instant::now();
    let error = loop {
        if let Err(error) = reading.poll(&mut ingest, PATIENCE) {
            break error;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "no end is seen");
    };
    assert!(matches!(error, SourceError::Cut { partition: 0, end: 0, before: 5 }), "{error:?}");
    assert!(began.elapsed() > AGAIN, "it was asked again");
    assert!(!reading.is_complete(), "what nobody has told is no end");
}

#[test]
fn records_are_not_taken_for_deleted_when_no_broker_tells() {
    let (cluster, config, plan) = ends_early();
    let reader = reader(&config).unwrap();
    let mut reading = Reading::new(&config, &reader, &plan, Arc::default(), Arc::default());
    lose_a_leader(&cluster);
    reading.out_of_range().unwrap();
    assert!(!reading.is_complete());
}
