//! The traces that the records of a batch came with: W3C Trace Context, from headers that anybody
//! may have written.

use dataflows::record::RecordView;
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::Traced;

/// The links of a span at most: what most collectors and OpenTelemetry itself take as the limit.
pub const LINKS_MAX: usize = 128;

/// The longest `tracestate` that is passed on, bytes: what the standard asks of everybody.
const STATE_MAX: usize = 512;

/// What the records of a batch came with.
#[derive(Debug, Default)]
pub struct Origins {
    /// How many records there are.
    pub records: u64,
    /// How many of them came with a trace that is not recorded. It leads nowhere, and is not
    /// linked.
    pub unrecorded: u64,
    /// The traces that are recorded, so many at most.
    pub links: Vec<Link>,
    /// Those that are recorded and have no place among the links.
    pub more: u64,
}

impl Origins {
    /// What the records of this batch came with.
    pub fn of<R: Traced>(batch: &[R]) -> Origins {
        let mut origins = Origins::default();
        batch.iter().for_each(|item| item.each_record(&mut |record| origins.note(record)));
        origins
    }

    fn note(&mut self, record: RecordView<'_>) {
        self.records += 1;
        let Some(parent) = record.header("traceparent").and_then(Parent::parse) else {
            return;
        };
        if !parent.flags.is_sampled() {
            self.unrecorded += 1;
        } else if self.links.len() == LINKS_MAX {
            self.more += 1;
        } else {
            let state = record.header("tracestate").and_then(state).unwrap_or_default();
            let context = SpanContext::new(parent.trace, parent.span, parent.flags, true, state);
            self.links.push(Link::with_context(context));
        }
    }
}

/// A `traceparent` that is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

impl Parent {
    /// `00-{32 digits}-{16 digits}-{2 digits}`, lowercase hexadecimal, the ids not zero. A later
    /// version may have more behind it.
    fn parse(text: &[u8]) -> Option<Parent> {
        let (head, rest) = text.split_at_checked(55)?;
        let head = std::str::from_utf8(head).ok()?;
        let is_lowercase = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        let mut parts = head.split('-');
        let mut part = |digits: usize| parts.next().filter(|part| part.len() == digits);
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let fits = match version {
            "ff" => false,
            "00" => rest.is_empty(),
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        if !fits || !head.bytes().all(is_lowercase) {
            return None;
        }
        let parent = Parent {
            trace: TraceId::from_hex(trace).ok()?,
            span: SpanId::from_hex(span).ok()?,
            flags: TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        };
        (parent.trace != TraceId::INVALID && parent.span != SpanId::INVALID).then_some(parent)
    }
}

/// A `tracestate` that is one. A trace without its state is still a trace.
fn state(text: &[u8]) -> Option<TraceState> {
    let text = std::str::from_utf8(text).ok()?;
    let is_plain = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    (is_plain && text.len() <= STATE_MAX).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use dataflows::record::{Chunk, RawRecord};

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    /// A record by its headers.
    struct WithHeaders(Chunk);

    impl Traced for WithHeaders {
        fn each_record(&self, visit: &mut dyn FnMut(RecordView<'_>)) {
            visit(self.0.record(0));
        }
    }

    fn record(headers: &[(&str, &str)]) -> WithHeaders {
        let mut chunk = Chunk::default();
        let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
        chunk.push(RawRecord::default(), headers);
        WithHeaders(chunk)
    }

    fn parent(flags: &str) -> String {
        format!("00-{TRACE}-{SPAN}-{flags}")
    }

    #[test]
    fn a_parent_that_keeps_the_standard_is_read() {
        for (text, sampled) in [
            (parent("01"), true),
            (parent("00"), false),
            // Flags that are not known yet.
            (parent("03"), true),
            (parent("fe"), false),
            // A version that is not known yet.
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-else"), true),
        ] {
            let read = Parent::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (read.trace.to_string(), read.span.to_string()),
                (TRACE.into(), SPAN.into())
            );
            assert_eq!(read.flags.is_sampled(), sampled, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_parent_is_none() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "nonsense".to_owned(),
            parent("01").to_uppercase(),
            format!("{}-", parent("01")),
            format!("{} ", parent("01")),
            format!(" {}", parent("01")),
            parent("1"),
            parent("0g"),
            parent("+1"),
            parent("01")[1..].to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01x"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}{SPAN}--01"),
            format!("00_{TRACE}_{SPAN}_01"),
            parent("01").replace("c8", "é"),
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Parent::parse(&[0xff; 55]), None);
    }

    #[test]
    fn the_state_comes_along_unless_it_is_none_or_too_long() {
        let linked = |state: &str| {
            let batch = [record(&[("traceparent", &parent("01")), ("tracestate", state)])];
            let origins = Origins::of(&batch);
            assert_eq!(origins.links.len(), 1, "{state:?}");
            origins.links[0].span_context.trace_state().header()
        };
        assert_eq!(linked("vendor=a,other=b"), "vendor=a,other=b");
        for none in ["", "nonsense", "a=\u{1b}[2J", &format!("a={}", "x".repeat(600))] {
            assert_eq!(linked(none), "", "{none:?}");
        }
    }

    #[test]
    fn links_are_bounded_and_the_rest_is_counted() {
        let (recorded, unrecorded) = (parent("01"), parent("00"));
        let mut batch: Vec<_> =
            (0..LINKS_MAX + 5).map(|_| record(&[("traceparent", &recorded)])).collect();
        batch.push(record(&[("traceparent", &unrecorded)]));
        batch.push(record(&[("traceparent", "nonsense")]));
        batch.push(record(&[]));
        let Origins { records, unrecorded, links, more } = Origins::of(&batch);
        assert_eq!((records, unrecorded, links.len(), more), (136, 1, 128, 5));
    }
}
