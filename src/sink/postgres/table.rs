//! The draft table as a lane meets it: its statements, and the two paths that are made of them.

use std::future::Future;

use dataflows::change::Change;
use dataflows::latest::Group;
use dataflows::outcome::{Outcome, Outcomes};
use dataflows::planted::{Bug, is_planted};
use dataflows::row::{Judgement, RowMemory, judge};
use smallvec::smallvec;

use super::failure::Failure;

/// The statements, each a transaction of its own, on a connection that is made when it is needed.
///
/// Rows and events are named by their index in the argument. A [`Failure`] means that nothing of
/// the statement took effect, but for [`Failure::Out`], which leaves that open. The statements keep
/// the rule of [`dataflows::row`] by themselves, so that one that is carried out late, after its
/// connection was given up, does no harm.
pub trait Table: Send {
    /// Writes events of different drafts, each if it is newer than what its row holds and its job
    /// unknown to the row. Returns which were written.
    fn update(
        &mut self,
        events: &[&Change],
    ) -> impl Future<Output = Result<Vec<usize>, Failure>> + Send;

    /// What the rows of these drafts remember, where there is a row.
    fn read(
        &mut self,
        drafts: &[&str],
    ) -> impl Future<Output = Result<Vec<(usize, RowMemory)>, Failure>> + Send;

    /// Compare and set: amends the rows that still hold the event and remember the jobs that they
    /// were judged by. Returns which were amended.
    fn amend(
        &mut self,
        amendments: &[Amendment<'_>],
    ) -> impl Future<Output = Result<Vec<usize>, Failure>> + Send;

    /// Which of these drafts' rows other transactions keep locked, found out without waiting for
    /// any. What does not let itself be locked for another reason may be among them.
    fn locked(
        &mut self,
        drafts: &[&str],
    ) -> impl Future<Output = Result<Vec<usize>, Failure>> + Send;

    /// Drops the connection; the next statement makes a new one.
    fn disconnect(&mut self);

    /// Reads the events of a group again, of which a replay has kept only a part. In a run they are
    /// all there.
    fn recall(&mut self, _events: &mut [Change]) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Whether the records of rejected events are wanted, byte for byte.
    fn wants_records(&self) -> bool {
        true
    }

    /// Whether rows may be amended that have not been read, as if nothing had reached them yet.
    fn may_guess(&self) -> bool {
        true
    }

    /// How a row judges events that reach it.
    fn judge(&self, row: &RowMemory, events: &[Change]) -> Judgement {
        judge(row, events)
    }
}

/// What a judged row is to become.
#[derive(Debug)]
pub struct Amendment<'a> {
    /// The events that were judged.
    pub group: &'a Group,
    /// The event whose images the row is to hold from now on, if any.
    pub winner: Option<usize>,
    /// What the row remembered when it was judged. If it remembers something else by now, it is
    /// judged again.
    pub seen: RowMemory,
    /// What it is to remember.
    pub memory: RowMemory,
}

impl Amendment<'_> {
    /// The winner, or any event where there is none.
    pub fn event(&self) -> &Change {
        &self.group.events[self.winner.unwrap_or_default()]
    }
}

/// The way of a part into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One event a draft: written if it is newer than the row and its job unknown to it.
    Fast,
    /// Judged as if nothing had reached the row yet, and amended if that is so: mostly, where a
    /// topic is read for the first time.
    Guessed,
    /// Read, judge, amend.
    Judged,
}

/// What became of one group.
#[derive(Debug)]
pub enum Verdict {
    /// One durable outcome for each event.
    Settled(Outcomes),
    /// Not settled by this statement; the row must be judged. The event that is to blame, if that
    /// comes to nothing time and again.
    Undecided(usize),
    /// The images of that event, which is to be written, are not there.
    Incomplete(usize),
    /// There is no row with that id.
    NoSuchRow,
}

impl Verdict {
    /// The outcomes, if there are any.
    pub fn settled(self) -> Option<Outcomes> {
        if let Verdict::Settled(outcomes) = self { Some(outcomes) } else { None }
    }
}

