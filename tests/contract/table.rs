//! The statements.

use super::*;

const NONE: [usize; 0] = [];

#[test]
fn an_update_writes_what_is_newer_and_says_what_it_wrote() {
    on_both(|twin| {
        assert_eq!(twin.update(&[event((0, 1), 5, "a", "d1")]).unwrap(), [0]);
        assert_eq!(twin.images("d1").as_deref(), Some("a"));
        let memory = twin.memory("d1");
        assert_eq!(memory.applied, Some(place((0, 1), 5)));
        assert_eq!(jobs(&memory), ["a"]);
        assert_eq!(memory.recent[0].position, place((0, 1), 5));
    });
}

#[test]
fn an_update_that_is_repeated_writes_nothing() {
    on_both(|twin| {
        let again = event((0, 1), 5, "a", "d1");
        assert_eq!(twin.update(std::slice::from_ref(&again)).unwrap(), [0]);
        assert_eq!(twin.update(&[again]).unwrap(), NONE);
    });
}

/// So a statement that is carried out after a newer one, its connection long given up, does no
/// harm.
#[test]
fn e8_an_update_that_comes_late_does_not_bring_the_old_images_back() {
    on_both(|twin| {
        assert_eq!(twin.update(&[event((0, 2), 6, "new", "d1")]).unwrap(), [0]);
        assert_eq!(twin.update(&[event((0, 1), 5, "old", "d1")]).unwrap(), NONE);
        assert_eq!(twin.images("d1").as_deref(), Some("new"));
    });
}

#[test]
fn a_job_that_the_row_remembers_is_not_written_again_however_new() {
    on_both(|twin| {
        assert_eq!(twin.update(&[event((0, 1), 5, "a", "d1")]).unwrap(), [0]);
        assert_eq!(twin.update(&[event((0, 2), 6, "b", "d1")]).unwrap(), [0]);
        assert_eq!(twin.update(&[event((0, 3), 9, "a", "d1")]).unwrap(), NONE);
        assert_eq!(twin.images("d1").as_deref(), Some("b"));
    });
}

#[test]
fn newer_is_time_then_offset_then_partition() {
    on_both(|twin| {
        let in_order = [((2, 9), -1), ((2, 9), 0), ((0, 1), 1), ((0, 2), 1), ((1, 2), 1)];
        for (index, (at, time)) in in_order.into_iter().enumerate() {
            let job = format!("j{index}");
            assert_eq!(twin.update(&[event(at, time, &job, "d1")]).unwrap(), [0], "{at:?} {time}");
        }
        for (index, (at, time)) in in_order.into_iter().enumerate() {
            let job = format!("other{index}");
            assert_eq!(twin.update(&[event(at, time, &job, "d1")]).unwrap(), NONE, "{at:?} {time}");
        }
    });
}

#[test]
fn a_statement_of_many_says_which_it_wrote_and_rows_that_do_not_exist_are_none_of_them() {
    on_both(|twin| {
        assert_eq!(twin.update(&[event((0, 9), 9, "z", "d2")]).unwrap(), [0]);
        let events = [
            event((0, 1), 5, "a", "d1"),
            event((0, 2), 5, "b", "d2"),
            event((0, 3), 5, "c", "nobody"),
            event((0, 4), 5, "d", "d3"),
        ];
        assert_eq!(twin.update(&events).unwrap(), [0, 3]);
        assert_eq!(twin.images("d2").as_deref(), Some("z"));
    });
}

#[test]
fn e16_one_refused_row_refuses_the_whole_statement() {
    on_both(|twin| {
        let events = [event((0, 1), 5, "a", "d1"), refused((0, 2), 5, "b", "d2")];
        let failure = twin.update(&events).unwrap_err();
        assert!(matches!(failure, Failure::Refused { .. }), "{failure:?}");
        assert_eq!((twin.images("d1"), twin.images("d2")), (None, None));
        assert_eq!(twin.memory("d1"), RowMemory::default());
    });
}

