//! Redis is away, busy, or refuses: the row stays as it is written, only the DEL is tried again,
//! and the offset waits for it.

use crate::world::private::{Redis, free_port};
use crate::world::{Row, Running, World, event, eventually, meanwhile};

use super::stores::{connected, held, resumes, single, through};

/// Publishes an event, and waits until its row is written and its DEL is held for that reason.
fn held_after_its_row(world: &World, running: &Running, draft: &str, reason: &str) -> Row {
    let records = world.records().len();
    world.publish([event(draft, "job").on(0)]);
    eventually("the row is written", || world.row(draft).job().is_some());
    held(running, reason);
    meanwhile("the offset waits", || world.committed() == through(i64::try_from(records).unwrap()));
    world.row(draft)
}

#[test]
fn f1_a_redis_that_was_killed_and_is_back_gets_its_del_and_the_row_is_not_written_again() {
    let server = Redis::start();
    let world = single(World::on_redis("f1", &server));
    let running = connected(&world);
    world.drafts(["d1"]);
    server.kill();
    let written = held_after_its_row(&world, &running, "d1", "redis");
    server.start_again();
    resumes(&world, running, &[("d1", "job")], 1);
    assert_eq!(world.row("d1"), written, "not even xmin has changed");
}

#[test]
fn f2_a_frozen_redis_is_noticed_by_our_own_deadline_and_a_late_del_does_no_harm() {
    let server = Redis::start();
    let mut world = single(World::on_redis("f2", &server));
    world.set("cache.timeout_ms", 200);
    let running = connected(&world);
    world.drafts(["d1"]);
    let frozen = server.freeze();
    let written = held_after_its_row(&world, &running, "d1", "no answer within 200ms");
    // The DELs that were given up are carried out now, and so is the one that is tried again.
    frozen.thaw();
    resumes(&world, running, &[("d1", "job")], 1);
    assert_eq!(world.row("d1"), written, "not even xmin has changed");
}

#[test]
fn f3_a_redis_that_cannot_write_now_is_waited_for() {
    // With a snapshot now and then, which can fail.
    let server = Redis::start_with(&["--save", "3600 1", "--enable-protected-configs", "yes"]);
    let world = single(World::on_redis("f3", &server));
    let nowhere = server.directory().join("nowhere");
    let into_nowhere = format!("CONFIG SET dir {}", nowhere.display());
    let and_back = format!("CONFIG SET dir {}", server.directory().display());
    let running = connected(&world);
    let tell = |commands: &[&str]| commands.iter().for_each(|command| server.tell(command));
    let refused = |reason: &str| {
        let draft = format!("draft-{reason}");
        world.drafts([&draft]);
        draft
    };
    let mut done = 1;
    let mut check = |reason: &str, break_it: &dyn Fn(), mend_it: &dyn Fn()| {
        let draft = refused(reason);
        break_it();
        held_after_its_row(&world, &running, &draft, reason);
        mend_it();
        done += 1;
        eventually("it has resumed", || world.committed() == through(done));
        assert_eq!(world.cached(&draft), None, "{reason}");
    };
    // A demoted primary, which has no primary of its own yet.
    check("READONLY", &|| tell(&["REPLICAOF 127.0.0.1 1"]), &|| tell(&["REPLICAOF NO ONE"]));
    check("NOREPLICAS", &|| tell(&["CONFIG SET min-replicas-to-write 1"]), &|| {
        tell(&["CONFIG SET min-replicas-to-write 0"])
    });
    // Its disk is gone: what it cannot save it does not change.
    check(
        "MISCONF",
        &|| {
            std::fs::create_dir(&nowhere).unwrap();
            tell(&["CONFIG SET appendonly no", &into_nowhere]);
            std::fs::remove_dir(&nowhere).unwrap();
            eventually("a snapshot has failed", || {
                drop(server.try_tell("BGSAVE"));
                server.info("rdb_last_bgsave_status") == "err"
            });
        },
        &|| tell(&[&and_back, "CONFIG SET stop-writes-on-bgsave-error no"]),
    );
    // Somebody's script does not end.
    check(
        "BUSY",
        &|| {
            tell(&["CONFIG SET busy-reply-threshold 10"]);
            let url = server.url.clone();
            std::thread::spawn(move || {
                let mut connection = redis::Client::open(url)?.get_connection()?;
                redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection)
            });
            eventually("it is busy", || server.try_tell("PING").is_err());
        },
        &|| tell(&["SCRIPT KILL"]),
    );
    let all = usize::try_from(done - 1).unwrap();
    resumes(&world, running, &[], all);
}

