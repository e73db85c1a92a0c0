//! Records as they stand on a topic, and how they are cut into epochs and chunks.

use dataflows::record::{Chunk, RawRecord};

/// A record's partition and offset, which name it.
pub(crate) type At = (i32, i64);

/// One record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub stamped_by_topic: bool,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Sent {
    pub(crate) fn at(&self) -> At {
        (self.partition, self.offset)
    }

    pub(crate) fn push_to(&self, chunk: &mut Chunk) {
        let record = RawRecord {
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            stamped_by_topic: self.stamped_by_topic,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        };
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        chunk.push(record, headers);
    }

    pub(crate) fn chunk(&self) -> Chunk {
        let mut chunk = Chunk::default();
        self.push_to(&mut chunk);
        chunk
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(known, _)| known == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// The URLs of an event, which tell whose images a row holds. The simulated database refuses those
/// of one host.
pub(crate) fn url(at: At, refused: bool, style: &str) -> String {
    let host = if refused { REFUSED_HOST } else { "cdn" };
    format!("https://{host}/{}/{}/{style}.png", at.0, at.1)
}

/// What the simulated database refuses to write.
pub(crate) fn is_refused(images: &str) -> bool {
    images.contains(REFUSED_HOST)
}

const REFUSED_HOST: &str = "refused.example";

/// The value of a well-formed event.
pub(crate) fn event(at: At, job: &str, draft: &str, refused: bool) -> Vec<u8> {
    let [simple, fancy, trendy] =
        ["simple", "fancy", "trendy"].map(|style| url(at, refused, style));
    format!(
        r#"{{"jobId":"{job}","eventDraftId":"{draft}","imageUrls":{{"trendy":"{trendy}","simple":"{simple}","fancy":"{fancy}"}}}}"#
    )
    .into_bytes()
}

/// One epoch: what it reads, and which worker each chunk goes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epoch {
    /// Drafts that come into being when everything before this epoch is done.
    pub created: Vec<String>,
    /// The chunks, in the order of reading.
    pub chunks: Vec<Part>,
}

/// The records of one chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// The worker, modulo how many there are.
    pub worker: usize,
    pub records: Vec<Sent>,
}

impl Epoch {
    pub(crate) fn records(&self) -> impl Iterator<Item = &Sent> {
        self.chunks.iter().flat_map(|part| &part.records)
    }
}
