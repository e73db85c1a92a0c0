//! The four places a value can come from, each a layer that remembers its name for the messages.

use std::collections::BTreeMap;
use std::path::Path;

use figment::error::Error as FigmentError;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{self, ConfigError, Problem};
use super::{limits, raw::RawConfig};

/// The name of the lowest layer.
pub(super) const DEFAULTS: &str = "defaults";

/// Every variable of ours begins with it.
const PREFIX: &str = "CONTENTFLOW_";

/// Where dev/stack keeps its servers: whoever sets it for that sets it for us too.
const DEV_STACK: &str = "STACK_DIR";

/// Variables that other programs share. They come before those with our own prefix, which are the
/// more specific ones.
const CONVENTIONAL: [(&str, &str); 9] = [
    ("DATABASE_URL", "database.url"),
    ("REDIS_URL", "cache.url"),
    ("KAFKA_BROKERS", "kafka.brokers"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    ("OTEL_SERVICE_NAME", "traces.service"),
    ("OTEL_TRACES_SAMPLER", "traces.sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "traces.sampler_arg"),
];

/// What OpenTelemetry's variables begin with.
const OPENTELEMETRY: &str = "OTEL_";

/// Values from the command line: they win over everything else.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<Layer>);

impl Overrides {
    /// Sets `key` to `value` if there is one; `flag` names it in error messages.
    pub fn set(mut self, flag: &str, key: &str, value: Option<impl Into<Value>>) -> Overrides {
        if let Some(value) = value {
            self.0.push(Layer::one(format!("flag {flag}"), key, value.into()));
        }
        self
    }

    /// The same with a value as it was typed: what is wrong with it is told like of any other
    /// source.
    pub fn set_typed(self, flag: &str, key: &str, text: Option<&str>) -> Overrides {
        self.set(flag, key, text.map(|text| typed(key, text)))
    }
}

/// One source: a name and what it sets.
#[derive(Clone, Debug)]
struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    fn one(name: String, key: &str, value: Value) -> Layer {
        let nested =
            match key.strip_prefix(limits::PROPERTIES).and_then(|rest| rest.strip_prefix('.')) {
                Some(property) => {
                    let properties = Value::from(Dict::from([(property.to_owned(), value)]));
                    figment::util::nest(limits::PROPERTIES, properties)
                }
                None => figment::util::nest(key, value),
            };
        Layer { name, values: nested.into_dict().expect("a key below a section makes a table") }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, FigmentError> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

pub(super) fn collect(
    file: Option<&Path>,
    default_file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: Overrides,
) -> Result<Figment, ConfigError> {
    let defaults = Serialized::defaults(RawConfig::default());
    let mut figment = Figment::new().merge(Named { name: DEFAULTS, inner: defaults });
    if let Some(layer) = file_layer(file, default_file)? {
        figment = figment.merge(layer);
    }
    for layer in environment_layers(environment)?.into_iter().chain(overrides.0) {
        figment = figment.merge(layer);
    }
    Ok(figment)
}

/// A provider under a name of our own.
struct Named<P> {
    name: &'static str,
    inner: P,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, FigmentError> {
        self.inner.data()
    }
}

/// The file that was asked for, which must exist, or else the default one, which need not.
fn file_layer(file: Option<&Path>, default_file: &Path) -> Result<Option<Layer>, ConfigError> {
    let path = file.unwrap_or(default_file);
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => {
            return Err(Problem {
                subject: format!("configuration file {name}"),
                origin: None,
                fault: format!("cannot be read: {error}"),
                remedy: "give --config the path of a readable TOML file".to_owned(),
            }
            .into());
        }
    };
    let mut values: Dict = Toml::from_str(&text).map_err(|error| Problem {
        subject: format!("configuration file {name}"),
        origin: None,
        fault: format!("is not TOML: {}", error::without_quotation(&error.to_string())),
        remedy: "mend that line; contentflow.example.toml shows every key".to_owned(),
    })?;
    flatten_properties(&mut values);
    Ok(Some(Layer { name, values }))
}

/// In TOML, `security.protocol = "ssl"` without quotes makes a table in a table. It means the same
/// as with quotes.
fn flatten_properties(values: &mut Dict) {
    let Some(Value::Dict(_, kafka)) = values.get_mut("kafka") else {
        return;
    };
    let Some(Value::Dict(_, properties)) = kafka.get_mut("properties") else {
        return;
    };
    let mut flat = Dict::new();
    let mut pending: Vec<(String, Value)> = std::mem::take(properties).into_iter().collect();
    while let Some((name, value)) = pending.pop() {
        match value {
            Value::Dict(_, inner) => pending
                .extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value))),
            value => {
                flat.insert(name, value);
            }
        }
    }
    *properties = flat;
}

