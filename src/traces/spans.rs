//! The spans of a lane: begun where it takes up a batch, ended with the batch's last answer.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex};

use dataflows::effect::Ticket;
use opentelemetry::trace::{Span as _, SpanBuilder, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::links::Origins;
use super::shape::Shape;
use super::{Traced, Tracer};
use crate::config::Sampling;
use crate::figures::Server;
use crate::lock::lock;

tokio::task_local! {
    /// Of the lane that the task serves.
    static LANE: LaneSpans;
}

/// The open spans of one lane. A clone has the same.
#[derive(Clone, Debug)]
pub struct LaneSpans {
    tracer: Tracer,
    server: Server,
    open: Arc<Mutex<HashMap<Ticket, Open>>>,
}

/// The spans of one batch.
#[derive(Debug)]
struct Open {
    batch: Span,
    call: Option<Span>,
}

impl Tracer {
    /// The spans of a lane that talks to that server.
    pub fn lane(&self, server: Server) -> LaneSpans {
        LaneSpans { tracer: self.clone(), server, open: Arc::default() }
    }

    fn begin(
        &self,
        shape: &Shape,
        parent: &Context,
        add: impl FnOnce(SpanBuilder) -> SpanBuilder,
    ) -> Span {
        let Shape { name, kind, attributes } = shape.clone();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        self.0.tracer.build_with_context(add(builder), parent)
    }
}

impl LaneSpans {
    /// Begins the spans of a batch, if it is to have any.
    pub fn begin<R: Traced>(&self, ticket: Ticket, batch: &[R]) {
        let origins = Origins::of(batch);
        let inner = &self.tracer.0;
        if !is_wanted(inner.sampling, &origins, fastrand::f64()) {
            return;
        }
        let shapes = &inner.shapes[self.server.place()];
        let mut extra = Vec::new();
        if origins.records != 1 {
            extra.push(count("messaging.batch.message_count", origins.records));
        }
        if origins.more > 0 {
            extra.push(count("contentflow.links_omitted", origins.more));
        }
        let mut batch = self
            .tracer
            .begin(&shapes.batch, &Context::new(), |span| span.with_links(origins.links));
        batch.set_attributes(extra);
        let inside = Context::new().with_remote_span_context(batch.span_context().clone());
        let call = shapes.call.as_ref().map(|call| self.tracer.begin(call, &inside, |span| span));
        self.open().insert(ticket, Open { batch, call });
    }

    /// Ends the spans of a batch.
    pub fn end(&self, ticket: Ticket) {
        if let Some(Open { mut batch, call }) = self.open().remove(&ticket) {
            call.into_iter().for_each(|mut call| call.end());
            batch.end();
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<Ticket, Open>> {
        lock(&self.open)
    }
}

/// A future that serves a lane with these spans.
pub async fn within<T>(spans: Option<LaneSpans>, serve: impl Future<Output = T>) -> T {
    match spans {
        Some(spans) => LANE.scope(spans, serve).await,
        None => serve.await,
    }
}

/// Notes in the open spans of this task's lane, if it has any, that it waits for a server.
pub fn note_held(error: &impl Display) {
    let noted = LANE.try_with(|spans| {
        for Open { batch, call } in spans.open().values_mut() {
            let message = KeyValue::new("exception.message", error.to_string());
            call.as_mut().unwrap_or(batch).add_event("held", vec![message]);
        }
    });
    // Without spans there is nothing to note.
    let _has_spans = noted.is_ok();
}

fn count(key: &'static str, count: u64) -> KeyValue {
    KeyValue::new(key, i64::try_from(count).unwrap_or(i64::MAX))
}

/// Whether a batch is to have a span; `drawn` is from 0 to 1.
fn is_wanted(sampling: Sampling, origins: &Origins, drawn: f64) -> bool {
    let Sampling { by_parents, ratio } = sampling;
    if by_parents && !origins.links.is_empty() {
        return true;
    }
    (!by_parents || origins.unrecorded == 0) && drawn < ratio
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Link, SpanContext};

    use super::*;

    #[test]
    fn one_record_whose_trace_is_recorded_is_enough_and_one_whose_trace_is_not_is_heeded() {
        let link = || Link::with_context(SpanContext::empty_context());
        let none = Origins::default();
        let unrecorded = Origins { unrecorded: 2, ..Origins::default() };
        let recorded = Origins { unrecorded: 2, links: vec![link()], ..Origins::default() };
        let wanted = |by_parents, ratio| {
            let sampling = Sampling { by_parents, ratio };
            [&none, &unrecorded, &recorded].map(|origins| is_wanted(sampling, origins, 0.5))
        };
        assert_eq!(wanted(true, 1.0), [true, false, true]);
        assert_eq!(wanted(true, 0.0), [false, false, true]);
        assert_eq!(wanted(true, 0.6), [true, false, true]);
        assert_eq!(wanted(false, 1.0), [true, true, true]);
        assert_eq!(wanted(false, 0.4), [false, false, false]);
    }
}
