//! `tune`: measures on the user's own topic and rows, and touches nothing of them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::interruptions::mixed;
use crate::world::private::signal;
use crate::world::{
    Ended, Offsets, PrivateKafka, Row, Running, World, event, eventually, meanwhile,
};

mod mistakes;

/// A grid of two points, and trials of a moment. Both points are measured whatever the clock says:
/// the budget only ends what goes on beyond that, and leaves room for slow machines.
const SMALL: [&str; 14] = [
    "tune",
    "--exhaustive",
    "--budget",
    "40",
    "--events",
    "2000",
    "--workers",
    "1,2",
    "--connections",
    "1",
    "--batch-rows",
    "300",
    "--epoch-records",
    "500",
];

fn small(flags: &[&str]) -> Vec<String> {
    [&SMALL, flags].concat().into_iter().map(str::to_owned).collect()
}

fn tune(world: &World, flags: &[&str]) -> Ended {
    let words = small(flags);
    world.call(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn start(world: &World, flags: &[&str]) -> Running {
    let words = small(flags);
    world.start(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(ended.success()).unwrap()
}

/// Tables of the database that a tune has made.
fn scratch_tables(world: &World) -> u64 {
    world.database.number("SELECT count(*) FROM pg_class WHERE relname LIKE 'contentflow\\_tune%'")
}

/// Has every row take a few milliseconds when it gets images, also in a copy of the table: a
/// trigger would stay behind.
fn slow_rows(world: &World, ms: f64) {
    world.database.sql(&format!(
        "CREATE FUNCTION slow_row(job text) RETURNS boolean LANGUAGE plpgsql AS
         $$ BEGIN IF job IS NOT NULL THEN PERFORM pg_sleep({ms} / 1000.0); END IF; RETURN true; END $$;
         ALTER TABLE event_drafts ADD CONSTRAINT slow CHECK (slow_row(content_job_id))"
    ));
}

/// Everything that must be as it was: rows with what is cached of them, and what the brokers know
/// of the group and the dead letters.
#[derive(PartialEq)]
struct Possessions {
    rows: BTreeMap<String, (Row, Option<String>)>,
    keys: u64,
    offsets: Offsets,
    dead_letters: usize,
}

impl Possessions {
    fn of(world: &World) -> Possessions {
        let rows = world.rows().into_iter().map(|(id, row)| {
            let cached = world.cached(&id);
            (id, (row, cached))
        });
        Possessions {
            rows: rows.collect(),
            keys: world.cache.keys(),
            offsets: world.committed(),
            dead_letters: world.dead_letters().len(),
        }
    }

    /// Byte for byte, xmin included.
    fn assert_untouched(&self, world: &World) {
        let now = Possessions::of(world);
        for (id, row) in &self.rows {
            assert_eq!(now.rows.get(id), Some(row), "{id}");
        }
        assert_eq!((now.keys, &now.offsets), (self.keys, &self.offsets));
        assert_eq!(now.dead_letters, self.dead_letters);
        assert!(now == *self, "a row is new");
    }
}

#[test]
fn tuning_measures_and_leaves_table_cache_group_and_dead_letters_as_they_are() {
    let world = World::new("tune");
    world.load(mixed(21, 3_000));
    world.commit(1, 3);
    // Some rows have images of an earlier life, and a memory that would make duplicates of
    // everything.
    world.run_until_caught_up();
    world.rows().keys().for_each(|id| world.cache_again(id));
    let before = Possessions::of(&world);

    let report = json(&tune(&world, &["--report", "json"]));

    before.assert_untouched(&world);
    assert_eq!(scratch_tables(&world), 0);
    assert_eq!(report["rows"], 600, "of each draft of the sample the row");
    let records = report["records"].as_u64().unwrap();
    assert!((2_000..2_004).contains(&records), "the newest of each partition: {records}");
    let measured = report["measured"].as_array().unwrap();
    let workers: Vec<u64> = measured.iter().map(|it| it["workers"].as_u64().unwrap()).collect();
    assert!(workers.contains(&1) && workers.contains(&2), "{report}");
    assert_eq!(report["unmeasured"], 0);
    for it in measured {
        let share = |stage: &str| it["busy"][stage].as_f64().unwrap();
        assert!(it["events_per_s"].as_f64().unwrap() > 0.0, "{it}");
        // All of them were at work, also in tables and caches: a sample that the row took for known
        // would write nothing.
        for stage in ["source", "decode", "exchange", "database", "cache"] {
            assert!(share(stage) > 0.0 && share(stage) <= 1.0, "{stage}: {it}");
        }
        assert_eq!(share("dead_letters"), 0.0, "they are counted, not published");
    }
    assert!(report["rejected"].as_u64().unwrap() > 0);
    assert!(measured.iter().any(|it| it["workers"] == report["chosen"]["workers"]));
}

#[test]
fn trials_write_rows_that_are_as_new_to_each_of_them() {
    let world = World::new("tune-same-work");
    world.drafts((0..500).map(|n| format!("d{n}")));
    world.publish((0..500).map(|n| event(&format!("d{n}"), &format!("job-{n}"))));
    // Written, a row counts itself elsewhere: the constraint comes along with the copy.
    world.database.sql(
        "CREATE TABLE written (n bigserial, job text, place text);
         CREATE FUNCTION note(job text) RETURNS boolean LANGUAGE plpgsql AS
         $$ BEGIN IF job IS NOT NULL THEN INSERT INTO written (job) VALUES (job); END IF; RETURN true; END $$;
         ALTER TABLE event_drafts ADD CONSTRAINT noted CHECK (note(content_job_id))",
    );
    let report = json(&tune(&world, &["--report", "json"]));
    // One to warm up.
    let trials = 1 + report["trials"].as_u64().unwrap();
    let written = world.database.number("SELECT count(*) FROM written");
    assert_eq!(written, 500 * trials, "{report}");
    assert_eq!(world.rows_with_images(), 0);
}

#[test]
fn a_slow_database_is_named_as_the_limit() {
    let world = World::new("tune-slow");
    world.load(mixed(22, 1_000));
    slow_rows(&world, 2.0);
    let ended = tune(&world, &["--seed", "5"]);
    let text = ended.success();
    assert!(text.contains("The limit: database. The "), "{text}");
    assert!(text.contains("--seed 5."), "{text}");
    assert_eq!(scratch_tables(&world), 0);
}

#[test]
fn without_effects_neither_database_nor_cache_is_needed() {
    let mut world = World::without_table("tune-no-effects");
    world.publish((0..2_000).map(|n| event(&format!("d{n}"), &format!("job-{n}"))));
    world.set("database.url", "postgres://nobody@127.0.0.1:1/nothing");
    world.set("cache.url", "redis://127.0.0.1:1/0");
    let report = json(&tune(&world, &["--effects", "none", "--report", "json"]));
    assert_eq!((&report["table"], &report["rows"]), (&Value::Null, &Value::from(0)));
    for it in report["measured"].as_array().unwrap() {
        assert_eq!(
            (&it["busy"]["database"], &it["busy"]["cache"]),
            (&Value::from(0.0), &Value::from(0.0))
        );
        assert!(it["busy"]["decode"].as_f64().unwrap() > 0.0, "{it}");
    }
    assert_eq!(world.committed(), Offsets::new());
    // With effects they are.
    let text = tune(&world, &[]);
    assert!(text.failure(75).contains("PostgreSQL cannot be reached"), "{}", text.err);
}

#[test]
fn the_chart_is_a_file_of_its_own_and_well_formed() {
    let world = World::new("tune-chart");
    world.publish((0..500).map(|n| event(&format!("d{n}"), &format!("job-{n}"))));
    for name in ["chart.svg", "page.html"] {
        tune(&world, &["--effects", "none", "--chart", name]).success();
        let text = world.file(name);
        assert_well_formed(&text);
        assert!(text.contains("events a second") && text.contains(world.topic()), "{text}");
        assert!(!text.contains("<script") && !text.contains("href="), "{text}");
    }
}

/// Every element that begins ends, in the right order; every attribute has its quotes; no `<` or
/// `&` is left over.
fn assert_well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut parts = xml.split('<');
    assert_eq!(parts.next(), Some(""), "it begins with an element");
    for part in parts {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("<{part} has no end"));
        for reference in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;"];
            assert!(known.iter().any(|it| reference.starts_with(it)), "&{reference}");
        }
        assert!(!text.contains('>'), "{text}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        match tag {
            _ if tag.starts_with('!') => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "</{name}>"),
            _ => {
                assert!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
                assert_eq!(tag.matches('=').count(), tag.matches("=\"").count(), "<{tag}>");
                if !tag.ends_with('/') {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn a_tune_that_is_stopped_clears_up_and_shows_what_it_has() {
    let world = World::new("tune-stop");
    world.load(mixed(23, 2_000));
    let before = Possessions::of(&world);
    slow_rows(&world, 2.0);
    // Enough for minutes.
    let long = "tune --exhaustive --events 2000 --budget 600 --workers 1,2 --batch-rows 100,200,300 --epoch-records 500";
    let running = world.start(&long.split(' ').collect::<Vec<_>>());
    // One of the lines that tell how far it is: two trials are over then.
    eventually("some is measured", || {
        let err = running.err();
        let trials = err.split("trial ").filter_map(|rest| rest.split(':').next()?.parse().ok());
        trials.max().is_some_and(|trial: u32| trial >= 3)
    });
    assert_eq!(scratch_tables(&world), 2 + indexes(&world));
    signal(&[running.pid()], "INT");
    let ended = running.wait();
    let text = ended.success();
    assert!(text.starts_with("Stopped after ") && text.contains("events/s"), "{text}");
    assert_eq!(scratch_tables(&world), 0);
    world.database.sql("ALTER TABLE event_drafts DROP CONSTRAINT slow");
    before.assert_untouched(&world);
}

/// Indexes are in the catalog's list of tables, too.
fn indexes(world: &World) -> u64 {
    world
        .database
        .number("SELECT count(*) FROM pg_indexes WHERE tablename LIKE 'contentflow\\_tune%'")
}

#[test]
fn what_a_killed_tune_has_left_behind_is_dropped_by_the_next_one() {
    let world = World::new("tune-kill");
    world.load(mixed(24, 2_000));
    let before = Possessions::of(&world);
    slow_rows(&world, 2.0);
    let running = start(&world, &[]);
    eventually("a trial writes", || written_in_trials(&world));
    assert!(running.kill().was_killed());
    assert!(scratch_tables(&world) > 0, "nobody was there to drop them");
    world.database.sql("ALTER TABLE event_drafts DROP CONSTRAINT slow");
    before.assert_untouched(&world);

    let next = tune(&world, &[]);
    next.success();
    assert!(
        next.err.contains("dropped what a tune that was killed had left behind"),
        "{}",
        next.err
    );
    assert_eq!(scratch_tables(&world), 0);
    before.assert_untouched(&world);
}

#[test]
fn a_database_that_goes_away_ends_the_tune_and_the_next_one_clears_up() {
    let mut world = World::new("tune-outage");
    let wire = world.wire_to_database();
    world.load(mixed(26, 2_000));
    slow_rows(&world, 2.0);
    let running = start(&world, &[]);
    eventually("a trial writes", || written_in_trials(&world));
    wire.cut();
    let ended = running.wait();
    let text = ended.failure(75);
    // Cut off in a trial, or between two.
    assert!(text.contains("is left behind") && !text.contains("--effects none"), "{text}");
    assert!(scratch_tables(&world) > 0);
    wire.open();
    world.database.sql("ALTER TABLE event_drafts DROP CONSTRAINT slow");
    tune(&world, &[]).success();
    assert_eq!(scratch_tables(&world), 0);
}

#[test]
fn brokers_that_go_away_end_the_tune() {
    let kafka = PrivateKafka::lease();
    let world = kafka.world("tune-no-kafka");
    world.load(mixed(27, 2_000));
    slow_rows(&world, 1.0);
    let running = start(&world, &[]);
    eventually("a trial writes", || written_in_trials(&world));
    kafka.kill();
    let ended = running.wait();
    let text = ended.failure(75);
    assert!(text.contains("kafka is out"), "{text}");
    assert_eq!(scratch_tables(&world), 0);
    // The world's topics are to be deleted.
    kafka.restart();
}

/// Whether a trial has written rows, as the server counts them a moment later.
fn written_in_trials(world: &World) -> bool {
    let rows = "SELECT coalesce(sum(n_tup_upd), 0) FROM pg_stat_all_tables WHERE relname LIKE 'contentflow\\_tune%'";
    world.database.number(rows) > 0
}

#[test]
fn a_tune_beside_a_run_takes_nothing_from_it() {
    let world = World::new("tune-beside");
    let load = world.load(mixed(25, 3_000));
    let consumer = world.start_run();
    let tuning = start(&world, &["--report", "json"]);
    eventually("the run is through", || world.committed() == world.ends());
    json(&tuning.wait());
    meanwhile("it stays", || world.committed() == world.ends());
    let report = consumer.stop().report();
    assert_eq!(report.read, 3_000, "all of it came to the run");
    world.assert_done(&load);
    assert_eq!(scratch_tables(&world), 0);
}
