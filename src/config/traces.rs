//! `[traces]`: where spans go, and which of them.
//!
//! The keys are those of OpenTelemetry's own variables, which are understood too: whoever has a
//! collector has set them.

use std::fmt;

use ureq::http::{HeaderName, HeaderValue, Uri};

use super::secret;
use crate::percent::decoded;

/// `[traces]`
#[derive(Clone, Debug)]
pub struct Traces {
    /// `traces.endpoint`: where the collector takes OTLP over HTTP. Default none: there are no
    /// spans.
    pub endpoint: Option<Endpoint>,
    /// `traces.headers` of every request to it. Default none.
    pub headers: Headers,
    /// `traces.service`: the `service.name` of the spans. Default `contentflow`.
    pub service: String,
    /// `traces.sampler` and `traces.sampler_arg`. Default `parentbased_always_on`, as OpenTelemetry
    /// has it.
    pub sampling: Sampling,
}

/// The URL that spans are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// A collector's address as `OTEL_EXPORTER_OTLP_ENDPOINT` has it, without the path, or with it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without the text, in which may be a password.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let uri: Uri = text.parse().map_err(|_unreadable| "is not a URL".to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("does not begin with http:// or https://".to_owned());
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("holds a user or a password, which belong in traces.headers".to_owned());
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err("has no host".to_owned());
        }
        if authority.ends_with(':') || (has_port(authority) && uri.port_u16().is_none()) {
            return Err("has a port that is none".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("has more than a path behind the host".to_owned());
        }
        let base = text.trim_end_matches('/');
        Ok(Endpoint(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") }))
    }

    /// The whole URL. It holds no secret.
    pub fn url(&self) -> &str {
        &self.0
    }
}

/// The path of traces, by the specification of OTLP.
const PATH: &str = "/v1/traces";

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(']').map_or(authority, |(_, after)| after).contains(':')
}

/// Names and values of HTTP headers. The values are secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Headers {
    /// `name=value,name=value` as in `OTEL_EXPORTER_OTLP_HEADERS`, `%XX` for what cannot stand
    /// there.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without the values.
    pub fn parse(text: &str) -> Result<Headers, String> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let header = |(at, pair): (usize, &str)| {
            let wrong = |what: &str| format!("{what} in its header number {}", at + 1);
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("has no ="))?;
            let name = HeaderName::from_bytes(name.trim().as_bytes())
                .map_err(|_| wrong("has a name that is none"))?;
            let value = decoded(value.trim()).ok_or_else(|| wrong("has a % without two digits"))?;
            let mut value = HeaderValue::from_bytes(&value)
                .map_err(|_| wrong("has a value that no header can have"))?;
            value.set_sensitive(true);
            Ok((name, value))
        };
        pairs.enumerate().map(header).collect::<Result<_, String>>().map(Headers)
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, _)| (name, secret::HIDDEN))).finish()
    }
}

/// Which batches have a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether the records decide, where they came with a trace: one that is recorded is enough.
    pub by_parents: bool,
    /// The share of all others, from 0 to 1.
    pub ratio: f64,
}

/// The samplers of OpenTelemetry, but for those that ask a server of their own.
pub(super) const SAMPLERS: [(&str, Sampler); 6] = [
    ("always_on", Sampler { by_parents: false, root: Root::All }),
    ("always_off", Sampler { by_parents: false, root: Root::None }),
    ("traceidratio", Sampler { by_parents: false, root: Root::Ratio }),
    ("parentbased_always_on", Sampler { by_parents: true, root: Root::All }),
    ("parentbased_always_off", Sampler { by_parents: true, root: Root::None }),
    ("parentbased_traceidratio", Sampler { by_parents: true, root: Root::Ratio }),
];

/// `traces.sampler`, before its argument is known.
#[derive(Clone, Copy)]
pub(super) struct Sampler {
    by_parents: bool,
    root: Root,
}

#[derive(Clone, Copy)]
enum Root {
    All,
    None,
    Ratio,
}

impl Sampler {
    pub(super) fn with(self, ratio: f64) -> Sampling {
        let ratio = match self.root {
            Root::All => 1.0,
            Root::None => 0.0,
            Root::Ratio => ratio,
        };
        Sampling { by_parents: self.by_parents, ratio }
    }
}

/// The argument of a sampler.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let number = text.trim().parse().ok();
    number.filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| "is not a ratio".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_unless_it_is_there() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector/", "https://collector/v1/traces"),
            ("http://[::1]:4318/otlp", "http://[::1]:4318/otlp/v1/traces"),
            ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().url(), url);
        }
    }

    #[test]
    fn an_endpoint_that_is_none_says_why_and_shows_nothing() {
        for (text, why) in [
            ("collector:4318", "http://"),
            ("SENTINEL", "http://"),
            ("grpc://collector:4317", "http://"),
            ("http://", "URL"),
            ("http://user:SENTINEL@collector", "traces.headers"),
            ("http://collector?key=SENTINEL", "more than a path"),
            ("http://collector:99999", "port"),
            ("http://collector:", "port"),
            ("http://a b", "URL"),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("SENTINEL"), "{text}: {error}");
        }
    }

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let headers = Headers::parse("api-key=a%2Cb%20c , x=y=z,").unwrap();
        let pairs: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(pairs, [("api-key", &b"a,b c"[..]), ("x", b"y=z")]);
        assert_eq!(Headers::parse("").unwrap(), Headers::default());
        assert!(!format!("{headers:?}").contains("b c"));
        for (text, why) in [
            ("SENTINEL", "no ="),
            ("a b=SENTINEL", "name"),
            ("a=1,b=%0aSENTINEL", "value that no header can have in its header number 2"),
            ("a=SENTINEL%4", "two digits"),
            ("a=SENTINEL%+4", "two digits"),
        ] {
            let error = Headers::parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("SENTINEL"), "{text}: {error}");
        }
    }

    #[test]
    fn a_ratio_is_from_0_to_1() {
        for (text, expected) in [("0.25", 0.25), ("1", 1.0), (" 0 ", 0.0), ("1e-3", 0.001)] {
            assert_eq!(ratio(text), Ok(expected));
        }
        for wrong in ["1.5", "NaN", "", "-1", "inf", "half"] {
            assert!(ratio(wrong).is_err(), "{wrong:?}");
        }
    }
}
