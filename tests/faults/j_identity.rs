//! A server that wants to know who its clients are is shown a certificate, and one that it does not
//! want is a mistake with a name.

use std::fs;
use std::path::Path;

use crate::interruptions::mixed;
use crate::world::private::{Postgres, Redis};
use crate::world::{Ended, World, certificates, event, eventually};

/// The keys.
const CERTIFICATE: &str = "cache.client_certificate";
const KEY: &str = "cache.client_key";

/// The paths of a certificate and its key.
fn pair(certificates: &Path, name: &str) -> [String; 2] {
    ["crt", "key"]
        .map(|extension| certificates.join(format!("{name}.{extension}")).display().to_string())
}

fn show_to_cache(world: &mut World, [certificate, key]: [String; 2]) {
    world.set(CERTIFICATE, certificate);
    world.set(KEY, key);
}

/// Proves that whoever asks is told that a server asks who we are.
fn assert_unknown(world: &World, subject: &str, words: &str) -> Ended {
    let checked = world.call(&["check"]);
    let line = checked.out.lines().find(|line| line.contains(subject)).unwrap_or_default();
    assert!(line.starts_with("FAIL"), "{}", checked.out);
    assert!(checked.out.contains(words), "{words}: {}", checked.out);
    let run = world.call(&["run", "--until-caught-up"]);
    let error = run.failure(1);
    assert!(error.contains(words), "{words}: {error}");
    run
}

fn assert_works(world: &World, seed: u64) {
    world.call(&["check"]).success();
    let load = world.load(mixed(seed, 2_000));
    assert_eq!(world.run_until_caught_up().read, load.events());
    world.assert_done(&load);
    assert_eq!(world.call(&["verify"]).code(), Some(0));
}

#[test]
fn j5_redis_that_asks_for_a_certificate_is_shown_one_that_it_trusts() {
    let (ours, theirs) = (certificates(), certificates());
    let server = Redis::start_encrypted(ours.path(), &[]);
    let mut world = World::on_redis("j5-identity", &server);
    let (_, database) = world.cache.url.rsplit_once('/').unwrap();
    world.set("cache.url", format!("rediss://127.0.0.1:{}/{database}", server.secure_port()));
    world.set("cache.root_certificates", ours.path().join("ca.crt").display());
    server.tell("CONFIG SET tls-auth-clients yes");
    let hint = "set cache.client_certificate and cache.client_key";
    assert_unknown(&world, " cache ", hint);
    show_to_cache(&mut world, pair(theirs.path(), "good"));
    assert_unknown(&world, " cache ", hint);
    assert!(world.committed().is_empty());

    show_to_cache(&mut world, pair(ours.path(), "good"));
    assert_works(&world, 5);
}

#[test]
fn j5_postgresql_that_asks_for_a_certificate_is_shown_one_that_it_trusts() {
    let (server, ours, theirs) = (Postgres::start(), certificates(), certificates());
    let mut world = World::on_postgres("j5-identity-postgres", &server);
    for (from, to) in [("good.crt", "server.crt"), ("good.key", "server.key"), ("ca.crt", "ca.crt")]
    {
        server.give(&ours.path().join(from), to);
    }
    let rules = server.data().join("pg_hba.conf");
    let before = fs::read_to_string(&rules).unwrap();
    let first = "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n";
    fs::write(&rules, first.to_owned() + &before).unwrap();
    for sql in ["ssl = on", "ssl_ca_file = 'ca.crt'"] {
        world.database.sql(&format!("ALTER SYSTEM SET {sql}"));
    }
    let url = world.database.url.clone();
    world.database.sql("SELECT pg_reload_conf()");
    let roots = ours.path().join("ca.crt").display().to_string();
    let encrypted = format!("{url}?sslmode=verify-full&sslrootcert={roots}");
    let shown =
        |[certificate, key]: [String; 2]| format!("{encrypted}&sslcert={certificate}&sslkey={key}");
    let hint = "set sslcert and sslkey in database.url";
    world.set("database.url", &encrypted);
    // It reads its settings again when it comes to that.
    eventually("it asks for a certificate", || world.call(&["check"]).out.contains(hint));
    assert_unknown(&world, " database ", hint);
    world.set("database.url", shown(pair(theirs.path(), "good")));
    assert_unknown(&world, " database ", hint);
    assert!(world.committed().is_empty());

    // Files that cannot be used, and of which nothing is shown.
    let [certificate, key] = pair(ours.path(), "good");
    let secret = fs::read_to_string(&key).unwrap().lines().nth(1).unwrap().to_owned();
    for ([certificate, key], words) in [
        (["/no/such.crt", &key], "sslcert /no/such.crt cannot be read"),
        ([&key, &key], "has no certificate in PEM in it"),
        ([&certificate, &certificate], "has no key in PEM in it"),
        ([&certificate, &pair(theirs.path(), "good")[1]], "is not the key of the certificate"),
    ] {
        world.set("database.url", shown([certificate, key].map(|file| file.to_owned())));
        let run = assert_unknown(&world, " database ", words);
        assert!(!run.err.contains(&secret), "{}", run.err);
    }

    world.set("database.url", shown([certificate, key]));
    assert_works(&world, 6);
}

#[test]
fn j5_a_certificate_that_cannot_be_shown_is_refused_before_anything_is_read() {
    let certificates = certificates();
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let key = fs::read_to_string(file("good.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let cut = key.replace(&secret[16..], "");
    fs::write(file("broken.key"), cut).unwrap();
    fs::write(file("broken.pem"), key.replace("PRIVATE KEY-----", "CERTIFICATE-----")).unwrap();
    let mut world = World::new("j5-identity-config");
    world.publish([event("d1", "job")]);
    let (plain, encrypted) = (world.cache.url.clone(), "rediss://127.0.0.1:1");
    for (url, certificate, key, at, words) in [
        (encrypted, "good.crt", None, CERTIFICATE, "needs cache.client_key beside it"),
        (encrypted, "", Some("good.key"), KEY, "needs cache.client_certificate beside it"),
        (encrypted, "missing.pem", Some("good.key"), CERTIFICATE, "cannot be read: No such file"),
        (encrypted, "broken.pem", Some("good.key"), CERTIFICATE, "is broken at its certificate 1"),
        (encrypted, "good.key", Some("good.key"), CERTIFICATE, "has no certificate in PEM in it"),
        (encrypted, "good.crt", Some("good.crt"), KEY, "has no key in PEM in it"),
        (encrypted, "good.crt", Some("broken.key"), KEY, "is broken, or of a kind"),
        (encrypted, "good.crt", Some("other.key"), KEY, "is not the key of the certificate in"),
        (&plain, "good.crt", Some("good.key"), KEY, "is for TLS, and cache.url asks for none"),
    ] {
        world.set("cache.url", url);
        world.set(
            CERTIFICATE,
            Some(certificate).filter(|it| !it.is_empty()).map_or_else(String::new, file),
        );
        world.set(KEY, key.map_or_else(String::new, file));
        for command in [&["run", "--until-caught-up"][..], &["check"], &["verify"]] {
            let refused = world.call(command);
            // A check tells it with what else it finds.
            let said = refused.failure(2).to_owned() + &refused.out;
            assert!(said.contains(&format!("{at} = ")) && said.contains(words), "{words}: {said}");
            assert!(!said.contains(secret), "{words}: {said}");
        }
    }
    assert!(world.committed().is_empty());
}
