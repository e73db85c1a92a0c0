//! The cache is a Redis Cluster: its keys move, its nodes die, and every DEL reaches the owner of
//! its slot.

use std::time::Duration;

use contentflow::lease::{Lease, lease_key};

use crate::world::private::{Redis, RedisCluster};
use crate::world::{Running, World, block_on, certificates, event, eventually};

use super::stores::{connected, held, publish_all, resumes, single, through, trusted};

/// A world whose cache is the cluster, and a run that has its connections to it.
fn on(cluster: &RedisCluster, name: &str) -> (World, Running) {
    let mut world = single(World::new(name));
    world.set("cache.url", cluster.url());
    let running = connected(&world);
    (world, running)
}

/// The keys of these drafts, and their leases.
fn keys(drafts: &[String]) -> Vec<String> {
    let key = |draft: &String| format!("event:draft:{draft}");
    drafts.iter().flat_map(|draft| [lease_key(&key(draft)), key(draft)]).collect()
}

/// So many drafts, all over the slots.
fn spread(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn f6_in_a_cluster_each_key_and_each_lease_is_deleted_by_the_owner_of_its_slot() {
    let cluster = RedisCluster::start();
    let (world, running) = on(&cluster, "f6-cluster");
    let mut drafts = spread("d", 300);
    // A tag in an id decides the slot of the key, and another one that of the lease.
    drafts.extend(["{tag}", "d{tag}2", "}{", "{}", "{"].map(str::to_owned));
    let records = i64::try_from(drafts.len()).unwrap();
    world.drafts(&drafts);
    cluster.fill(keys(&drafts));
    cluster.fill(["event:draft:tag", "event:draft:nobody's"]);
    publish_all(&world, &drafts, "job");
    eventually("it is through", || world.committed() == through(1 + records));
    assert!(cluster.left(keys(&drafts)).is_empty());
    assert_eq!(cluster.left(["event:draft:tag", "event:draft:nobody's"]).len(), 2);
    let ended = running.stop();
    assert!(!ended.err.contains("held"), "{}", ended.err);
    let report = ended.report();
    assert_eq!((report.applied, report.keys_deleted), (306, 305));
}

#[test]
fn f6_slots_that_move_are_followed_while_they_move_and_after() {
    let cluster = RedisCluster::start();
    // With no more rights than it needs.
    let rights = "~event:draft:* ~{event:draft:* +del +ping +cluster|slots +asking";
    for master in &cluster.masters {
        master.tell(&format!("ACL SETUSER writer on >s3cret {rights}"));
    }
    let mut world = single(World::new("f6-move"));
    world.set("cache.url", cluster.url_as("writer:s3cret@"));
    let running = connected(&world);
    let slots = 0..=40;
    let moves = |draft: &String| RedisCluster::is_in(&slots, &format!("event:draft:{draft}"));
    // Many of one slot, so that it is asked for side by side, and some of the others.
    let tag =
        spread("tag", 20_000).into_iter().map(|tag| format!("{{{tag}}}")).find(moves).unwrap();
    let mut drafts = spread(&tag, 60);
    drafts.extend(spread("d", 40_000).into_iter().filter(moves).take(40));
    assert_eq!(drafts.len(), 100);
    world.drafts(&drafts);
    let publish = |job: &str| publish_all(&world, &drafts, job);
    cluster.fill(keys(&drafts));
    cluster.begin_to_move(slots.clone());
    publish("job-1");
    eventually("they are through", || world.committed() == through(101));
    cluster.finish_to_move(slots.clone());
    assert!(cluster.left(keys(&drafts)).is_empty(), "left where they had gone to");

    cluster.fill(keys(&drafts));
    publish("job-2");
    eventually("they are through", || world.committed() == through(201));
    assert!(cluster.left(keys(&drafts)).is_empty());
    let ended = running.stop();
    assert!(!ended.err.contains("held"), "followed, not waited for: {}", ended.err);
    assert!(!ended.err.contains("s3cret"), "{}", ended.err);
    assert_eq!(ended.report().outcomes(), [201, 201, 0, 0, 0, 0]);
}

#[test]
fn f6_a_load_goes_through_a_cluster_while_its_slots_move_and_its_nodes_die() {
    let cluster = RedisCluster::start();
    let (world, running) = on(&cluster, "f6-load");
    let drafts = spread("d", 1_000);
    world.drafts(&drafts);
    cluster.fill(keys(&drafts));
    let mut parts = drafts.chunks(200);
    let mut publish = || {
        publish_all(&world, parts.next().unwrap(), "job");
    };
    publish();
    cluster.begin_to_move(0..=300);
    publish();
    cluster.finish_to_move(0..=300);
    publish();
    cluster.masters[2].kill();
    publish();
    held(&running, "redis");
    cluster.masters[2].start_again();
    publish();
    eventually("all is through", || world.committed() == through(1_001));
    cluster.await_all();
    assert!(cluster.left(keys(&drafts)).is_empty());
    resumes(&world, running, &[], 1_000);
}

#[test]
fn f6_a_slot_that_no_node_of_a_cluster_serves_is_waited_for() {
    let cluster = RedisCluster::start();
    let (world, running) = on(&cluster, "f6-unserved");
    let drafts = spread("d", 300);
    world.drafts(&drafts);
    cluster.fill(keys(&drafts));
    let tell_all = |command: &str| cluster.masters.iter().for_each(|node| node.tell(command));
    tell_all("CLUSTER DELSLOTSRANGE 0 1000");
    publish_all(&world, &drafts, "job");
    held(&running, "CLUSTERDOWN");
    cluster.masters[0].tell("CLUSTER ADDSLOTSRANGE 0 1000");
    cluster.await_all();
    eventually("all is through", || world.committed() == through(301));
    assert!(cluster.left(keys(&drafts)).is_empty());
    resumes(&world, running, &[], 300);
}

#[test]
fn f6_when_a_replica_takes_over_the_dels_go_to_it() {
    let cluster = RedisCluster::start_with_replica();
    let (world, running) = on(&cluster, "f6-failover");
    let [first, second] = [&cluster.masters[0], cluster.replica.as_ref().unwrap()];
    let [asked, killed] = ["a", "k"].map(|prefix| spread(prefix, 150));
    world.drafts(asked.iter().chain(&killed));
    let publish = |drafts: &[String]| publish_all(&world, drafts, "job");
    cluster.fill(keys(&asked));
    eventually("the replica has it all", || first.ask::<u64>("WAIT 1 1000").unwrap() == 1);
    second.tell("CLUSTER FAILOVER");
    publish(&asked);
    eventually("they are through", || world.committed() == through(151));
    eventually("it has taken over", || second.says("role:master"));
    assert!(cluster.left(keys(&asked)).is_empty());

    // And back, because the master is dead.
    eventually("the old master is in step", || first.says("master_link_status:up"));
    cluster.fill(keys(&killed));
    eventually("the replica has it all", || second.ask::<u64>("WAIT 1 1000").unwrap() == 1);
    second.kill();
    publish(&killed);
    held(&running, "redis");
    eventually("they are through", || world.committed() == through(301));
    assert!(first.says("role:master"));
    assert!(cluster.left(keys(&killed)).is_empty());
    resumes(&world, running, &[], 300);
}

#[test]
fn f6_readers_check_and_verify_find_their_keys_in_a_cluster() {
    let cluster = RedisCluster::start();
    let (world, running) = on(&cluster, "f6-readers");
    let checked = world.call(&["check"]);
    let found = "a cluster of 3 nodes, 3 of them masters with slots";
    assert!(checked.success().contains(found), "{}", checked.out);
    let drafts = spread("d", 20);
    world.drafts(&drafts);
    let get = |draft: &str| world.call(&["draft", "get", draft]).err.trim().to_owned();
    for draft in &drafts {
        assert_eq!(get(draft), "from the database, and now in the cache");
        assert_eq!(get(draft), "from the cache");
    }
    // A reader that read before the commit, and is slow.
    let mut config = contentflow::config::Config::default().cache;
    config.url = contentflow::config::Secret::new(cluster.url());
    let mut cache = block_on(contentflow::redis::connect(&config)).unwrap();
    world.drafts(["slow"]);
    let slow = "event:draft:slow";
    let lease = block_on(Lease::take(&mut cache, slow, Duration::from_secs(60))).unwrap().unwrap();
    publish_all(&world, &drafts, "job");
    world.publish([event("slow", "job").on(0)]);
    eventually("they are through", || world.committed() == through(22));
    assert!(!block_on(lease.fill(&mut cache, "old", config.ttl)).unwrap(), "its lease is gone");
    assert_eq!(get("d1"), "from the database, and now in the cache");
    running.stop().success();

    // What stays uncached: the lease of such an id is in another slot than its key.
    world.drafts(["{tag}"]);
    assert!(get("{tag}").ends_with("from the database, not put into the cache"));

    assert_eq!(world.call(&["verify"]).code(), Some(0));
    cluster.fill(["event:draft:d2", "event:draft:d3", "event:draft:d4"]);
    world.database.sql("DELETE FROM event_drafts WHERE event_draft_id = 'd1'");
    let differs = world.call(&["verify"]);
    assert_eq!(differs.code(), Some(3), "{}", differs.err);
    assert_eq!(differs.out.matches("cached-unreadable").count(), 3, "{}", differs.out);
    assert_eq!(differs.out.matches("cached-without-row").count(), 1, "{}", differs.out);
    assert_eq!(world.call(&["verify", "--repair"]).code(), Some(0));
    assert!(cluster.left([1, 2, 3, 4].map(|draft| format!("event:draft:d{draft}"))).is_empty());
}

#[test]
fn f6_a_server_by_itself_and_a_node_of_a_cluster_are_not_taken_for_one_another() {
    let (cluster, alone) = (RedisCluster::start(), Redis::start());
    let mut world = World::new("f6-mistakes");
    for (url, what) in [
        (cluster.masters[1].url.clone(), "is one node of a cluster of 3 masters"),
        (alone.url.replace("redis:", "redis+cluster:"), "is in a cluster, and it is not"),
        (
            alone.url.replace("redis:", "redis+sentinel:") + "/drafts",
            "does not point to a sentinel",
        ),
    ] {
        world.set("cache.url", &url);
        let refused = world.call(&["check"]);
        let line = refused.out.lines().find(|line| line.contains("FAIL")).unwrap_or_default();
        assert!(line.contains(what) && line.contains("redis+cluster://user"), "{}", refused.out);
        assert_eq!(world.call(&["run", "--until-caught-up"]).code(), Some(1), "{url}");
    }
}

#[test]
fn f6_j5_every_node_of_a_cluster_is_known_by_the_authority_that_is_named() {
    let certificates = certificates();
    let cluster = RedisCluster::start_encrypted(certificates.path());
    let mut world = single(World::new("f6-tls"));
    world.set("cache.url", cluster.secure_url());
    let checked = trusted(&mut world, certificates.path(), &cluster.masters);
    assert!(checked.success().contains("a cluster of 3 nodes"), "{}", checked.out);
    let drafts = spread("d", 100);
    world.drafts(&drafts);
    cluster.fill(keys(&drafts));
    let running = connected(&world);
    publish_all(&world, &drafts, "job");
    eventually("they are through", || world.committed() == through(101));
    assert!(cluster.left(keys(&drafts)).is_empty());
    let ended = running.stop();
    assert!(!ended.err.contains("held"), "{}", ended.err);
    assert_eq!(ended.report().outcomes(), [101, 101, 0, 0, 0, 0]);
}
