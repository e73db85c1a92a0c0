//! What the spans are called and say, by OpenTelemetry's conventions for messaging, for PostgreSQL
//! and for Redis.

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use crate::config::Config;
use crate::figures::Server;

/// What all spans of a kind have in common.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Their name.
    pub name: String,
    /// Which side of a conversation they are.
    pub kind: SpanKind,
    /// What they say.
    pub attributes: Vec<KeyValue>,
}

/// The spans of a batch.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// The work on its records, which has the links.
    pub batch: Shape,
    /// The call to the server, if that is something else.
    pub call: Option<Shape>,
}

impl Shapes {
    /// The spans of work on that server.
    pub fn of(server: Server, config: &Config) -> Shapes {
        match server {
            Server::Database => Shapes { batch: process(config), call: Some(update(config)) },
            Server::Cache => Shapes { batch: process(config), call: Some(delete(config)) },
            Server::DeadLetters => Shapes { batch: send(config), call: None },
        }
    }
}

fn messaging(operation: &'static str, topic: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
    ]
}

fn process(config: &Config) -> Shape {
    let topic = &config.kafka.topic;
    let mut attributes = messaging("process", topic);
    attributes.push(KeyValue::new("messaging.consumer.group.name", config.kafka.group.clone()));
    Shape { name: format!("process {topic}"), kind: SpanKind::Consumer, attributes }
}

fn send(config: &Config) -> Shape {
    let topic = &config.dead_letters.topic;
    let attributes = messaging("send", topic);
    Shape { name: format!("send {topic}"), kind: SpanKind::Producer, attributes }
}

fn update(config: &Config) -> Shape {
    let table = config.database.table.to_string();
    let name = format!("UPDATE {table}");
    let mut attributes = vec![
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.operation.name", "UPDATE"),
        KeyValue::new("db.collection.name", table),
    ];
    attributes.extend(place(crate::postgres::whereabouts(&config.database.url)));
    Shape { name, kind: SpanKind::Client, attributes }
}

fn delete(config: &Config) -> Shape {
    let operation = "PIPELINE DEL";
    let mut attributes = vec![
        KeyValue::new("db.system.name", "redis"),
        KeyValue::new("db.operation.name", operation),
    ];
    attributes.extend(place(crate::redis::whereabouts(&config.cache.url)));
    Shape { name: operation.to_owned(), kind: SpanKind::Client, attributes }
}

/// Where a server is, as far as that is one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The database's name or number.
    pub database: Option<String>,
    /// Its host and port.
    pub server: Option<(String, u16)>,
}

fn place(Place { database, server }: Place) -> impl Iterator<Item = KeyValue> {
    let database = database.map(|name| KeyValue::new("db.namespace", name));
    let server = server.into_iter().flat_map(|(host, port)| {
        [KeyValue::new("server.address", host), KeyValue::new("server.port", i64::from(port))]
    });
    database.into_iter().chain(server)
}