#[test]
fn an_event_that_would_be_refused_is_not_where_it_is_not_written() {
    on_both(|twin| {
        assert_eq!(twin.update(&[event((0, 9), 9, "new", "d1")]).unwrap(), [0]);
        assert_eq!(twin.update(&[refused((0, 1), 5, "old", "d1")]).unwrap(), NONE);
    });
}

#[test]
fn a_row_remembers_sixteen_jobs_newest_first() {
    on_both(|twin| {
        for number in 0..MANY {
            let event = event((0, number), number, &format!("j{number}"), "d1");
            assert_eq!(twin.update(&[event]).unwrap(), [0]);
        }
        let memory = twin.memory("d1");
        let expected: Vec<String> =
            (MANY - 16..MANY).rev().map(|number| format!("j{number}")).collect();
        assert_eq!(jobs(&memory), expected);
    });
}

#[test]
fn a_read_finds_the_rows_that_exist() {
    on_both(|twin| {
        let rows = twin.read(&["nobody", "d2", "d1"]);
        assert_eq!(rows, [(1, RowMemory::default()), (2, RowMemory::default())]);
        assert!(twin.read(&["nobody"]).is_empty());
    });
}

#[test]
fn ids_are_exact_bytes() {
    on_both(|twin| {
        assert!(twin.read(&["D1", "d1 ", "d%", "*"]).is_empty());
        let job = "a\"b\\c{},'";
        let group = Group { events: vec![event((0, 1), 5, "x", "d1"), odd(job)].into() };
        let seen = twin.memory("d1");
        let (winner, memory) = judged(&seen, &group);
        let amendment = Amendment { group: &group, winner, seen, memory };
        assert_eq!(twin.amend(&[amendment]).unwrap(), [0]);
        assert_eq!(jobs(&twin.memory("d1")), [job, "x"]);
    });
}

/// An event whose job has all that an array literal must escape.
fn odd(job: &str) -> Change {
    let quoted = serde_json::to_string(job).unwrap();
    let value = format!(
        r#"{{"jobId":{quoted},"eventDraftId":"d1","imageUrls":{{"simple":"http://s/s/odd","fancy":"http://f","trendy":"http://t"}}}}"#
    );
    let record = dataflows::record::RawRecord {
        offset: 2,
        timestamp_ms: 6,
        value: Some(value.as_bytes()),
        ..Default::default()
    };
    let mut chunk = Chunk::default();
    chunk.push(record, []);
    sort(chunk, DraftIdType::Text { max_chars: None }).changes.pop().unwrap()
}

#[test]
fn an_amendment_writes_the_winner_and_remembers_all() {
    on_both(|twin| {
        let events = vec![
            event((0, 1), 5, "a", "d1"),
            event((0, 2), 7, "b", "d1"),
            event((0, 3), 6, "c", "d1"),
        ];
        let group = Group { events: events.into() };
        let seen = twin.memory("d1");
        let (winner, memory) = judged(&seen, &group);
        let amendment = Amendment { group: &group, winner, seen, memory: memory.clone() };
        assert_eq!(twin.amend(&[amendment]).unwrap(), [0]);
        assert_eq!(twin.images("d1").as_deref(), Some("b"));
        assert_eq!(twin.memory("d1"), memory);
    });
}

#[test]
fn an_amendment_without_a_winner_leaves_the_images_alone() {
    on_both(|twin| {
        assert_eq!(twin.update(&[event((0, 9), 9, "new", "d1")]).unwrap(), [0]);
        let group = Group { events: vec![refused((0, 1), 5, "old", "d1")].into() };
        let seen = twin.memory("d1");
        let (winner, memory) = judged(&seen, &group);
        assert_eq!(winner, None);
        let amendment = Amendment { group: &group, winner, seen, memory };
        assert_eq!(twin.amend(&[amendment]).unwrap(), [0]);
        assert_eq!(twin.images("d1").as_deref(), Some("new"));
        let memory = twin.memory("d1");
        assert_eq!((jobs(&memory), memory.applied), (vec!["new", "old"], Some(place((0, 9), 9))));
    });
}

