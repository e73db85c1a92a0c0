//! A plain HTTP client: what is asked is what is sent, so that requests can be as wrong as they
//! need to be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::{DEADLINE, Running, World, eventually};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A header by its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Where a run serves its page.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) address: String,
}

impl Page {
    /// Waits until the run has told its address.
    pub(crate) fn of(running: &Running) -> Page {
        eventually("it tells where the page is", || {
            running.err().contains("the page is at http://")
        });
        let err = running.err();
        let (_, rest) = err.split_once("the page is at http://").unwrap();
        Page { address: rest.split_once('/').unwrap().0.to_owned() }
    }

    /// Asks for a path as people do.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    /// Asks with these lines for headers, and a Host unless one of them is.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut stream = self.send(method, path, headers);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Answer { code, headers: headers.collect(), body: body.to_owned() }
    }

    /// Sends a request and leaves the answer to be read.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[&str]) -> TcpStream {
        let mut stream = self.connect();
        let host = format!("Host: {}", self.address);
        let host = if headers.iter().any(|it| it.starts_with("Host:")) {
            None
        } else {
            Some(host.as_str())
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers.iter().copied().chain(host) {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// The snapshot of this moment.
    pub(crate) fn status(&self) -> Value {
        self.get("/status.json").json()
    }

    /// The snapshots as they come.
    pub(crate) fn events(&self) -> impl Iterator<Item = Value> + use<> {
        let stream = self.send("GET", "/events", &[]);
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.filter_map(|line| Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap()))
    }

    /// The value of a series, as it is written on the page of metrics.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").body;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
    }
}

impl World {
    /// Starts a consumer with a page on a port of its own.
    pub(crate) fn start_watched(&self) -> (Running, Page) {
        let running = self.start(&["run", "--report", "json", "--http", "127.0.0.1:0"]);
        let page = Page::of(&running);
        (running, page)
    }
}
