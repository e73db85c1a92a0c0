//! `docs/faults.md` and the tests tell the same story.

use std::collections::BTreeSet;
use std::path::Path;

/// All that is written in the tests, and beside the code.
fn sources(under: &Path, all: &mut String) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The id that a name begins with: a letter and a number, or a letter alone for hostile records.
fn has_id(name: &str) -> bool {
    let (first, rest) = name.split_at(1);
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    rest[digits..].starts_with('_') && "abcdefhj".contains(first) && digits > 0
        || name.starts_with("g_")
}

/// Where the page names one test and counts the others, the one is enough.
#[test]
fn every_test_that_the_page_names_exists_and_every_scenario_that_has_a_test_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let mut code = String::new();
    ["tests", "src"].iter().for_each(|under| sources(&root.join(under), &mut code));
    let tests: BTreeSet<&str> = code
        .lines()
        .map(|line| line.trim_start().trim_start_matches("async "))
        .filter_map(|line| line.strip_prefix("fn ")?.split_once("()"))
        .map(|(name, _)| name)
        .collect();

    let named: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).filter(|name| name.len() > 3 && has_id(name)).collect();
    let full_names = named.iter().filter(|name| name.len() > 8);
    let missing: Vec<_> = full_names.filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "the page names tests that do not exist: {missing:?}");

    let ids = |name: &str| -> Vec<String> {
        let parts = name.split('_').take_while(|part| has_id(&format!("{part}_")));
        parts.map(str::to_uppercase).collect()
    };
    let shown: BTreeSet<String> = named.iter().flat_map(|name| ids(name)).collect();
    let exist: BTreeSet<String> =
        tests.iter().filter(|name| has_id(name)).flat_map(|name| ids(name)).collect();
    let untold: Vec<_> = exist.difference(&shown).collect();
    assert!(untold.is_empty(), "the page names no test of {untold:?}");
    println!("scenarios with a test on real servers: {}", shown.len());
    assert!(shown.len() >= 80, "{}: {shown:?}", shown.len());
}
