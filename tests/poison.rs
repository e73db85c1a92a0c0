//! What the database refuses: it ends among the dead letters, and its neighbours do not notice.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{Place, World, event, images, record};

fn number(number: u32) -> (String, String) {
    (format!("d{number}"), format!("job-{number}"))
}

/// Publishes one event for each of 500 drafts, has the database refuse some of them, and proves
/// that exactly those are dead letters.
fn refused_among_500(world: &World, refused: &[u32]) {
    world.drafts((0..500).map(|draft| number(draft).0));
    let places = world.publish((0..500).map(|draft| {
        let (draft, job) = number(draft);
        event(&draft, &job)
    }));

    let report = world.run_until_caught_up();

    let bad = u64::try_from(refused.len()).unwrap();
    assert_eq!(report.outcomes(), [500, 500 - bad, 0, 0, 0, bad]);
    assert_eq!(report.rejected_by_reason, [("database-refused".to_owned(), bad)].into());
    let expected: BTreeMap<Place, String> = refused
        .iter()
        .map(|draft| (places[usize::try_from(*draft).unwrap()], "database-refused".to_owned()))
        .collect();
    assert_eq!(world.rejects(), expected);
    for letter in world.dead_letters() {
        assert_eq!(letter.header("dlq.stage"), Some("write"));
        assert_eq!(letter.header("dlq.attempts"), Some("1"));
        let message = letter.header("dlq.message").unwrap();
        assert!(message.contains("refused"), "the database's own words: {message}");
        assert!(!message.contains("example.com"), "and nothing of the row: {message}");
    }
    let rows = world.rows();
    let refused: BTreeSet<u32> = refused.iter().copied().collect();
    for draft in 0..500 {
        let is_refused = refused.contains(&draft);
        let (draft, job) = number(draft);
        if is_refused {
            assert!(rows[&draft].is_untouched() && rows[&draft].jobs().is_empty(), "{draft}");
        } else {
            assert_eq!(rows[&draft].images(), &images(&job));
        }
    }
    assert_eq!(world.cache.keys(), bad, "the keys of the refused stay");
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn e16_refused_rows_in_the_middle_of_a_batch_cost_their_neighbours_nothing() {
    let world = World::new("poison");
    world.refuse_jobs(&["job-0", "job-17", "job-18", "job-250", "job-499"]);
    refused_among_500(&world, &[0, 17, 18, 250, 499]);
}

#[test]
fn e16_a_row_that_is_refused_at_commit_is_found_all_the_same() {
    let world = World::new("poison-at-commit");
    // The statement succeeds; the COMMIT fails, and does not say for which row.
    world.database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN
            IF NEW.content_job_id IN ('job-33', 'job-444') THEN RAISE 'refused by a trigger'; END IF;
            RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON event_drafts
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    refused_among_500(&world, &[33, 444]);
}

#[test]
fn a_refused_winner_gives_way_to_the_next_newest_event_of_its_draft() {
    let world = World::new("winner");
    world.refuse_jobs(&["bad-1", "bad-2", "bad-3", "bad-4"]);
    world.drafts(["one", "two", "all", "none"]);
    let places = world.publish([
        event("one", "old").at(1_000).on(0),
        event("one", "good").at(2_000).on(0),
        event("one", "bad-1").at(3_000).on(0),
        event("two", "bad-2").at(3_000).on(1),
        event("two", "good").at(1_000).on(1),
        event("two", "bad-3").at(2_000).on(1),
        event("all", "bad-4").at(2_000).on(2),
        event("none", "good").at(2_000).on(3),
    ]);

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [8, 3, 0, 1, 0, 4]);
    let rows = world.rows();
    assert_eq!((rows["one"].images(), rows["one"].jobs()), (&images("good"), vec!["good", "old"]));
    assert_eq!((rows["two"].images(), rows["two"].jobs()), (&images("good"), vec!["good"]));
    assert!(rows["all"].is_untouched() && rows["all"].jobs().is_empty());
    assert_eq!(rows["none"].images(), &images("good"));
    let refused = [2, 3, 5, 6].map(|index: usize| (places[index], "database-refused".to_owned()));
    assert_eq!(world.rejects(), refused.into());
    assert_eq!(world.cached_among(["one", "two", "all", "none"]), ["all"]);
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn e16_a_trigger_that_swallows_an_update_or_makes_up_a_code_refuses_its_row_alone() {
    let mut world = World::new("triggers");
    world.set("run.retry_backoff_ms", 1);
    world.database.sql(
        "CREATE FUNCTION interfere() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN
            IF NEW.event_draft_id = 'd2' THEN RETURN NULL; END IF;
            IF NEW.event_draft_id = 'd3' THEN RAISE 'made up' USING ERRCODE = 'ZZ123'; END IF;
            RETURN NEW;
         END $$;
         CREATE TRIGGER interfere BEFORE UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION interfere()",
    );
    world.drafts(["d1", "d2", "d3", "d4"]);
    world.publish([1, 2, 3, 4].map(|draft| {
        let (draft, job) = number(draft);
        event(&draft, &job).on(0)
    }));

    assert_eq!(world.run_until_caught_up().outcomes(), [4, 2, 0, 0, 0, 2]);

    let refused = [1, 2].map(|offset| ((0, offset), "database-refused".to_owned()));
    assert_eq!(world.rejects(), refused.into());
    assert_eq!(world.cached_among(["d1", "d2", "d3", "d4"]), ["d2", "d3"]);
    let message = world.dead_letters()[0].header("dlq.message").unwrap().to_owned();
    assert!(message.contains("trigger"), "it says what is in the way: {message}");
}

#[test]
fn many_dead_letters_do_not_grow_into_one_that_is_too_large() {
    let world = World::new("many-letters");
    // The broker holds a batch of records against this limit, and not only a single one.
    crate::world::alter_topic(world.dead_letter_topic(), "max.message.bytes", "50000");
    let rubbish = (0..500).map(|number| record(format!("rubbish {number} {}", "x".repeat(500))));
    world.publish(rubbish);

    assert_eq!(world.run_until_caught_up().outcomes(), [500, 0, 0, 0, 0, 500]);

    let letters = world.dead_letters();
    assert_eq!(letters.len(), 500);
    let references = letters.iter().filter(|letter| letter.header("dlq.reference").is_some());
    assert_eq!(references.count(), 0, "each of them fits");
}
