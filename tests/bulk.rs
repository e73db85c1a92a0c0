//! A backlog that is fetched in bulk, what comes behind it, and what is left to the client.

use crate::interruptions::mixed;
use crate::world::{
    PARTITIONS, RawRecord, Record, World, event, eventually, images, produce_raw, record,
};

/// A world whose program fetches any backlog in bulk, and says when that is over.
fn in_bulk(name: &str) -> World {
    let mut world = World::new(name);
    world.set("kafka.bulk_fetch_min_records", 1);
    world.variable("RUST_LOG", "contentflow=debug");
    world
}

/// What is said when all of a partition's backlog has been fetched.
fn caught_up(partition: i32) -> String {
    format!("bulk fetch: caught up partition={partition}")
}

#[test]
fn a_backlog_is_fetched_in_bulk_and_the_client_reads_on_behind_it() {
    let world = in_bulk("bulk");
    let backlog = world.load(mixed(17, 3_000));
    let running = world.start_run();
    eventually("the backlog is done", || world.committed() == world.ends());
    eventually("all of it was fetched in bulk", || {
        (0..PARTITIONS).all(|partition| running.err().contains(&caught_up(partition)))
    });

    let more = world.publish_load(mixed(18, 500));

    eventually("what has come since is done", || world.committed() == world.ends());
    assert_eq!(running.stop().report().read, 3_500, "no record twice, and none left out");
    world.assert_done(&backlog.joined(more));
}

#[test]
fn a_running_process_fetches_in_bulk_what_comes_faster_than_it_is_written() {
    let mut world = in_bulk("bulk-running");
    world.set("run.epoch_records", 10);
    world.database.sql(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END $$;
         CREATE TRIGGER dawdle BEFORE UPDATE ON event_drafts EXECUTE FUNCTION dawdle()",
    );
    let mix = mixed(21, 3_000);
    world.drafts((1..=mix.drafts).map(|number| mix.draft_ids.id(number)));
    let running = world.start_run();
    eventually("it runs", || running.says_partitions("assigned"));
    let few = world.publish_load(mixed(20, 5));
    eventually("they are done", || world.committed() == world.ends());
    assert!(!running.err().contains("bulk fetch"), "what was just published is no backlog yet");

    let many = world.publish_load(mix);

    eventually("all are done", || world.committed() == world.ends());
    assert!(running.err().contains("bulk fetch: caught up"), "{}", running.err());
    assert_eq!(running.stop().report().read, 3_005, "no record twice, and none left out");
    world.assert_done(&many.joined(few));
}

#[test]
fn several_processes_share_a_backlog_that_is_fetched_in_bulk() {
    let mut world = in_bulk("bulk-shared");
    world.set("run.epoch_records", 50);
    let backlog = world.load(mixed(19, 6_000));
    let first = world.start_run();
    eventually("the first is in the middle of it", || !world.committed().is_empty());
    let second = world.start_run();
    eventually("the second has some of it", || second.err().contains("assigned partitions="));
    let third = world.start_run();
    eventually("the third, too", || third.err().contains("assigned partitions="));
    second.stop().success();
    first.kill();
    eventually("the third does the rest", || world.committed() == world.ends());
    third.stop().success();
    world.assert_done(&backlog);
}

#[test]
fn what_belongs_to_transactions_is_left_to_the_client() {
    let world = in_bulk("bulk-transactions");
    let numbered = |number: i32| event(&format!("d{number}"), "job").on(0);
    world.drafts((0..40).map(|number| format!("d{number}")));
    world.publish((0..10).map(numbered));
    world.begin((10..20).map(numbered)).commit();
    world.begin((20..30).map(numbered)).abort();
    world.publish((30..40).map(numbered));

    let ended = world.start(&["run", "--until-caught-up", "--report", "json"]).wait();

    assert_eq!(ended.report().outcomes(), [30, 30, 0, 0, 0, 0]);
    assert!(ended.err.contains("not fetched in bulk: batches belong to transactions"), "{ended:?}");
    for number in 0..40 {
        let is_aborted = (20..30).contains(&number);
        assert_eq!(world.row(&format!("d{number}")).is_untouched(), is_aborted, "{number}");
    }
}

/// What the program has made of each record: its dead letters carry everything that was read.
fn letters(world: &World) -> Vec<Record> {
    world.call(&["replay", "--dead-letters"]).success();
    let letters = world.dead_letters().into_iter();
    letters.map(|letter| Record { partition: None, offset: 0, timestamp_ms: 0, ..letter }).collect()
}

#[test]
fn records_are_the_same_whichever_way_they_are_fetched() {
    let mut world = in_bulk("bulk-same");
    let odd = [
        record("null key"),
        record("empty key").keyed(""),
        record("").keyed("empty value"),
        Record { value: None, ..record("") }.keyed("null value"),
        record("headers").with("a", "1").with("a", "2").with_null("b").with("", "no name"),
        record(vec![0xff; 100_000]).at(-1).keyed([0, 159, 146, 150]),
    ];
    world.publish(odd.iter().cloned().cycle().take(60));
    let headers: [(&[u8], &[u8]); 2] = [(b"\xff", b"lost"), (b"own", b"\xff")];
    let hostile = RawRecord { key: b"k", value: b"v", timestamp_ms: 7, headers: &headers };
    produce_raw(world.topic(), 1, &hostile);
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);

    let in_bulk = letters(&world);
    world.set("kafka.bulk_fetch_min_records", 0);
    let by_the_client = letters(&world);

    assert_eq!(in_bulk.len(), 61);
    assert_eq!(in_bulk, by_the_client);
    assert_eq!(world.row("d1").images(), &images("job-1"));
}
