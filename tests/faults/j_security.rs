//! Encryption that is asked for is had or refused, and the rights that the documentation asks for
//! are enough.

use std::path::Path;
use std::process::Command;

use crate::interruptions::mixed;
use crate::world::private::{Postgres, Redis};
use crate::world::{PrivateKafka, SECRET, World, certificates, event, eventually, record};

/// Has the server use that certificate for new connections.
fn serve(server: &Postgres, world: &World, certificates: &Path, name: &str) {
    for extension in ["crt", "key"] {
        let file = certificates.join(format!("{name}.{extension}"));
        server.give(&file, &format!("server.{extension}"));
    }
    world.database.sql("ALTER SYSTEM SET ssl = on");
    world.database.sql("SELECT pg_reload_conf()");
}

#[test]
fn j5_postgresql_is_spoken_to_as_safely_as_its_url_asks_or_not_at_all() {
    let (server, certificates) = (Postgres::start(), certificates());
    let mut world = World::on_postgres("j5", &server);
    let url = world.database.url.clone();
    let roots = format!("&sslrootcert={}", certificates.path().join("ca.crt").display());
    // What was asked for, and how the line of `check` about the database begins.
    let mut check = |served: &str, query: &str, expected: &str| {
        world.set("database.url", format!("{url}?{query}"));
        let ended = world.call(&["check"]);
        let line = ended.out.lines().find(|line| line.contains(" database ")).unwrap_or_default();
        assert!(line.starts_with(expected), "{served}, {query}: {}", ended.out);
        if expected == "FAIL" {
            assert!(line.contains("no TLS with PostgreSQL"), "{served}, {query}: {line}");
            assert_eq!(world.call(&["run", "--until-caught-up"]).code(), Some(1));
        }
    };
    // No silent plain text.
    for mode in ["require", "verify-ca", "verify-full"] {
        check("no certificate", &format!("sslmode={mode}"), "FAIL");
    }
    check("no certificate", "sslmode=prefer", "ok");
    let with_roots = |mode: &str| format!("sslmode={mode}{roots}");
    let cases = [
        // The certificate, then verify-full, verify-ca and require, each with its authority; and
        // require with none.
        ("good", ["ok", "ok", "ok", "ok"]),
        ("other", ["FAIL", "ok", "ok", "ok"]),
        ("expired", ["FAIL", "FAIL", "FAIL", "ok"]),
    ];
    for (name, [full, chain, require, alone]) in cases {
        let plain = World::on_postgres("j5-serve", &server);
        serve(&server, &plain, certificates.path(), name);
        eventually("the certificate is served", || {
            let shown = Command::new("openssl")
                .args(["s_client", "-starttls", "postgres", "-connect"])
                .arg(server.url.split('@').nth(1).unwrap().split('/').next().unwrap())
                .stdin(std::process::Stdio::null())
                .output()
                .unwrap();
            String::from_utf8_lossy(&shown.stdout).contains(&format!("CN = {name}"))
        });
        check(name, &with_roots("verify-full"), full);
        check(name, &with_roots("verify-ca"), chain);
        check(name, &with_roots("require"), require);
        check(name, "sslmode=require", alone);
        // An authority that no browser knows.
        check(name, "sslmode=verify-full", "FAIL");
        check(name, "sslmode=verify-ca", "FAIL");
    }
}

#[test]
fn j5_redis_is_never_spoken_to_in_plain_text_where_tls_is_asked_for() {
    let certificates = certificates();
    let server = Redis::start_encrypted(certificates.path(), &[]);
    let port = server.secure_port();
    let mut world = World::on_redis("j5-redis", &server);
    world.set("cache.timeout_ms", 1_000);
    let plain = server.url.replace("redis://", "rediss://");
    let encrypted = format!("rediss://127.0.0.1:{port}");
    // A port that speaks no TLS says nothing to who does; an authority that no browser knows is
    // refused. Silence may be an outage; a refusal needs a person.
    let cluster = encrypted.replace("rediss:", "rediss+cluster:");
    let sentinel = encrypted.replace("rediss:", "rediss+sentinel:") + "/master";
    for (url, why, code) in [
        (&plain, "rediss:// if it speaks TLS there", 75),
        (&encrypted, "no TLS with Redis", 1),
        (&cluster, "no TLS with Redis", 1),
        (&sentinel, "no TLS with Redis", 1),
    ] {
        world.set("cache.url", url);
        let ended = world.call(&["check"]);
        let line = ended.out.lines().find(|line| line.contains(" cache ")).unwrap_or_default();
        assert!(line.starts_with("FAIL") && line.contains(why), "{url}: {}", ended.out);
        assert_eq!(world.call(&["run", "--until-caught-up"]).code(), Some(code), "{url}");
    }
    // Nor is there a way to trust anybody.
    world.set("cache.url", format!("{encrypted}/#insecure"));
    let refused = world.call(&["run", "--until-caught-up"]);
    assert!(
        refused.failure(1).contains("cache.url cannot create insecure client"),
        "{}",
        refused.err
    );
}

