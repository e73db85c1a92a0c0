//! Secrets: they reach their server, and appear nowhere else.

use crate::world::private::{Postgres, Redis};
use crate::world::{World, event, eventually, record};

const SECRET: &str = "s3cret-senTinel";

fn with_password(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let address = rest.split_once('@').map_or(rest, |(_, address)| address);
    format!("{scheme}://{user}:{SECRET}@{address}")
}

#[test]
fn j4_a_password_appears_in_no_output_however_much_is_logged() {
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

/// What must not be seen: the password, in no spelling. It has all the characters that a URL
/// escapes.
const PASSWORD: &str = "s3nTinel@:/?#% ";

/// Every byte escaped, as a URL may.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn assert_kept(what: &str, text: &str) {
    let spellings =
        [PASSWORD[..8].to_owned(), escaped(&PASSWORD[..8]), escaped(&PASSWORD[..8]).to_lowercase()];
    for spelling in spellings {
        assert_eq!(text.lines().find(|line| line.contains(&spelling)), None, "{what}");
    }
}

/// A world on servers that want the password.
fn guarded(database: &Postgres, cache: &Redis) -> World {
    let mut world = World::on_postgres("j4", database);
    world.database.sql(&format!("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{PASSWORD}'"));
    let rules =
        "host all contentflow 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(database.data().join("pg_hba.conf"), rules).unwrap();
    world.database.sql("SELECT pg_reload_conf()");
    cache.acl(&["SETUSER", "guarded", "on", &format!(">{PASSWORD}"), "~*", "+@all"]);
    let (_, address) = world.database.url.split_once('@').unwrap();
    let password = escaped(PASSWORD);
    world.set("database.url", format!("postgres://guarded:{password}@{address}"));
    world.set("cache.url", cache.url.replace("://", &format!("://guarded:{password}@")));
    world.set("kafka.properties.sasl.password", PASSWORD);
    world.set("kafka.properties.debug", "all");
    world.set("run.retry_backoff_ms", 10);
    world.variable("RUST_LOG", "trace");
    world
}

#[test]
fn j4_at_trace_level_no_error_path_shows_a_password_in_any_spelling() {
    let (database, cache) = (Postgres::start(), Redis::start());
    let mut world = guarded(&database, &cache);
    world.drafts(["d1", "d2"]);
    world.publish([event("d1", "job-1"), event("ghost", "job-2"), record("rubbish")]);

    // A run in which both servers stop to take the password, and take it again.
    let running = world.start_run();
    eventually("the first ones are through", || world.committed() == world.ends());
    world.database.sql("ALTER ROLE guarded PASSWORD 'another'");
    cache.acl(&["SETUSER", "guarded", "resetpass", ">another"]);
    cache.tell("CLIENT KILL USER guarded");
    assert!(world.database.cut_sessions() > 0);
    world.publish([event("d2", "job-3")]);
    eventually("it does not get in", || running.err().matches("does not let us in").count() > 0);
    world.database.sql(&format!("ALTER ROLE guarded PASSWORD '{PASSWORD}'"));
    cache.acl(&["SETUSER", "guarded", "resetpass", &format!(">{PASSWORD}")]);
    eventually("it is through", || world.committed() == world.ends());
    let ended = running.stop();
    assert_eq!(ended.report().outcomes(), [4, 2, 0, 0, 0, 2]);
    assert!(ended.err.contains("TRACE"), "a lot is logged");
    assert_kept("the log of a run", &ended.err);
    assert_kept("its report", &ended.out);

    // What other people can read: the dead letters, and the arguments of the process.
    for letter in world.dead_letters() {
        for (name, value) in &letter.headers {
            assert_kept(name, &String::from_utf8_lossy(value.as_deref().unwrap_or_default()));
        }
    }

    let commands: [&[&str]; 8] = [
        &["run", "--until-caught-up"],
        &["check"],
        &["migrate"],
        &["draft", "get", "d1"],
        &["draft", "put", "d1"],
        &["draft", "list"],
        &["dlq", "list"],
        &["publish", "--generate", "1", "--create-drafts"],
    ];
    let all = |world: &World, when: &str, expected: &[i32]| {
        for command in commands {
            let ended = world.call(command);
            assert!(
                ended.code().is_some_and(|code| expected.contains(&code)),
                "{when}: {command:?}"
            );
            assert_kept(&format!("{when}: {command:?}"), &format!("{}{}", ended.out, ended.err));
        }
    };
    all(&world, "all is well", &[0, 1]);
    let password = escaped(PASSWORD);
    let right =
        format!("postgres://guarded:{password}@{}", world.database.url.split_once('@').unwrap().1);
    for wrong in [
        right.replacen(&password, &format!("{password}x"), 1),
        right.replacen("contentflow_", "no_such_", 1),
        format!("{right}?sslmode=require"),
        format!("{right}?sslmode=perhaps"),
        right.replacen(&password, "s3nTinel@x", 1),
        right.replacen("postgres://", "", 1),
        format!("postgres://guarded:{password}@127.0.0.1:1/x"),
    ] {
        world.set("database.url", &wrong);
        all(&world, &wrong, &[0, 1, 2, 75]);
    }
    world.set("database.url", right);
    let server = world.cache.url.split(['@', '/']).nth_back(1).unwrap().to_owned();
    for (number, wrong) in wrong_caches(&server, &password).iter().enumerate() {
        world.set("cache.url", wrong);
        all(&world, &format!("wrong cache {number}"), &[0, 1, 2, 75]);
    }
}

/// URLs of caches that there are not. The server is one by itself.
fn wrong_caches(server: &str, password: &str) -> Vec<String> {
    let own = format!("?sentinel_password={password}");
    let wrong = [
        ("redis", "x@127.0.0.1:1/0".to_owned()),
        ("redis", "@127.0.0.1:1/zero".to_owned()),
        ("redis", "@127.0.0.1:1/0#x".to_owned()),
        ("redis", "@nowhere.invalid:1".to_owned()),
        ("redis+cluster", format!("@{server}")),
        ("redis+cluster", "x@127.0.0.1:1,nowhere.invalid:1".to_owned()),
        ("redis+cluster", format!("@{server}/1{own}")),
        ("redis+sentinel", format!("@{server}/master{own}")),
        ("redis+sentinel", format!("x@127.0.0.1:1,nowhere.invalid/master{own}")),
        ("redis+sentinel", format!("@127.0.0.1:1{own}")),
    ];
    wrong.map(|(scheme, place)| format!("{scheme}://guarded:{password}{place}")).into()
}
