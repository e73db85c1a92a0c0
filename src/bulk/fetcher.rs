//! The thread that fetches: who leads which partition, and one fetch after the other of each
//! leader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use crossbeam_channel::Sender;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::batch::{Batch, Unfit};
use super::link::{FETCH, Link, LinkError, METADATA};
use super::{Fetched, News, Why};
use crate::retry::Backoff;

/// How long a leader that has nothing may wait for something.
const WAIT_MS: i32 = 50;
/// What is fetched at once, of one partition and of all of a leader's. A quarter of that costs the
/// broker half as much again.
const PARTITION_BYTES: i32 = 1 << 20;
const BYTES: i32 = 4 << 20;

/// How long a partition is tried that cannot be fetched, before the client library is to try.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a broker is left alone at most that says that it has been asked for too much.
const THROTTLE_MAX: Duration = Duration::from_secs(5);

/// Only what is committed.
const READ_COMMITTED: i8 = 1;

/// What a partition is read from, and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The next offset to read.
    pub next: i64,
    /// The first one not to read; `None` reads on until there is nothing more.
    pub to: Option<i64>,
}

/// How far a partition is.
struct Place {
    next: i64,
    to: Option<i64>,
    /// Which leader took what was fetched last; -1 while nothing was.
    leader_epoch: i32,
    /// Since when it cannot be fetched.
    failing_since: Option<Instant>,
}

/// Who leads some of the partitions.
struct Leader {
    link: Link,
    /// The topic, as it is asked for.
    topic: FetchTopic,
    /// Those whose turn it is, first.
    partitions: VecDeque<Led>,
}

/// What brokers know of the topic.
struct Metadata {
    brokers: Vec<MetadataResponseBroker>,
    topic: MetadataResponseTopic,
}

/// A partition, and in which of its leaders' times.
#[derive(Clone, Copy)]
struct Led {
    partition: i32,
    leader_epoch: i32,
}

/// Why something is not fetched now.
enum Halt {
    /// It passes by itself.
    Passing(String),
    /// The rest is the client library's.
    Final(Why),
}

/// Nobody wants any more.
struct Unheard;

impl From<LinkError> for Halt {
    fn from(error: LinkError) -> Halt {
        match error {
            LinkError::Io(error) => Halt::Passing(error.to_string()),
            LinkError::Malformed(_) => Halt::Final(Why::Trouble(error.to_string())),
            LinkError::TooOld => Halt::Final(Why::Unfit(error.to_string())),
        }
    }
}

/// Fetches partitions of a topic.
pub(super) struct Fetcher {
    brokers: String,
    client_id: StrBytes,
    topic: String,
    /// The id by which the client library knows the topic, as it writes it.
    topic_id: String,
    places: BTreeMap<i32, Place>,
    news: Sender<News>,
    /// What has come and is not told yet: what comes next is asked for first.
    untold: Vec<News>,
    is_over: Arc<AtomicBool>,
    /// When to try again what could not be fetched.
    try_at: Instant,
    backoff: Backoff,
}

impl Fetcher {
    pub(super) fn new(
        (brokers, client_id): (&str, &str),
        (topic, topic_id): (&str, &str),
        stretches: &BTreeMap<i32, Stretch>,
        news: Sender<News>,
        is_over: Arc<AtomicBool>,
    ) -> Fetcher {
        let place = |(partition, stretch): (&i32, &Stretch)| {
            let Stretch { next, to } = *stretch;
            (*partition, Place { next, to, leader_epoch: -1, failing_since: None })
        };
        Fetcher {
            brokers: brokers.to_owned(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            topic: topic.to_owned(),
            topic_id: topic_id.to_owned(),
            places: stretches.iter().map(place).collect(),
            news,
            untold: Vec::new(),
            is_over,
            try_at: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(100)),
        }
    }

    /// Fetches until every partition is over, or nobody listens any more.
    pub(super) fn run(mut self) {
        let mut leaders = Vec::new();
        while !self.places.is_empty() && !self.is_over.load(Ordering::Relaxed) {
            if self.turn(&mut leaders).is_err() {
                return;
            }
        }
        let _unheard = self.tell().is_err();
    }

