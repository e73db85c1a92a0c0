//! traces: what a tracing system is told of the work on each batch. Off unless `traces.endpoint`
//! names a collector.
//!
//! A batch has records of many traces, so it belongs to none: it has a trace of its own, which is
//! *linked* to those that its records came with, as OpenTelemetry has it for messages that are
//! processed together. Where the lanes take up a batch, `process` begins, with the call to the
//! server inside it; both end with the batch's last answer.
//!
//! ```text
//! process event-topic --links--> the traceparent of each record
//!   UPDATE event_drafts            or PIPELINE DEL
//! send event-topic.dlq --links--> the traceparent of each dead letter
//! ```
//!
//! What becomes of a span is never waited for: see [`delivery`].

use std::sync::Arc;
use std::time::Duration;

use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::record::RecordView;
use dataflows::reject::Rejected;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;

use self::shape::Shapes;
use crate::config::{Config, Sampling};
use crate::figures::Server;

pub mod delivery;
pub mod links;
pub mod shape;
pub mod spans;

pub use self::spans::LaneSpans;

/// How long the end of a run waits for the collector.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// The spans of a run.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    delivery: Arc<delivery::Count>,
}

/// Begins spans. A clone does the same.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracer: opentelemetry_sdk::trace::SdkTracer,
    sampling: Sampling,
    shapes: [Shapes; 3],
}

impl Traces {
    /// Starts what delivers spans, if any are wanted.
    pub fn start(config: &Config) -> Option<(Traces, Tracer)> {
        let sampling = config.traces.sampling;
        let endpoint = config.traces.endpoint.as_ref()?;
        if !sampling.by_parents && sampling.ratio == 0.0 {
            return None;
        }
        let (provider, delivery) = delivery::provider(endpoint, &config.traces);
        tracing::info!(endpoint = endpoint.url(), "spans go to a collector");
        let tracer = provider.tracer("contentflow");
        let shapes = Server::ALL.map(|server| Shapes::of(server, config));
        Some((Traces { provider, delivery }, Tracer(Arc::new(Inner { tracer, sampling, shapes }))))
    }

    /// Delivers what is still here, within two seconds, and says how many spans were lost.
    pub fn finish(self) {
        // How it went is counted.
        let _timely = self.provider.shutdown_with_timeout(LAST_SPANS).is_ok();
        let lost = self.delivery.lost();
        if lost > 0 {
            tracing::warn!(lost, "spans were dropped: the collector did not take them in time");
        }
    }
}

/// What has come with records, and goes through a lane.
pub trait Traced {
    /// Calls with each of the records that are still there.
    fn each_record(&self, visit: &mut dyn FnMut(RecordView<'_>));
}

impl Traced for Group {
    fn each_record(&self, visit: &mut dyn FnMut(RecordView<'_>)) {
        self.events.iter().filter_map(|event| event.record()).for_each(visit);
    }
}

impl Traced for Settled {
    fn each_record(&self, visit: &mut dyn FnMut(RecordView<'_>)) {
        self.group.each_record(visit);
    }
}

impl Traced for Rejected {
    fn each_record(&self, visit: &mut dyn FnMut(RecordView<'_>)) {
        visit(self.record());
    }
}
