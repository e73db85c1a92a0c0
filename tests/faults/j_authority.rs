//! The authority that has signed the certificate of Redis is one that the configuration names, and
//! nobody else's.

use std::fs;
use std::path::Path;

use crate::interruptions::mixed;
use crate::world::private::Redis;
use crate::world::{World, certificates, event};

/// The key.
const AUTHORITY: &str = "cache.root_certificates";

/// Proves that there is no TLS with the cache, for a reason and with a hint with these words,
/// whoever asks.
fn assert_refused(world: &World, words: &str) {
    let checked = world.call(&["check"]);
    let line = checked.out.lines().find(|line| line.contains(" cache ")).unwrap_or_default();
    assert!(line.starts_with("FAIL") && line.contains("no TLS with Redis"), "{}", checked.out);
    assert!(checked.out.contains(words), "{words}: {}", checked.out);
    let run = world.call(&["run", "--until-caught-up"]);
    let error = run.failure(1);
    assert!(error.contains("no TLS with Redis") && error.contains(words), "{words}: {error}");
}

/// Has the server use that certificate for new connections.
fn serve(server: &Redis, certificates: &Path, name: &str) {
    let [certificate, key] = ["crt", "key"]
        .map(|extension| certificates.join(format!("{name}.{extension}")).display().to_string());
    server.tell(&format!("CONFIG SET tls-cert-file {certificate} tls-key-file {key}"));
}

#[test]
fn j5_redis_is_known_by_the_authority_that_is_named_and_by_no_other() {
    let (ours, theirs) = (certificates(), certificates());
    let [own, stranger] = [&ours, &theirs].map(|it| it.path().join("ca.crt"));
    let server = Redis::start_encrypted(ours.path(), &[]);
    let mut world = World::on_redis("j5-authority", &server);
    let (_, database) = world.cache.url.rsplit_once('/').unwrap();
    world.set("cache.url", format!("rediss://127.0.0.1:{}/{database}", server.secure_port()));
    let hint = "set cache.root_certificates to a PEM file";
    assert_refused(&world, hint);
    // Of the same name, even.
    world.set(AUTHORITY, stranger.display());
    assert_refused(&world, hint);
    assert!(world.committed().is_empty());

    // One of several.
    let several = ours.path().join("several.pem");
    fs::write(&several, [stranger, own].map(|file| fs::read(file).unwrap()).concat()).unwrap();
    world.set(AUTHORITY, several.display());
    world.call(&["check"]).success();
    let load = world.load(mixed(5, 2_000));
    assert_eq!(world.run_until_caught_up().read, load.events());
    world.assert_done(&load);
    assert_eq!(world.call(&["verify"]).code(), Some(0));
    world.drafts(["read"]);
    world.empty_cache();
    let read = world.call(&["draft", "get", "read"]);
    assert_eq!(read.err.trim(), "from the database, and now in the cache");
    assert!(world.cached("read").is_some());

    // An authority is no server, even if it is trusted.
    serve(&server, ours.path(), "ca");
    assert_refused(&world, "(basicConstraints CA:FALSE)");
    // And its certificate has to be for this host, and of today.
    for name in ["other", "expired"] {
        serve(&server, ours.path(), name);
        assert_refused(&world, "with a certificate for this host");
    }
}

#[test]
fn j5_an_authority_that_cannot_be_used_is_refused_before_anything_is_read() {
    let certificates = certificates();
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let key = fs::read_to_string(file("ca.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    fs::write(file("broken.pem"), key.replace("PRIVATE KEY-----", "CERTIFICATE-----")).unwrap();
    fs::write(file("cut.pem"), &fs::read(file("ca.crt")).unwrap()[..200]).unwrap();
    let mut world = World::new("j5-authority-config");
    world.publish([event("d1", "job")]);
    let (plain, encrypted) = (world.cache.url.clone(), "rediss://127.0.0.1:1");
    for (url, name, words) in [
        (encrypted, "missing.pem", "cannot be read: No such file"),
        (encrypted, "", "cannot be read: Is a directory"),
        (encrypted, "ca.key", "has no certificate in PEM in it"),
        (encrypted, "broken.pem", "is broken at its certificate 1"),
        (encrypted, "cut.pem", "is broken at its certificate 1"),
        (&plain, "ca.crt", "is for TLS, and cache.url asks for none"),
        ("redis+cluster://h", "ca.crt", "is for TLS, and cache.url asks for none"),
        ("redis+sentinel://h/m", "ca.crt", "is for TLS, and cache.url asks for none"),
    ] {
        world.set("cache.url", url);
        world.set(AUTHORITY, file(name));
        for command in [&["run", "--until-caught-up"][..], &["check"], &["verify"]] {
            let refused = world.call(command);
            // A check tells it with what else it finds.
            let said = refused.failure(2).to_owned() + &refused.out;
            let named = format!("{AUTHORITY} = {:?}", file(name));
            assert!(said.contains(&named) && said.contains(words), "{name}: {said}");
            assert!(said.contains("leave it out") && !said.contains(secret), "{name}: {said}");
        }
    }
    assert!(world.committed().is_empty());
}
