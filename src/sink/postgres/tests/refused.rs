//! What the table refuses, or does not get done: who pays for it, and what that takes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dataflows::outcome::Outcome::{self, Applied, Duplicate};
use dataflows::record::RawRecord;
use dataflows::row::{Judgement, judge};

use super::*;

/// A table in memory that keeps the rule of the row.
#[derive(Clone, Default)]
struct Rows(Arc<Kept>);

/// Says of a draft's row, and the job whose images it is to hold, what is to become of that.
type Says = dyn Fn(&str, Option<&str>) -> Answer + Send + Sync;

#[derive(Default)]
struct Kept {
    rows: Mutex<BTreeMap<String, RowMemory>>,
    says: Option<Box<Says>>,
    /// Whether all rows are locked, until one is judged.
    is_locked: AtomicBool,
    /// How many events were judged, each as often as it was.
    judged: AtomicUsize,
    /// The rows of each statement that writes.
    statements: Mutex<Vec<usize>>,
}

/// What a table says to one row of a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Refused,
    /// Not a word, and nothing is written.
    Ignored,
    /// It takes longer than a statement may take.
    Slow,
}

/// What a statement takes: longer than the first wait before a retry.
const STATEMENT: Duration = Duration::from_millis(200);

impl Rows {
    fn new(says: impl Fn(&str, Option<&str>) -> Answer + Send + Sync + 'static) -> Rows {
        Rows(Arc::new(Kept { says: Some(Box::new(says)), ..Kept::default() }))
    }

    /// Has that event in its row already.
    fn with(self, event: &Change) -> Rows {
        let mut rows = self.0.rows.lock().unwrap();
        rows.insert(event.draft_id().to_owned(), judged(&RowMemory::default(), event));
        drop(rows);
        self
    }

    async fn write(
        &self,
        statement: Vec<(&str, Option<&str>, RowMemory)>,
    ) -> Result<Vec<usize>, Failure> {
        self.0.statements.lock().unwrap().push(statement.len());
        tokio::time::sleep(STATEMENT).await;
        let says = |(draft, job, _): &(&str, Option<&str>, RowMemory)| {
            self.0.says.as_ref().map_or(Answer::Good, |says| says(draft, *job))
        };
        let answers: Vec<Answer> = statement.iter().map(says).collect();
        if answers.contains(&Answer::Slow) {
            return Err(Failure::Cancelled(DatabaseError::NoAnswer(STATEMENT)));
        }
        if answers.contains(&Answer::Refused) {
            return Err(Failure::Refused(Fault::new(Reason::DatabaseRefused, "no").into()));
        }
        let mut written = Vec::new();
        for (index, (draft, _, memory)) in statement.into_iter().enumerate() {
            if answers[index] == Answer::Good {
                self.0.rows.lock().unwrap().insert(draft.to_owned(), memory);
                written.push(index);
            }
        }
        Ok(written)
    }
}

fn judged(row: &RowMemory, event: &Change) -> RowMemory {
    judge(row, std::slice::from_ref(event)).memory.unwrap_or_else(|| row.clone())
}

impl Table for Rows {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        if self.0.is_locked.load(Ordering::Relaxed) {
            return Err(Failure::Locked(DatabaseError::NoAnswer(WRITE)));
        }
        let rows = self.0.rows.lock().unwrap().clone();
        let row = |event: &Change| rows.get(event.draft_id()).cloned().unwrap_or_default();
        let wins =
            |event: &Change| judge(&row(event), std::slice::from_ref(event)).winner.is_some();
        let places: Vec<usize> = (0..events.len()).filter(|&at| wins(events[at])).collect();
        let statement = places.iter().map(|&at| {
            let event = events[at];
            (event.draft_id(), Some(event.job_id()), judged(&row(event), event))
        });
        let written = self.write(statement.collect()).await?;
        Ok(written.into_iter().map(|at| places[at]).collect())
    }

    async fn read(&mut self, drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        self.0.is_locked.store(false, Ordering::Relaxed);
        let rows = self.0.rows.lock().unwrap();
        let row = |draft: &str| rows.get(draft).cloned().unwrap_or_default();
        Ok(drafts.iter().map(|draft| row(draft)).enumerate().collect())
    }

    async fn amend(&mut self, amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        let rows = self.0.rows.lock().unwrap().clone();
        let row = |draft: &str| rows.get(draft).cloned().unwrap_or_default();
        let is_as_seen = |it: &Amendment<'_>| row(it.group.draft_id()) == it.seen;
        let places: Vec<usize> =
            (0..amendments.len()).filter(|&at| is_as_seen(&amendments[at])).collect();
        let statement = places.iter().map(|&at| {
            let Amendment { group, winner, memory, .. } = &amendments[at];
            let job = winner.map(|winner| group.events[winner].job_id());
            (group.draft_id(), job, memory.clone())
        });
        let written = self.write(statement.collect()).await?;
        Ok(written.into_iter().map(|at| places[at]).collect())
    }

    async fn locked(&mut self, drafts: &[&str]) -> Result<Vec<usize>, Failure> {
        let locked = if self.0.is_locked.load(Ordering::Relaxed) { drafts.len() } else { 0 };
        Ok((0..locked).collect())
    }

    fn disconnect(&mut self) {}

    fn judge(&self, row: &RowMemory, events: &[Change]) -> Judgement {
        self.0.judged.fetch_add(events.len(), Ordering::Relaxed);
        judge(row, events)
    }
}

