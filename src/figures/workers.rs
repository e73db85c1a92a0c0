//! What the workers do, from timely's own log: what each operator takes in, how long it works, and
//! how long the worker sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dataflows::operators;
use timely::logging::{ParkEvent, StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use super::{Figures, nanos};

/// A stage that has operators on every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphStage {
    /// Taking in chunks, decoding and validating.
    Decode,
    /// Setting aside what is known to be durable.
    Dedupe,
    /// Bringing together the events of each draft.
    Latest,
    /// Handing rows to the database's lanes.
    Write,
    /// Handing keys to the cache's lanes.
    Invalidate,
    /// Handing dead letters to their lane.
    DeadLetter,
}

impl GraphStage {
    /// The stages in the order of the journey.
    pub const ALL: [GraphStage; 6] = [
        GraphStage::Decode,
        GraphStage::Dedupe,
        GraphStage::Latest,
        GraphStage::Write,
        GraphStage::Invalidate,
        GraphStage::DeadLetter,
    ];

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            GraphStage::Decode => "decode",
            GraphStage::Dedupe => "dedupe",
            GraphStage::Latest => "latest",
            GraphStage::Write => "write",
            GraphStage::Invalidate => "invalidate",
            GraphStage::DeadLetter => "dead-letter",
        }
    }

    /// Its place among them.
    pub fn place(self) -> usize {
        match self {
            GraphStage::Decode => 0,
            GraphStage::Dedupe => 1,
            GraphStage::Latest => 2,
            GraphStage::Write => 3,
            GraphStage::Invalidate => 4,
            GraphStage::DeadLetter => 5,
        }
    }

    /// The stage that an operator belongs to.
    fn working(operator: &str) -> Option<GraphStage> {
        match operator {
            operators::FEED | operators::ACCEPT => Some(GraphStage::Decode),
            operators::DEDUPE | operators::REMEMBER => Some(GraphStage::Dedupe),
            operators::LATEST => Some(GraphStage::Latest),
            operators::WRITE => Some(GraphStage::Write),
            operators::INVALIDATE => Some(GraphStage::Invalidate),
            operators::DEAD_LETTER => Some(GraphStage::DeadLetter),
            _ => None,
        }
    }

    /// The stage whose input an operator's input is. What is decoded comes in chunks, and is
    /// counted where those are taken in.
    fn entered(operator: &str) -> Option<GraphStage> {
        match operator {
            operators::FEED | operators::ACCEPT | operators::REMEMBER => None,
            _ => GraphStage::working(operator),
        }
    }
}

/// What one worker has done. Each has its cache lines for itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OnWorker {
    turns: AtomicU64,
    awake: AtomicU64,
    busy: [AtomicU64; GraphStage::ALL.len()],
    records: [AtomicU64; GraphStage::ALL.len()],
}

impl OnWorker {
    /// Notes that the worker is alive.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How many turns it has taken.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Notes records that a stage has taken in.
    pub fn enter(&self, stage: GraphStage, records: u64) {
        self.records[stage.place()].fetch_add(records, Ordering::Relaxed);
    }

    /// How long it did not sleep.
    pub fn awake(&self) -> Duration {
        Duration::from_nanos(self.awake.load(Ordering::Relaxed))
    }

    /// How long it was at work in a stage.
    pub fn busy(&self, stage: GraphStage) -> Duration {
        Duration::from_nanos(self.busy[stage.place()].load(Ordering::Relaxed))
    }

    /// How many records a stage has taken in.
    pub fn records(&self, stage: GraphStage) -> u64 {
        self.records[stage.place()].load(Ordering::Relaxed)
    }
}

impl Figures {
    /// Has the worker note from now on what it does, before its dataflow is built.
    pub fn watch(self: &Arc<Figures>, worker: &Worker) {
        let mut shifts = Shifts::new(Arc::clone(self), worker.index());
        if let Some(mut register) = worker.log_register() {
            register.insert::<TimelyEventBuilder, _>("timely", move |time, events| {
                for (at, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                    shifts.note(at, &event);
                }
                shifts.add_up(*time);
            });
        }
    }
}

/// One worker's log, read as times at work and records.
struct Shifts {
    figures: Arc<Figures>,
    worker: usize,
    /// By the operator's number.
    working: Vec<Option<GraphStage>>,
    /// By the operator's place in the dataflow.
    entered: Vec<Option<GraphStage>>,
    /// By the channel's number, the place of the operator that it leads to.
    channels: Vec<Option<usize>>,
    /// Since when the worker is awake, or what of that has not been added yet.
    awake_since: Option<Duration>,
    working_since: Option<Duration>,
    busy: [Duration; GraphStage::ALL.len()],
    records: [u64; GraphStage::ALL.len()],
}

impl Shifts {
    fn new(figures: Arc<Figures>, worker: usize) -> Shifts {
        Shifts {
            figures,
            worker,
            working: Vec::new(),
            entered: Vec::new(),
            channels: Vec::new(),
            awake_since: Some(Duration::ZERO),
            working_since: None,
            busy: Default::default(),
            records: Default::default(),
        }
    }