/// Sends a part down its path. One verdict for each group, in their order.
///
/// # Errors
///
/// [`Failure`] says what follows. Then no group has a verdict.
pub async fn write(
    table: &mut impl Table,
    path: Path,
    groups: &[&Group],
) -> Result<Vec<Verdict>, Failure> {
    match path {
        Path::Fast => update(table, groups).await,
        Path::Guessed => guess_and_amend(table, groups).await,
        Path::Judged => judge_and_amend(table, groups).await,
    }
}

async fn update(table: &mut impl Table, groups: &[&Group]) -> Result<Vec<Verdict>, Failure> {
    let events: Vec<&Change> = groups.iter().map(|group| &group.events[0]).collect();
    let applied = || Verdict::Settled(smallvec![Outcome::Applied]);
    let mut verdicts: Vec<Verdict> = groups.iter().map(|_| Verdict::Undecided(0)).collect();
    if is_planted(Bug::ZeroRowsIsApplied) {
        verdicts.fill_with(applied);
    }
    for written in table.update(&events).await? {
        verdicts[written] = applied();
    }
    Ok(verdicts)
}

async fn guess_and_amend(
    table: &mut impl Table,
    groups: &[&Group],
) -> Result<Vec<Verdict>, Failure> {
    let rows = (0..groups.len()).map(|index| (index, RowMemory::default())).collect();
    let mut verdicts = amend(table, groups, rows).await?;
    for verdict in &mut verdicts {
        // The row has not said yet that it is this one.
        if let Verdict::Incomplete(event) = *verdict {
            *verdict = Verdict::Undecided(event);
        }
    }
    Ok(verdicts)
}

async fn judge_and_amend(
    table: &mut impl Table,
    groups: &[&Group],
) -> Result<Vec<Verdict>, Failure> {
    let drafts: Vec<&str> = groups.iter().map(|group| group.draft_id()).collect();
    let rows = table.read(&drafts).await?;
    amend(table, groups, rows).await
}

/// Judges groups by what their rows remember, and amends the rows. A group without a row has none.
async fn amend(
    table: &mut impl Table,
    groups: &[&Group],
    rows: Vec<(usize, RowMemory)>,
) -> Result<Vec<Verdict>, Failure> {
    let mut verdicts: Vec<Verdict> = groups.iter().map(|_| Verdict::NoSuchRow).collect();
    let (mut amendments, mut judged) = (Vec::new(), Vec::new());
    for (index, seen) in rows {
        let group = groups[index];
        let Judgement { outcomes, winner, memory } = table.judge(&seen, &group.events);
        verdicts[index] = match (memory, winner) {
            (None, _) => Verdict::Settled(outcomes),
            (Some(_), Some(winner)) if !group.events[winner].has_images() => {
                Verdict::Incomplete(winner)
            }
            (Some(memory), winner) => {
                let suspect = winner.unwrap_or_else(|| newest_superseded(group, &outcomes));
                amendments.push(Amendment { group, winner, seen, memory });
                judged.push((index, outcomes));
                Verdict::Undecided(suspect)
            }
        };
    }
    if amendments.is_empty() {
        return Ok(verdicts);
    }
    // Only where the part is a single group is it surely this one that was refused.
    let suspect = match verdicts[..] {
        [Verdict::Undecided(suspect)] => Some(suspect),
        _ => None,
    };
    for amended in table.amend(&amendments).await.map_err(|failure| failure.blame(suspect))? {
        let (index, outcomes) = &mut judged[amended];
        verdicts[*index] = Verdict::Settled(std::mem::take(outcomes));
    }
    Ok(verdicts)
}

/// The event to blame where none wins and the row does not take what it is to remember. What it
/// remembers already asks nothing of it.
fn newest_superseded(group: &Group, outcomes: &[Outcome]) -> usize {
    let superseded = (0..outcomes.len()).filter(|&it| outcomes[it] == Outcome::Superseded);
    let newest = superseded.max_by_key(|&event| group.events[event].position());
    newest.expect("what a row is to remember is new to it")
}
