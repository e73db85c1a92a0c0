//! A wire that is slow when a test wants it to be.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long each slice takes, milliseconds; 0 for a wire that is as fast as it can be.
#[derive(Clone, Default)]
pub(crate) struct Slowness(Arc<AtomicU64>);

/// What arrives at a time while the wire is slow, bytes.
const SLICE: usize = 16_384;

impl Slowness {
    pub(crate) fn set(&self, slice_ms: u64) {
        self.0.store(slice_ms, Ordering::Relaxed);
    }

    /// Puts a slow wire before a server; the result is its address.
    pub(super) fn before(&self, server: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let slowness = self.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (from_client, from_server) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (there, back) = (slowness.clone(), slowness.clone());
                std::thread::spawn(move || there.carry(from_client, server));
                std::thread::spawn(move || back.carry(from_server, client));
            }
        });
        address
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut slice = [0; SLICE];
        while let Ok(count @ 1..) = from.read(&mut slice) {
            std::thread::sleep(Duration::from_millis(self.0.load(Ordering::Relaxed)));
            if to.write_all(&slice[..count]).is_err() {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    }
}