/// Events in the order of their delivery: time, job, draft.
fn events(of: &[(i64, &str, &str)]) -> Vec<Change> {
    let mut chunk = Chunk::default();
    for (&(timestamp_ms, job, draft), offset) in of.iter().zip(0..) {
        let [simple, fancy, trendy] =
            ["simple", "fancy", "trendy"].map(|style| format!("http://cdn/{job}/{style}"));
        let value = format!(
            r#"{{"jobId":"{job}","eventDraftId":"{draft}","imageUrls":{{"simple":"{simple}","fancy":"{fancy}","trendy":"{trendy}"}}}}"#
        );
        let value = Some(value.as_bytes());
        chunk.push(RawRecord { offset, timestamp_ms, value, ..RawRecord::default() }, []);
    }
    sort(chunk, DraftIdType::Text { max_chars: None }).changes
}

/// What becomes of a batch: the outcomes by job, and the jobs that are rejected.
async fn outcomes(
    table: &Rows,
    rows_max: usize,
    events: Vec<Change>,
) -> (Vec<(String, Outcome)>, Vec<String>) {
    let (mut worker, mut lanes) = remote::<Group, Written>(1, &Waker::of_nobody());
    let count = events.len();
    for (batch, ticket) in group(events).chunks(rows_max).zip(0..) {
        worker.submit(ticket, 0, batch.to_vec());
    }
    let served = serve(lanes.remove(0), table.clone(), rows_max, RETRY, policy());
    let (mut settled, mut refused) = (Vec::new(), Vec::new());
    let asked = async {
        let mut answered = 0;
        while answered < count {
            tokio::time::sleep(WRITE).await;
            while let Some(answer) = worker.poll() {
                for written in answer.answers {
                    for Settled { group, outcomes } in written.settled {
                        answered += outcomes.len();
                        let jobs = group.events.iter().map(|event| event.job_id().to_owned());
                        settled.extend(jobs.zip(outcomes));
                    }
                    for rejected in written.refused {
                        answered += 1;
                        let value: serde_json::Value =
                            serde_json::from_slice(rejected.record().value().unwrap()).unwrap();
                        refused.push(value["jobId"].as_str().unwrap().to_owned());
                    }
                }
            }
        }
        drop(worker);
    };
    let both = async { tokio::join!(served, asked) };
    tokio::time::timeout(Duration::from_secs(3_600), both).await.expect("each has an outcome");
    (settled, refused)
}

