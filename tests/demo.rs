//! The demonstration: it proves what it shows, and touches nothing that it has not made.

use crate::world::World;

#[test]
fn the_demo_agrees_with_what_it_generated_and_leaves_nothing_behind() {
    let mut world = World::without_table("demo");
    let topic = format!("{}-made", world.topic());
    world.set("kafka.topic", &topic);
    let shown = world.call(&["demo", "--events", "3000", "--drafts", "40"]);
    assert!(shown.success().contains("records read"), "{}", shown.out);
    assert!(
        shown.out.matches("  ok\n").count() >= 9 && !shown.out.contains("WRONG"),
        "{}",
        shown.out
    );
    assert!(
        !shown.out.contains('\u{1b}') && shown.err.is_empty(),
        "{:?} {:?}",
        shown.out,
        shown.err
    );
    assert!(shown.out.lines().all(|line| line.chars().count() <= 100), "{}", shown.out);
    assert_eq!(world.database.number("SELECT count(*) FROM event_drafts"), 0);
    assert_eq!(world.cache.keys(), 0);
    let missing = world.call(&["check"]);
    assert!(missing.out.contains(&format!("{topic} does not exist")), "{}", missing.out);
}

#[test]
fn the_demo_refuses_topics_and_rows_that_it_has_not_made() {
    let mut world = World::new("demo-refused");
    let topic = world.topic().to_owned();
    let refused = world.call(&["demo", "--events", "10"]);
    assert!(refused.failure(1).contains(&format!("the topic {topic} exists")), "{}", refused.err);

    world.drafts(["d1"]);
    world.set("kafka.topic", format!("{topic}-made"));
    let refused = world.call(&["demo", "--events", "10"]);
    assert!(refused.failure(1).contains("the table event_drafts has rows"), "{}", refused.err);
    assert_eq!(world.rows().len(), 1);
    assert!(world.row("d1").is_untouched());
    assert!(world.call(&["check"]).out.contains(&format!("{topic}-made does not exist")));
}
