//! The wire between an instance and a server: it can be cut, held up, slowed down, and lose the
//! answer to what was done.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;

/// What is spoken on a wire: how to tell the answer to an effect from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Kafka,
    Postgres,
    Redis,
}

/// A port that passes connections on to a server.
pub(crate) struct Link {
    address: SocketAddr,
    protocol: Protocol,
    wire: Mutex<Wire>,
    changed: Condvar,
}

#[derive(Default)]
struct Wire {
    server: String,
    /// New connections are turned away.
    shut: bool,
    /// Everything waits on the wire, both ways.
    held: bool,
    /// Everything takes so long, both ways.
    delay: Duration,
    /// The next answer to an effect is lost, and its connection with it.
    lose_answer: bool,
    /// How many pieces have waited, and how many answers are lost.
    waited: u64,
    lost: u64,
    next: u64,
    open: BTreeMap<u64, [TcpStream; 2]>,
}

/// What a connection has been told by the server since its last request.
#[derive(PartialEq, Eq)]
enum Answer {
    /// There is more to come.
    Partial,
    /// Something was done.
    Effect,
    Other,
}

impl Link {
    /// A wire that leads nowhere yet.
    pub(crate) fn new(protocol: Protocol) -> Result<Arc<Link>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (wire, changed) = (Mutex::default(), Condvar::new());
        let link = Arc::new(Link { address, protocol, wire, changed });
        let accepting = Arc::clone(&link);
        // This thread and those of the connections end with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accepting.connect(client);
            }
        });
        Ok(link)
    }

    pub(crate) fn lead_to(&self, server: &str) {
        server.clone_into(&mut self.locked().server);
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Cuts what is connected, and tells how many connections that was.
    pub(crate) fn cut(&self) -> usize {
        let open = std::mem::take(&mut self.locked().open);
        for end in open.values().flatten() {
            drop(end.shutdown(Shutdown::Both));
        }
        open.len()
    }

    /// Turns new connections away, or lets them in again.
    pub(crate) fn shut(&self, shut: bool) {
        self.locked().shut = shut;
    }

    /// Holds everything up, or lets it go on.
    pub(crate) fn hold(&self, held: bool) {
        self.locked().held = held;
        self.changed.notify_all();
    }

    pub(crate) fn slow_down(&self, delay: Duration) {
        self.locked().delay = delay;
    }

    /// How many pieces were held up or slowed down so far.
    pub(crate) fn waited(&self) -> u64 {
        self.locked().waited
    }

    /// Loses the answer to the next effect.
    pub(crate) fn lose_answer(&self, lose: bool) {
        self.locked().lose_answer = lose;
    }

    /// How many answers are lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.locked().lost
    }

    fn locked(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap()
    }

    fn connect(self: &Arc<Link>, client: TcpStream) {
        let server = {
            let wire = self.locked();
            if wire.shut { return } else { wire.server.clone() }
        };
        // A connection that is dropped is closed.
        let Ok(server) = TcpStream::connect(server) else { return };
        drop((client.set_nodelay(true), server.set_nodelay(true)));
        let copies = || -> std::io::Result<_> {
            Ok((
                [client.try_clone()?, server.try_clone()?],
                client.try_clone()?,
                server.try_clone()?,
            ))
        };
        let Ok((ends, from_client, from_server)) = copies() else { return };
        let id = {
            let mut wire = self.locked();
            wire.next += 1;
            let id = wire.next;
            wire.open.insert(id, ends);
            id
        };
        // The request whose answer tells of an effect, where answers do not say it themselves.
        let request = Arc::new(Mutex::new(None));
        let (asking, answering) = (Arc::clone(self), Arc::clone(self));
        let asked = Arc::clone(&request);
        std::thread::spawn(move || asking.carry_requests(id, from_client, server, &asked));
        std::thread::spawn(move || answering.carry_answers(id, from_server, client, &request));
    }

    fn carry_requests(
        &self,
        id: u64,
        mut from: TcpStream,
        mut to: TcpStream,
        request: &Mutex<Option<[u8; 4]>>,
    ) {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = &buffer[..count];
            self.wait();
            if self.protocol == Protocol::Kafka
                && let Some(correlation) = effect_request(piece)
            {
                *request.lock().unwrap() = Some(correlation);
            }
            if to.write_all(piece).is_err() {
                break;
            }
        }
        self.close(id, &from, &to);
    }

    fn carry_answers(
        &self,
        id: u64,
        mut from: TcpStream,
        mut to: TcpStream,
        request: &Mutex<Option<[u8; 4]>>,
    ) {
        let mut buffer = vec![0; 65_536];
        let mut answer = Vec::new();
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            self.wait();
            answer.extend_from_slice(&buffer[..count]);
            if self.locked().lose_answer {
                match self.protocol.judge(&answer, *request.lock().unwrap()) {
                    Answer::Partial => continue,
                    Answer::Other => {}
                    Answer::Effect => {
                        let mut wire = self.locked();
                        // One is enough, and another connection may have been faster.
                        if std::mem::take(&mut wire.lose_answer) {
                            wire.lost += 1;
                            break;
                        }
                    }
                }
            }
            if to.write_all(&answer).is_err() {
                break;
            }
            answer.clear();
        }
        self.close(id, &from, &to);
    }

    /// Waits for as long as the wire is held, or takes.
    fn wait(&self) {
        let mut wire = self.locked();
        if wire.held || !wire.delay.is_zero() {
            wire.waited += 1;
        }
        while wire.held {
            wire = self.changed.wait(wire).unwrap();
        }
        let delay = wire.delay;
        drop(wire);
        std::thread::sleep(delay);
    }

    fn close(&self, id: u64, from: &TcpStream, to: &TcpStream) {
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
        self.locked().open.remove(&id);
    }
}

impl Protocol {
    fn judge(self, answer: &[u8], request: Option<[u8; 4]>) -> Answer {
        let effect = match self {
            // A statement is committed when the server is ready for the next one, and an UPDATE
            // says how many rows it changed.
            Protocol::Postgres if !answer.ends_with(b"Z\0\0\0\x05I") => return Answer::Partial,
            Protocol::Postgres => {
                let changed = |at: &[u8]| at.starts_with(b"UPDATE ") && at[7] != b'0';
                answer.windows(8).any(changed)
            }
            // The answer to a DEL is a number.
            Protocol::Redis => answer.starts_with(b":"),
            Protocol::Kafka => request.is_some_and(|request| answer.get(4..8) == Some(&request)),
        };
        if effect { Answer::Effect } else { Answer::Other }
    }
}

/// The correlation id of a request that produces records (key 0) or commits offsets (key 8).
fn effect_request(piece: &[u8]) -> Option<[u8; 4]> {
    let is_effect = matches!(piece.get(4..6)?, [0, 0 | 8]);
    if is_effect { piece.get(8..12)?.try_into().ok() } else { None }
}
