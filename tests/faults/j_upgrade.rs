//! Two versions of the program on one table, while one replaces the other.
//!
//! There is only this version. What it meets when a newer one has been there is put in by hand:
//! columns that it does not know, and a migration that it does not have.

use crate::world::{World, event, eventually, images};

use super::stores::{connected, through};

/// What a newer version does to the table.
fn migrate_to_newer(world: &World) {
    world.database.sql(
        "ALTER TABLE event_drafts ADD COLUMN content_newer text, ADD COLUMN content_newest bigint NOT NULL DEFAULT 7;
         INSERT INTO contentflow_migrations_event_drafts (version, name, applied_on, checksum)
         SELECT version + 1, 'newer', applied_on, checksum FROM contentflow_migrations_event_drafts
         ORDER BY version DESC LIMIT 1",
    );
}

/// The columns of the table, and its list of migrations.
fn schema(world: &World) -> [Vec<Vec<Option<String>>>; 2] {
    [
        world.database.sql(
            "SELECT attname, atttypid::regtype, attnotnull FROM pg_attribute
             WHERE attrelid = 'event_drafts'::regclass ORDER BY attnum",
        ),
        world.database.sql("SELECT * FROM contentflow_migrations_event_drafts ORDER BY version"),
    ]
}

#[test]
fn j11_a_table_that_a_newer_version_has_migrated_is_served_and_left_as_it_is() {
    let world = World::new("j11");
    let drafts = ["d1", "d2", "d3"];
    let running = connected(&world);
    world.drafts(drafts);

    // Under the running program, which goes on.
    migrate_to_newer(&world);
    let newer = schema(&world);
    world
        .database
        .sql("UPDATE event_drafts SET content_newer = 'by the newer one', content_newest = 8");
    world.publish(drafts.map(|draft| event(draft, "job-1").at(1).on(0)));
    eventually("the same process goes on", || world.committed() == through(4));
    running.stop().success();

    // Back: the older one is started on the newer table. Whoever deploys it migrates first.
    let migrated = world.call(&["migrate"]);
    let told = migrated.success();
    assert!(told.contains("nothing to do") && told.contains("V4 of a newer contentflow"), "{told}");
    let status = world.call(&["migrate", "--status"]);
    assert!(status.success().contains("V4 of a newer contentflow"), "{}", status.out);
    assert_eq!(schema(&world), newer);
    world.call(&["check"]).success();
    world.publish(drafts.map(|draft| event(draft, "job-2").at(2).on(0)));
    assert_eq!(world.run_until_caught_up().outcomes(), [3, 3, 0, 0, 0, 0]);
    // The newest is refused for its time alone: rows are judged, too, not only updated.
    world.publish([event("d1", "job-0").at(0).on(0), event("d1", "job-1").at(3).on(0)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [2, 0, 1, 1, 0, 0]);
    world.call(&["replay"]).success();
    world.call(&["verify"]).success();

    for row in drafts.map(|draft| world.row(draft)) {
        assert_eq!(row.images(), &images("job-2"));
        assert_eq!(row.columns["content_newer"], "by the newer one");
        assert_eq!(row.columns["content_newest"], 8);
    }
    assert!(world.dead_letters().is_empty());
    assert_eq!(schema(&world), newer);
}
