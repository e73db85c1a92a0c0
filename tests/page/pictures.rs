//! The pictures of the page in the README: `make screenshots` sets SCREENSHOTS to the directory for
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// Where the pictures go, if there are to be any.
pub(super) fn wanted() -> Option<PathBuf> {
    std::env::var_os("SCREENSHOTS").map(PathBuf::from)
}

/// Publishes so many generated events of every kind a second.
fn load(world: &World, seed: &str, rate: &str) -> Running {
    let mix = ["--duplicates", "0.05", "--bad", "0.001", "--foreign", "0.02"];
    let events =
        ["publish", "--generate", "1000000", "--rate", rate, "--seed", seed, "--drafts", "20000"];
    world.start(&[&events[..], &mix[..], &["--create-drafts"]].concat())
}

/// Takes the pictures under a moderate load: by day, on a phone, and by night while the database is
/// away.
pub(super) fn take(directory: &Path, world: &World, server: &Postgres, browser: &mut Browser) {
    // The charts are to have something to show: more than two minutes, and a wave in them.
    let _tide = load(world, "1", "1500");
    std::thread::sleep(Duration::from_secs(60));
    let wave = load(world, "2", "1500");
    std::thread::sleep(Duration::from_secs(35));
    drop(wave);
    std::thread::sleep(Duration::from_secs(40));

    let save = |browser: &mut Browser, name: &str| {
        // Some more figures, drawn for the window as it is by now.
        std::thread::sleep(Duration::from_millis(2_500));
        fs::write(directory.join(name), browser.picture()).unwrap();
    };
    fs::create_dir_all(directory).unwrap();
    browser.window(1_280, 1_310);
    save(browser, "page.png");
    browser.window(390, 844);
    save(browser, "page-phone.png");
    browser.window(1_280, 800);
    browser.prefer("dark");
    let frozen = server.freeze();
    browser.eventually("the outage is shown", &database_is("held"));
    save(browser, "page-held.png");
    frozen.thaw();
    browser.eventually("it has recovered", &database_is("up"));
    browser.window(1_280, 900);
    browser.prefer("light");
}
