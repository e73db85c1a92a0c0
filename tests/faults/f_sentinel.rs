//! The cache is a master that Sentinel names, and not always the same one.

use redis::Commands;

use crate::world::private::{Redis, RedisSentinels};
use crate::world::{World, certificates, event, eventually};

use super::stores::{connected, held, publish_all, single, through, trusted};

fn key(draft: &str) -> String {
    format!("event:draft:{draft}")
}

/// Stores something under each draft's key, and waits until the replica has it.
fn fill(master: &Redis, drafts: &[String]) {
    let client = redis::Client::open(master.url.as_str()).unwrap();
    let mut connection = client.get_connection().unwrap();
    drafts.iter().for_each(|draft| connection.set::<_, _, ()>(key(draft), "old").unwrap());
    replicated(master);
}

/// Waits until the replica has all that the master has done: it would be lost in a failover.
fn replicated(master: &Redis) {
    eventually("it is replicated", || {
        // WAIT is about the writes of its own connection.
        let client = redis::Client::open(master.url.as_str()).unwrap();
        let wait = || {
            let mut connection = client.get_connection()?;
            connection.set::<_, _, ()>("replicated", "to here")?;
            redis::cmd("WAIT").arg(1).arg(1_000).query::<u64>(&mut connection)
        };
        wait().is_ok_and(|replicas| replicas == 1)
    });
}

/// How many of the drafts still have a key there.
fn left(server: &Redis, drafts: &[String]) -> usize {
    let client = redis::Client::open(server.url.as_str()).unwrap();
    let mut connection = client.get_connection().unwrap();
    drafts.iter().filter(|draft| connection.exists(key(draft)).unwrap()).count()
}

fn drafts(prefix: &str) -> Vec<String> {
    (1..=100).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn f6_when_the_master_dies_the_dels_wait_for_the_one_that_sentinel_names_next() {
    let sentinels = RedisSentinels::start();
    let [first, second] = &sentinels.servers;
    let mut world = single(World::new("f6-sentinel"));
    world.set("cache.url", sentinels.url());
    let checked = world.call(&["check"]);
    let found = format!("by Sentinel, the master drafts at 127.0.0.1:{}", first.port);
    assert!(checked.success().contains(&found), "{}", checked.out);

    let running = connected(&world);
    let [before, after, back] = ["before", "after", "back"].map(drafts);
    world.drafts(before.iter().chain(&after).chain(&back));
    fill(first, &[before.as_slice(), &after].concat());
    let publish = |drafts: &[String]| publish_all(&world, drafts, "job");
    publish(&before);
    eventually("the first are through", || world.committed() == through(101));
    replicated(first);
    first.kill();
    publish(&after);
    held(&running, "redis");
    eventually("the others are through", || world.committed() == through(201));
    assert!(second.says("role:master"));
    assert_eq!((left(second, &before), left(second, &after)), (0, 0));
    // A reader finds it too.
    let read = world.call(&["draft", "get", "after1"]);
    assert!(read.err.contains("from the database, and now in the cache"), "{}", read.err);
    assert_eq!(left(second, &after), 1);

    // The old master is back, as a replica, and is made the master again while the other one lives
    // on: that one cuts its connections and is READONLY from then on. (On a busy machine the
    // sentinels may have had them change places once more by then.)
    first.start_again();
    sentinels.await_whole();
    let [master, replica] =
        if second.says("role:master") { [second, first] } else { [first, second] };
    fill(master, &back);
    sentinels.fail_over();
    // For seconds both are masters. What is deleted on the one that gives way then is lost, as F10
    // has it, so nothing is published before it has.
    sentinels.await_master(replica);
    publish(&back);
    eventually("the last are through", || world.committed() == through(301));
    assert_eq!(left(replica, &back), 0);
    let ended = running.stop();
    let report = ended.report();
    assert_eq!(report.outcomes(), [301, 301, 0, 0, 0, 0]);
    assert!(ended.err.contains("resumed"), "{}", ended.err);
    assert!(world.dead_letters().is_empty(), "an outage is not bad data");
    assert!(!ended.err.contains("s3cret"), "{}", ended.err);
}

#[test]
fn f6_a_master_that_sentinel_does_not_know_is_a_mistake_and_one_that_is_down_is_not() {
    let sentinels = RedisSentinels::start();
    let mut world = World::new("f6-master");
    world.publish([event("d1", "job")]);
    world.set("cache.url", sentinels.url_of("draft"));
    for command in ["run", "check"] {
        let refused = world.call(&[command]);
        let said = refused.out.clone() + &refused.err;
        assert_eq!(refused.code(), Some(1), "{said}");
        assert!(
            said.contains("names a master that is not known there: draft (sentinels 127"),
            "{said}"
        );
        assert!(said.contains("write one of the masters that they watch: drafts"), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    assert!(world.committed().is_empty());

    // A password that they do not take.
    world.set("cache.url", sentinels.url().replace("sent1nel", "other"));
    let refused = world.call(&["check"]);
    assert!(refused.out.contains("does not let us in"), "{}", refused.out);
    assert!(refused.out.contains("sentinel_password"), "{}", refused.out);

    // Both servers are gone: nobody can be made the master.
    world.set("cache.url", sentinels.url());
    sentinels.servers.iter().for_each(Redis::kill);
    let refused = world.call(&["run", "--until-caught-up"]);
    assert_eq!(refused.code(), Some(75), "{}", refused.err);
    let is_seen = || world.call(&["check"]).out.contains("the sentinels see no master that is up");
    eventually("the sentinels have seen it", is_seen);
    assert_eq!(world.call(&["run", "--until-caught-up"]).code(), Some(75));
}

#[test]
fn f6_j5_sentinels_and_each_master_of_theirs_are_known_by_the_authority_that_is_named() {
    let certificates = certificates();
    let sentinels = RedisSentinels::start_encrypted(certificates.path());
    let [first, second] = &sentinels.servers;
    let mut world = single(World::new("f6-sentinel-tls"));
    world.set("cache.url", sentinels.url());
    let checked = trusted(&mut world, certificates.path(), &sentinels.servers);
    let found = format!("by Sentinel, the master drafts at 127.0.0.1:{}", first.secure_port());
    assert!(checked.success().contains(&found), "{}", checked.out);
    let running = connected(&world);
    let [before, after] = ["before", "after"].map(drafts);
    world.drafts(before.iter().chain(&after));
    fill(first, &[before.as_slice(), &after].concat());
    publish_all(&world, &before, "job");
    eventually("the first are through", || world.committed() == through(101));
    assert_eq!(left(first, &before), 0);
    replicated(first);
    first.kill();
    publish_all(&world, &after, "job");
    eventually("the others are through", || world.committed() == through(201));
    assert_eq!(left(second, &after), 0);
    assert_eq!(running.stop().report().outcomes(), [201, 201, 0, 0, 0, 0]);

    // The list of masters, with which a mistake is told from an outage, is asked for with TLS, too.
    world.set("cache.url", sentinels.url_of("draft"));
    let refused = world.call(&["check"]);
    assert!(refused.out.contains("masters that they watch: drafts"), "{}", refused.out);
}