    /// One fetch of each leader, which they answer while what came before is told. A partition whose
    /// leader is away, or is just another one, is tried again for some time: only so is it known
    /// whether the next leader has all that was fetched. The others go on meanwhile.
    fn turn(&mut self, leaders: &mut Vec<Leader>) -> Result<(), Unheard> {
        for leader in leaders.iter_mut() {
            leader.partitions.retain(|led| self.places.contains_key(&led.partition));
        }
        leaders.retain(|leader| !leader.partitions.is_empty());
        let led: usize = leaders.iter().map(|leader| leader.partitions.len()).sum();
        if led < self.places.len() {
            // That may take as long as a broker is silent.
            self.tell()?;
            self.lead(leaders);
        }
        let mut asked = Vec::new();
        for mut leader in leaders.drain(..) {
            let request = self.request(&leader);
            match leader.link.send(&request, FETCH) {
                Ok(()) => asked.push(leader),
                Err(error) => self.halt(&leader.partitions, error.into()),
            }
        }
        self.tell()?;
        if asked.is_empty() {
            std::thread::sleep(self.try_at.saturating_duration_since(Instant::now()));
        }
        let mut throttled = Duration::ZERO;
        for mut leader in asked {
            match self.receive(&mut leader) {
                Ok(wait) => {
                    throttled = throttled.max(wait);
                    leaders.push(leader);
                }
                Err(halt) => self.halt(&leader.partitions, halt),
            }
        }
        if !throttled.is_zero() {
            self.tell()?;
            std::thread::sleep(throttled.min(THROTTLE_MAX));
        }
        Ok(())
    }

    /// Takes what a leader answers. Returns how long it wants to be left alone then: a quota.
    fn receive(&mut self, leader: &mut Leader) -> Result<Duration, Halt> {
        let response = leader.link.receive::<FetchRequest>(FETCH)?;
        if let Some(error) = ResponseError::try_from_code(response.error_code) {
            return Err(meaning(error));
        }
        for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            self.take(data, &mut leader.partitions);
        }
        if self.places.values().all(|place| place.failing_since.is_none()) {
            self.backoff = self.backoff.after(0);
        }
        let throttled = u64::try_from(response.throttle_time_ms).unwrap_or_default();
        Ok(Duration::from_millis(throttled))
    }

    /// What becomes of partitions that cannot be fetched.
    fn halt<'a>(&mut self, partitions: impl IntoIterator<Item = &'a Led>, halt: Halt) {
        let now = Instant::now();
        let why = match &halt {
            Halt::Final(why) => why.clone(),
            Halt::Passing(what) => Why::Trouble(what.clone()),
        };
        for Led { partition, leader_epoch: _ } in partitions {
            let Some(place) = self.places.get_mut(partition) else { continue };
            let since = *place.failing_since.get_or_insert(now);
            if matches!(halt, Halt::Final(_)) || now - since > PATIENCE {
                self.over(*partition, why.clone());
            }
        }
        if let Halt::Passing(what) = halt {
            // One that is over with the next try is not worth a line.
            if self.backoff.tries() == 1 {
                tracing::warn!("kafka: fetching in bulk is tried again: {what}");
            }
            self.try_at = now + self.backoff.next_wait();
        }
    }

    /// Asks who leads what nobody is asked for, if it is time.
    fn lead(&mut self, leaders: &mut Vec<Leader>) {
        if Instant::now() < self.try_at {
            return;
        }
        let is_led = |partition| {
            leaders.iter().flat_map(|it| &it.partitions).any(|led| led.partition == partition)
        };
        let unled = self.places.keys().filter(|partition| !is_led(**partition));
        let mut unled: Vec<Led> =
            unled.map(|partition| Led { partition: *partition, leader_epoch: -1 }).collect();
        let metadata = match self.metadata() {
            Ok(metadata) => metadata,
            Err(halt) => return self.halt(&unled, halt),
        };
        for broker in &metadata.brokers {
            let partitions = led_by(broker.node_id, &metadata.topic, &unled);
            if partitions.is_empty() {
                continue;
            }
            unled.retain(|it| !partitions.iter().any(|led| led.partition == it.partition));
            match Link::connect(&address(&broker.host, broker.port), &self.client_id) {
                Ok(link) => {
                    let topic = FetchTopic::default().with_topic_id(metadata.topic.topic_id);
                    leaders.push(Leader { link, topic, partitions });
                }
                Err(error) => self.halt(&partitions, error.into()),
            }
        }
        if !unled.is_empty() {
            self.halt(&unled, Halt::Passing("a partition has no leader".to_owned()));
        }
    }

    /// What is asked of a leader next.
    fn request(&self, leader: &Leader) -> FetchRequest {
        let partition = |led: &Led| {
            let place = &self.places[&led.partition];
            FetchPartition::default()
                .with_partition(led.partition)
                .with_current_leader_epoch(led.leader_epoch)
                .with_fetch_offset(place.next)
                .with_last_fetched_epoch(place.leader_epoch)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(PARTITION_BYTES)
        };
        let partitions = leader.partitions.iter().map(partition).collect();
        let topic = leader.topic.clone().with_partitions(partitions);
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(BYTES)
            .with_isolation_level(READ_COMMITTED)
            // No session: each request says all.
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    /// Takes what a leader has sent of a partition.
    fn take(&mut self, data: PartitionData, order: &mut VecDeque<Led>) {
        let partition = data.partition_index;
        let Some(index) = order.iter().position(|led| led.partition == partition) else { return };
        let Some(place) = self.places.get_mut(&partition) else { return };
        if let Some(error) = ResponseError::try_from_code(data.error_code) {
            let led = order.remove(index);
            return self.halt(&led, meaning(error));
        }
        place.failing_since = None;
        let end = data.diverging_epoch.end_offset;
        if end >= 0 {
            return self.over(partition, Why::Truncated { end });
        }
        let mut fetched = data.records.unwrap_or_default();
        let mut batches = VecDeque::new();
        let end = loop {
            match Batch::split_off(&mut fetched) {
                Ok(Some(batch)) if batch.next_offset() <= place.next => {}
                Ok(Some(batch)) => {
                    place.next = batch.next_offset();
                    place.leader_epoch = batch.leader_epoch();
                    batches.push_back(batch);
                }
                Ok(None) => break None,
                Err(unfit) => break Some(why(unfit)),
            }
        };
        let has_come_to_its_end = place.to.is_some_and(|to| place.next >= to)
            || (batches.is_empty() && place.next >= data.last_stable_offset);
        let end = end.or(has_come_to_its_end.then_some(Why::CaughtUp));
        if !batches.is_empty() {
            // The others first, the next time: an answer is filled in the order of the request.
            let led = order.remove(index);
            order.extend(led);
            let end = data.high_watermark;
            self.untold.push(News::Batches(Fetched { partition, batches, end }));
        }
        if let Some(why) = end {
            self.over(partition, why);
        }
    }

    fn over(&mut self, partition: i32, why: Why) {
        self.places.remove(&partition);
        self.untold.push(News::Over { partition, why });
    }

    fn tell(&mut self) -> Result<(), Unheard> {
        self.untold.drain(..).try_for_each(|news| self.news.send(news).map_err(|_unsent| Unheard))
    }

    /// Asks any broker for the topic's leaders.
    fn metadata(&self) -> Result<Metadata, Halt> {
        let name = TopicName(StrBytes::from_string(self.topic.clone()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name))]))
            .with_allow_auto_topic_creation(false);
        let metadata = self.any_broker()?.ask(&request, METADATA)?;
        let brokers = metadata.brokers;
        let topic = metadata.topics.into_iter().next();
        let topic = topic.ok_or_else(|| Halt::Passing("no metadata".to_owned()))?;
        if let Some(error) = ResponseError::try_from_code(topic.error_code) {
            return Err(meaning(error));
        }
        if STANDARD_NO_PAD.encode(topic.topic_id.as_bytes()) != self.topic_id {
            return Err(Halt::Final(Why::Trouble("the topic was made again".to_owned())));
        }
        Ok(Metadata { brokers, topic })
    }

    fn any_broker(&self) -> Result<Link, LinkError> {
        let mut last = None;
        for broker in self.brokers.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            match Link::connect(broker, &self.client_id) {
                Err(LinkError::Io(error)) => last = Some(error),
                other => return other,
            }
        }
        let nobody = || std::io::Error::new(std::io::ErrorKind::NotFound, "no broker is named");
        Err(last.unwrap_or_else(nobody).into())
    }
}

