//! What the tests of the stores share: a run that has its connections, and an outage that it is to
//! live through.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::private::Redis;
use crate::world::{DEADLINE, Ended, Offsets, Running, World, event, eventually, images};

/// Makes a world's program one thread with one connection to each server, and quick to try again.
pub(super) fn single(mut world: World) -> World {
    world.set("run.workers", 1);
    world.set("run.retry_backoff_ms", 20);
    world
}

/// Starts a consumer, and waits until it has its connections: the draft d0 has got its images, by
/// the first record of partition 0.
pub(super) fn connected(world: &World) -> Running {
    world.drafts(["d0"]);
    world.publish([event("d0", "job-0").on(0)]);
    let running = world.start_run();
    eventually("the connections are there", || world.committed() == through(1));
    running
}

/// Publishes an event of each draft, as that job, to partition 0.
pub(super) fn publish_all(world: &World, drafts: &[String], job: &str) {
    world.publish(drafts.iter().map(|draft| event(draft, job).on(0)));
}

/// So many records of partition 0 are through.
pub(super) fn through(records: i64) -> Offsets {
    [(0, records)].into()
}

/// Waits until the outage is noticed, for this reason.
pub(super) fn held(running: &Running, reason: &str) {
    // Codes of Redis come in the client's spelling: ReadOnly, NOREPLICAS.
    says_so(running, &["held: ", reason]);
}

/// Waits until a line of the log says all of that.
pub(super) fn says_so(running: &Running, parts: &[&str]) {
    let says_so = |line: &str| {
        let line = line.to_lowercase();
        parts.iter().all(|part| line.contains(&part.to_lowercase()))
    };
    let since = Instant::now();
    while !running.err().lines().any(says_so) {
        assert!(since.elapsed() < DEADLINE, "nothing of {parts:?}: {}", running.err());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Proves that a run goes on after an outage as [`goes_on`] has it, and says that it does.
pub(super) fn resumes(world: &World, running: Running, drafts: &[(&str, &str)], records: usize) {
    let ended = goes_on(world, running, drafts, records);
    assert!(ended.err.contains("resumed"), "{}", ended.err);
}

/// Waits until partition 0 is through, with so many records after the first, and proves that it was
/// the server and nothing else: no dead letter, these drafts with the images of these jobs, and no
/// key of theirs in the cache.
pub(super) fn goes_on(
    world: &World,
    running: Running,
    drafts: &[(&str, &str)],
    records: usize,
) -> Ended {
    let all = 1 + u64::try_from(records).unwrap();
    let committed = through(i64::try_from(all).unwrap());
    eventually("it has resumed", || world.committed() == committed);
    let ended = running.stop();
    let report = ended.report();
    let good = report.applied + report.duplicate + report.superseded;
    assert_eq!((report.read, good), (all, all), "{report:?}");
    for (draft, job) in drafts {
        assert_eq!(world.row(draft).images(), &images(job), "{draft}");
        assert_eq!(world.cached(draft), None, "{draft}");
    }
    assert!(world.dead_letters().is_empty(), "an outage is not bad data");
    ended
}

/// Proves that there is no TLS with the cache whose authority nobody has named, nor with servers
/// that ask who we are, names both, and has the servers checked.
pub(super) fn trusted<'a>(
    world: &mut World,
    certificates: &Path,
    servers: impl IntoIterator<Item = &'a Redis>,
) -> Ended {
    let refused = world.call(&["run", "--until-caught-up"]);
    let error = refused.failure(1);
    assert!(error.contains("no TLS with Redis"), "{error}");
    assert!(error.contains("set cache.root_certificates"), "{error}");
    world.set("cache.root_certificates", certificates.join("ca.crt").display());
    world.call(&["check"]).success();
    servers.into_iter().for_each(|server| server.tell("CONFIG SET tls-auth-clients yes"));
    let refused = world.call(&["run", "--until-caught-up"]);
    let error = refused.failure(1);
    assert!(error.contains("set cache.client_certificate and cache.client_key"), "{error}");
    for (key, name) in [("cache.client_certificate", "good.crt"), ("cache.client_key", "good.key")]
    {
        world.set(key, certificates.join(name).display());
    }
    world.call(&["check"])
}
