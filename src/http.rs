//! The page, the metrics and the health of a run, over HTTP.
//!
//! ```text
//! figures -> watcher (four looks a second) -> /status.json, /events, /metrics, /healthz, /readyz
//!                                             / (the page, which lives on /events)
//! ```
//!
//! On a thread of its own, with a bounded number of connections, each with deadlines: whoever
//! looks, and however slowly, the pipeline waits for nobody. What is told is a copy, or a counter
//! that is read.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::guard::Guard;
use self::patience::Patient;
use self::watcher::{Facts, TICK, Watcher};
use crate::config::{self, Listen};
use crate::figures::Figures;
use crate::lock::lock;

pub mod exposition;
mod guard;
mod health;
mod history;
pub mod metrics;
mod page;
mod patience;
mod process;
mod routes;
mod snapshot;
pub mod watcher;

/// How many connections there may be: a few pages, a few scrapers, and those that somebody has
/// forgotten.
const CONNECTIONS_MAX: usize = 256;

/// How long a request may take to come.
const REQUEST: Duration = Duration::from_secs(10);

/// A snapshot is sent with every so many looks: each second.
const LOOKS_PER_EVENT: u64 = 4;

/// Why nobody can look.
#[derive(Debug, thiserror::Error)]
#[error("http.listen = {address}: {error}")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl BindError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there: choose another port, 0 for any that is free, or \"off\" (http.listen, --http)"
            }
            io::ErrorKind::PermissionDenied => "choose a port from 1024 on (http.listen, --http)",
            _ => {
                "choose an address of this machine, like 127.0.0.1:9464, or \"off\" (http.listen, --http)"
            }
        }
    }
}

/// An address that is ours, where nobody is answered yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Binds the address of the configuration, if there is to be one. Where the default is taken, any
/// other one will do.
///
/// # Errors
///
/// [`BindError`] when it cannot be had.
pub fn bind(config: &config::Http) -> Result<Option<Bound>, BindError> {
    let Listen { address: Some(address), is_asked_for } = config.listen else { return Ok(None) };
    let listener = match TcpListener::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_asked_for => {
            tracing::warn!(%address, "the address for the page is taken, by another contentflow perhaps: any free port is used; http.listen sets one");
            TcpListener::bind(SocketAddr::new(address.ip(), 0))
        }
        bound => bound,
    };
    let usable = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        Ok(Bound { address: listener.local_addr()?, listener })
    };
    let bound = listener.and_then(usable).map_err(|error| BindError { address, error })?;
    if !bound.address.ip().is_loopback() && config.token.is_none() {
        tracing::warn!(address = %bound.address, "whoever reaches this address may look: http.token lets in only who knows it");
    }
    Ok(Some(bound))
}

/// Answers, until it is dropped.
#[derive(Debug)]
pub struct Serving {
    /// Where.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bound {
    /// Answers what the figures say.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn serve(self, figures: Arc<Figures>, config: &config::Config) -> io::Result<Serving> {
        let Bound { listener, address } = self;
        let guard = Guard::new(address, config.http.token.as_ref());
        let watcher = Watcher::new(figures, Facts::of(config));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let (events, _) = watch::channel(Arc::from(""));
            let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            let shared =
                Arc::new(Shared { watcher: Mutex::new(watcher), events, guard, connections });
            runtime.block_on(async {
                tokio::select! {
                    _dropped = stopped => {}
                    () = look(&shared) => {}
                    () = accept(&listener, &shared) => {}
                }
            });
            // With the runtime go the connections, whoever holds them.
            drop(runtime);
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(serve)?;
        tracing::info!("the page is at http://{address}/");
        Ok(Serving { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the page has died");
        }
    }
}

/// What all connections share.
struct Shared {
    watcher: Mutex<Watcher>,
    /// The newest snapshot, for those who wait for the next one.
    events: watch::Sender<Arc<str>>,
    guard: Guard,
    connections: Arc<Semaphore>,
}

impl Shared {
    fn watcher(&self) -> MutexGuard<'_, Watcher> {
        lock(&self.watcher)
    }

    /// The snapshot of this moment, as JSON.
    fn snapshot(&self) -> Arc<str> {
        let json = serde_json::to_string(&self.watcher().snapshot());
        Arc::from(json.expect("a snapshot has texts for keys, and its numbers are finite"))
    }

    fn connections(&self) -> usize {
        CONNECTIONS_MAX - self.connections.available_permits()
    }
}

/// Looks at the figures, and tells those who wait: each second, and at once when a dependency goes
/// or comes back.
async fn look(shared: &Shared) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks: u64 = 0;
    loop {
        ticks.tick().await;
        let is_news = shared.watcher().tick();
        looks += 1;
        if (is_news || looks.is_multiple_of(LOOKS_PER_EVENT)) && shared.events.receiver_count() > 0
        {
            shared.events.send_replace(shared.snapshot());
        }
    }
}

/// Takes connections, as many as there may be.
async fn accept(listener: &tokio::net::TcpListener, shared: &Arc<Shared>) {
    let routes = routes::all(shared);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, as a rule: others need them more.
                tracing::debug!(%error, "a connection to the page was not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
            tracing::debug!("a connection too many to the page: closed");
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST)
                .serve_connection(TokioIo::new(Patient::new(stream)), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the page");
            }
            drop(permit);
        });
    }
}
