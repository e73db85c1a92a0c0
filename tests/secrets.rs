//! Secrets: they reach their server, and appear nowhere else.

use crate::world::{World, event};

const SECRET: &str = "s3cret-senTinel";

fn with_password(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let address = rest.split_once('@').map_or(rest, |(_, address)| address);
    format!("{scheme}://{user}:{SECRET}@{address}")
}

#[test]
fn a_password_appears_in_no_output_however_much_is_logged() {
    let mut world = World::new("secrets");
    let database = world.database.url.clone();
    let user = database.split_once("://").unwrap().1.split_once('@').unwrap().0;
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    world.set("database.url", with_password(&database, user));
    world.set("cache.url", with_password(&world.cache.url.clone(), "default"));
    world.set("kafka.properties.sasl.password", SECRET);
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1"), event("ghost", "job-2")]);

    let check = |arguments: &[&str], code: i32| {
        let ended = world.call(arguments);
        assert_eq!(ended.code(), Some(code), "{arguments:?}: {}", ended.err);
        for text in [&ended.out, &ended.err] {
            assert!(!text.contains(SECRET), "{arguments:?}: {text}");
        }
        ended
    };
    let ended = check(&["-vv", "check"], 0);
    assert!(ended.err.contains("DEBUG"), "a lot is logged: {}", ended.err);
    check(&["-vv", "run", "--until-caught-up"], 0);
    check(&["-vv", "--log-format", "json", "run", "--until-caught-up"], 0);
    check(&["-vv", "migrate", "--status"], 0);
    check(&["-vv", "draft", "get", "d1"], 0);
    check(&["-vv", "dlq", "count"], 0);
    assert!(world.row("d1").job().is_some());

    // Errors quote what they are about, but not that.
    let mut world = world;
    let right = with_password(&database, user);
    for wrong in [
        right.replacen("contentflow_", "no_such_", 1),
        right.replacen("://", "://x@", 1),
        right.replacen("postgres", "postgras", 1),
        format!("{right}?sslmode=perhaps"),
        format!("{right}?sslmode=require"),
    ] {
        world.set("database.url", &wrong);
        for arguments in [["-vv", "check"], ["-vv", "run"], ["-vv", "migrate"]] {
            let ended = world.call(&arguments);
            assert_ne!(ended.code(), Some(0), "{wrong}");
            for text in [&ended.out, &ended.err] {
                assert!(!text.contains(SECRET), "{wrong}: {text}");
            }
        }
    }
}