fn environment_layers(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Layer>, ConfigError> {
    let variables: BTreeMap<String, String> = environment.into_iter().collect();
    let no_traces = is_without_traces(&variables);
    let conventional = CONVENTIONAL.iter().filter_map(|(name, key)| {
        let value = variables.get(*name)?;
        // There, an empty variable is as good as none.
        let counts = !name.starts_with(OPENTELEMETRY) || !(no_traces || value.is_empty());
        counts.then(|| (*name, (*key).to_owned(), value))
    });
    let mut layers: Vec<Layer> =
        conventional.map(|(name, key, value)| variable_layer(name, &key, value)).collect();
    for (name, value) in &variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        match key_of(rest) {
            Some(key) => layers.push(variable_layer(name, &key, value)),
            None if is_service_discovery(rest, &variables) || rest == DEV_STACK => {}
            None => return Err(not_a_variable(name, rest).into()),
        }
    }
    Ok(layers)
}

/// Whether somebody has switched OpenTelemetry off, or has its traces go elsewhere.
fn is_without_traces(variables: &BTreeMap<String, String>) -> bool {
    let is = |name: &str, value: &str| {
        variables.get(name).is_some_and(|found| found.trim().eq_ignore_ascii_case(value))
    };
    let elsewhere = variables.get("OTEL_TRACES_EXPORTER").is_some_and(|it| !it.is_empty());
    is("OTEL_SDK_DISABLED", "true") || (elsewhere && !is("OTEL_TRACES_EXPORTER", "otlp"))
}

fn variable_layer(name: &str, key: &str, value: &str) -> Layer {
    Layer::one(format!("environment variable {name}"), key, typed(key, value))
}

/// What was typed is a text; it becomes a number where a number is wanted and it is one.
fn typed(key: &str, text: &str) -> Value {
    let trimmed = text.trim();
    match (limits::of(key), trimmed.parse::<u64>(), trimmed.parse::<i64>()) {
        (Some(_), Ok(number), _) => Value::from(number),
        (Some(_), Err(_), Ok(negative)) => Value::from(negative),
        _ => Value::from(text),
    }
}

/// `KAFKA__TOPIC` -> `kafka.topic`. The dots of librdkafka's properties are written as underscores.
fn key_of(rest: &str) -> Option<String> {
    let (section, key) = rest.split_once("__")?;
    let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
    match (section.as_str(), key.strip_prefix("properties__")) {
        ("kafka", Some("log_level")) => Some(format!("{}.log_level", limits::PROPERTIES)),
        ("kafka", Some(property)) => Some(format!(
            "{}.{}",
            limits::PROPERTIES,
            property.replace("__", ".").replace('_', ".")
        )),
        _ => Some(format!("{section}.{}", key.replace("__", "."))),
    }
}

/// Kubernetes sets such variables for a service that is called contentflow, or has a name that
/// begins so, as `contentflow-redis`. They are not ours. A port is only taken for one of those
/// where the service's host is told, too.
fn is_service_discovery(rest: &str, variables: &BTreeMap<String, String>) -> bool {
    let is_port_of_a_neighbour = || {
        rest.match_indices("_PORT")
            .filter(|(at, port)| matches!(rest.as_bytes().get(at + port.len()), None | Some(b'_')))
            .any(|(at, _)| variables.contains_key(&format!("{PREFIX}{}_SERVICE_HOST", &rest[..at])))
    };
    rest == "PORT"
        || rest.starts_with("PORT_")
        || rest.contains("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || is_port_of_a_neighbour()
}

fn not_a_variable(name: &str, rest: &str) -> Problem {
    let meant = limits::keys().find(|key| key.replace('.', "_") == rest.to_ascii_lowercase());
    let remedy = match meant {
        Some(key) => format!("write {PREFIX}{}", key.to_ascii_uppercase().replace('.', "__")),
        None => format!(
            "write {PREFIX}SECTION__KEY with two underscores, like {PREFIX}KAFKA__TOPIC, or unset it"
        ),
    };
    Problem {
        subject: format!("environment variable {name}"),
        origin: None,
        fault: "sets no key".to_owned(),
        remedy,
    }
}