#[test]
fn j6_the_least_rights_are_enough_for_a_whole_load() {
    let server = Redis::start();
    let role = format!("least_{:08x}", fastrand::u32(..));
    let mut world = World::on_redis("j6", &server);
    world.set("run.retry_backoff_ms", 5);
    let written = "content_images, updated_at, content_job_id, content_event_at, content_event_offset, \
                   content_event_partition, content_older_jobs, content_older_positions";
    world.database.sql(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT SELECT (event_draft_id, {written}), UPDATE ({written}) ON event_drafts TO {role}"
    ));
    server.tell("ACL SETUSER least on >secret ~event:draft:* ~{event:draft:* +del +select +ping");
    let (_, address) = world.database.url.split_once('@').expect("the stack's URL has a user");
    world.set("database.url", format!("postgres://{role}@{address}"));
    let (_, address) = world.cache.url.split_once("://").unwrap();
    world.set("cache.url", format!("redis://least:secret@{address}"));

    world.call(&["check"]).success();
    let load = world.load(mixed(6, 4_000));
    let report = world.run_until_caught_up();
    assert_eq!(report.read, load.events());
    assert!(report.duplicate > 0 && report.superseded > 0 && report.rejected > 0, "{report:?}");
    world.assert_done(&load);

    // Whoever reads whole rows needs more, and says what.
    world.set("cache.url", server.url.clone());
    world.empty_cache();
    for reads in [&["verify"][..], &["draft", "get", "draft-0000001"]] {
        let refused = world.call(reads);
        let error = refused.failure(1);
        assert!(error.contains("hint: ") && error.contains("GRANT SELECT"), "{reads:?}: {error}");
        assert!(!error.contains("contentflow check"), "{reads:?}: {error}");
    }

    // And they are the least: without one of them it does not start.
    world.database.sql(&format!("REVOKE UPDATE (updated_at) ON event_drafts FROM {role}"));
    let refused = world.call(&["run", "--until-caught-up"]);
    assert!(refused.failure(1).contains("UPDATE (updated_at)"), "{}", refused.err);
    world.database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn j6_a_comparison_and_a_dry_run_need_no_right_to_write() {
    let server = Redis::start();
    let role = format!("reader_{:08x}", fastrand::u32(..));
    let mut world = World::on_redis("j6-reads", &server);
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);
    world.run_until_caught_up();
    world.call(&["draft", "get", "d1"]).success();
    world.database.sql(&format!(
        "CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET default_transaction_read_only = on;
         GRANT SELECT ON event_drafts TO {role}"
    ));
    server.tell("ACL SETUSER reader on >secret ~event:draft:* +get +scan +select +ping");
    let (_, address) = world.database.url.split_once('@').expect("the stack's URL has a user");
    world.set("database.url", format!("postgres://{role}@{address}"));
    let (_, address) = world.cache.url.split_once("://").unwrap();
    world.set("cache.url", format!("redis://reader:secret@{address}"));

    world.call(&["verify"]).success();
    let dry = world.call(&["replay", "--dry-run"]);
    assert!(dry.success().contains("read"), "{}", dry.out);
    // What would write says at once what it lacks.
    for writes in [&["verify", "--repair"][..], &["replay"], &["run", "--until-caught-up"]] {
        let refused = world.call(writes);
        let error = refused.failure(1);
        assert!(error.contains("UPDATE") || error.contains("read-only"), "{writes:?}: {error}");
    }
    world.database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// What the program is told to speak TLS with, and who it is.
fn speak_tls(world: &mut World, kafka: &PrivateKafka) {
    let ca = kafka.authority();
    world.set("kafka.brokers", &kafka.secure_address);
    for (name, value) in [
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", &ca),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "app"),
        ("sasl.password", SECRET),
    ] {
        world.set(&format!("kafka.properties.{name}"), value);
    }
}

/// An operation, on what, and the name of it.
type Right = [String; 3];

