//! Watching a run: the page, the snapshot, the metrics and the health tell what is so, to those who may know, and cost nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use contentflow::generate::Mix;
use serde_json::{Value, json};

use crate::interruptions::mixed;
use crate::world::private::Postgres;
use crate::world::{
    Page, PrivateKafka, World, create_topic, delete_topic, event, eventually, record,
};

mod metrics;

/// The record counts of a snapshot, in the order of the report's.
fn outcomes(status: &Value) -> [u64; 6] {
    ["read", "applied", "duplicate", "superseded", "skipped", "rejected"]
        .map(|name| status["outcomes"][name].as_u64().unwrap())
}

#[test]
fn the_snapshot_and_the_metrics_say_what_the_report_says_at_the_end() {
    let mut world = World::new("watched");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(61, 6_000));
    world.publish([event("ghost", "j1"), record("[]")]);
    let events = load.events() + 2;
    let (running, page) = world.start_watched();
    eventually("all is through", || {
        let [read, outcomes @ ..] = outcomes(&page.status());
        read == events && outcomes.iter().sum::<u64>() == events
    });
    // The broker knows of a commit a moment before we know its answer.
    eventually("all is committed", || {
        let status = page.status();
        let parts = status["partitions"].as_array().unwrap();
        parts.len() == 4 && parts.iter().all(|part| part["committed"] == part["end"])
    });
    assert_eq!(world.committed(), world.ends());
    let (status, metrics) = (page.status(), page.get("/metrics").body);

    let report = running.stop().report();

    assert_eq!(outcomes(&status), report.outcomes());
    assert_eq!(status["rejected_by_reason"], json!(report.rejected_by_reason));
    let told = |name: &str| status["outcomes"][name].as_u64().unwrap();
    assert_eq!((told("deletes"), told("keys_deleted")), (report.deletes, report.keys_deleted));
    assert_eq!((&status["state"], &status["ready"]), (&json!("running"), &json!(true)));
    assert_eq!((&status["topic"], &status["group"]), (&json!(world.topic()), &json!(world.name)));
    for part in status["partitions"].as_array().unwrap() {
        let number = i32::try_from(part["partition"].as_i64().unwrap()).unwrap();
        let end = world.ends()[&number];
        assert_eq!(
            ["position", "committed", "end", "lag"].map(|name| part[name].as_i64().unwrap()),
            [end, end, end, 0]
        );
    }
    let value = |series: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series}\n{metrics}")).parse().unwrap()
    };
    assert_eq!(value("contentflow_records_read_total"), report.read);
    for (outcome, count) in ["applied", "duplicate", "superseded", "skipped", "rejected"]
        .into_iter()
        .zip(&report.outcomes()[1..])
    {
        let series = format!("contentflow_records_total{{outcome=\"{outcome}\"}}");
        assert_eq!(value(&series), *count, "{outcome}");
    }
    for (reason, count) in &report.rejected_by_reason {
        let series = format!("contentflow_records_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&series), *count, "{reason}");
    }
    // What reached its row has a latency; each dead letter was in a batch; and timely's log knows each record, too.
    let [_, applied, duplicate, superseded, skipped, rejected] = report.outcomes();
    let settled = applied + duplicate + superseded;
    assert_eq!(value("contentflow_end_to_end_latency_seconds_count"), settled);
    let sum = |stage: &str| -> u64 {
        let of = |worker| {
            format!(
                "contentflow_worker_stage_records_total{{worker=\"{worker}\",stage=\"{stage}\"}}"
            )
        };
        (0..2).map(|worker| value(&of(worker))).sum()
    };
    assert_eq!(sum("decode"), report.read);
    assert_eq!(sum("invalidate"), settled);
    assert_eq!(sum("dead-letter"), rejected);
    let unknown = report.rejected_by_reason["unknown-draft"];
    assert_eq!(sum("dedupe"), report.read - skipped - (rejected - unknown));
    assert!(value("contentflow_effect_duration_seconds_count{effect=\"write\"}") > 0);
    assert_eq!(value("contentflow_effect_batch_records_sum{effect=\"dead-letter\"}"), rejected);
}

#[test]
fn a_dead_letter_is_shown_with_its_reason_and_place_and_none_of_its_payload() {
    let world = World::new("letters");
    let hostile = "<img src=x onerror=alert(1)>";
    world.publish([record(format!("{{\"jobId\": \"{hostile}\", \"secret-payload\": 1}}")).on(3)]);
    let (running, page) = world.start_watched();
    eventually("it is shown", || page.status()["dead_letters"] != json!([]));
    let status = page.status();
    let letter = &status["dead_letters"][0];
    assert_eq!(
        ["reason", "stage", "partition", "offset"].map(|name| letter[name].clone()),
        [json!("missing-field"), json!("validate"), json!(3), json!(0)]
    );
    assert!(letter["message"].as_str().unwrap().contains("eventDraftId"), "{letter}");
    assert!(letter["at_ms"].as_u64().unwrap() > 1_600_000_000_000);
    for path in ["/status.json", "/metrics"] {
        let body = page.get(path).body;
        assert!(!body.contains("secret-payload") && !body.contains("onerror"), "{body}");
    }
    running.stop().success();
}