#[test]
fn f3_a_redis_that_loads_its_keys_is_waited_for() {
    // Seconds for what would else take none.
    let slow = ["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"];
    let server = Redis::start_with(&[&slow[..], &["--appendonly", "no"]].concat());
    let world = single(World::on_redis("f3-loading", &server));
    let running = connected(&world);
    world.drafts((1..=2_000).map(|number| format!("d{number}")));
    server.tell("SAVE");
    server.kill();
    let server_is_loading =
        || server.try_tell("PING").is_err_and(|error| error.code() == Some("LOADING"));
    world.publish([event("d1", "job").on(0)]);
    eventually("the row is written", || world.row("d1").job().is_some());
    held(&running, "redis");
    server.start_again();
    assert!(server_is_loading());
    assert_eq!(world.committed(), through(1));
    resumes(&world, running, &[("d1", "job")], 1);
    assert_eq!(world.cache.keys(), 1_999, "its keys are back, but for the one");
}

#[test]
fn f5_a_revoked_right_or_a_changed_password_is_held_and_resumed_once_it_is_mended() {
    let server = Redis::start();
    let mut world = single(World::on_redis("f5", &server));
    server.tell("ACL SETUSER writer on >first ~event:draft:* ~{event:draft:* +del +select +ping");
    let (scheme, address) = world.cache.url.split_once("://").unwrap();
    let url = format!("{scheme}://writer:first@{address}");
    world.set("cache.url", url);
    let running = connected(&world);
    world.drafts(["d1", "d2", "a3", "b3"]);

    server.tell("ACL SETUSER writer -del");
    held_after_its_row(&world, &running, "d1", "NOPERM");
    server.tell("ACL SETUSER writer +del");
    eventually("it has resumed", || world.committed() == through(2));

    server.tell("ACL SETUSER writer resetpass >second");
    server.tell("CLIENT KILL USER writer");
    held_after_its_row(&world, &running, "d2", "redis");
    eventually("the new password is not known", || server.try_tell("PING").is_ok());
    server.tell("ACL SETUSER writer >first");
    eventually("it has resumed", || world.committed() == through(3));

    // One key of a pipeline is refused: its error counts, and its neighbour is deleted all the
    // same.
    server.tell("ACL SETUSER writer resetkeys ~event:draft:a* ~{event:draft:a*");
    let before = running.err().matches("held: waiting").count();
    world.publish([event("a3", "job").on(0), event("b3", "job").on(0)]);
    eventually("it is held", || running.err().matches("held: waiting").count() > before);
    eventually("the neighbour is deleted", || world.cached("a3").is_none());
    meanwhile("the refused one waits", || {
        world.cached("b3").is_some() && world.committed().get(&0) < Some(&5)
    });
    server.tell("ACL SETUSER writer ~event:draft:* ~{event:draft:*");
    resumes(&world, running, &["d1", "d2", "a3", "b3"].map(|draft| (draft, "job")), 4);
}

#[test]
fn f6_a_cluster_that_does_not_serve_the_slot_is_waited_for() {
    // The usual port of the nodes among themselves lies in the range of outgoing connections.
    let bus = free_port().to_string();
    let server = Redis::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    server.tell("CLUSTER ADDSLOTSRANGE 0 16383");
    eventually("the cluster is up", || server.try_tell("DEL nobody").is_ok());
    let mut world = single(World::new("f6"));
    world.set("cache.url", &server.url);
    let running = connected(&world);
    // The tag decides the slot, of the key and of its lease.
    world.drafts(["{tag}", "d{tag}2"]);
    server.tell("SET event:draft:{tag} old");
    server.tell("CLUSTER DELSLOTSRANGE 0 16383");
    eventually("the cluster is down", || server.try_tell("DEL nobody").is_err());
    held_after_its_row(&world, &running, "{tag}", "CLUSTERDOWN");
    server.tell("CLUSTER ADDSLOTSRANGE 0 16383");
    eventually("it has resumed", || world.committed() == through(2));
    assert!(server.try_tell("RENAME event:draft:{tag} found{tag}").is_err(), "the key is gone");
    server.tell("SET event:draft:d{tag}2 old");
    world.publish([event("d{tag}2", "job").on(0)]);
    eventually("it is through", || world.committed() == through(3));
    assert!(server.try_tell("RENAME event:draft:d{tag}2 found{tag}").is_err(), "the key is gone");
    // A DEL of many keys cannot be: they live in different slots.
    let apart = ["x1", "x2", "x3"];
    world.drafts(apart);
    apart.iter().for_each(|draft| server.tell(&format!("SET event:draft:{draft} old")));
    world.publish(apart.map(|draft| event(draft, "job").on(0)));
    eventually("they are through", || world.committed() == through(6));
    for draft in apart {
        let rename = format!("RENAME event:draft:{draft} {{event:draft:{draft}}}found");
        assert!(server.try_tell(&rename).is_err(), "the key of {draft} is gone");
    }
    let report = running.stop().report();
    assert_eq!(report.outcomes(), [6, 6, 0, 0, 0, 0]);
    assert_eq!(report.keys_deleted, 5);
}