fn least_rights(world: &World) -> [Right; 3] {
    [
        ["Read", "--topic", world.topic()],
        ["Read", "--group", &world.name],
        ["Write", "--topic", world.dead_letter_topic()],
    ]
    .map(|right| right.map(str::to_owned))
}

fn change_rights(kafka: &PrivateKafka, change: &str, [operation, kind, name]: &Right) {
    let who = ["--allow-principal", "User:app", "--force"];
    kafka.acl(&[&[change], &who[..], &["--operation", operation, kind, name]].concat());
}

#[test]
fn b11_kafka_is_spoken_to_over_tls_with_a_password_or_the_mistake_is_named() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("b11");
    speak_tls(&mut world, &kafka);
    least_rights(&world).iter().for_each(|right| change_rights(&kafka, "--add", right));
    world.set("run.retry_backoff_ms", 5);
    world.call(&["check"]).success();
    let load = world.load(mixed(7, 2_000));
    assert_eq!(world.run_until_caught_up().read, load.events());
    world.assert_done(&load);

    let elsewhere = certificates();
    let stranger = elsewhere.path().join("ca.crt").display().to_string();
    for (name, wrong, named) in [
        ("sasl.password", "not the password", "sasl.password"),
        ("ssl.ca.location", stranger.as_str(), "ssl.ca.location"),
    ] {
        speak_tls(&mut world, &kafka);
        world.set(&format!("kafka.properties.{name}"), wrong);
        let ended = world.call(&["-v", "run", "--until-caught-up"]);
        assert!(matches!(ended.code(), Some(1 | 75)), "{name}: {ended:?}");
        let said = format!("{}{}", ended.out, ended.err);
        assert!(said.contains(named), "{name}: {said}");
        assert!(!said.contains(SECRET) && !said.contains("not the password"), "{name}: {said}");
    }
    // To a listener that speaks TLS, plain text is a broken line like any other: nobody knows why,
    // but everybody where.
    speak_tls(&mut world, &kafka);
    world.set("kafka.properties.security.protocol", "SASL_PLAINTEXT");
    let ended = world.call(&["-v", "run", "--until-caught-up"]);
    let said = ended.failure(75);
    assert!(said.contains(&format!("no broker answers at {}", kafka.secure_address)), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn j6_the_least_rights_on_kafka_are_enough_for_a_whole_load() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("j6-kafka");
    speak_tls(&mut world, &kafka);
    world.set("run.retry_backoff_ms", 5);
    let rights = least_rights(&world);
    let change = |change: &str, right: &Right| change_rights(&kafka, change, right);
    rights.iter().for_each(|right| change("--add", right));

    world.call(&["check"]).success();
    let load = world.load(mixed(8, 2_000));
    let report = world.run_until_caught_up();
    assert_eq!(report.read, load.events());
    assert!(report.rejected > 0, "{report:?}");
    world.assert_done(&load);
    // To look at dead letters takes one more, and no broker is out without it.
    let refused = world.call(&["dlq", "list"]);
    assert!(refused.failure(1).contains("grant READ on it"), "{}", refused.err);

    // And they are the least: without one of them nothing is read, and it says what is refused.
    world.publish([record("{").on(0)]);
    for right in &rights {
        change("--remove", right);
        let refused = world.call(&["run", "--until-caught-up"]);
        let error = refused.failure(1).to_lowercase();
        assert!(error.contains("authoriz") || error.contains("grant"), "{right:?}: {error}");
        change("--add", right);
    }
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 0, 0, 0, 1]);
}

#[test]
fn j6_a_dead_letter_topic_that_may_only_be_read_is_held_and_resumed_once_it_may_be_written() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("j6-dead-letters");
    speak_tls(&mut world, &kafka);
    let [topic, group, write] = least_rights(&world);
    let read = ["Read", "--topic", world.dead_letter_topic()].map(str::to_owned);
    [&topic, &group, &read].into_iter().for_each(|right| change_rights(&kafka, "--add", right));
    world.publish([record("rubbish").on(0)]);
    let running = world.start_run();
    eventually("it is held", || running.err().contains("held: "));
    let held = running.err();
    let held = held.lines().find(|line| line.contains("held: ")).unwrap();
    assert!(held.contains("grant this user WRITE on the dead-letter topic"), "{held}");
    assert!(world.committed().is_empty());

    change_rights(&kafka, "--add", &write);
    eventually("it goes on by itself", || world.committed() == [(0, 1)].into());
    assert_eq!(world.rejects(), [((0, 0), "not-json".to_owned())].into());
    running.stop().success();
}
