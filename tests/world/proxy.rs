//! A wire between the program and a server that a test can cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Everything passes.
    Open,
    /// Requests wait on the wire.
    Held,
    /// Requests arrive, their answers are lost.
    Mute,
    /// There is no wire: what was there is cut off, what comes is turned away.
    Cut,
    /// The next request is lost together with its connection; then everything passes.
    TrapRequest,
    /// So many bytes of answers pass, what follows is lost together with its connection; then
    /// everything passes.
    TrapAnswer(usize),
}

struct Wire {
    mode: Mutex<Mode>,
    changed: Condvar,
    ends: Mutex<Vec<TcpStream>>,
}

/// Passes connections on to a server, as long as it is told to.
pub(crate) struct Proxy {
    address: SocketAddr,
    wire: Arc<Wire>,
}

impl Proxy {
    /// Puts a wire before the server in the URL. The second value is the URL with the wire's
    /// address in it.
    pub(crate) fn before(url: &str) -> (Proxy, String) {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Arc::new(Wire {
            mode: Mutex::new(Mode::Open),
            changed: Condvar::new(),
            ends: Mutex::default(),
        });
        let (accepting, server) = (Arc::clone(&wire), server.to_owned());
        // Both this thread and those of the connections end with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A connection that is dropped is closed.
                if accepting.mode() != Mode::Cut {
                    accepting.connect(client, &server);
                }
            }
        });
        let at = if user.is_empty() { String::new() } else { format!("{user}@") };
        (Proxy { address, wire }, format!("{scheme}://{at}{address}/{path}"))
    }

    /// Lets everything pass, and what was held.
    pub(crate) fn open(&self) {
        self.wire.set(Mode::Open);
    }

    /// Holds back the requests.
    pub(crate) fn hold(&self) {
        self.wire.set(Mode::Held);
    }

    /// Loses the answers.
    pub(crate) fn mute(&self) {
        self.wire.set(Mode::Mute);
    }

    /// Cuts the connection of the next request, before the request arrives.
    pub(crate) fn trap_request(&self) {
        self.wire.set(Mode::TrapRequest);
    }

    /// Cuts the connection of the next answer, after so many bytes of answers.
    pub(crate) fn trap_answer(&self, after_bytes: usize) {
        self.wire.set(Mode::TrapAnswer(after_bytes));
    }

    /// Whether a trap has caught something.
    pub(crate) fn is_sprung(&self) -> bool {
        self.wire.mode() == Mode::Open
    }

    /// Cuts all connections, and turns new ones away.
    pub(crate) fn cut(&self) {
        self.wire.set(Mode::Cut);
        for end in self.wire.ends.lock().unwrap().drain(..) {
            drop(end.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        // Wakes the thread that accepts; the next test's proxies have other addresses.
        drop(TcpStream::connect(self.address));
    }
}

impl Wire {
    fn mode(&self) -> Mode {
        *self.locked()
    }

    fn locked(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap()
    }

    fn set(&self, mode: Mode) {
        *self.locked() = mode;
        self.changed.notify_all();
    }

    fn connect(self: &Arc<Wire>, client: TcpStream, server: &str) {
        let Ok(server) = TcpStream::connect(server) else { return };
        let ends = [&client, &server].map(|end| end.try_clone().unwrap());
        self.ends.lock().unwrap().extend(ends);
        let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (requests, answers) = (Arc::clone(self), Arc::clone(self));
        std::thread::spawn(move || requests.carry(from_client, server, Mode::Held));
        std::thread::spawn(move || answers.carry(from_server, client, Mode::Mute));
    }

    /// Carries bytes one way. In the mode `obstacle` requests wait and answers are lost.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, obstacle: Mode) {
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut mode = self.locked();
            while *mode == Mode::Held && obstacle == Mode::Held {
                mode = self.changed.wait(mode).unwrap();
            }
            let is_request = obstacle == Mode::Held;
            // How much of it passes, and whether the connection is cut then.
            let (passes, cut) = match *mode {
                Mode::Cut => (0, true),
                Mode::Mute if !is_request => (0, false),
                Mode::TrapRequest if is_request => (0, true),
                Mode::TrapAnswer(bytes) if !is_request => (bytes.min(count), bytes < count),
                _ => (count, false),
            };
            match &mut *mode {
                Mode::TrapAnswer(bytes) if !is_request && !cut => *bytes -= passes,
                trap @ (Mode::TrapRequest | Mode::TrapAnswer(_)) if cut => *trap = Mode::Open,
                _ => {}
            }
            drop(mode);
            if to.write_all(&buffer[..passes]).is_err() || cut {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    }
}
