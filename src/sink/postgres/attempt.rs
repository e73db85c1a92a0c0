//! One part and one statement of it: what is waited for and asked again until there is an answer, or
//! a reason why there is none.

use dataflows::latest::Group;
use dataflows::planted::{Bug, is_planted};
use dataflows::reject::{Fault, Reason};

use super::Writer;
use super::failure::{Failure, Refusal};
use super::table::{Path, Table, Verdict, write};
use crate::figures::Server;
use crate::figures::lanes::Again;
use crate::retry::Backoff;
use crate::sink::outage::Outage;

/// Why a part was not written.
pub(super) enum NotWritten {
    /// The database refuses something in it.
    Refused(Refusal),
    /// Other transactions are in the way, also after the retries, or it takes too long.
    Contended,
    /// Another transaction keeps a row of it locked.
    Locked,
}

impl<T: Table> Writer<T> {
    /// Writes a part, holding through outages and retrying a few times when other transactions are
    /// in the way.
    pub(super) async fn attempt(
        &mut self,
        path: Path,
        groups: &[&Group],
    ) -> Result<Vec<Verdict>, NotWritten> {
        let mut outage = Outage::none(Server::Database, &self.policy);
        let mut contention = Backoff::new(self.retry.backoff);
        loop {
            let written = write(&mut self.table, path, groups).await;
            // Whatever the server says, it is back: also where an earlier statement of ours still
            // holds the rows.
            if !matches!(written, Err(Failure::Out(_))) {
                outage.over();
            }
            match written {
                Ok(verdicts) => return Ok(verdicts),
                Err(Failure::Refused(refusal)) => return Err(NotWritten::Refused(refusal)),
                // If the statement took effect after all, the guard finds it there; if not, it is
                // done now.
                Err(Failure::Contended(error)) if contention.tries() < self.retry.retries => {
                    tracing::debug!(%error, rows = groups.len(), "contention, trying again");
                    outage.pause(contention.next_wait(), Again::Contention).await;
                }
                Err(Failure::Contended(_)) => return Err(NotWritten::Contended),
                // The same statement would take as long again: a smaller one may not, or a later.
                Err(Failure::Cancelled(error)) => {
                    tracing::debug!(%error, rows = groups.len(), "cancelled");
                    return Err(NotWritten::Contended);
                }
                Err(Failure::Locked(_)) => return Err(NotWritten::Locked),
                // The same: an outcome that is unknown is found out by doing it again.
                Err(Failure::Out(error))
                    if is_planted(Bug::LostAnswerIsRefusal)
                        || (is_planted(Bug::OutageIsRefusal) && outage.tries() >= 3) =>
                {
                    let fault = Fault::new(Reason::DatabaseRefused, error.to_string());
                    return Err(NotWritten::Refused(fault.into()));
                }
                Err(Failure::Out(error)) => {
                    self.met_outage = true;
                    self.table.disconnect();
                    outage.hold(&error, error.loss()).await;
                }
            }
        }
    }

    /// Which of these groups' rows are locked.
    pub(super) async fn locked(
        &mut self,
        groups: impl Iterator<Item = &Group>,
    ) -> Result<Vec<usize>, Failure> {
        // Noted as a question that the database has not answered yet.
        let _asked = Outage::none(Server::Database, &self.policy);
        let drafts: Vec<&str> = groups.map(Group::draft_id).collect();
        let locked = self.table.locked(&drafts).await;
        if matches!(locked, Err(Failure::Out(_))) {
            self.table.disconnect();
        }
        self.meets_locks = locked.as_ref().is_ok_and(|locked| !locked.is_empty());
        locked
    }
}
