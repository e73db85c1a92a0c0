//! Drafts: read through the cache with the lease, created, listed.

use contentflow::drafts::{self, DraftError, Rows, Source};
use contentflow::generate::DraftIds;
use contentflow::lease::lease_key;
use contentflow::migrate;
use redis::AsyncCommands;

use crate::support::{Corner, output, sql};

fn prepared(name: &str, id_type: &str) -> Corner {
    let corner = Corner::new(name, 1);
    let table = corner.config.database.table.sql();
    let create = format!(
        "CREATE TABLE {table} (event_draft_id {id_type} PRIMARY KEY, title text, content_images jsonb, \
         updated_at timestamptz NOT NULL DEFAULT now())"
    );
    corner.runtime.block_on(async {
        sql(&corner.config, &create).await;
        migrate::run(&corner.config, &mut Vec::new()).await.unwrap();
    });
    corner
}

#[test]
fn a_draft_comes_from_its_row_once_and_then_from_the_cache() {
    for (id_type, id, canonical) in [
        ("text", "Party 1", "Party 1"),
        ("varchar(40)", "ü", "ü"),
        ("uuid", "0188A0F0-1111-4222-8333-ABCDEFABCDEF", "0188a0f0-1111-4222-8333-abcdefabcdef"),
        ("bigint", "0042", "42"),
        ("integer", "7", "7"),
    ] {
        let corner = prepared("read", id_type);
        let config = &corner.config;
        corner.runtime.block_on(async {
            assert_eq!(
                drafts::create(config, id, Some(r#"{"title":"Sommerfest"}"#)).await.unwrap(),
                canonical
            );
            let (first, source) = drafts::read(config, id).await.unwrap();
            assert_eq!(source, Source::DatabaseAndFilled, "{id_type}");
            let json: serde_json::Value = serde_json::from_str(&first).unwrap();
            let mut columns: Vec<&String> = json.as_object().unwrap().keys().collect();
            columns.sort();
            assert_eq!(columns, ["content_images", "event_draft_id", "title", "updated_at"]);
            assert_eq!(json["title"], "Sommerfest");
            assert_eq!(drafts::read(config, id).await.unwrap(), (first.clone(), Source::Cache));

            let mut redis = contentflow::redis::connect(&config.cache).await.unwrap();
            let key = config.cache.key.key(canonical);
            let ttl: u64 = redis.ttl(&key).await.unwrap();
            assert!((604_700..=604_800).contains(&ttl), "{ttl} s");
            assert!(
                !redis.exists::<_, bool>(lease_key(&key)).await.unwrap(),
                "the lease is given back"
            );
        });
    }
}

#[test]
fn a_fill_that_began_before_a_write_never_lands_after_it() {
    let corner = prepared("lease", "text");
    let config = &corner.config;
    corner.runtime.block_on(async {
        drafts::create(config, "d", None).await.unwrap();
        let mut redis = contentflow::redis::connect(&config.cache).await.unwrap();
        let key = config.cache.key.key("d");
        // The row is locked away from the reader, which holds its lease meanwhile; the writer
        // deletes both.
        let mut writer = contentflow::postgres::connect(&config.database).await.unwrap();
        let table = config.database.table.sql();
        let transaction = writer.transaction().await.unwrap();
        transaction
            .batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            .await
            .unwrap();
        let reader = async {
            let rows = drafts::read(config, "d").await.unwrap();
            assert_eq!(rows.1, Source::Database, "the lease was gone");
        };
        let writer = async {
            while !redis.exists::<_, bool>(lease_key(&key)).await.unwrap() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            transaction.batch_execute(&format!("UPDATE {table} SET title = 'new'")).await.unwrap();
            let _: u64 = redis.del(&[lease_key(&key), key.clone()]).await.unwrap();
            transaction.commit().await.unwrap();
        };
        tokio::join!(reader, writer);
        let mut redis = contentflow::redis::connect(&config.cache).await.unwrap();
        assert!(!redis.exists::<_, bool>(&key).await.unwrap());
    });
}

#[test]
fn a_reader_without_the_lease_answers_and_stores_nothing() {
    let corner = prepared("nolease", "text");
    let config = &corner.config;
    corner.runtime.block_on(async {
        drafts::create(config, "d", None).await.unwrap();
        let mut redis = contentflow::redis::connect(&config.cache).await.unwrap();
        let key = config.cache.key.key("d");
        let _: () = redis.set_ex(lease_key(&key), "somebody else's", 3).await.unwrap();
        assert_eq!(drafts::read(config, "d").await.unwrap().1, Source::Database);
        assert!(!redis.exists::<_, bool>(&key).await.unwrap());
    });
}

#[test]
fn without_a_cache_the_row_answers_and_nothing_is_created() {
    let corner = prepared("nocache", "text");
    let mut config = corner.config.clone();
    config.cache.url = contentflow::config::Secret::new("redis://127.0.0.1:1/0");
    corner.runtime.block_on(async {
        let created = drafts::create(&config, "d", None).await;
        assert!(matches!(created, Err(DraftError::Cache(_))), "{created:?}");
        drafts::create(&corner.config, "d", None).await.expect("it was not there yet");
        assert_eq!(drafts::read(&config, "d").await.unwrap().1, Source::Database);
    });
}

#[test]
fn mistakes_are_named() {
    let corner = prepared("mistakes", "uuid");
    let config = &corner.config;
    let id = "0188a0f0-1111-4222-8333-abcdefabcdef";
    corner.runtime.block_on(async {
        let message = |error: DraftError| error.to_string();
        let create = async |id, data| drafts::create(config, id, data).await.unwrap_err();
        assert!(message(drafts::read(config, id).await.unwrap_err()).contains("there is no draft"));
        assert!(message(create("nonsense", None).await).contains("event_draft_id is uuid"));
        drafts::create(config, id, None).await.unwrap();
        assert!(message(create(id, None).await).contains("exists already"));
        assert!(message(create(id, Some("[]")).await).contains("not a JSON object"));
        assert!(message(create(id, Some("{")).await).contains("not JSON"));
        assert!(message(create(id, Some(r#"{"tittle":1}"#)).await).contains("\"tittle\""));
        assert!(
            message(create(id, Some(r#"{"content_job_id":"j"}"#)).await)
                .contains("belongs to contentflow")
        );
        let mut elsewhere = config.clone();
        elsewhere.database.table = contentflow::config::TableName::parse("nowhere.at_all").unwrap();
        assert!(
            message(drafts::read(&elsewhere, id).await.unwrap_err()).contains("does not exist")
        );
    });
}

#[test]
fn generated_drafts_fit_the_column_and_are_made_once() {
    for (id_type, draft_ids) in
        [("text", DraftIds::Text), ("bigint", DraftIds::Number), ("uuid", DraftIds::Uuid)]
    {
        let corner = prepared("many", id_type);
        let config = &corner.config;
        corner.runtime.block_on(async {
            let rows = Rows::connect(&config.database).await.unwrap();
            assert_eq!(rows.draft_ids(), draft_ids);
            assert_eq!(rows.create_generated(12, draft_ids, |_| ()).await.unwrap(), 12);
            assert_eq!(rows.create_generated(15, draft_ids, |_| ()).await.unwrap(), 3);
            for number in [1, 12, 15] {
                drafts::read(config, &draft_ids.id(number)).await.unwrap();
            }
        });
    }
}

#[test]
fn a_list_shows_the_newest_first_and_ids_on_one_line() {
    let corner = prepared("list", "text");
    let config = &corner.config;
    let table = config.database.table.sql();
    corner.runtime.block_on(async {
        drafts::create(config, "old", Some(r#"{"updated_at":"2020-01-01","content_images":{}}"#))
            .await
            .unwrap();
        let insert = "(event_draft_id) VALUES (E'a\\x1b[2J\\nb')";
        sql(config, &format!("INSERT INTO {table} {insert}")).await;
        let mut out = Vec::new();
        drafts::list(config, 5, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("a\\u{1b}[2J\\nb  no      20"), "{text}");
        assert!(lines[2].starts_with("old            yes     2020-01-01"), "{text}");
        assert_eq!(lines.len(), 3);
        sql(config, &format!("DROP TABLE {table}")).await;
    });
    let (result, text) = output(|out| corner.runtime.block_on(drafts::get(config, "old", out)));
    assert!(result.is_err() && text.is_empty());
}