#[test]
fn an_amendment_of_a_row_that_has_moved_on_does_nothing() {
    on_both(|twin| {
        let [first, second] = ["d1", "d2"].map(|draft| Group {
            events: vec![event((0, 1), 5, &format!("a{draft}"), draft)].into(),
        });
        let seen = RowMemory::default();
        assert_eq!(twin.update(&[event((0, 0), 1, "between", "d1")]).unwrap(), [0]);
        let amendments = [&first, &second].map(|group| {
            let (winner, memory) = judged(&seen, group);
            Amendment { group, winner, seen: seen.clone(), memory }
        });
        assert_eq!(twin.amend(&amendments).unwrap(), [1]);
        assert_eq!(twin.images("d1").as_deref(), Some("between"));
        assert_eq!(twin.images("d2").as_deref(), Some("ad2"));
        // Once more, as after an answer that was lost.
        assert_eq!(twin.amend(&amendments).unwrap(), NONE);
    });
}

/// A row whose memory of jobs somebody has emptied says all the same how new its images are.
#[test]
fn an_amendment_never_brings_older_images_back() {
    on_both(|twin| {
        assert_eq!(twin.update(&[event((0, 9), 9, "new", "d1")]).unwrap(), [0]);
        twin.forget_jobs("d1");
        let seen = RowMemory::default();
        let old = Group { events: vec![event((0, 1), 5, "old", "d1")].into() };
        let (winner, memory) = judged(&seen, &old);
        let amendment = Amendment { group: &old, winner, seen, memory };
        assert_eq!(twin.amend(&[amendment]).unwrap(), NONE);
        assert_eq!(twin.images("d1").as_deref(), Some("new"));
    });
}

#[test]
fn one_refused_winner_refuses_the_whole_amendment() {
    on_both(|twin| {
        let groups = [
            Group { events: vec![event((0, 1), 5, "a", "d1")].into() },
            Group { events: vec![refused((0, 2), 5, "b", "d2")].into() },
        ];
        let seen = RowMemory::default();
        let amendments = groups.each_ref().map(|group| {
            let (winner, memory) = judged(&seen, group);
            Amendment { group, winner, seen: seen.clone(), memory }
        });
        let failure = twin.amend(&amendments).unwrap_err();
        assert!(matches!(failure, Failure::Refused { .. }), "{failure:?}");
        assert_eq!((twin.images("d1"), twin.images("d2")), (None, None));
    });
}

#[test]
fn what_a_row_remembers_comes_back_as_it_was_written() {
    on_both(|twin| {
        let events: Vec<Change> = (0..MANY)
            .map(|number| {
                event((3, number), 1_700_000_000_000 - number, &format!("j{number}"), "d1")
            })
            .collect();
        let group = Group { events: events.into() };
        let seen = twin.memory("d1");
        let (winner, memory) = judged(&seen, &group);
        let amendment = Amendment { group: &group, winner, seen, memory: memory.clone() };
        assert_eq!(twin.amend(&[amendment]).unwrap(), [0]);
        assert_eq!(twin.memory("d1"), memory);
    });
}

/// Of the real server alone: the simulated one knows all times.
#[test]
fn a_time_that_the_server_does_not_know_refuses_the_row() {
    let mut twin = Twin::real();
    for far in [i64::MIN, i64::MAX] {
        let failure = twin.update(&[event((0, 1), far, "a", "d1")]).unwrap_err();
        assert!(matches!(failure, Failure::Refused { .. }), "{failure:?}");
    }
    assert_eq!(twin.memory("d1"), RowMemory::default());
}

#[test]
fn rows_that_others_keep_locked_are_named_without_waiting_for_them() {
    on_both(|twin| {
        let drafts = ["d3", "nobody", "d2", "d1"];
        let locked = twin.while_locked(&["d1", "d3"], |twin| twin.locked(&drafts));
        assert_eq!(locked, [0, 3]);
        assert_eq!(
            twin.locked(&drafts),
            NONE,
            "and what was asked about is not locked by the question"
        );
        assert_eq!(twin.update(&[event((0, 1), 5, "a", "d1")]).unwrap(), [0]);
    });
}
