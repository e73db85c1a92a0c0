//! Partitions that stand still.

use super::*;
use crate::source::assignment::standstill::{AGAIN, SHORTLY};

#[tokio::test(start_paused = true)]
async fn a_partition_that_was_given_up_is_read_on_also_while_no_leader_says_what_there_is() {
    let client = Fake::new();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.on_data_loss = OnDataLoss::Continue;
    state.assigned(&client, &all_of_them()).unwrap();

    state.take_up(&client).unwrap();
    let all: Offsets = [(0, 5), (1, 7), (2, EARLIEST)].into();
    assert_eq!(client.taken_up.take(), [(all.clone(), all)]);

    // Its leader is there again, and the record has gone: the client says so once more.
    client.leaders.borrow_mut().extend([(1, (8, 9)), (2, (3, 9))]);
    state.take_up(&client).unwrap();
    let all = [(0, 5), (1, 8), (2, EARLIEST)].into();
    assert_eq!(client.taken_up.take(), [(all, [(1, 8)].into())]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_stands_still_though_its_next_record_is_there_is_taken_up_anew() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();

    state.take_up(&client).unwrap();
    let all: Offsets = [(0, 5), (1, 7), (2, 0)].into();
    let anew = [(all.clone(), all)];
    assert_eq!(client.taken_up.take(), anew, "nobody says which one it is");
    state.take_up(&client).unwrap();
    state.tend(&client).unwrap();
    assert!(client.taken_up.take().is_empty(), "not again and again");
    client.sleep(AGAIN);
    state.tend(&client).unwrap();
    assert_eq!(client.taken_up.take(), anew);
}

#[tokio::test(start_paused = true)]
async fn what_retention_deletes_around_a_pause_is_noticed_and_told_once() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.on_data_loss = OnDataLoss::Continue;
    state.assigned(&client, &all_of_them()).unwrap();
    let mut pause_and_wait = || {
        state.resume(&client).unwrap();
        state.tend(&client).unwrap();
        client.sleep(AGAIN);
        state.tend(&client).unwrap();
        client.taken_up.take()
    };

    assert!(pause_and_wait().is_empty(), "nothing has gone");
    client.leaders.borrow_mut().insert(1, (8, 9));
    let all = [(0, 5), (1, 8), (2, 0)].into();
    assert_eq!(pause_and_wait(), [(all, [(1, 8)].into())]);
    assert!(pause_and_wait().is_empty(), "it is read from there, though no record has come yet");
}

#[tokio::test(start_paused = true)]
async fn what_retention_has_deleted_and_the_client_still_has_is_not_lost() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    state.resume(&client).unwrap();
    client.leaders.borrow_mut().insert(1, (9, 9));
    state.ingest.push(record(1, 7), std::iter::empty::<(&str, _)>());
    client.sleep(AGAIN);
    state.tend(&client).unwrap();
    assert!(!state.abort.is_raised(), "8 may be among what was fetched");
    state.ingest.push(record(1, 8), std::iter::empty::<(&str, _)>());
    state.ingest.none_waits();
    state.tend(&client).unwrap();
    assert!(!state.abort.is_raised() && client.taken_up.take().is_empty(), "and it was");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_has_become_shorter_is_begun_anew_once() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.on_data_loss = OnDataLoss::Continue;
    state.assigned(&client, &all_of_them()).unwrap();
    client.leaders.borrow_mut().insert(1, (0, 3));
    state.take_up(&client).unwrap();
    assert_eq!(client.taken_up.take()[0].1, [(1, 0)].into());

    for offset in 0..3 {
        state.ingest.push(record(1, offset), std::iter::empty::<(&str, _)>());
    }
    assert_eq!(state.next_offsets()[&1], 3, "and not where it was before");
}