#[test]
fn a_frozen_database_is_told_while_it_lasts_and_is_no_reason_to_be_killed() {
    let server = Postgres::start();
    let mut world = World::on_postgres("frozen", &server);
    world.drafts(["d1", "d2", "d3"]);
    world.publish([event("d1", "j1")]);
    // Nobody gives it up: that it is held is seen by what is not answered.
    world.set("database.statement_timeout_ms", 60_000);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    eventually("all is through", || outcomes(&page.status())[1] == 1);
    let postgresql = |status: &Value| status["dependencies"][1].clone();
    eventually("it is up", || postgresql(&page.status())["state"] == "up");

    let frozen = server.freeze();
    world.publish([event("d2", "j2")]);
    let mut events = page.events();
    let held = events.find(|status| postgresql(status)["state"] == "held").unwrap();
    let since_s = postgresql(&held)["since_s"].as_f64().unwrap();
    assert!(since_s < 4.0, "it is told as soon as it can be known, and not after {since_s} s");
    let error = postgresql(&held)["error"].clone();
    assert!(error.as_str().unwrap().starts_with("no answer for "), "{error}");
    assert_eq!((&held["state"], &held["ready"]), (&json!("held"), &json!(false)));
    assert_eq!(held["limit"]["node"], "write", "{}", held["limit"]);
    let readyz = page.get("/readyz");
    assert_eq!(readyz.code, 503);
    assert!(readyz.body.starts_with("postgresql is held since "), "{}", readyz.body);
    assert!(
        readyz.body.ends_with(" s\n") && readyz.body.contains(": no answer for "),
        "{}",
        readyz.body
    );
    assert_eq!(page.get("/healthz").code, 200);
    assert_eq!(page.metric("contentflow_dependency_up{dependency=\"postgresql\"}"), 0.0);
    assert_eq!(page.metric("contentflow_dependency_up{dependency=\"redis\"}"), 1.0);
    assert!(page.metric("contentflow_dependency_held_seconds{dependency=\"postgresql\"}") > 2.0);

    frozen.thaw();
    let up = events.find(|status| postgresql(status)["state"] == "up").unwrap();
    assert_eq!(postgresql(&up)["error"], Value::Null);
    eventually("it is ready again", || page.get("/readyz").code == 200);
    eventually("all is through", || outcomes(&page.status())[1] == 2);
    running.stop().success();
}

#[test]
fn a_database_that_refuses_connections_is_told_with_its_words_and_the_tries() {
    let mut world = World::new("refused");
    world.drafts(["d1", "d2"]);
    let wire = world.wire_to_database();
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    wire.cut();
    world.publish([event("d1", "j1")]);
    let held = |status: &Value| status["dependencies"][1]["state"] == "held";
    let status =
        page.events().find(|it| held(it) && it["dependencies"][1]["tries"].as_u64() > Some(2));
    let dependency = &status.unwrap()["dependencies"][1];
    assert!(!dependency["error"].as_str().unwrap().is_empty(), "{dependency}");
    let retries = "contentflow_effect_retries_total{effect=\"write\",cause=\"outage\"}";
    assert!(page.metric(retries) > 2.0);
    wire.open();
    eventually("it is ready again", || page.get("/readyz").code == 200);
    eventually("all is through", || outcomes(&page.status())[1] == 1);
    running.stop().success();
}

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
fn an_address_that_was_asked_for_is_had_or_the_run_does_not_begin() {
    let world = World::new("taken");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let ended = world.call(&["run", "--http", &taken]);
    let error = ended.failure(1);
    assert!(error.contains(&format!("http.listen = {taken}")), "{error}");
    assert!(error.contains("hint: another program listens there: choose another port"), "{error}");
    assert!(!error.contains("assigned"), "nothing was read: {error}");
    let ended = world.call(&["run", "--http", "nowhere"]);
    assert!(ended.failure(2).contains("http.listen = \"nowhere\""), "{}", ended.err);
    let ended = world.call(&["run", "--http", "off", "--until-caught-up"]);
    assert!(ended.success().contains("read") && !ended.err.contains("the page is at"));
}

