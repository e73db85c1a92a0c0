//! Events that only the database refuses: verify knows of them from dead letters alone.

use super::{differences, found, lines};
use crate::world::{World, event};

#[test]
fn an_event_that_the_database_refuses_is_said_to_be_one_and_gives_its_turn_to_the_next() {
    let world = World::new("verify-refused");
    world.refuse_jobs(&["refused"]);
    world.drafts(["d1"]);
    world.publish([event("d1", "good"), event("d1", "refused").at(1)]);
    // Which reports the reject, and writes no dead letter of it.
    let replay = world.call(&["replay"]);
    replay.success();
    assert!(replay.err.contains("row-behind until"), "{}", replay.err);
    assert_eq!(differences(&world), found([("row-behind", "d1")]));

    world.database.sql(
        "UPDATE event_drafts SET content_images = NULL, content_job_id = NULL, content_event_at = '-infinity',
                content_event_offset = -1, content_event_partition = -1, content_older_jobs = NULL,
                content_older_positions = NULL",
    );
    let repair = world.call(&["verify", "--repair", "--json"]);
    let lines = lines(&repair);
    assert_eq!((repair.code(), lines.len()), (Some(3), 1), "{}", repair.out);
    assert_eq!(lines[0]["mended"], false);
    let message = lines[0]["message"].as_str().unwrap();
    assert!(
        message.contains("the database refuses") && message.contains("--dead-letters"),
        "{message}"
    );
    assert_eq!(world.row("d1").job(), Some("good"));

    let replay = world.call(&["replay", "--dead-letters"]);
    replay.success();
    assert!(!replay.err.contains("row-behind until"), "{}", replay.err);
    assert_eq!(differences(&world), found([]));
}

/// More of them than a repair has rounds for rows that others change.
#[test]
fn many_refused_events_of_one_draft_all_give_their_turn_to_the_next() {
    let world = World::new("verify-refused-many");
    let refused = ["bad-1", "bad-2", "bad-3", "bad-4", "bad-5"];
    world.refuse_jobs(&refused);
    world.drafts(["d1"]);
    world.publish([event("d1", "good")]);
    world.publish(refused.iter().zip(1..).map(|(job, at)| event("d1", job).at(at)));
    let repair = world.call(&["verify", "--repair", "--json"]);
    assert_eq!(repair.code(), Some(3), "{}", repair.err);
    assert_eq!(world.row("d1").job(), Some("good"));
}