/// Which of these partitions a broker leads.
fn led_by(broker: BrokerId, topic: &MetadataResponseTopic, partitions: &[Led]) -> VecDeque<Led> {
    let led = topic.partitions.iter().filter(|it| {
        it.leader_id == broker && partitions.iter().any(|led| led.partition == it.partition_index)
    });
    led.map(|it| Led { partition: it.partition_index, leader_epoch: it.leader_epoch }).collect()
}

/// What an error of a broker means.
fn meaning(error: ResponseError) -> Halt {
    use ResponseError::{
        FencedLeaderEpoch, KafkaStorageError, LeaderNotAvailable, NotLeaderOrFollower,
        OffsetNotAvailable, ReplicaNotAvailable, UnknownLeaderEpoch,
    };
    match error {
        // Who leads has changed, or is just changing. What comes next is asked with what came
        // last, so that a new leader that has less says so.
        FencedLeaderEpoch | KafkaStorageError | LeaderNotAvailable | NotLeaderOrFollower
        | OffsetNotAvailable | ReplicaNotAvailable | UnknownLeaderEpoch => {
            Halt::Passing(error.to_string())
        }
        _ => Halt::Final(Why::Trouble(error.to_string())),
    }
}

fn why(unfit: Unfit) -> Why {
    match unfit {
        Unfit::Corrupt(_) => Why::Corrupt(unfit.to_string()),
        Unfit::Malformed => Why::Trouble(unfit.to_string()),
        Unfit::Transactional | Unfit::OldFormat => Why::Unfit(unfit.to_string()),
    }
}

/// A host and a port, as addresses are written.
fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