#[test]
fn where_nobody_asked_for_the_address_another_one_does() {
    let mut world = World::new("default");
    world.unset("http.listen");
    // Ours, or whoever else has it at the moment: in both cases it is taken.
    let _ours = TcpListener::bind("127.0.0.1:9464");
    let running = world.start(&["run", "--report", "json"]);
    let page = Page::of(&running);
    eventually("it is ready", || page.get("/readyz").code == 200);
    assert_eq!(page.get("/healthz").code, 200);
    let err = running.err();
    assert!(err.contains("is taken") && err.contains("http.listen sets one"), "{err}");
    assert!(!page.address.ends_with(":9464"), "{}", page.address);
    running.stop().success();
}

#[test]
fn whoever_looks_slowly_or_not_at_all_keeps_nobody_waiting() {
    let mut world = World::new("slow-readers");
    world.set("run.epoch_records", 500);
    let (running, page) = world.start_watched();
    // Some ask for everything and read nothing, some say nothing at all, and one says half of what it wants.
    let readers: Vec<TcpStream> = (0..20).map(|_| page.send("GET", "/events", &[])).collect();
    let idle: Vec<TcpStream> = (0..200).map(|_| page.connect()).collect();
    let mut half = page.connect();
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").unwrap();

    let load = world.load(mixed(67, 5_000));
    eventually("all is through", || outcomes(&page.status())[0] == load.events());
    eventually("all is committed", || world.committed() == world.ends());
    assert!(page.metric("contentflow_http_connections") >= 20.0);

    // Those who have said nothing are not waited for any longer than a request may take.
    for mut stream in idle.into_iter().chain([half]) {
        let mut rest = Vec::new();
        // Closed, with or without a word about the time; a connection that is reset is closed as well.
        let _closed = stream.read_to_end(&mut rest);
    }
    assert_eq!(page.get("/healthz").code, 200);
    let ended = running.stop();
    assert_eq!(ended.report().read, load.events());
    for mut reader in readers {
        let mut rest = String::new();
        let _closed = reader.read_to_string(&mut rest);
        assert!(rest.contains("data: {"), "it was served");
    }
    assert!(TcpStream::connect(&page.address).is_err(), "the server ends with the run");
    world.assert_done(&load);
}

#[test]
fn a_run_that_ends_says_that_it_drains() {
    let server = Postgres::start();
    let world = World::on_postgres("draining", &server);
    world.drafts(["d1"]);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    let frozen = server.freeze();
    world.publish([event("d1", "j1")]);
    eventually("it is read", || outcomes(&page.status())[0] == 1);
    running.terminate();
    eventually("it drains", || page.status()["state"] == "draining");
    let readyz = page.get("/readyz");
    assert!(readyz.code == 503 && readyz.body.contains("draining"), "{readyz:?}");
    assert_eq!(page.get("/healthz").code, 200);
    frozen.thaw();
    let ended = running.wait();
    assert_eq!(ended.report().applied, 1);
}

