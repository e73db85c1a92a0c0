//! Schema and rights change under a running program: that is for a person to mend, and no fault of
//! any event.

use crate::world::{World, event, eventually, meanwhile};

use super::stores::{connected, held, resumes, single, through};

#[test]
fn e15_a_changed_schema_or_a_revoked_right_is_held_and_resumed_once_it_is_mended() {
    let role = format!("writer_{:08x}", fastrand::u32(..));
    let grant = format!("GRANT SELECT, UPDATE ON event_drafts TO {role}");
    let revoke = format!("REVOKE UPDATE ON event_drafts FROM {role}");
    let mut world = single(World::new("e15"));
    world.database.sql(&format!("CREATE ROLE {role} LOGIN"));
    world.database.sql(&grant);
    let (_, address) = world.database.url.split_once('@').expect("the stack's URL has a user");
    world.set("database.url", format!("postgres://{role}@{address}"));
    let faults = [
        ("42501", revoke.as_str(), grant.as_str()),
        (
            "42P01",
            "ALTER TABLE event_drafts RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO event_drafts",
        ),
        (
            "42703",
            "ALTER TABLE event_drafts RENAME COLUMN content_older_jobs TO elsewhere",
            "ALTER TABLE event_drafts RENAME COLUMN elsewhere TO content_older_jobs",
        ),
    ];
    let running = connected(&world);
    for (done, (code, break_it, mend_it)) in (1..).zip(faults) {
        let draft = format!("draft-{code}");
        world.drafts([&draft]);
        world.database.sql(break_it);
        world.publish([event(&draft, "job").on(0)]);
        held(&running, code);
        meanwhile("nothing is committed", || world.committed() == through(done));
        world.database.sql(mend_it);
        eventually("it has resumed", || world.committed() == through(done + 1));
    }
    let drafts = faults.map(|(code, ..)| format!("draft-{code}"));
    let drafts: Vec<_> = drafts.iter().map(|draft| (draft.as_str(), "job")).collect();
    resumes(&world, running, &drafts, drafts.len());
    world.database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
