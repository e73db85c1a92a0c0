//! The log: for people, on lines that nobody else can write, and not more of them than somebody can
//! read.

use crate::world::{PrivateKafka, World, event, eventually, record};

/// The lines of a log. Each begins with its time; one that does not was begun by something that was
/// logged.
fn lines(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines {
        assert!(line.starts_with("20") && line.contains("Z "), "{line:?} in {log}");
        assert!(!line.contains(contentflow::printable::is_unsafe), "{line:?}");
    }
    lines
}

#[test]
fn a_thousand_records_of_a_stranger_are_a_few_lines_and_their_number() {
    let world = World::new("logs-strangers");
    let strangers = (0..300).map(|number| record(format!("stranger {number}")));
    world.cluster().publish_to(world.dead_letter_topic(), strangers);
    let ended = world.call(&["dlq", "list"]);
    ended.success();
    let told: Vec<_> =
        lines(&ended.err).into_iter().filter(|line| line.contains("not a dead letter")).collect();
    let (sum, told): (Vec<_>, Vec<_>) = told.into_iter().partition(|line| line.contains("more="));
    assert_eq!((told.len(), sum.len()), (20, 1), "{}", ended.err);
    assert!(sum[0].contains("more=280 within_s=60 from="), "{}", sum[0]);
    // Whoever asks for more has it all, of what is for looking into things.
    let ended = world.call(&["--log-format", "json", "dlq", "list"]);
    let objects = ended.err.lines().map(|line| serde_json::from_str(line).unwrap());
    let objects: Vec<serde_json::Value> = objects.collect();
    assert!(objects.iter().any(|object| object["more"] == 280), "{}", ended.err);
}

#[test]
fn what_a_server_quotes_cannot_write_a_line_of_its_own() {
    let world = World::new("logs-forged");
    world.drafts(["d1"]);
    world.database.sql(
        "CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION E'no\\n2026-01-01T00:00:00Z  INFO all is well\\r\\u001b[2J\\u202e' USING ERRCODE = '57P03';
         END $$;
         CREATE TRIGGER forge BEFORE UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION forge()",
    );
    let running = world.start_run();
    world.publish([event("d1", "job-1")]);
    eventually("it is held", || running.err().contains("held:"));
    world.database.sql("DROP TRIGGER forge ON event_drafts");
    eventually("it is written", || world.row("d1").job().is_some());
    let ended = running.stop();
    ended.success();
    let held =
        lines(&ended.err).into_iter().find(|line| line.contains("held:")).unwrap().to_owned();
    assert!(
        held.contains("\\n2026-01-01T00:00:00Z  INFO all is well\\r\\u{1b}[2J\\u{202e}"),
        "{held}"
    );
}

#[test]
fn a_storm_is_a_page_in_the_log() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("logs-storm");
    let wire = world.wire_to_database();
    for (key, ms) in [("reconnect.backoff.ms", 10), ("reconnect.backoff.max.ms", 20)] {
        world.set(&format!("kafka.properties.{key}"), ms);
    }
    world.drafts(["d0"]);
    let running = world.start_run();
    eventually("it is there", || running.says_partitions("assigned"));
    world.publish((0..2_000).map(|number| record(format!("no event {number}"))));
    // A database that cannot make up its mind.
    for round in 0..40 {
        wire.cut();
        world.publish([event("d0", &format!("job-{round}")).at(round)]);
        // Long enough to be noticed. If it is not, there is one line less.
        std::thread::sleep(std::time::Duration::from_millis(250));
        wire.open();
        let job = format!("job-{round}");
        eventually("it is written", || world.row("d0").job() == Some(&job));
    }
    // A broker that is away, and asked for again and again.
    kafka.stop();
    std::thread::sleep(std::time::Duration::from_secs(3));
    kafka.restart();
    world.publish([event("d0", "last").at(99)]);
    eventually("it goes on", || world.row("d0").job() == Some("last"));
    eventually("all is committed", || world.committed() == world.ends());
    let ended = running.stop();
    let report = ended.report();
    assert_eq!(report.rejected, 2_000);
    let lines = lines(&ended.err);
    println!("{} lines:\n{}", lines.len(), ended.err);
    // Twenty of a kind in a minute and their number: some hundred, on a machine that is slow a few
    // more. It would be more than a thousand.
    assert!(lines.len() < 250, "{}", ended.err);
    assert!(lines.iter().any(|line| line.contains("more=")), "{}", ended.err);
}

#[test]
fn a_log_for_machines_is_one_object_a_line_whatever_becomes_of_the_command() {
    let world = World::new("logs-objects");
    world.call(&["draft", "put", "d1"]).success();
    world.publish([event("d1", "job-1"), record("rubbish")]);
    let objects = |arguments: &[&str], code: i32| -> Vec<serde_json::Value> {
        let ended = world.call(&[&["--log-format", "json"], arguments].concat());
        assert_eq!(ended.code(), Some(code), "{}", ended.err);
        let object = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        ended.err.lines().map(object).collect()
    };
    objects(&["run", "--until-caught-up"], 0);
    objects(&["replay"], 0);
    assert_eq!(objects(&["draft", "get", "d1"], 0).len(), 1, "where it was read");
    let failed = objects(&["draft", "get", "nobody"], 1);
    let error = failed.last().unwrap();
    assert_eq!(error["level"], "ERROR");
    assert!(error["message"].as_str().unwrap().contains("there is no draft"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("draft list"), "{error}");
    // Long enough for a line on how far it is.
    let published = objects(&["publish", "--generate", "60", "--rate", "10"], 0);
    let says =
        |object: &serde_json::Value| object["message"].as_str().unwrap().contains("of 60 events");
    assert!(published.iter().any(says), "{published:?}");
}
