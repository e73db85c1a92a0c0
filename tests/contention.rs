//! Other transactions on the same rows: they are waited for, and nobody else waits with them.

use crate::world::{World, event, eventually, images, meanwhile};

#[test]
fn e10_a_row_that_somebody_keeps_locked_is_waited_for_alone() {
    let mut world = World::new("locked");
    world.set("database.lock_timeout_ms", 50);
    world.set("run.retry_backoff_ms", 10);
    let drafts: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id IN ('d3', 'd11') FOR UPDATE");
    world.publish(drafts.iter().map(|draft| event(draft, &format!("job-of-{draft}")).on(0)));
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);

    eventually("the neighbours are through", || {
        world.rows_with_images() == 18 && world.cache.keys() == 2
    });
    // Far more than the timeout and all the retries.
    meanwhile("the locked ones are waited for", || {
        world.committed().is_empty() && world.cached_among(["d3", "d11"]).len() == 2
    });
    blocker.sql("COMMIT");

    assert_eq!(running.wait().report().outcomes(), [20, 20, 0, 0, 0, 0]);
    for draft in &drafts {
        assert_eq!(world.row(draft).images(), &images(&format!("job-of-{draft}")));
    }
    assert_eq!(world.cache.keys(), 0);
    assert!(world.dead_letters().is_empty(), "no valid event is given up for a lock");
    assert_eq!(world.committed(), world.ends());
}

