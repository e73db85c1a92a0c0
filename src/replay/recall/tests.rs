use super::super::reader::reader;
use super::*;
use crate::scan::tests::refuses_once;

/// What becomes of a question for one record.
fn asked(config: &Config, silence_max: Option<Duration>, abort: &Abort) -> Result<(), Cause> {
    let reader = reader(config).unwrap();
    let source = Source { config, context: reader.context(), abort, silence_max };
    let (sender, requests) = unbounded();
    let (answer, _answered) = oneshot::channel();
    let position = Position { timestamp_ms: 1, offset: 0, partition: 0 };
    let known = Known { position, job: "job".to_owned(), draft: "draft".to_owned() };
    sender.send(Request { events: vec![known], answer }).unwrap();
    drop(sender);
    serve(source, DraftIdType::Text { max_chars: None }, &requests)
}

fn nobody_there() -> Config {
    let mut config = Config::default();
    config.kafka.brokers = "127.0.0.1:1".to_owned();
    config
}

#[test]
fn brokers_that_are_away_are_an_outage_after_a_while_if_that_is_asked_for() {
    let outcome = asked(&nobody_there(), Some(Duration::from_secs(1)), &Abort::default());
    assert!(
        matches!(&outcome, Err(Cause::Outage(what)) if what.contains("kafka is out")),
        "{outcome:?}"
    );
}

#[test]
fn brokers_that_are_away_are_waited_for_otherwise_until_the_replay_ends() {
    let abort = Abort::default();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| asked(&nobody_there(), None, &abort));
        std::thread::sleep(Duration::from_secs(2));
        assert!(!waiting.is_finished());
        abort.failure("something else".to_owned());
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_right_that_is_missing_is_told_and_not_waited_for() {
    let mut config = Config::default();
    let _cluster = refuses_once(&mut config.kafka);
    let outcome = asked(&config, Some(Duration::from_secs(20)), &Abort::default());
    assert!(
        matches!(&outcome, Err(Cause::Failure(what)) if what.contains("kafka refuses access")),
        "{outcome:?}"
    );
}
