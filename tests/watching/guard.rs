//! Who may look, and what a browser may do with it.

use super::outcomes;
use crate::world::{World, event, eventually};

#[test]
fn only_who_knows_the_token_may_look() {
    let mut world = World::new("token");
    let token = "s3cret/senTinel+~token==";
    world.set("http.token", token);
    let (running, page) = world.start_watched();
    let with = |path: &str, header: &str| page.ask("GET", path, &[header]);
    let (right, wrong) = (format!("Authorization: Bearer {token}"), "Authorization: Bearer s3cret");
    for path in ["/", "/page.js", "/page.css", "/status.json", "/events", "/metrics", "/nothing"] {
        let refused = page.get(path);
        assert_eq!(refused.code, 401, "{path}");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
        assert_eq!(with(path, wrong).code, 401, "{path}");
        assert_eq!(page.get(&format!("{path}?token=wrong")).code, 401, "{path}");
    }
    assert_eq!(with("/status.json", &right).code, 200);
    assert_eq!(with("/metrics", &right).code, 200);
    assert_eq!(
        page.get(&format!("/metrics?token={token}")).code,
        401,
        "only the page, and only once"
    );

    // The page is opened with the token, and from then on with a cookie that is not the token.
    let escaped = token.replace('+', "%2B").replace('/', "%2f");
    let admitted = page.get(&format!("/?token={escaped}"));
    assert_eq!((admitted.code, admitted.header("location")), (303, Some("/")));
    let cookie = admitted.header("set-cookie").unwrap();
    assert!(
        cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("s3cret"),
        "{cookie}"
    );
    let cookie = format!("Cookie: other=1; {}", cookie.split(';').next().unwrap());
    assert_eq!(with("/", &cookie).code, 200);
    assert_eq!(with("/status.json", &cookie).code, 200);
    assert_eq!(with("/status.json", &cookie[..cookie.len() - 1]).code, 401);

    // Whoever starts and stops the program needs no token, and gets no reasons.
    assert_eq!(page.get("/healthz").body, "ok\n");
    eventually("it is ready", || {
        let answer = page.get("/readyz");
        assert!(["ok\n", "not ready\n"].contains(&answer.body.as_str()), "{answer:?}");
        answer.code == 200
    });
    running.terminate();
    let ended = running.wait();
    assert!(!ended.err.contains(token) && !ended.success().contains(token), "{}", ended.err);
}

#[test]
fn every_answer_is_safe_in_a_browser_and_nothing_can_be_done_but_look() {
    let world = World::new("headers");
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    let csp = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
               base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let mut answers = Vec::new();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/status.json", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
    ] {
        let answer = page.get(path);
        assert_eq!((answer.code, answer.header("content-type")), (200, Some(kind)), "{path}");
        let head = page.ask("HEAD", path, &[]);
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
        answers.extend([answer, head]);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let refused = page.ask(method, path, &["Content-Length: 0"]);
            assert_eq!(
                (refused.code, refused.header("allow")),
                (405, Some("GET,HEAD")),
                "{method} {path}"
            );
            answers.push(refused);
        }
    }
    let missing = page.get("/../etc/passwd");
    assert_eq!(missing.code, 404);
    // A page from elsewhere whose name leads here still sends its own name.
    let elsewhere = page.ask("GET", "/status.json", &["Host: evil.example:9464"]);
    assert_eq!(elsewhere.code, 403);
    answers.extend([missing, elsewhere]);
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:9464", "127.1.2.3"] {
        assert_eq!(page.ask("GET", "/healthz", &[&format!("Host: {host}")]).code, 200, "{host}");
    }
    for host in ["", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"] {
        assert_eq!(page.ask("GET", "/healthz", &[&format!("Host: {host}")]).code, 403, "{host}");
    }
    for answer in answers {
        assert_eq!(answer.header("content-security-policy"), Some(csp), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    }
    running.stop().success();
}

#[test]
fn no_answer_holds_a_secret() {
    const SECRET: &str = "s3cret-senTinel";
    let mut world = World::new("no-secrets");
    let with_password = |url: &str, user: &str| {
        let (scheme, rest) = url.split_once("://").unwrap();
        let address = rest.split_once('@').map_or(rest, |(_, address)| address);
        format!("{scheme}://{user}:{SECRET}@{address}")
    };
    let (database_wire, cache_wire) = (world.wire_to_database(), world.wire_to_cache());
    let (database, cache) = (world.setting("database.url"), world.setting("cache.url"));
    let user = database.split_once("://").unwrap().1.split_once('@').unwrap().0.to_owned();
    let user = user.split_once(':').map_or(user.as_str(), |(user, _)| user);
    world.set("database.url", with_password(&database, user));
    world.set("cache.url", with_password(&cache, "default"));
    world.set("kafka.properties.sasl.password", SECRET);
    world.set("http.token", "s3cret-senTinel-token");
    world.drafts(["d1", "d2"]);
    world.publish([event("d1", "j1"), event("ghost", "j2")]);
    let (running, page) = world.start_watched();
    let authorization = "Authorization: Bearer s3cret-senTinel-token";
    let look = || {
        for path in
            ["/", "/page.css", "/page.js", "/status.json", "/metrics", "/healthz", "/readyz", "/x"]
        {
            for headers in [&[authorization][..], &[]] {
                let answer = format!("{:?}", page.ask("GET", path, headers)).to_lowercase();
                assert!(!answer.contains("s3cret"), "{path}: {answer}");
            }
        }
        page.ask("GET", "/status.json", &[authorization]).json()
    };
    eventually("all is through", || outcomes(&look())[5] == 1);
    // Errors quote what they are about, but not that.
    database_wire.cut();
    cache_wire.cut();
    world.publish([event("d2", "j3")]);
    eventually("it is held", || look()["dependencies"][1]["tries"].as_u64() > Some(2));
    database_wire.open();
    eventually("the other is held", || look()["dependencies"][2]["tries"].as_u64() > Some(2));
    cache_wire.open();
    eventually("all is through", || outcomes(&look())[1] == 2);
    running.stop().success();
}
