//! The page for readers of every kind: with a keyboard, on a phone, with a screen reader, in the
//! dark.

use super::*;

/// Without it there is nothing to see.
const TOKEN: &str = "a-token-of-this-test";

/// Everything that can be used, in the order of the page.
const STATIONS: [&str; 12] = [
    "Skip to the figures",
    "Pause",
    "The stages as a table",
    "Throughput of the last 15 minutes",
    "Latency of the last 15 minutes",
    "Partitions",
    "Partition",
    "Lag",
    "metrics",
    "status.json",
    "healthz",
    "readyz",
];

/// The answer of a probe, see `probe.js`.
fn probe(browser: &mut Browser, name: &str) -> Value {
    browser.value(&format!("({}).{name}()", include_str!("probe.js")))
}

/// A page with figures in each of its parts.
fn filled(name: &str) -> (World, Running, Browser) {
    let mut world = World::new(name);
    world.set("http.token", TOKEN);
    world.set("http.listen", "127.0.0.1:0");
    world.drafts((1..=300).map(|number| format!("a-{number}")));
    world.publish(events("a", 300));
    let long = "a".repeat(400);
    world.publish([hostile(), record(body("d", "j").to_string().replace("simple", &long))]);
    let running = world.start_run();
    let address = address(&running);
    let mut browser = Browser::start();
    browser.open(&format!("{address}/?token={TOKEN}"));
    browser.eventually("the figures come", "document.body.dataset.link === 'live'");
    applied(&mut browser, 300);
    browser.eventually(
        "the dead letters are shown",
        "document.querySelectorAll('#letters tbody tr').length === 2",
    );
    (world, running, browser)
}

#[test]
fn the_page_is_for_readers_with_a_keyboard_on_a_phone_in_the_dark_and_with_a_screen_reader() {
    let (_world, _running, mut browser) = filled("reader");
    assert_eq!(browser.value("location.search"), json!(""), "the token is out of sight");
    // The drawings are named when they are drawn: with the frame after the figures, or one later.
    browser.eventually(
        "nothing is without a name",
        &format!("({}).missing().length === 0", include_str!("probe.js")),
    );
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        assert_eq!(probe(&mut browser, "faint"), json!([]), "{scheme}");
    }
    for (width, height) in
        [(360, 740), (320, 640), (768, 1_024), (1_160, 800), (1_280, 800), (1_920, 1_080)]
    {
        browser.window(width, height);
        // The drawings are laid out when the window has changed.
        browser.eventually(
            "it fits",
            &format!("({}).overflowing().length === 0", include_str!("probe.js")),
        );
        assert_eq!(probe(&mut browser, "overlapping"), json!([]), "{width}");
    }
    browser.window(1_280, 800);
    with_the_keyboard(&mut browser);
    units(&mut browser);
    let complaints = browser.complaints().to_vec();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn with_the_keyboard(browser: &mut Browser) {
    for station in STATIONS {
        browser.press("Tab");
        assert_eq!(probe(browser, "focus"), json!(station));
        match station {
            "Pause" => {
                browser.press(" ");
                assert_eq!(browser.text("#link"), "paused");
                browser.press("Enter");
                assert_eq!(browser.text("#link"), "live");
            }
            "The stages as a table" => {
                browser.press("Enter");
                assert_eq!(browser.value("document.querySelector('details').open"), json!(true));
                assert_eq!(
                    browser.value("document.querySelectorAll('#stages tbody tr').length"),
                    json!(8)
                );
            }
            "Throughput of the last 15 minutes" => {
                browser.eventually(
                    "some time goes by",
                    "Number(document.activeElement.ariaValueMin) <= -5",
                );
                browser.press("ArrowLeft");
                assert_eq!(browser.value("document.activeElement.ariaValueNow"), json!("-5"));
                browser.press("End");
                assert_eq!(browser.value("document.activeElement.ariaValueNow"), json!("0"));
            }
            "Lag" => {
                browser.press(" ");
                let sorted = "document.activeElement.closest('th').ariaSort";
                assert_eq!(browser.value(sorted), json!("descending"));
            }
            _ => {}
        }
    }
}

/// Numbers as people read them.
fn units(browser: &mut Browser) {
    let written = [
        ("rate(0)", "0 /s"),
        ("rate(7.25)", "7.3 /s"),
        ("rate(812.4)", "812 /s"),
        ("rate(999.7)", "1.00 k/s"),
        ("rate(12345)", "12.3 k/s"),
        ("rate(1234567)", "1.23 M/s"),
        ("rate(null)", "–"),
        ("count(1234567)", "1,234,567"),
        ("count(undefined)", "–"),
        ("short(61000)", "61.0 k"),
        ("percent(0.314)", "31 %"),
        ("percent(0.001)", "< 1 %"),
        ("percent(0)", "0 %"),
        ("percent(NaN)", "–"),
        ("duration(0.0004)", "0.4 ms"),
        ("duration(0.004)", "4 ms"),
        ("duration(0.21)", "210 ms"),
        ("duration(1.24)", "1.2 s"),
        ("duration(59.7)", "1 min"),
        ("duration(200)", "3 min 20 s"),
        ("duration(7500)", "2 h 5 min"),
        ("duration(360000)", "4 d 4 h"),
        ("roughly(7.9)", "7 s"),
        ("ago(0.5)", "now"),
        ("ago(12)", "12 s ago"),
        ("ago(185)", "3 min ago"),
        ("ago(7300)", "2 h ago"),
        ("round('50.0 k/s')", "50 k/s"),
        ("plural(1, 'worker')", "1 worker"),
        ("plural(2, 'try', 'tries')", "2 tries"),
    ];
    for (call, expected) in written {
        let answer =
            browser.value(&format!("import('/page/units.js').then((units) => units.{call})"));
        assert_eq!(answer, json!(expected), "{call}");
    }
}