/// The run before stopped between COMMIT and DEL, and the row has taken no UPDATE since.
#[tokio::test(start_paused = true)]
async fn e16_a_duplicate_does_not_pay_for_an_event_that_its_row_refuses() {
    for answer in [Answer::Refused, Answer::Ignored] {
        let events = events(&[(10, "a", "d"), (5, "b", "d")]);
        let table = Rows::new(move |_, _| answer).with(&events[0]);
        let (settled, refused) = outcomes(&table, 10, events).await;
        assert_eq!(settled, [("a".to_owned(), Duplicate)], "its DEL comes behind that");
        assert_eq!(refused, ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn e16_an_event_that_is_not_written_time_and_again_does_not_cost_those_beside_it() {
    let ignores_b = |_: &str, job: Option<&str>| match job {
        Some("b") => Answer::Ignored,
        _ => Answer::Good,
    };
    let events = events(&[(10, "a", "d"), (20, "b", "d")]);
    let (settled, refused) = outcomes(&Rows::new(ignores_b), 10, events).await;
    assert_eq!(settled, [("a".to_owned(), Applied)]);
    assert_eq!(refused, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn e6_a_statement_that_is_too_slow_is_cut_and_not_repeated_as_it_is() {
    const ROWS: usize = 64;
    let slow = AtomicUsize::new(0);
    let says = move |draft: &str, _: Option<&str>| {
        let is_slow = draft == "d00" && slow.fetch_add(1, Ordering::Relaxed) < 9;
        if is_slow { Answer::Slow } else { Answer::Good }
    };
    let drafts: Vec<String> = (0..ROWS).map(|number| format!("d{number:02}")).collect();
    let of: Vec<_> = drafts.iter().map(|draft| (1, draft.as_str(), draft.as_str())).collect();
    let table = Rows::new(says);
    let (settled, refused) = outcomes(&table, ROWS, events(&of)).await;
    assert_eq!((settled.len(), refused.len()), (ROWS, 0), "slowness is no fault of the row");
    let statements = table.0.statements.lock().unwrap();
    let halves = [64, 32, 16, 8, 4, 2, 1, 1, 2, 4, 8, 16, 32];
    assert_eq!(*statements, [&halves[..], &[1; 3]].concat());
}

#[tokio::test(start_paused = true)]
async fn e10_what_is_due_again_is_written_with_no_more_rows_than_a_statement_may_have() {
    let drafts: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    let of: Vec<_> = drafts.iter().map(|draft| (1, draft.as_str(), draft.as_str())).collect();
    let kept = Kept { is_locked: AtomicBool::new(true), ..Kept::default() };
    let table = Rows(Arc::new(kept));
    let (settled, refused) = outcomes(&table, 3, events(&of)).await;
    assert_eq!((settled.len(), refused.len()), (20, 0));
    let statements = table.0.statements.lock().unwrap();
    assert_eq!(statements.iter().sum::<usize>(), 20, "{statements:?}");
    assert_eq!(statements.iter().max(), Some(&3), "{statements:?}");
}

/// So many events of one draft, of which the oldest alone is written.
async fn all_but_the_oldest_are_refused(count: i64) -> (usize, usize) {
    let says = |_: &str, job: Option<&str>| match job {
        Some("job-0") => Answer::Good,
        _ => Answer::Refused,
    };
    let jobs: Vec<String> = (0..count).map(|number| format!("job-{number}")).collect();
    let of: Vec<_> = (0..).zip(&jobs).map(|(time, job)| (time, job.as_str(), "d")).collect();
    let table = Rows::new(says);
    let (settled, refused) = outcomes(&table, 10, events(&of)).await;
    assert_eq!(settled, [("job-0".to_owned(), Applied)]);
    assert_eq!(refused.len(), jobs.len() - 1);
    let statements = table.0.statements.lock().unwrap().len();
    (table.0.judged.load(Ordering::Relaxed), statements)
}

#[tokio::test(start_paused = true)]
async fn e16_what_thousands_of_refused_events_of_one_draft_take_grows_with_their_number() {
    let (few, few_statements) = all_but_the_oldest_are_refused(1_000).await;
    let (many, many_statements) = all_but_the_oldest_are_refused(4_000).await;
    println!("judged: {few} for 1,000 events, {many} for 4,000");
    assert!(many <= 5 * few, "{few} events were judged of 1,000, and {many} of 4,000");
    assert!(few_statements <= 1_001 && many_statements <= 4_001, "each refusal, and the last one");
}

#[tokio::test(start_paused = true)]
async fn a_large_group_of_which_one_is_refused_ends_as_a_small_one_does() {
    // In pieces, the later delivery of job-7 is far from the first, and the newest of all but one.
    let mut of: Vec<(i64, String)> = (0..400).map(|time| (time, format!("job-{time}"))).collect();
    of.extend([(900, "job-7".to_owned()), (950, "bad".to_owned())]);
    let of: Vec<_> = of.iter().map(|(time, job)| (*time, job.as_str(), "d")).collect();
    let says = |_: &str, job: Option<&str>| match job {
        Some("bad") => Answer::Refused,
        _ => Answer::Good,
    };
    let table = Rows::new(says);
    let (settled, refused) = outcomes(&table, 10, events(&of)).await;
    assert_eq!(refused, ["bad"]);
    let of = |outcome| settled.iter().filter(|(_, it)| *it == outcome).count();
    assert!(settled.contains(&("job-399".to_owned(), Applied)));
    assert_eq!([Applied, Outcome::Superseded, Duplicate].map(of), [1, 399, 1]);
    let rows = table.0.rows.lock().unwrap();
    assert_eq!(rows["d"].applied.unwrap().timestamp_ms, 399);
}

#[tokio::test(start_paused = true)]
async fn pieces_of_a_group_that_are_held_are_held_together_and_none_is_forgotten() {
    let jobs: Vec<String> = (0..400).map(|number| format!("job-{number}")).collect();
    let of: Vec<_> = (0..).zip(&jobs).map(|(time, job)| (time, job.as_str(), "d")).collect();
    let says = |_: &str, job: Option<&str>| match job {
        Some("job-399") => Answer::Refused,
        _ => Answer::Ignored,
    };
    let (settled, refused) = outcomes(&Rows::new(says), 10, events(&of)).await;
    assert_eq!((settled.len(), refused.len()), (0, 400));
}
