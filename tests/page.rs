//! The page at `/`, as a real browser shows it while the program works on real servers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::world::private::Postgres;
use crate::world::{Browser, Record, Running, World, body, event, eventually, record};

mod pictures;
mod reader;

/// Markup as somebody might send it who hopes for a page that believes it.
const MARKUP: &str = r#"<img src=x onerror="document.title='taken over'">"#;

/// A page must show an outage within this, milliseconds.
const SHOWN_WITHIN_MS: i64 = 3_000;

/// Where the program says that its page is.
fn address(running: &Running) -> String {
    let mut address = None;
    eventually("it says where its page is", || {
        address = running.err().split_whitespace().find_map(|word| {
            let url = word.strip_prefix("url=").unwrap_or(word).trim_matches('"');
            url.starts_with("http://127.0.0.1:").then(|| url.trim_end_matches('/').to_owned())
        });
        address.is_some()
    });
    address.unwrap()
}

/// A program at work, and its page.
fn watched(world: &mut World) -> (Running, Browser, String) {
    world.set("http.listen", "127.0.0.1:0");
    let running = world.start_run();
    let address = address(&running);
    let mut browser = Browser::start();
    browser.open(&address);
    browser.eventually("the figures come", "document.body.dataset.link === 'live'");
    (running, browser, address)
}

/// An event that is rejected with a message that names its id, which is markup.
fn hostile() -> Record {
    record(body(&format!("{MARKUP}\u{1}"), "job-hostile").to_string())
}

/// Whether the page says of the database that it is so.
fn database_is(state: &str) -> String {
    format!(
        "document.querySelector('#servers [data-server=postgresql]')?.dataset.state === '{state}'"
    )
}

/// Waits until the page says that so many events were applied.
fn applied(browser: &mut Browser, count: u64) {
    let cell = "[data-figure=applied] .number";
    browser.eventually(
        "the events are counted",
        &format!("document.querySelector('{cell}').textContent.replace(',', '') === '{count}'"),
    );
}

/// Events of this moment, one for each of so many drafts.
fn events(drafts: &str, count: u64) -> Vec<Record> {
    let event = |number| {
        let event = event(&format!("{drafts}-{number}"), &format!("job-{number}"));
        Record { timestamp_ms: now_ms(), ..event }
    };
    (1..=count).map(event).collect()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[test]
fn the_page_shows_numbers_that_move_dead_letters_and_an_outage_and_survives_a_restart() {
    let server = Postgres::start();
    let mut world = World::on_postgres("page", &server);
    for drafts in ["a", "b", "c", "d", "e"] {
        world.drafts((1..=300).map(|number| format!("{drafts}-{number}")));
    }
    let (running, mut browser, address) = watched(&mut world);
    browser.value("window.isFirst = true");

    // Numbers move.
    applied(&mut browser, 0);
    world.publish(events("a", 300));
    browser.eventually(
        "a rate is shown",
        "/[1-9]/.test(document.querySelector('[data-stage=write] .rate').textContent)",
    );
    applied(&mut browser, 300);
    world.publish(events("b", 300));
    applied(&mut browser, 600);
    let sum = "[...document.querySelectorAll('#partitions tbody tr')].map(row => Number(row.cells[2].textContent.replace(',', ''))).reduce((a, b) => a + b, 0)";
    browser.eventually("all is committed, and said so", &format!("{sum} === 600"));
    browser.eventually("the database is up", &database_is("up"));

    // A dead letter appears, and what a stranger has written stays text.
    world.publish([hostile()]);
    browser.eventually(
        "the dead letter is shown",
        "document.querySelector('#letters tbody tr') !== null",
    );
    let letter = browser.text("#letters tbody tr");
    assert!(
        letter.contains("id-control-character") && letter.contains("<img src=x onerror="),
        "{letter}"
    );
    assert_eq!(browser.value("document.querySelectorAll('img').length"), json!(0));
    assert_ne!(browser.value("document.title"), json!("taken over"));
    browser.eventually(
        "it is counted",
        "document.querySelector('#reasons th')?.textContent === 'id-control-character'",
    );

    shows_an_outage(&world, &server, &mut browser);
    if let Some(directory) = pictures::wanted() {
        pictures::take(&directory, &world, &server, &mut browser);
    }
    let complaints = browser.complaints().to_vec();
    assert!(complaints.is_empty(), "{complaints:#?}");

    survives_a_restart(&mut world, running, &mut browser, &address);
}

/// The database stands still: the page says so soon enough, and that it is back. The time is
/// measured in the page; a busy machine gets more than one try.
fn shows_an_outage(world: &World, server: &Postgres, browser: &mut Browser) {
    let mut times = Vec::new();
    for drafts in ["c", "d", "e"] {
        browser.value(&format!(
            "window.heldAt = null; window.watch?.disconnect(); \
             window.watch = new MutationObserver(() => {{ if ({}) heldAt ??= Date.now(); }}); \
             watch.observe(document.body, {{ subtree: true, childList: true, attributes: true }}); null",
            database_is("held")
        ));
        let frozen_at = now_ms();
        let frozen = server.freeze();
        world.publish(events(drafts, 300));
        browser.eventually("the outage is shown", "heldAt !== null");
        assert_eq!(browser.value("document.querySelector('#state').dataset.state"), json!("held"));
        assert_eq!(
            browser.value("document.querySelector('[data-stage=write]').hasAttribute('data-held')"),
            json!(true)
        );
        let said = browser.text("#announcement");
        assert!(said.contains("PostgreSQL is held"), "{said}");
        let reasons = browser.text("#not-ready-reasons");
        assert!(reasons.contains("postgresql"), "{reasons}");
        times.push(browser.value("heldAt").as_i64().unwrap() - frozen_at);
        frozen.thaw();
        browser.eventually("it has recovered", &database_is("up"));
        browser.eventually(
            "all runs again",
            "document.querySelector('#state').dataset.state === 'running'",
        );
        if times.last().is_some_and(|&time| time <= SHOWN_WITHIN_MS) {
            break;
        }
    }
    eprintln!("a frozen database was shown as held after {times:?} ms");
    assert!(times.iter().any(|&time| time <= SHOWN_WITHIN_MS), "after {times:?} ms");
}

/// The program stands still, ends, and comes back: the page says so each time, and never has to be
/// loaded anew.
fn survives_a_restart(world: &mut World, running: Running, browser: &mut Browser, address: &str) {
    let is_away =
        "document.body.dataset.link === 'away' && !document.querySelector('#away').hidden";
    let is_live = "document.body.dataset.link === 'live' && document.querySelector('#away').hidden";
    let frozen = running.freeze();
    browser.eventually("silence is noticed", is_away);
    assert!(browser.text("#away-words").contains("No answer from contentflow"));
    frozen.thaw();
    browser.eventually("it is heard again", is_live);

    running.stop().success();
    browser.eventually("the end is noticed", is_away);
    assert_eq!(
        browser.text("#announcement"),
        "The connection to contentflow is lost. The figures are stale."
    );
    let of_the_page = browser.complaints().iter().find(|it| !it.starts_with("network: "));
    assert_eq!(of_the_page, None, "only that nobody answers");
    world.set("http.listen", address.strip_prefix("http://").unwrap());
    let again = world.start_run();
    browser.eventually("the new one is found", is_live);
    // Its counts begin anew.
    applied(browser, 0);
    assert_eq!(browser.value("window.isFirst"), json!(true), "it was not loaded anew");
    again.stop().success();
}
