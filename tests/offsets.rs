//! Where reading begins and ends: committed offsets, lost records, transactions.

use crate::world::{World, event, eventually, images};

#[test]
fn a_group_without_offsets_reads_from_the_earliest_and_then_goes_on() {
    let world = World::new("earliest");
    world.drafts((0..30).map(|number| format!("d{number}")));
    let numbered =
        |number: i32| event(&format!("d{number}"), &format!("job-{number}")).on(number % 3);
    world.publish((0..15).map(numbered));
    world.delete_records(1, 2);
    let first = world.run_until_caught_up();
    assert_eq!(first.outcomes(), [13, 13, 0, 0, 0, 0], "retention has taken two of them before");
    assert_eq!(first.partitions[1].first_offset, 2);

    world.publish((15..30).map(numbered));
    let second = world.run_until_caught_up();
    assert_eq!(second.outcomes(), [15, 15, 0, 0, 0, 0]);
    assert!(second.partitions.iter().all(|part| part.first_offset == 5), "{second:?}");
    assert_eq!(world.committed(), [(0, 10), (1, 10), (2, 10)].into());
}

#[test]
fn d1_records_that_retention_has_deleted_unread_stop_the_run_with_their_number() {
    let mut world = World::new("retention");
    world.drafts((0..12).map(|number| format!("d{number}")));
    let numbered = |number: i32| event(&format!("d{number}"), &format!("job-{number}")).on(2);
    world.publish((0..3).map(numbered));
    world.run_until_caught_up();
    world.publish((3..12).map(numbered));
    world.delete_records(2, 8);
    let rows = world.rows();

    let stopped = world.call(&["run", "--until-caught-up"]);

    let error = stopped.failure(1);
    assert!(error.contains("partition 2: 5 records were deleted by retention"), "{error}");
    assert!(error.contains("run.on_data_loss"), "it says what to do: {error}");
    assert_eq!(world.committed(), [(2, 3)].into());
    assert_eq!(world.rows(), rows);

    world.set("run.on_data_loss", "continue");
    let ended = world.start(&["run", "--until-caught-up", "--report", "json"]).wait();
    assert_eq!(ended.report().outcomes(), [4, 4, 0, 0, 0, 0]);
    assert!(ended.err.contains("ERROR") && ended.err.contains("5 records"), "{}", ended.err);
    assert_eq!(world.committed(), world.ends());
    for number in 0..12 {
        let is_lost = (3..8).contains(&number);
        assert_eq!(world.row(&format!("d{number}")).is_untouched(), is_lost, "d{number}");
    }
}

#[test]
fn d2_an_offset_past_the_end_stops_the_run_too() {
    let mut world = World::new("past-the-end");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").on(0)]);
    // As after a topic was deleted and made again.
    world.commit(0, 42);
    let stopped = world.call(&["run", "--until-caught-up"]);
    let error = stopped.failure(1);
    assert!(error.contains("partition 0: 41 records are missing"), "{error}");
    assert!(world.row("d1").is_untouched());

    world.set("run.on_data_loss", "continue");
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(world.committed(), [(0, 1)].into());
}

#[test]
fn b8_only_committed_transactions_are_read_and_the_gaps_of_others_are_no_obstacle() {
    let world = World::new("transactions");
    world.drafts(["d1", "d2", "d3", "d4", "d5"]);
    world.publish([event("d1", "job-1").on(0)]);
    world.begin([event("d2", "aborted").on(0), event("d2", "aborted").on(1)]).abort();
    world.begin([event("d3", "job-3").on(0), event("d4", "job-4").on(2)]).commit();
    // The last thing in partition 0 is an aborted transaction, and all that there is in partition
    // 1.
    world.begin([event("d2", "aborted").on(0)]).abort();

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [3, 3, 0, 0, 0, 0]);
    assert!(world.row("d2").is_untouched());
    assert_eq!(world.cached_among(["d1", "d2", "d3", "d4"]), ["d2"]);
    // 0: job-1, 1: aborted, 2: its mark, 3: job-3, 4: its mark, 5: aborted, 6: its mark.
    assert_eq!(world.committed(), [(0, 4), (2, 1)].into());
    assert_eq!(
        world.run_until_caught_up().outcomes(),
        [0; 6],
        "there is nothing more, and it ends"
    );

    // What is still open is not there yet, and keeps nobody waiting.
    let open = world.begin([event("d5", "job-5").on(3)]);
    world.publish([event("d1", "job-6").at(1).on(0)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
    open.commit();
    let running = world.start_run();
    eventually("now it is there", || world.row("d5").images() == &images("job-5"));
    eventually("and committed", || world.committed() == [(0, 8), (2, 1), (3, 1)].into());
    assert_eq!(running.stop().report().outcomes(), [1, 1, 0, 0, 0, 0]);
}
