//! How spans reach the collector: through a queue with an end, on a thread of its own, and only if
//! that is easy.
//!
//! The pipeline never waits for it. What finds the queue full, or a collector that does not take
//! it, is dropped and counted; it is told once when that begins and once when it is over, and the
//! number at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use prost::Message as _;

use super::links::LINKS_MAX;
use crate::config::{Endpoint, Headers, Traces};

/// Spans that wait for the collector at most: some seconds' worth at full rate, a few MB with all
/// their links.
const QUEUE_MAX: usize = 512;
/// Spans in one request at most.
const REQUEST_MAX: usize = 128;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for an answer; OTLP's default.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that is read of an answer, bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// How many spans there were, and how many the collector has.
#[derive(Debug, Default)]
pub struct Count {
    ended: AtomicU64,
    delivered: AtomicU64,
}

impl Count {
    /// How many the collector does not have. While spans are on their way, those too.
    pub fn lost(&self) -> u64 {
        let delivered = self.delivered.load(Ordering::Relaxed);
        self.ended.load(Ordering::Relaxed).saturating_sub(delivered)
    }
}

/// What makes the spans and delivers them there.
pub fn provider(endpoint: &Endpoint, traces: &Traces) -> (SdkTracerProvider, Arc<Count>) {
    let count = Arc::<Count>::default();
    let resource = Resource::builder()
        .with_service_name(traces.service.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let collector = Collector::new(endpoint, traces.headers.clone(), &resource, Arc::clone(&count));
    let limits = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX)
        .with_max_export_batch_size(REQUEST_MAX)
        .with_scheduled_delay(DELAY)
        .build();
    let queue = BatchSpanProcessor::builder(collector).with_batch_config(limits).build();
    let links_max = u32::try_from(LINKS_MAX).expect("a small number");
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_max_links_per_span(links_max)
        .with_span_processor(Counting { queue, count: Arc::clone(&count) })
        .build();
    (provider, count)
}

/// Counts what goes into the queue.
#[derive(Debug)]
struct Counting {
    queue: BatchSpanProcessor,
    count: Arc<Count>,
}

impl SpanProcessor for Counting {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.count.ended.fetch_add(1, Ordering::Relaxed);
        self.queue.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }
}

/// The collector.
#[derive(Debug)]
struct Collector {
    agent: ureq::Agent,
    url: String,
    headers: Headers,
    resource: ResourceAttributesWithSchema,
    count: Arc<Count>,
    /// Whether it has been told that spans are dropped.
    is_failing: AtomicBool,
}

impl Collector {
    fn new(
        endpoint: &Endpoint,
        headers: Headers,
        resource: &Resource,
        count: Arc<Count>,
    ) -> Collector {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER))
            // Spans and secrets go where they were meant to go, and nowhere else.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("contentflow/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Collector {
            agent,
            url: endpoint.url().to_owned(),
            headers,
            resource: resource.into(),
            count,
            is_failing: AtomicBool::new(false),
        }
    }

    /// Posts a request, and returns how many of its spans the collector refuses.
    fn post(&self, request: &ExportTraceServiceRequest) -> Result<u64, String> {
        let mut post = self.agent.post(&self.url).content_type("application/x-protobuf");
        for (name, value) in self.headers.iter() {
            post = post.header(name, value);
        }
        let mut answer = post.send(&request.encode_to_vec()).map_err(|error| error.to_string())?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        let body = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        // It has taken them, whatever else it says.
        let said = body.ok().and_then(|body| ExportTraceServiceResponse::decode(&*body).ok());
        let refused =
            said.and_then(|said| said.partial_success).map(|partial| partial.rejected_spans);
        Ok(refused.and_then(|refused| u64::try_from(refused).ok()).unwrap_or_default())
    }

    fn deliver(&self, spans: Vec<SpanData>) -> Result<(), String> {
        let sent = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let refused = self.post(&ExportTraceServiceRequest { resource_spans })?.min(sent);
        self.count.delivered.fetch_add(sent - refused, Ordering::Relaxed);
        if refused > 0 { Err(format!("it refuses {refused} of {sent} spans")) } else { Ok(()) }
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        match self.deliver(batch) {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes spans again");
                }
                Ok(())
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        endpoint = self.url,
                        error,
                        "the collector does not take spans: they are dropped until it does. It must speak OTLP over HTTP, port 4318 by convention"
                    );
                }
                Err(OTelSdkError::InternalFailure(error))
            }
        }
    }
}
