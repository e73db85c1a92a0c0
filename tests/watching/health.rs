//! Health: what is held, stuck or draining is told while it lasts, and no reason to be killed.

use serde_json::{Value, json};

use super::outcomes;
use crate::world::private::Postgres;
use crate::world::{Page, PrivateKafka, World, create_topic, delete_topic, event, eventually};

#[test]
fn a_frozen_database_is_told_while_it_lasts_and_is_no_reason_to_be_killed() {
    let server = Postgres::start();
    let mut world = World::on_postgres("frozen", &server);
    world.drafts(["d1", "d2", "d3"]);
    world.publish([event("d1", "j1")]);
    // Nobody gives it up: that it is held is seen by what is not answered.
    world.set("database.statement_timeout_ms", 60_000);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    eventually("all is through", || outcomes(&page.status())[1] == 1);
    let postgresql = |status: &Value| status["dependencies"][1].clone();
    eventually("it is up", || postgresql(&page.status())["state"] == "up");

    let frozen = server.freeze();
    world.publish([event("d2", "j2")]);
    let mut events = page.events();
    let held = events.find(|status| postgresql(status)["state"] == "held").unwrap();
    let since_s = postgresql(&held)["since_s"].as_f64().unwrap();
    assert!(since_s < 4.0, "it is told as soon as it can be known, and not after {since_s} s");
    let error = postgresql(&held)["error"].clone();
    assert!(error.as_str().unwrap().starts_with("no answer for "), "{error}");
    assert_eq!((&held["state"], &held["ready"]), (&json!("held"), &json!(false)));
    assert_eq!(held["limit"]["node"], "write", "{}", held["limit"]);
    let readyz = page.get("/readyz");
    assert_eq!(readyz.code, 503);
    assert!(readyz.body.starts_with("postgresql is held since "), "{}", readyz.body);
    assert!(
        readyz.body.ends_with(" s\n") && readyz.body.contains(": no answer for "),
        "{}",
        readyz.body
    );
    assert_eq!(page.get("/healthz").code, 200);
    assert_eq!(page.metric("contentflow_dependency_up{dependency=\"postgresql\"}"), 0.0);
    assert_eq!(page.metric("contentflow_dependency_up{dependency=\"redis\"}"), 1.0);
    assert!(page.metric("contentflow_dependency_held_seconds{dependency=\"postgresql\"}") > 2.0);

    frozen.thaw();
    let up = events.find(|status| postgresql(status)["state"] == "up").unwrap();
    assert_eq!(postgresql(&up)["error"], Value::Null);
    eventually("it is ready again", || page.get("/readyz").code == 200);
    eventually("all is through", || outcomes(&page.status())[1] == 2);
    running.stop().success();
}

#[test]
fn a_database_that_refuses_connections_is_told_with_its_words_and_the_tries() {
    let mut world = World::new("refused");
    world.drafts(["d1", "d2"]);
    let wire = world.wire_to_database();
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    wire.cut();
    world.publish([event("d1", "j1")]);
    let held = |status: &Value| status["dependencies"][1]["state"] == "held";
    let status =
        page.events().find(|it| held(it) && it["dependencies"][1]["tries"].as_u64() > Some(2));
    let dependency = &status.unwrap()["dependencies"][1];
    assert!(!dependency["error"].as_str().unwrap().is_empty(), "{dependency}");
    let retries = "contentflow_effect_retries_total{effect=\"write\",cause=\"outage\"}";
    assert!(page.metric(retries) > 2.0);
    wire.open();
    eventually("it is ready again", || page.get("/readyz").code == 200);
    eventually("all is through", || outcomes(&page.status())[1] == 1);
    running.stop().success();
}

#[test]
fn a_broker_that_hangs_is_told_and_so_is_that_it_is_back() {
    let kafka = PrivateKafka::lease();
    let world = kafka.world("broker-hangs");
    world.drafts(["d1"]);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    let kafka_of = |status: &Value| status["dependencies"][0].clone();
    assert_eq!(kafka_of(&page.status())["name"], "kafka");
    eventually("the broker is up", || kafka_of(&page.status())["state"] == "up");
    kafka.freeze();
    let held = page.events().find(|status| kafka_of(status)["state"] == "held").unwrap();
    let error = kafka_of(&held)["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("broker 127.0.0.1:"), "{error}");
    assert_eq!((held["limit"]["node"].as_str(), page.get("/readyz").code), (Some("source"), 503));
    assert_eq!(page.get("/healthz").code, 200);
    kafka.thaw();
    eventually("it is ready again", || page.get("/readyz").code == 200);
    world.publish([event("d1", "j1")]);
    eventually("all is through", || outcomes(&page.status())[1] == 1);
    running.stop().success();
}

#[test]
fn a_run_that_ends_says_that_it_drains() {
    let server = Postgres::start();
    let world = World::on_postgres("draining", &server);
    world.drafts(["d1"]);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    let frozen = server.freeze();
    world.publish([event("d1", "j1")]);
    eventually("it is read", || outcomes(&page.status())[0] == 1);
    running.terminate();
    eventually("it drains", || page.status()["state"] == "draining");
    let readyz = page.get("/readyz");
    assert!(readyz.code == 503 && readyz.body.contains("draining"), "{readyz:?}");
    assert_eq!(page.get("/healthz").code, 200);
    frozen.thaw();
    let ended = running.wait();
    assert_eq!(ended.report().applied, 1);
}

#[test]
fn a_process_for_which_the_group_has_no_partition_is_ready_all_the_same() {
    let mut world = World::new("spare");
    let topic = format!("{}-one", world.name);
    create_topic(&topic, 1, &[]);
    world.set("kafka.topic", &topic);
    world.set("dead_letters.topic", format!("{}.dlq", world.topic()));
    let (first, second) = (world.start_watched(), world.start_watched());
    let parts = |page: &Page| page.status()["partitions"].as_array().unwrap().len();
    eventually("one of them has it", || parts(&first.1) + parts(&second.1) == 1);
    for (_, page) in [&first, &second] {
        eventually("it is ready", || page.get("/readyz").code == 200);
    }
    first.0.stop().success();
    eventually("the other one has it", || parts(&second.1) == 1);
    second.0.stop().success();
    delete_topic(&topic);
}

#[test]
fn a_row_that_stays_locked_makes_it_not_ready_since_no_commit_gets_past_it() {
    let world = World::new("stuck");
    world.drafts(["d1", "d2"]);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    let other = world.database.session();
    other.sql("BEGIN");
    other.sql("UPDATE event_drafts SET updated_at = now() WHERE event_draft_id = 'd1'");
    world.publish([event("d1", "j1"), event("d2", "j2")]);
    eventually("it is stuck", || {
        page.get("/readyz").body.starts_with("stuck: the oldest epoch has been")
    });
    assert_eq!((page.get("/readyz").code, page.get("/healthz").code), (503, 200));
    let retries = "contentflow_effect_retries_total{effect=\"write\",cause=\"row\"}";
    assert!(page.metric(retries) > 0.0);
    other.sql("ROLLBACK");
    eventually("it is ready again", || page.get("/readyz").code == 200);
    assert_eq!(running.stop().report().applied, 2);
}
