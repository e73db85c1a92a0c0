//! Duplicates and events out of order: the newest job wins, and each counts once.

use crate::world::{World, event, eventually, images};

#[test]
fn a_duplicate_changes_no_row_but_deletes_its_key() {
    let world = World::new("duplicate");
    world.drafts(["d1"]);
    let duplicate = || event("d1", "job-1").at(1_000).on(0);
    let running = world.start_run();

    // In one batch, or in the next one: that depends on the clock, and must make no difference.
    world.publish([duplicate(), duplicate()]);
    eventually("both are through", || world.committed() == [(0, 2)].into());
    let row = world.row("d1");
    assert_eq!((row.images(), row.jobs()), (&images("job-1"), vec!["job-1"]));

    // In a later batch, with the process's memory.
    world.cache_again("d1");
    world.publish([duplicate()]);
    eventually("the duplicate is through", || world.committed() == [(0, 3)].into());
    assert_eq!((world.row("d1"), world.cached("d1")), (row.clone(), None));
    let report = running.stop().report();
    assert_eq!(report.outcomes(), [3, 1, 2, 0, 0, 0]);

    // After a restart, with the row's memory; also if it claims to be newer.
    world.cache_again("d1");
    world.publish([duplicate(), duplicate().at(9_000)]);
    let report = world.run_until_caught_up();
    assert_eq!(report.outcomes(), [2, 0, 2, 0, 0, 0]);
    assert_eq!(report.keys_deleted, 1);
    assert_eq!((world.row("d1"), world.cached("d1")), (row, None));
    assert!(world.dead_letters().is_empty());
}

#[test]
fn an_older_event_is_superseded_and_its_job_remembered() {
    let world = World::new("stale");
    world.drafts(["d1"]);
    world.publish([event("d1", "new").at(2_000).on(0)]);
    world.run_until_caught_up();
    let written = world.row("d1");

    world.cache_again("d1");
    world.publish([event("d1", "old").at(1_000).on(1)]);
    let report = world.run_until_caught_up();
    assert_eq!(report.outcomes(), [1, 0, 0, 1, 0, 0]);
    let row = world.row("d1");
    assert_eq!((row.images(), row.updated_at()), (&images("new"), written.updated_at()));
    assert_eq!((row.job(), row.jobs()), (Some("new"), vec!["new", "old"]));
    assert_eq!(world.cached("d1"), None);

    // Sent again, and stamped as if it were new: it does not bring the old images back.
    world.cache_again("d1");
    world.publish([event("d1", "old").at(3_000).on(2)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 1, 0, 0, 0]);
    assert_eq!((world.row("d1"), world.cached("d1")), (row, None));
}

/// Half past two of the night in which the clocks go forward.
#[test]
fn a_superseded_event_leaves_a_time_without_a_zone_as_it_is_also_one_that_the_zone_does_not_have() {
    const NEVER: &str = "2026-03-29 02:30:00";
    let world = World::new("no-such-time");
    let name = &world.database.name;
    world.database.server.sql(&format!("ALTER DATABASE {name} SET timezone = 'Europe/Berlin'"));
    world.database.sql("ALTER TABLE event_drafts ALTER updated_at TYPE timestamp");
    world.drafts(["d1"]);
    let updated_at = || world.database.value("SELECT updated_at::text FROM event_drafts");
    let is_now = "SELECT count(*) FROM event_drafts
                  WHERE localtimestamp AT TIME ZONE 'Europe/Berlin' - updated_at AT TIME ZONE 'Europe/Berlin'
                        BETWEEN '0' AND '1 minute'";
    world.publish([event("d1", "new").at(2_000).on(0)]);
    world.run_until_caught_up();
    world.database.sql("SET timezone = 'Europe/Berlin'");
    assert_eq!(world.database.number(is_now), 1, "written on the short way");
    world.database.sql(&format!("UPDATE event_drafts SET updated_at = '{NEVER}'"));

    world.publish([event("d1", "old").at(1_000).on(0)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 0, 1, 0, 0]);
    assert_eq!(world.row("d1").jobs(), ["new", "old"]);
    assert_eq!(updated_at(), NEVER);

    world.publish([event("d1", "b").at(3_000).on(0), event("d1", "c").at(4_000).on(0)]);
    assert_eq!(world.run_until_caught_up().superseded, 1);
    assert_eq!(world.database.number(is_now), 1, "judged");
}

