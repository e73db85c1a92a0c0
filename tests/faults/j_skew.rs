//! One draft with nearly all of the events, and one partition that stands still: the others go on.

use crate::world::{Record, World, event, eventually, images, meanwhile};

#[test]
fn j10_a_draft_with_nine_tenths_of_the_events_does_not_hold_up_the_others() {
    let mut world = World::new("j10");
    world.set("run.epoch_records", 500);
    // Room for all of it: what a locked row holds up counts against the records in flight.
    world.set("run.epochs_in_flight", 16);
    world.set("database.lock_timeout_ms", 50);
    world.set("run.retry_backoff_ms", 10);
    let others: Vec<String> = (0..300).map(|number| format!("d{number}")).collect();
    world.drafts(others.iter().map(String::as_str).chain(["hot"]));
    let mut records: Vec<Record> = Vec::new();
    for (number, other) in (0..).zip(&others) {
        let hot = |part: i64| event("hot", &format!("hot-{number}-{part}")).at(10 * number + part);
        records.extend((0..9).map(hot).map(|record| record.on(0)));
        let partition = 1 + i32::try_from(number % 3).unwrap();
        records.push(event(other, "job").at(number).on(partition));
    }
    world.publish(records);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'hot' FOR UPDATE");
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);

    eventually("the others are through", || world.rows_with_images() == 300);
    meanwhile("the hot one waits", || {
        !world.committed().contains_key(&0) && world.row("hot").is_untouched()
    });
    blocker.sql("COMMIT");

    let report = running.wait().report();
    assert_eq!((report.read, report.rejected, report.duplicate), (3_000, 0, 0));
    assert_eq!(report.applied + report.superseded, 3_000);
    let rows = world.rows();
    assert_eq!(rows["hot"].images(), &images("hot-299-8"), "the newest");
    for other in &others {
        assert_eq!(rows[other].images(), &images("job"), "{other}");
    }
    assert_eq!(world.cache.keys(), 0);
    assert_eq!(world.committed(), world.ends());
}