    fn note(&mut self, at: Duration, event: &TimelyEvent) {
        match event {
            TimelyEvent::Schedule(turn) => {
                let Some(stage) = known(&self.working, turn.id) else { return };
                match turn.start_stop {
                    StartStop::Start => self.working_since = Some(at),
                    StartStop::Stop => {
                        let since = self.working_since.take().unwrap_or(at);
                        self.busy[stage.place()] += at.saturating_sub(since);
                    }
                }
            }
            TimelyEvent::Messages(message) if !message.is_send => {
                let target = known(&self.channels, message.channel);
                if let Some(stage) = target.and_then(|place| known(&self.entered, place)) {
                    self.records[stage.place()] +=
                        u64::try_from(message.record_count).unwrap_or_default();
                }
            }
            TimelyEvent::Park(ParkEvent::Park(_)) => {
                self.add_up(at);
                self.awake_since = None;
            }
            TimelyEvent::Park(ParkEvent::Unpark) => self.awake_since = Some(at),
            TimelyEvent::Operates(operator) => {
                let name = operator.name.as_str();
                note(&mut self.working, operator.id, GraphStage::working(name));
                if let [_dataflow, place] = operator.addr.as_slice() {
                    note(&mut self.entered, *place, GraphStage::entered(name));
                }
            }
            TimelyEvent::Channels(channel) if channel.scope_addr.len() == 1 => {
                note(&mut self.channels, channel.id, Some(channel.target.0));
            }
            _ => {}
        }
    }

    /// Adds what the worker has done until now.
    fn add_up(&mut self, now: Duration) {
        let worker = &self.figures.workers()[self.worker];
        if let Some(since) = &mut self.awake_since {
            worker.awake.fetch_add(nanos(now.saturating_sub(*since)), Ordering::Relaxed);
            *since = now;
        }
        for (sum, time) in worker.busy.iter().zip(&mut self.busy) {
            if !time.is_zero() {
                sum.fetch_add(nanos(std::mem::take(time)), Ordering::Relaxed);
            }
        }
        for (sum, records) in worker.records.iter().zip(&mut self.records) {
            if *records > 0 {
                sum.fetch_add(std::mem::take(records), Ordering::Relaxed);
            }
        }
    }
}

fn known<T: Copy>(all: &[Option<T>], number: usize) -> Option<T> {
    all.get(number).copied().flatten()
}

fn note<T: Copy>(all: &mut Vec<Option<T>>, number: usize, what: Option<T>) {
    if all.len() <= number {
        all.resize(number + 1, None);
    }
    all[number] = what;
}

#[cfg(test)]
mod tests {
    use timely::logging::{ChannelsEvent, MessagesEvent, OperatesEvent, ScheduleEvent};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn operator(id: usize, name: &str) -> TimelyEvent {
        TimelyEvent::Operates(OperatesEvent { id, addr: vec![0, id], name: name.to_owned() })
    }

    fn shifts() -> (Arc<Figures>, Shifts) {
        let figures = Arc::new(Figures::new(2));
        let shifts = Shifts::new(Arc::clone(&figures), 1);
        (figures, shifts)
    }

    #[test]
    fn a_worker_is_at_work_while_it_does_not_sleep_and_in_the_operators_of_its_stages() {
        let (figures, mut shifts) = shifts();
        let start = |id| TimelyEvent::Schedule(ScheduleEvent::start(id));
        let stop = |id| TimelyEvent::Schedule(ScheduleEvent::stop(id));
        let events = [
            (1, operator(7, "accept")),
            (1, operator(8, "latest")),
            (10, TimelyEvent::Park(ParkEvent::park(None))),
            (50, TimelyEvent::Park(ParkEvent::unpark())),
            // The operators lie inside another one, the dataflow.
            (50, start(0)),
            (52, start(7)),
            (57, stop(7)),
            (57, start(8)),
            (60, stop(8)),
            (61, stop(0)),
        ];
        for (at, event) in events {
            shifts.note(ms(at), &event);
        }
        shifts.add_up(ms(65));
        shifts.add_up(ms(70));
        let worker = &figures.workers()[1];
        assert_eq!((worker.awake(), worker.busy(GraphStage::Decode)), (ms(30), ms(5)));
        assert_eq!(
            (worker.busy(GraphStage::Latest), worker.busy(GraphStage::Write)),
            (ms(3), ms(0))
        );
        assert_eq!(figures.workers()[0].awake(), ms(0), "the other worker");
    }

    #[test]
    fn a_stage_has_taken_in_what_its_operator_has_received() {
        let (figures, mut shifts) = shifts();
        let channel = |id, target| {
            TimelyEvent::Channels(ChannelsEvent {
                id,
                scope_addr: vec![0],
                source: (1, 0),
                target: (target, 0),
                typ: String::new(),
            })
        };
        let message = |channel, is_send, record_count| {
            let (source, target, seq_no) = (0, 1, 0);
            TimelyEvent::Messages(MessagesEvent {
                is_send,
                channel,
                source,
                target,
                seq_no,
                record_count,
            })
        };
        let events = [
            channel(3, 5),
            operator(5, "dedupe"),
            channel(4, 6),
            operator(6, "remember"),
            message(3, true, 1_000),
            message(3, false, 30),
            message(3, false, 12),
            message(4, false, 500),
        ];
        events.iter().for_each(|event| shifts.note(ms(1), event));
        shifts.add_up(ms(2));
        let worker = &figures.workers()[1];
        let records = GraphStage::ALL.map(|stage| worker.records(stage));
        assert_eq!(
            records,
            [0, 42, 0, 0, 0, 0],
            "what is sent is another's, what is remembered was counted"
        );
    }
}
