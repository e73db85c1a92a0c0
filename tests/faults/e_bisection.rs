//! What the database refuses among 5,000 rows of one statement: exactly that becomes dead letters,
//! for few extra statements.

use std::collections::BTreeMap;

use crate::world::{Place, Record, World, event, eventually, images};

use super::stores::single;

const ROWS: u32 = 5_000;

fn draft(number: u32) -> String {
    format!("d{number}")
}

/// A world with so many drafts, whose program writes them with one statement.
fn batch(name: &str, rows: u32) -> World {
    let mut world = single(World::new(name));
    world.set("database.batch_rows", rows);
    world.set("run.epoch_records", rows);
    world.set("run.linger_ms", 60_000);
    world.drafts((0..rows).map(draft));
    // Sequences count what is rolled back, too.
    world.database.sql(
        "CREATE SEQUENCE statements;
         CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM nextval('statements'); RETURN NULL; END $$;
         CREATE TRIGGER count BEFORE UPDATE ON event_drafts EXECUTE FUNCTION count_it()",
    );
    world
}

/// Events for all of the drafts, with the bad ones evenly spread: nothing costs more.
fn events(rows: u32, bad: u32) -> Vec<Record> {
    let events = (0..rows).map(|number| {
        let job = if is_bad(number, rows, bad) { "bad" } else { "good" };
        event(&draft(number), &format!("{job}-{number}")).on(0)
    });
    events.collect()
}

fn is_bad(number: u32, rows: u32, bad: u32) -> bool {
    // From the middle of the first part on.
    bad > 0 && number % (rows / bad) == rows / bad / 2
}

fn refuse_bad_jobs(world: &World) {
    world.database.sql(
        "ALTER TABLE event_drafts ADD CONSTRAINT no_bad_job CHECK (content_job_id NOT LIKE 'bad-%')",
    );
}

/// Proves that exactly the bad ones are dead letters, and all others applied.
fn assert_parted(world: &World, places: &[Place], bad: u32) {
    let rows = u32::try_from(places.len()).unwrap();
    let all = || (0..rows).zip(places);
    let refused: BTreeMap<Place, String> = all()
        .filter(|(number, _)| is_bad(*number, rows, bad))
        .map(|(_, place)| (*place, "database-refused".to_owned()))
        .collect();
    assert_eq!(refused.len(), usize::try_from(bad).unwrap());
    assert_eq!(world.rejects(), refused);
    let found = world.rows();
    for (number, _) in all() {
        let row = &found[&draft(number)];
        if is_bad(number, rows, bad) {
            assert!(row.is_untouched() && row.jobs().is_empty(), "{number}");
        } else {
            assert_eq!(row.images(), &images(&format!("good-{number}")));
        }
    }
    assert_eq!(world.cache.keys(), u64::from(bad), "the keys of the refused stay");
    assert_eq!(world.committed(), world.ends());
}

/// As a constraint does, but without a word about the row.
fn refuse_bad_jobs_without_a_word(world: &World) {
    world.database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'no bad job' USING ERRCODE = 'check_violation'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON event_drafts FOR EACH ROW WHEN (NEW.content_job_id LIKE 'bad-%')
         EXECUTE FUNCTION refuse()",
    );
}

/// Runs a batch with so many bad rows, and returns how many statements it took besides one.
fn extra_statements(name: &str, bad: u32, refuse: fn(&World)) -> u32 {
    let world = batch(name, ROWS);
    refuse(&world);
    let places = world.publish(events(ROWS, bad));

    let report = world.run_until_caught_up();

    let (rows, bad_rows) = (u64::from(ROWS), u64::from(bad));
    assert_eq!(report.outcomes(), [rows, rows - bad_rows, 0, 0, 0, bad_rows]);
    assert_parted(&world, &places, bad);
    let statements = world.database.number("SELECT last_value FROM statements");
    u32::try_from(statements - 1).unwrap()
}

#[test]
fn e16_one_ten_or_five_hundred_refused_rows_in_five_thousand_cost_few_statements() {
    println!("bad rows in {ROWS}   extra statements, quoted   bound   not quoted   bound");
    for bad in [0, 1, 10, 500] {
        let quoted = extra_statements(&format!("e16-{bad}"), bad, refuse_bad_jobs);
        let name = format!("e16-{bad}-unquoted");
        let unquoted = extra_statements(&name, bad, refuse_bad_jobs_without_a_word);
        // Each in what stands before it, by itself, and in what is left at last.
        let bound = 3 * bad;
        let halving =
            f64::from(bad) * (2.0 * (f64::from(ROWS) / f64::from(bad.max(1))).log2() + 2.0);
        println!("{bad:16}   {quoted:24}   {bound:5}   {unquoted:10}   {halving:5.0}");
        assert!(quoted <= bound, "{quoted} extra statements for {bad} bad rows");
        assert!(f64::from(unquoted) <= halving, "{unquoted} extra statements for {bad} bad rows");
    }
}

/// Codes that say of a statement that it can never be carried out, whatever its rows.
#[test]
fn e16_a_row_that_a_trigger_refuses_with_a_code_of_its_choice_is_one_dead_letter() {
    let world = batch("e16-codes", 20);
    world.database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             CASE NEW.event_draft_id
                 WHEN 'd3' THEN RAISE 'not now' USING ERRCODE = '55000';
                 WHEN 'd9' THEN RAISE insufficient_privilege;
                 WHEN 'd15' THEN RAISE feature_not_supported USING MESSAGE = 'no such title';
                 ELSE RETURN NEW;
             END CASE;
         END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let places = world.publish((0..20).map(|number| event(&draft(number), "job").on(0)));

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [20, 17, 0, 0, 0, 3]);
    let refused = [3, 9, 15].map(|number| (places[number], "database-refused".to_owned()));
    assert_eq!(world.rejects(), refused.into());
    assert_eq!((world.rows_with_images(), world.cache.keys()), (17, 3));
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn e3_e16_a_database_that_goes_away_in_the_middle_of_a_bisection_changes_nothing_about_it() {
    let world = batch("e3-e16", 500);
    refuse_bad_jobs(&world);
    world.slow_down(30);
    let places = world.publish(events(500, 10));
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    let mut cuts = 0;
    // Every so many statements the session is lost, until the search is over.
    eventually("it is through", || {
        let statements = world.database.number("SELECT last_value FROM statements");
        if statements > 5 * (cuts + 1) && cuts < 4 {
            cuts += u64::from(world.database.cut_sessions() > 0);
        }
        world.committed() == world.ends()
    });
    let ended = running.wait();
    assert!(cuts >= 2 && ended.err.contains("connection lost"), "{cuts} cuts: {}", ended.err);
    let report = ended.report();
    assert_eq!((report.applied + report.duplicate, report.rejected), (490, 10));
    for letter in world.dead_letters() {
        assert_eq!(letter.header("dlq.attempts"), Some("1"), "the outages are not charged");
    }
    assert_parted(&world, &places, 10);
}
