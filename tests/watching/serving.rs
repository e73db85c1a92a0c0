//! Where it is served, and that whoever looks keeps nobody waiting.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::outcomes;
use crate::interruptions::mixed;
use crate::world::{Page, World, eventually};

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
    // Some ask for everything and read nothing, some say nothing at all, and one says half of what
    // it wants.
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
        // Closed, with or without a word about the time; a connection that is reset is closed as
        // well.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is waited for still: {error}");
        }
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