#[test]
fn a_broker_that_hangs_is_told_and_so_is_that_it_is_back() {
    let kafka = PrivateKafka::lease();
    let world = kafka.world("broker-hangs");
    world.drafts(["d1"]);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    let kafka_of = |status: &Value| status["dependencies"][0].clone();
    assert_eq!(kafka_of(&page.status())["name"], "kafka");
    eventually("the broker is up", || kafka_of(&page.status())["state"] == "up");
    kafka.freeze();
    let held = page.events().find(|status| kafka_of(status)["state"] == "held").unwrap();
    let error = kafka_of(&held)["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("broker 127.0.0.1:"), "{error}");
    assert_eq!((held["limit"]["node"].as_str(), page.get("/readyz").code), (Some("source"), 503));
    assert_eq!(page.get("/healthz").code, 200);
    kafka.thaw();
    eventually("it is ready again", || page.get("/readyz").code == 200);
    world.publish([event("d1", "j1")]);
    eventually("all is through", || outcomes(&page.status())[1] == 1);
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

#[test]
fn under_load_the_stages_move_and_the_one_that_limits_is_named_with_what_to_change() {
    let mut world = World::new("limits");
    world.set("run.epoch_records", 500);
    world.set("run.workers", 2);
    world.slow_down(60);
    let load = world.load(Mix { events: 20_000, drafts: 20_000, ..Mix::default() });
    let (running, page) = world.start_watched();
    let limited = page.events().find(|status| {
        let limit = &status["limit"];
        limit["stage"] == "database" && limit["busy"].as_f64() > Some(0.75)
    });
    let status = limited.unwrap();
    println!("{status:#}");
    let limit = &status["limit"];
    assert_eq!(limit["node"], "write");
    let words = limit["words"].as_str().unwrap();
    assert!(
        words.starts_with("The limit: database. The 2 connections to it are at work"),
        "{words}"
    );
    assert!(limit["advice"].as_str().unwrap().contains("more connections"), "{limit}");

    let stages = status["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|it| it["name"].as_str().unwrap()).collect();
    let journey =
        ["source", "decode", "dedupe", "latest", "write", "invalidate", "dead-letter", "commit"];
    assert_eq!(names, journey);
    for stage in stages {
        let (name, busy) = (stage["name"].as_str().unwrap(), &stage["busy"]);
        assert!(stage["records_per_s"].as_f64().unwrap() >= 0.0, "{stage}");
        assert_eq!(busy.is_null(), name == "commit", "{stage}");
        assert!(busy.is_null() || (0.0..=1.0).contains(&busy.as_f64().unwrap()), "{stage}");
        let on_workers = ["decode", "dedupe", "latest"].contains(&name);
        let workers = stage["workers"].as_array().map_or(0, Vec::len);
        assert_eq!(workers, if on_workers { 2 } else { 0 }, "{stage}");
    }
    let moving = |name: &str| {
        let place = journey.iter().position(|it| *it == name).unwrap();
        stages[place]["records_per_s"].as_f64().unwrap() > 0.0
    };
    assert!(
        ["dedupe", "latest", "write", "invalidate", "commit"].into_iter().all(moving),
        "{status:#}"
    );
    let epochs = &status["epochs"];
    assert!(epochs["in_flight"].as_u64() <= epochs["limit"].as_u64(), "{epochs}");
    assert_eq!(epochs["limit"], 3, "the default");
    assert!(
        epochs["records_in_flight"].as_u64() > Some(0)
            && epochs["oldest_age_s"].as_f64() > Some(0.0)
    );
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for worker in workers {
        let stages = worker["stages"].as_object().unwrap().values().map(|it| it.as_f64().unwrap());
        // Each is rounded by itself.
        assert!(stages.sum::<f64>() <= worker["busy"].as_f64().unwrap() + 0.01, "{worker}");
    }

    world.speed_up();
    eventually("all is through", || world.committed() == world.ends());
    let history = |status: &Value| status["history"].clone();
    let later = page.events().find(|it| {
        it["limit"]["words"].as_str().unwrap().starts_with("Nothing limits")
            && history(it)["records_per_s"]
                .as_array()
                .unwrap()
                .iter()
                .any(|rate| rate.as_f64() > Some(0.0))
    });
    let history = history(&later.unwrap());
    assert_eq!(history["step_s"], 5);
    let points = ["records_per_s", "latency_p50_ms", "latency_p99_ms"]
        .map(|name| history[name].as_array().unwrap().clone());
    assert!(points.iter().all(|it| it.len() == points[0].len()), "{history}");
    assert!(points[1].iter().zip(&points[2]).all(|(half, most)| half.as_f64() <= most.as_f64()));
    assert!(points[1].iter().any(Value::is_number), "{history}");
    assert_eq!(running.stop().report().read, load.events());
}

#[test]
fn a_process_for_which_the_group_has_no_partition_is_ready_all_the_same() {
    let mut world = World::new("spare");
    let topic = format!("{}-one", world.name);
    create_topic(&topic, 1, &[]);
    world.set("kafka.topic", &topic);
    world.set("dead_letters.topic", format!("{}.dlq", world.topic()));
    let (first, second) = (world.start_watched(), world.start_watched());
    let parts = |page: &Page| page.status()["partitions"].as_array().unwrap().len();
    eventually("one of them has it", || parts(&first.1) + parts(&second.1) == 1);
    for (_, page) in [&first, &second] {
        eventually("it is ready", || page.get("/readyz").code == 200);
    }
    first.0.stop().success();
    eventually("the other one has it", || parts(&second.1) == 1);
    second.0.stop().success();
    delete_topic(&topic);
}

#[test]
fn a_row_that_stays_locked_makes_it_not_ready_once_nothing_gets_past_it() {
    let world = World::new("stuck");
    world.drafts(["d1", "d2"]);
    let (running, page) = world.start_watched();
    eventually("it is ready", || page.get("/readyz").code == 200);
    let other = world.database.session();
    other.sql("BEGIN");
    other.sql("UPDATE event_drafts SET updated_at = now() WHERE event_draft_id = 'd1'");
    world.publish([event("d1", "j1"), event("d2", "j2")]);
    eventually("it is stuck", || {
        page.get("/readyz").body.starts_with("stuck: the oldest epoch has been")
    });
    assert_eq!((page.get("/readyz").code, page.get("/healthz").code), (503, 200));
    let retries = "contentflow_effect_retries_total{effect=\"write\",cause=\"row\"}";
    assert!(page.metric(retries) > 0.0);
    other.sql("ROLLBACK");
    eventually("it is ready again", || page.get("/readyz").code == 200);
    assert_eq!(running.stop().report().applied, 2);
}
