//! A collector for spans: takes OTLP over HTTP, and keeps what it was sent.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// What it says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It takes the spans.
    Taken,
    /// It takes all but so many of them.
    Refused(i64),
    /// An error, with that code.
    Status(u16),
    /// Nothing, ever.
    Nothing,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Its first line and its headers, in lower case.
    pub(crate) head: String,
    pub(crate) spans: ExportTraceServiceRequest,
}

/// The collector. It ends with the test's process.
pub(crate) struct Collector {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Collector {
    pub(crate) fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Answer::Taken));
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (answering, keeping) = (Arc::clone(&answer), Arc::clone(&requests));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (answering, keeping) = (Arc::clone(&answering), Arc::clone(&keeping));
                std::thread::spawn(move || serve(&client, &answering, &keeping));
            }
        });
        Collector { address, answer, requests }
    }

    /// What it says from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Where it is, as OpenTelemetry's variables have it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was sent, taken or not.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The spans that it was sent.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let resources =
            self.requests().into_iter().flat_map(|request| request.spans.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Those of that name.
    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }
}

fn serve(client: &TcpStream, answer: &Mutex<Answer>, requests: &Mutex<Vec<Request>>) {
    let mut input = BufReader::new(client);
    while let Some(request) = read(&mut input) {
        let answer = *answer.lock().unwrap();
        requests.lock().unwrap().push(request);
        let (status, refused) = match answer {
            Answer::Taken => (200, None),
            Answer::Refused(rejected_spans) => (200, Some(rejected_spans)),
            Answer::Status(status) => (status, None),
            Answer::Nothing => loop {
                std::thread::park();
            },
        };
        let partial_success = refused.map(|rejected_spans| ExportTracePartialSuccess {
            rejected_spans,
            error_message: "no room".to_owned(),
        });
        let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut output = client;
        if output.write_all(&[head.into_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

/// The next request, if there is one.
fn read(input: &mut impl BufRead) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if input.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    input.read_exact(&mut body).ok()?;
    let spans = ExportTraceServiceRequest::decode(&*body).unwrap();
    Some(Request { head, spans })
}

/// The value of an attribute as text.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        any_value::Value::StringValue(text) => Some(text),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} = {other:?}"),
    }
}
