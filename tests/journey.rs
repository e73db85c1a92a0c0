//! The journey of an event: into its row, out of the cache, and committed.

use serde_json::{Value, json};

use crate::world::{Record, World, body, event, images, record};

#[test]
fn an_event_updates_its_row_and_deletes_its_key_and_its_offset_is_committed() {
    let world = World::new("journey");
    world.drafts(["d1", "d2", "d3"]);
    let before = world.rows();
    world.publish([event("d1", "job-1").on(2), event("d3", "job-3").on(0)]);

    let ended = world.start(&["run", "--until-caught-up", "--report", "json"]).wait();

    let report = ended.report();
    assert_eq!(report.outcomes(), [2, 2, 0, 0, 0, 0]);
    assert_eq!((report.deletes, report.keys_deleted, report.workers), (2, 2, 2));
    assert!(report.elapsed_s > 0.0 && report.records_per_s > 0.0);
    assert_eq!(report.read_to(), [(0, 1), (2, 1)].into());
    let after = world.rows();
    for (draft, job) in [("d1", "job-1"), ("d3", "job-3")] {
        assert_eq!(after[draft].images(), &images(job));
        assert_eq!(after[draft].job(), Some(job));
        assert!(after[draft].updated_at() > before[draft].updated_at());
        assert_eq!(world.cached(draft), None);
    }
    assert_eq!(after["d2"], before["d2"], "nobody has touched the other row");
    assert_eq!(world.cached("d2").as_deref(), Some("cached d2"));
    assert_eq!(world.committed(), [(0, 1), (2, 1)].into());
    assert!(world.dead_letters().is_empty());
    let alarming = ["WARN", "ERROR"].into_iter().find(|level| ended.err.contains(level));
    assert_eq!(alarming, None, "a run in which all goes well is calm: {}", ended.err);

    // There is nothing left to do for the next run.
    let report = world.run_until_caught_up();
    assert_eq!(report.outcomes(), [0; 6]);
    assert_eq!(report.partitions, []);
}

fn with_fields(draft: &str, fields: &[(&str, Value)]) -> Value {
    let mut event = body(draft, &format!("job-of-{draft}"));
    for (name, value) in fields {
        event[name] = value.clone();
    }
    event
}

#[test]
fn an_event_may_take_any_of_its_forms() {
    let world = World::new("forms");
    let ours = json!("ContentCreated");
    let array = |job: &str| {
        let images = images(job);
        let element = |style: &str| json!({ "style": style, "url": images[style], "alt": "?" });
        json!([element("trendy"), element("simple"), element("fancy")])
    };
    let forms: Vec<(&str, Value)> = vec![
        ("plain", with_fields("plain", &[])),
        ("typed", with_fields("typed", &[("eventType", ours.clone())])),
        (
            "cloud-event",
            json!({ "specversion": "1.0", "type": ours, "data": with_fields("cloud-event", &[]) }),
        ),
        (
            "outbox",
            json!({ "schema": null, "payload": with_fields("outbox", &[("eventType", ours)]) }),
        ),
        ("array", with_fields("array", &[("imageUrls", array("job-of-array"))])),
        (
            "array-in-data",
            json!({ "data": with_fields("array-in-data", &[("imageUrls", array("job-of-array-in-data"))]) }),
        ),
        (
            "unknown-fields",
            with_fields(
                "unknown-fields",
                &[("createdBy", json!({ "id": [1, 2.5, null] })), ("", json!(true))],
            ),
        ),
        ("4711", with_fields("4711", &[("eventDraftId", json!(4711))])),
    ];
    let as_is = |value: &Value| record(value.to_string());
    let mut events: Vec<Record> = forms.iter().map(|(_, value)| as_is(value)).collect();
    // The header decides, whatever the body says.
    let misleading = with_fields("by-header", &[("eventType", json!("DraftDeleted"))]);
    events.push(as_is(&misleading).with("eventType", "ContentCreated"));
    let misleading = with_fields("by-ce-header", &[("type", json!("DraftDeleted"))]);
    events.push(
        as_is(&misleading).with("ce_type", "ContentCreated").with("eventType", "DraftDeleted"),
    );
    // One that says nothing leaves the word to the next.
    events.push(
        event("empty-header", "job-of-empty-header").with("ce_type", "").with_null("eventType"),
    );
    let drafts: Vec<&str> = forms
        .iter()
        .map(|(draft, _)| *draft)
        .chain(["by-header", "by-ce-header", "empty-header"])
        .collect();
    world.drafts(&drafts);
    world.publish(events);

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [11, 11, 0, 0, 0, 0]);
    let rows = world.rows();
    for draft in drafts {
        assert_eq!(rows[draft].images(), &images(&format!("job-of-{draft}")), "{draft}");
    }
}

