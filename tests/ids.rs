//! Draft ids in columns of every type: one draft, one spelling, one cache key.

use serde_json::{Value, json};

use crate::world::{World, body, images, record};

struct Case {
    name: &'static str,
    id_type: &'static str,
    /// An id as an event spells it, and as the column does.
    valid: Vec<(Value, &'static str)>,
    invalid: Vec<Value>,
}

fn check(case: Case) {
    let Case { name, id_type, valid, invalid } = case;
    let table = format!(
        "CREATE TABLE event_drafts (event_draft_id {id_type} PRIMARY KEY, content_images jsonb,
         updated_at timestamptz NOT NULL DEFAULT now())"
    );
    let world = World::with_table(name, &table);
    world.drafts(valid.iter().map(|(_, canonical)| *canonical));
    let spelt = |id: &Value, job: &str| {
        let mut event = body("", job);
        event["eventDraftId"] = id.clone();
        record(event.to_string())
    };
    let job = |canonical: &str| format!("job-of-{}", canonical.replace('é', "e").trim());
    world.publish(valid.iter().map(|(id, canonical)| spelt(id, &job(canonical))));
    world.publish(invalid.iter().map(|id| spelt(id, "invalid")));
    // The same job in the column's own spelling: it is the same draft, and so a duplicate.
    world.publish(
        valid.iter().map(|(_, canonical)| spelt(&json!(canonical), &job(canonical)).at(1)),
    );

    let report = world.run_until_caught_up();

    let [good, bad] = [valid.len(), invalid.len()].map(|count| u64::try_from(count).unwrap());
    assert_eq!(report.outcomes(), [2 * good + bad, good, good, 0, 0, bad], "{name}");
    assert_eq!(report.rejected_by_reason, [("invalid-draft-id".to_owned(), bad)].into(), "{name}");
    let rows = world.rows();
    for (id, canonical) in &valid {
        assert_eq!(rows[*canonical].images(), &images(&job(canonical)), "{name}: {id}");
    }
    assert_eq!(world.cache.keys(), 0, "{name}: every key was spelt as the column spells it");
    assert_eq!(world.dead_letters().len(), invalid.len());
}

#[test]
fn a_uuid_is_taken_in_any_form_that_postgresql_reads() {
    check(Case {
        name: "uuid",
        id_type: "uuid",
        valid: vec![
            (
                json!("{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"),
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ),
            (json!("a0eebc999c0b4ef8bb6d6bb9bd380a12"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"),
            (json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13"),
        ],
        invalid: vec![json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"), json!(7), json!("draft-1")],
    });
}

#[test]
fn a_bigint_may_be_a_number_or_its_text() {
    check(Case {
        name: "bigint",
        id_type: "bigint",
        valid: vec![
            (json!(7), "7"),
            (json!("0042"), "42"),
            (json!("-9223372036854775808"), "-9223372036854775808"),
            (json!(9_223_372_036_854_775_807_i64), "9223372036854775807"),
        ],
        invalid: vec![json!("9223372036854775808"), json!("1e3"), json!("draft-1"), json!(" 7")],
    });
}

#[test]
fn an_integer_ends_at_32_bits() {
    check(Case {
        name: "integer",
        id_type: "integer",
        valid: vec![(json!(2_147_483_647), "2147483647"), (json!("-001"), "-1")],
        invalid: vec![json!(2_147_483_648_i64), json!("x")],
    });
}

#[test]
fn a_varchar_counts_characters_and_not_bytes() {
    check(Case {
        name: "varchar",
        id_type: "varchar(5)",
        valid: vec![(json!("abcde"), "abcde"), (json!("ééééé"), "ééééé"), (json!(" a "), " a ")],
        invalid: vec![json!("abcdef"), json!("éééééé"), json!(123_456)],
    });
}

#[test]
fn a_column_whose_collation_takes_different_ids_for_one_is_refused() {
    let world = World::with_table(
        "collation",
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE event_drafts (event_draft_id varchar(20) COLLATE ci PRIMARY KEY, content_images jsonb,
         updated_at timestamptz NOT NULL DEFAULT now())",
    );
    let remedy = "ALTER COLUMN event_draft_id TYPE character varying(20) COLLATE \"C\"";
    let folds = "has a nondeterministic collation";
    let run = world.call(&["run", "--until-caught-up"]);
    assert!(run.failure(1).contains(folds) && run.err.contains(remedy), "{}", run.err);
    let check = world.call(&["check"]);
    assert_eq!(check.code(), Some(1));
    assert!(check.out.contains(folds) && check.out.contains(remedy), "{}", check.out);
    let replay = world.call(&["replay"]);
    assert!(replay.failure(1).contains(folds), "{}", replay.err);
    world.database.sql(&format!("ALTER TABLE event_drafts {remedy}"));
    world.run_until_caught_up();
}