#[test]
fn the_newest_of_a_batch_wins_and_every_job_of_it_is_remembered() {
    let world = World::new("newest");
    world.drafts(["by-time", "by-offset", "by-partition"]);
    world.publish([
        // By its timestamp, wherever it stands.
        event("by-time", "t2").at(2_000).on(0),
        event("by-time", "t3").at(3_000).on(1),
        event("by-time", "t1").at(1_000).on(2),
        // At the same time: by its offset.
        event("by-offset", "o1").at(500).on(3),
        event("by-offset", "o2").at(500).on(3),
    ]);
    // At the same time and offset: by its partition. All of them stand at offset 2.
    world.publish([0, 1, 2].map(|partition| event("other", "filler").on(partition)));
    world.publish([
        event("by-partition", "p1").at(500).on(1),
        event("by-partition", "p3").at(500).on(3),
        event("by-partition", "p2").at(500).on(2),
    ]);
    world.drafts(["other"]);

    let report = world.run_until_caught_up();

    assert_eq!(report.read, 11);
    let rows = world.rows();
    let is = |draft: &str, job: &str, jobs: &[&str]| {
        assert_eq!(rows[draft].images(), &images(job), "{draft}");
        assert_eq!(rows[draft].jobs(), jobs, "{draft}");
    };
    is("by-time", "t3", &["t3", "t2", "t1"]);
    is("by-offset", "o2", &["o2", "o1"]);
    is("by-partition", "p3", &["p3", "p2", "p1"]);

    // A late duplicate of a loser, in another partition and with a newer timestamp.
    let before = world.rows();
    world.publish([
        event("by-time", "t1").at(9_000).on(3),
        event("by-offset", "o1").at(9_000).on(0),
        event("by-partition", "p1").at(9_000).on(0),
    ]);
    assert_eq!(world.run_until_caught_up().outcomes(), [3, 0, 3, 0, 0, 0]);
    assert_eq!(world.rows(), before);
}

#[test]
fn a_row_remembers_its_sixteen_newest_jobs() {
    let world = World::new("sixteen");
    world.drafts(["d1"]);
    let job = |number: i64| event("d1", &format!("job-{number}")).at(number).on(0);
    world.publish((1..=20).map(job));
    assert_eq!(world.run_until_caught_up().read, 20);
    let row = world.row("d1");
    let expected: Vec<String> = (5..=20).rev().map(|number| format!("job-{number}")).collect();
    assert_eq!(row.jobs(), expected);

    world.publish((5..=20).map(job));
    assert_eq!(world.run_until_caught_up().outcomes(), [16, 0, 16, 0, 0, 0]);
    assert_eq!(world.row("d1"), row);
}

#[test]
fn a_job_that_serves_two_drafts_serves_both() {
    let mut world = World::new("reused");
    world.set("run.workers", 1);
    world.drafts(["d1", "d2"]);
    let running = world.start_run();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    world.publish([event("d2", "job-1").on(0)]);
    eventually("the second is through", || world.committed() == [(0, 2)].into());

    let report = running.stop().report();

    assert_eq!(report.outcomes(), [2, 2, 0, 0, 0, 0]);
    assert_eq!(report.job_reused, 1);
    for draft in ["d1", "d2"] {
        assert_eq!(world.row(draft).images(), &images("job-1"));
        assert_eq!(world.cached(draft), None);
    }
}

#[test]
fn a_rejected_event_is_judged_anew_when_it_comes_again() {
    let mut world = World::new("judged-anew");
    world.set("run.retries", 0);
    let running = world.start_run();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("it is rejected", || world.committed() == [(0, 1)].into());
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").on(0)]);
    eventually("it is through", || world.committed() == [(0, 2)].into());

    assert_eq!(running.stop().report().outcomes(), [2, 1, 0, 0, 0, 1]);
    assert_eq!(world.rejects(), [((0, 0), "unknown-draft".to_owned())].into());
    assert_eq!(world.row("d1").images(), &images("job-1"));
}