#[test]
fn an_event_of_another_type_is_skipped_and_harms_nothing() {
    let world = World::new("foreign");
    world.drafts(["d1", "d2"]);
    let before = world.rows();
    let typed =
        |name: &str| record(with_fields("d1", &[(name, json!("DraftDeleted"))]).to_string());
    world.publish([
        event("d1", "a").with("eventType", "DraftDeleted"),
        event("d1", "b").with("ce_type", "com.example.DraftDeleted"),
        typed("eventType"),
        typed("type"),
        record(
            json!({ "data": with_fields("d1", &[("eventType", json!("contentcreated"))]) })
                .to_string(),
        ),
        // The type decides before anything else is looked at.
        record("not JSON at all").with("eventType", "DraftDeleted"),
        event("d2", "job-2"),
    ]);

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [7, 1, 0, 0, 6, 0]);
    assert_eq!(report.deletes, 1);
    assert_eq!(world.row("d1"), before["d1"]);
    assert_eq!(world.cached("d1").as_deref(), Some("cached d1"));
    assert_eq!(world.row("d2").images(), &images("job-2"));
    assert!(world.dead_letters().is_empty());
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn urls_and_ids_are_stored_as_they_came() {
    let world = World::new("verbatim");
    let id = "a draft's \"id\" \\ with {all} 'quotes', 100 % %41 $1 ü 🎉";
    let job = "job \\ \"1\" {,} NULL 'x'";
    world.drafts([id]);
    let urls = json!({
        "simple": "HTTPS://CDN.Example.com:443/%7ea/../b.png?sig=%2F&x=1'2#f",
        "fancy": "http://[2001:db8::1]:8080/",
        "trendy": "https://cdn.example.com",
    });
    let value = json!({ "jobId": job, "eventDraftId": id, "imageUrls": urls });
    world.publish([record(value.to_string()).at(1)]);
    // The second one finds the row by its memory, which goes through other statements.
    world.publish([record(value.to_string()).at(2)]);

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [2, 1, 1, 0, 0, 0]);
    let row = world.row(id);
    assert_eq!(row.images(), &urls);
    assert_eq!(row.jobs(), [job]);
    assert_eq!(world.cached(id), None);
    let newer = json!({ "jobId": "2", "eventDraftId": id, "imageUrls": images("2") });
    world.publish([record(value.to_string()).at(3), record(newer.to_string()).at(4)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [2, 1, 1, 0, 0, 0]);
    assert_eq!(world.row(id).jobs(), ["2", job]);
}

/// A session whose first statements have a row each would have all others planned anew, too.
#[test]
fn no_statement_is_planned_for_one_execution() {
    let world = World::new("plans");
    world.drafts(["d1", "d2"]);
    world.database.sql(
        "CREATE TABLE plans (executed bigint, planned bigint);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO plans SELECT sum(generic_plans + custom_plans), sum(custom_plans) FROM pg_prepared_statements;
             RETURN NULL;
         END $$;
         CREATE TRIGGER note AFTER UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION note()",
    );
    world.publish([event("d1", "job-1"), event("d2", "job-2")]);
    assert_eq!(world.run_until_caught_up().outcomes(), [2, 2, 0, 0, 0, 0]);
    // Two for one draft, and a duplicate: the other statements have their turn.
    world.publish([event("d1", "job-3"), event("d1", "job-4"), event("d2", "job-2")]);
    assert_eq!(world.run_until_caught_up().read, 3);
    assert!(world.database.number("SELECT min(executed) FROM plans") >= 1);
    assert_eq!(world.database.number("SELECT max(planned) FROM plans"), 0);
}