/// Whether something else keeps a row locked or not: with a row that is, the database is asked
/// which rows are locked, and cannot tell the two apart.
#[test]
fn e16_e10_a_row_that_a_policy_hides_from_updates_is_one_dead_letter_also_beside_a_locked_one() {
    for is_locked in [false, true] {
        let mut world = World::new(&format!("hidden-{is_locked}"));
        world.set("run.workers", 1);
        world.set("database.connections", 1);
        world.set("database.lock_timeout_ms", 50);
        world.set("run.retry_backoff_ms", 2);
        let drafts: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
        world.drafts(&drafts);
        let role = writer_under_a_policy(&mut world, "USING (event_draft_id <> 'd11')");
        let places = world
            .publish(drafts.iter().map(|draft| event(draft, &format!("job-of-{draft}")).on(0)));
        let blocker = world.database.session();
        if is_locked {
            blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd3' FOR UPDATE");
        }
        let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
        if is_locked {
            eventually("the neighbours are through", || world.rows_with_images() == 18);
            meanwhile("the locked one is waited for", || world.committed().is_empty());
            blocker.sql("COMMIT");
        }

        let report = running.wait().report();
        assert_eq!(report.outcomes(), [20, 19, 0, 0, 0, 1], "{is_locked}");
        assert_eq!(world.rejects(), [(places[11], "database-refused".to_owned())].into());
        let letters = world.dead_letters();
        let message = letters[0].header("dlq.message").unwrap();
        assert!(message.contains("row security policy"), "{message}");
        let rows = world.rows();
        for draft in &drafts {
            if draft == "d11" {
                assert!(rows[draft].is_untouched() && rows[draft].jobs().is_empty());
            } else {
                assert_eq!(rows[draft].images(), &images(&format!("job-of-{draft}")));
            }
        }
        assert_eq!(
            world.cached_among(drafts.iter().map(String::as_str)),
            ["d11"],
            "the key of the refused stays"
        );
        assert_eq!(world.committed(), world.ends());
        world.database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

#[test]
fn e16_a_row_that_a_policy_refuses_is_one_dead_letter() {
    let mut world = World::new("forbidden");
    let drafts: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let role =
        writer_under_a_policy(&mut world, "USING (true) WITH CHECK (event_draft_id <> 'd11')");
    let places =
        world.publish(drafts.iter().map(|draft| event(draft, &format!("job-of-{draft}")).on(0)));

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [20, 19, 0, 0, 0, 1]);
    assert_eq!(world.rejects(), [(places[11], "database-refused".to_owned())].into());
    assert_eq!(world.rows_with_images(), 19);
    world.database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// Has the program write as a role that reads every row, and whose UPDATE is under a policy.
fn writer_under_a_policy(world: &mut World, policy: &str) -> String {
    let role = format!("writer_{:08x}", fastrand::u32(..));
    world.database.sql(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT SELECT, UPDATE ON event_drafts TO {role};
         ALTER TABLE event_drafts ENABLE ROW LEVEL SECURITY;
         CREATE POLICY read ON event_drafts FOR SELECT TO {role} USING (true);
         CREATE POLICY write ON event_drafts FOR UPDATE TO {role} {policy}"
    ));
    let (_, address) = world.database.url.split_once('@').expect("the stack's URL has a user");
    world.set("database.url", format!("postgres://{role}@{address}"));
    role
}

/// With one wait for each of them, the others would have their turn after some minutes.
#[test]
fn e10_among_thousands_of_locked_rows_the_others_go_on() {
    let world = World::new("locked-many");
    let drafts: Vec<String> = (0..4_000).map(|number| format!("d{number:04}")).collect();
    world.drafts(&drafts);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id ~ '[02468]$' FOR UPDATE");
    world.publish(drafts.iter().map(|draft| event(draft, &format!("job-of-{draft}")).on(0)));
    let running = world.start_run();

    eventually("the others are through", || world.rows_with_images() == 2_000);
    world.publish([event("d0001", "later").at(9).on(1)]);
    eventually("so is what comes while the locked ones are tried again", || {
        world.row("d0001").images() == &images("later")
    });
    assert_eq!(world.committed().get(&0), None);
    blocker.sql("COMMIT");

    eventually("all of it is committed", || world.committed() == [(0, 4_000), (1, 1)].into());
    assert_eq!(running.stop().report().outcomes(), [4_001, 4_001, 0, 0, 0, 0]);
    assert_eq!(world.rows_with_images(), 4_000);
    assert!(world.dead_letters().is_empty(), "no valid event is given up for a lock");
}

#[test]
fn a_table_that_somebody_locks_is_waited_for() {
    // The second is that of an index that is built: rows can be locked meanwhile, and not be
    // written.
    for mode in ["EXCLUSIVE", "SHARE"] {
        let mut world = World::new("locked-table");
        world.set("database.lock_timeout_ms", 20);
        let drafts: Vec<String> = (0..4).map(|number| format!("d{number}")).collect();
        world.drafts(&drafts);
        let (running, page) = world.start_watched();
        world.publish([event("d0", "first").on(1)]);
        eventually("it is at work", || world.committed() == [(1, 1)].into());
        let blocker = world.database.session();
        blocker.sql(&format!("BEGIN; LOCK TABLE event_drafts IN {mode} MODE"));
        let job = |draft| format!("job-of-{draft}");
        world.publish(drafts.iter().map(|draft| event(draft, &job(draft)).at(9).on(0)));
        eventually("it waits for the table", || world.database.somebody_waits());
        // Row by row it would be waited for time and again.
        let retries = "contentflow_effect_retries_total{effect=\"write\",cause=\"row\"}";
        meanwhile("nothing is given up, and the rows stay together", || {
            !world.committed().contains_key(&0) && page.metric(retries) < 1.0
        });
        blocker.sql("COMMIT");

        eventually("all of it is committed", || world.committed() == [(0, 4), (1, 1)].into());
        assert_eq!(running.stop().report().outcomes(), [5, 5, 0, 0, 0, 0]);
        assert!(drafts.iter().all(|draft| world.row(draft).images() == &images(&job(draft))));
        assert!(world.dead_letters().is_empty());
    }
}

/// As configured by nobody: each of the events is an epoch of its own, and far more of them pass
/// than may be under way.
#[test]
fn e10_what_comes_behind_a_locked_row_goes_on_however_many_epochs_it_takes() {
    let world = World::new("locked-epochs");
    let drafts: Vec<String> = (0..40).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id IN ('d0', 'd20') FOR UPDATE");
    let running = world.start_run();
    let locked = |draft: &str| ["d0", "d20"].contains(&draft);

    for (published, draft) in (1..).zip(&drafts) {
        world.publish([event(draft, "early").at(1).on(0)]);
        if locked(draft) {
            // Another event of the same draft waits with the first.
            world.publish([event(draft, "late").at(2).on(1)]);
        }
        let free = published - if published > 20 { 2 } else { 1 };
        eventually(&format!("all of {published} but the locked ones"), || {
            world.rows_with_images() == free
        });
    }
    meanwhile("the locked ones are waited for", || {
        world.committed().is_empty() && world.cached_among(["d0", "d20"]).len() == 2
    });
    blocker.sql("COMMIT");

    eventually("all of it is committed", || world.committed() == [(0, 40), (1, 2)].into());
    assert_eq!(running.stop().report().outcomes(), [42, 40, 0, 2, 0, 0]);
    for draft in &drafts {
        let job = if locked(draft) { "late" } else { "early" };
        assert_eq!(world.row(draft).images(), &images(job), "{draft}");
    }
    assert_eq!(world.cache.keys(), 0);
    assert!(world.dead_letters().is_empty());
}

/// The retries of a draft that is not there take long. What comes meanwhile waits for none of them.
#[test]
fn what_comes_behind_an_unknown_draft_does_not_wait_for_its_retries() {
    let mut world = World::new("unknown-epochs");
    world.set("run.retries", 100);
    let drafts: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let running = world.start_run();
    for (published, draft) in (1..).zip(&drafts) {
        world.publish([event(&format!("nobody-{published}"), "job").on(0)]);
        world.publish([event(draft, "job").on(0)]);
        eventually(&format!("{published} beside it"), || world.rows_with_images() == published);
    }
    assert!(world.committed().is_empty(), "the unknown ones are still tried again");
    running.kill();
}

#[test]
fn e9_a_deadlock_with_another_writer_is_tried_again() {
    let mut world = World::new("deadlock");
    world.set("run.workers", 1);
    world.set("database.lock_timeout_ms", 20_000);
    // The program's session looks for the deadlock and is the one that is cancelled.
    let name = &world.database.name;
    world.database.server.sql(&format!("ALTER DATABASE {name} SET deadlock_timeout = '100ms'"));
    let drafts: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let (gate, foreign) = (world.database.session(), world.database.session());
    gate.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd10' FOR UPDATE");
    world.publish(drafts.iter().map(|draft| event(draft, &format!("job-of-{draft}")).on(0)));
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    eventually("it waits for d10", || world.database.somebody_waits());

    // In whatever order it takes its rows: some it has by now, some it will want later.
    let free = world.database.sql("SELECT event_draft_id FROM event_drafts FOR UPDATE SKIP LOCKED");
    let free: Vec<String> = free.into_iter().map(|mut row| row.remove(0).unwrap()).collect();
    let taken = drafts.iter().find(|draft| *draft != "d10" && !free.contains(draft));
    let taken = taken.expect("d10 is not the first that it takes");
    let wanted = free.first().expect("nor the last");
    let update = |draft: &str| {
        format!("UPDATE event_drafts SET title = 'foreign' WHERE event_draft_id = '{draft}'")
    };
    foreign.sql(&format!("SET deadlock_timeout = '60s'; BEGIN; {}", update(wanted)));
    std::thread::scope(|scope| {
        scope.spawn(|| foreign.sql(&format!("{}; COMMIT", update(taken))));
        eventually("the other writer waits for it", || world.database.waiting() == 2);
        // Now it goes on to the row that the other writer has.
        gate.sql("COMMIT");
    });

    assert_eq!(running.wait().report().outcomes(), [20, 20, 0, 0, 0, 0]);
    let deadlocks = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'");
    eventually("it was a deadlock", || world.database.server.number(&deadlocks) > 0);
    let rows = world.rows();
    for draft in &drafts {
        assert_eq!(rows[draft].images(), &images(&format!("job-of-{draft}")));
        let is_foreign = rows[draft].columns["title"] == "foreign";
        assert_eq!(is_foreign, draft == wanted || draft == taken, "both have had their way");
    }
    assert_eq!(world.cache.keys(), 0);
    assert!(world.dead_letters().is_empty());
}

#[test]
fn another_writer_of_the_same_column_is_not_mistaken_for_an_event() {
    let world = World::new("foreign-writer");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").at(1_000)]);
    world.run_until_caught_up();
    world.database.sql("UPDATE event_drafts SET content_images = NULL, title = 'edited'");
    world.publish([event("d1", "job-2").at(2_000)]);
    world.run_until_caught_up();
    let row = world.row("d1");
    assert_eq!((row.images(), row.columns["title"].as_str()), (&images("job-2"), Some("edited")));
}

#[test]
fn a_later_repeat_does_not_overtake_its_original_while_the_row_is_locked() {
    let mut world = World::new("overtaking");
    world.set("database.lock_timeout_ms", 20);
    world.set("run.retry_backoff_ms", 400);
    world.drafts(["d1", "d2"]);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd1' FOR UPDATE");
    world.publish([event("d1", "job-a").at(1_000).on(0)]);
    let running = world.start(&["run", "--report", "json"]);
    eventually("the original waits for its row", || world.database.somebody_waits());

    // In a later epoch: a newer job, and the first one again with a time that would make it the
    // newest of all.
    world.publish([event("d1", "job-b").at(3_000).on(0), event("d1", "job-a").at(5_000).on(0)]);
    world.publish([event("d2", "job-c").at(6_000).on(0)]);
    eventually("what comes after them is through", || world.rows_with_images() == 1);
    blocker.sql("COMMIT");

    eventually("all is committed", || world.committed() == world.ends());
    assert_eq!(running.stop().report().duplicate, 1);
    assert_eq!(world.row("d1").images(), &images("job-b"));
}

#[test]
fn a_row_that_another_process_has_moved_on_since_it_was_read_is_judged_again() {
    let mut world = World::new("moved-on");
    // Longer than the test holds the lock.
    world.set("database.lock_timeout_ms", 25_000);
    world.drafts(["d1"]);
    // Another process applies a newer event; only its COMMIT is missing.
    let other = world.database.session();
    other.sql(
        "BEGIN; UPDATE event_drafts SET content_images = '{\"by\": \"another\"}', content_job_id = 'newer',
         content_event_at = '2030-01-01 00:00:00Z', content_event_offset = 7, content_event_partition = 3",
    );
    // Two events of one draft are judged: its row is read, and amended if it is still as it was
    // read.
    world.publish(
        [("job-1", 1_000), ("job-2", 2_000)].map(|(job, ms)| event("d1", job).at(ms).on(0)),
    );
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    eventually("it has read the row, and waits to amend it", || world.database.somebody_waits());
    other.sql("COMMIT");

    assert_eq!(running.wait().report().outcomes(), [2, 0, 0, 2, 0, 0]);
    let row = world.row("d1");
    assert_eq!(row.images()["by"], "another");
    assert_eq!(row.jobs(), ["newer", "job-2", "job-1"], "each of them is remembered");
}

#[test]
fn a_row_whose_time_was_set_by_hand_remembers_what_comes() {
    let world = World::new("by-hand");
    world.drafts(["d1"]);
    // To the microsecond, as no event is.
    world.database.sql(
        "UPDATE event_drafts SET content_job_id = 'by-hand', content_event_at = '2030-01-01 00:00:00.000600Z',
         content_event_offset = 7, content_event_partition = 3",
    );
    world.publish(
        [("job-1", 1_000), ("job-2", 2_000)].map(|(job, ms)| event("d1", job).at(ms).on(0)),
    );
    assert_eq!(world.run_until_caught_up().outcomes(), [2, 0, 0, 2, 0, 0]);
    assert_eq!(world.row("d1").jobs(), ["by-hand", "job-2", "job-1"]);
}

#[test]
fn a_row_alone_that_loses_races_is_tried_again_however_often_and_not_given_up() {
    // Serialization failure, deadlock, cancelled by hand.
    for code in ["40001", "40P01", "57014"] {
        let mut world = World::new("races-lost");
        world.set("run.retry_backoff_ms", 5);
        world.drafts(["d1"]);
        // More often than it is retried at once. A sequence remembers what a transaction forgets.
        world.database.sql(&format!(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('tries') <= 6 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '{code}'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER lose BEFORE UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION lose()"
        ));
        world.publish([event("d1", "job-1")]);
        assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0], "{code}");
        assert_eq!(world.database.number("SELECT last_value FROM tries"), 7, "{code}");
        assert_eq!(world.row("d1").images(), &images("job-1"));
        assert!(world.dead_letters().is_empty(), "{code}");
    }
}