#[tokio::test(start_paused = true)]
async fn what_the_client_still_has_is_not_lost_when_another_partition_is_given_up() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    client.leaders.borrow_mut().insert(1, (9, 9));
    state.ingest.push(record(1, 7), std::iter::empty::<(&str, _)>());
    state.given_up();
    state.tend(&client).unwrap();
    assert!(!state.abort.is_raised(), "8 may be among what was fetched");
    state.ingest.push(record(1, 8), std::iter::empty::<(&str, _)>());
    state.ingest.none_waits();
    state.tend(&client).unwrap();
    let all: Offsets = [(0, 5), (1, 9), (2, 0)].into();
    assert_eq!(client.taken_up.take(), [(all.clone(), all)], "and it was");
    assert!(!state.abort.is_raised());

    client.leaders.borrow_mut().insert(2, (1, 9));
    state.ingest.push(record(0, 5), std::iter::empty::<(&str, _)>());
    state.given_up();
    state.tend(&client).unwrap();
    assert!(!state.abort.is_raised());
    client.sleep(AGAIN);
    state.tend(&client).unwrap();
    assert!(state.abort.is_raised(), "there is always more of another, and nothing of this one");
}

/// The client's word of a partition that it has given up is gone with a rebalance.
#[tokio::test(start_paused = true)]
async fn a_partition_given_up_unheard_around_a_rebalance_is_found() {
    for gone in [(8, 9), (0, 3)] {
        let client = whole();
        let (mut state, _commits) = client.state(OnOutage::Wait);
        state.on_data_loss = OnDataLoss::Continue;
        state.assigned(&client, &all_of_them()).unwrap();
        let wait = |state: &mut State| {
            client.sleep(AGAIN);
            state.tend(&client).unwrap();
            client.taken_up.take().into_iter().map(|(_all, moved)| moved).collect::<Vec<_>>()
        };
        client.leaders.borrow_mut().insert(1, gone);
        assert_eq!(wait(&mut state), [[(1, gone.0)].into()], "partitions came");
        client.leaders.borrow_mut().insert(2, (3, 9));
        assert!(wait(&mut state).is_empty(), "it is not asked for ever");
        state.let_go(&[0]);
        assert_eq!(wait(&mut state), [[(2, 3)].into()], "others went");
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_lost_are_not_taken_up() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    client.leaders.borrow_mut().insert(1, (8, 9));
    client.is_lost.set(true);
    state.given_up();
    state.tend(&client).unwrap();
    assert!(!state.abort.is_raised(), "it is another's, who may have read it");
    state.let_go(&[1]);
    client.is_lost.set(false);
    client.sleep(SHORTLY);
    state.tend(&client).unwrap();
    let all: Offsets = [(0, 5), (2, 0)].into();
    assert_eq!(client.taken_up.take(), [(all.clone(), all)]);
    state.given_up();
    state.let_go(&[0, 2]);
    client.sleep(AGAIN);
    state.tend(&client).unwrap();
    assert!(client.taken_up.take().is_empty(), "nothing is ours");
}

#[tokio::test(start_paused = true)]
async fn of_a_topic_made_again_all_is_corrected_though_a_leader_answers_later() {
    let client = whole();
    let (mut state, commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    state.ingest.push(record(0, 5), std::iter::empty::<(&str, _)>());
    state.committer.note(vec![(0, 6)]);
    let away = client.leaders.borrow_mut().remove(&1).unwrap();
    assert!(state.made_again(&client).is_err());
    client.leaders.borrow_mut().insert(1, away);
    state.made_again(&client).unwrap();
    state.committer.tend(true);
    assert_eq!(commits.requests.try_iter().collect::<Vec<_>>(), [[(0, 0)].into()]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_cut_where_it_was_read_is_told_as_a_loss_though_its_next_record_is_there() {
    for policy in [OnDataLoss::Stop, OnDataLoss::Continue] {
        let client = whole();
        let (mut state, _commits) = client.state(OnOutage::Wait);
        state.on_data_loss = policy;
        state.assigned(&client, &all_of_them()).unwrap();
        state.truncated("Partition log truncation detected at offset 7");
        state.given_up();
        state.tend(&client).unwrap();
        let all: Offsets = [(0, 5), (1, 7), (2, 0)].into();
        if policy == OnDataLoss::Continue {
            assert_eq!(client.taken_up.take(), [(all.clone(), all)]);
        } else {
            let Some(Cause::Failure(message)) = state.abort.cause() else { panic!("it goes on") };
            assert!(message.contains("at offset 7; run.on_data_loss = "), "{message}");
        }
    }
}
