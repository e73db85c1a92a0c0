//! A connection to a broker that asks one thing after the other.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, MetadataRequest, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// How long a broker may take to connect, or to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The largest answer that is believed: as much as the client library believes.
const ANSWER_MAX: usize = 100_000_000;

/// The first version of a fetch in which topics have their ids, and so the first in which one that
/// was made again is another one. Kafka 3.1.
pub(super) const FETCH: i16 = 13;
/// The version of metadata that tells these ids of topics that are asked for by name.
pub(super) const METADATA: i16 = 12;
/// The version that every broker answers.
const API_VERSIONS: i16 = 0;

/// Why something is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The broker is away.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It answers something else.
    #[error("not an answer: {0}")]
    Malformed(String),
    /// It does not know a request of that version.
    #[error("the broker does not fetch by topic id (Kafka 3.1 does)")]
    TooOld,
}

/// A connection to a broker.
pub(super) struct Link {
    stream: TcpStream,
    client_id: StrBytes,
    sent: i32,
    received: i32,
}

impl Link {
    /// Connects, and asks whether the broker knows all that it will be asked.
    pub(super) fn connect(address: &str, client_id: &StrBytes) -> Result<Link, LinkError> {
        let stream = connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut link = Link { stream, client_id: client_id.clone(), sent: 0, received: 0 };
        let versions = link.ask(&ApiVersionsRequest::default(), API_VERSIONS)?;
        let knows = |key: i16, version| {
            let mut known = versions.api_keys.iter().filter(|it| it.api_key == key);
            known.any(|it| (it.min_version..=it.max_version).contains(&version))
        };
        if knows(FetchRequest::KEY, FETCH) && knows(MetadataRequest::KEY, METADATA) {
            Ok(link)
        } else {
            Err(LinkError::TooOld)
        }
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, LinkError> {
        self.send(request, version)?;
        self.receive::<R>(version)
    }

    /// Asks.
    pub(super) fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), LinkError> {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(self.client_id.clone()));
        header.encode(&mut frame, R::header_version(version)).map_err(malformed)?;
        request.encode(&mut frame, version).map_err(malformed)?;
        let length = i32::try_from(frame.len() - 4).map_err(malformed)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.sent = self.sent.wrapping_add(1);
        Ok(self.stream.write_all(&frame)?)
    }

    /// Waits for the answer to what was asked first of what is not answered.
    pub(super) fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response, LinkError> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(malformed)?;
        if length > ANSWER_MAX {
            return Err(LinkError::Malformed(format!("it has {length} bytes")));
        }
        let mut frame = Vec::with_capacity(length);
        let limit = u64::try_from(length).map_err(malformed)?;
        if (&self.stream).take(limit).read_to_end(&mut frame)? < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut frame = Bytes::from(frame);
        let header = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header).map_err(malformed)?;
        if header.correlation_id != self.received {
            return Err(LinkError::Malformed("it is the answer to something else".to_owned()));
        }
        self.received = self.received.wrapping_add(1);
        R::Response::decode(&mut frame, version).map_err(malformed)
    }
}

fn malformed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Malformed(error.to_string())
}

/// Connects to the first of an address's places that answers.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for place in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, ANSWER) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
