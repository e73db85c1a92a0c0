//! What it costs to be looked at: end to end, with a page that follows `/events` and a scraper of
//! `/metrics` each second, and with `--http off`, in pairs whose order alternates.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;

use super::end_to_end;
use super::servers::Servers;
use super::settings::{Settings, WORKERS};
use contentflow::tune::statistics::median;

/// Rates by round: looked at, and not.
pub(crate) struct Watched {
    rounds: Vec<[f64; 2]>,
    snapshots: u64,
    scrapes: u64,
}

pub(crate) fn measure(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Watched> {
    let Settings { events, rounds, .. } = *settings;
    servers.publish(events)?;
    let mut watched = Watched { rounds: Vec::new(), snapshots: 0, scrapes: 0 };
    for round in 1..=rounds {
        let (mut on, mut off) = (0.0, 0.0);
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                on = looked_at(servers, events, &mut watched)?;
            } else {
                off = rate(servers, events, "off")?;
            }
        }
        super::say(&format!("round {round} of {rounds}: {on:.0} and {off:.0}, {:.4}", on / off));
        watched.rounds.push([on, off]);
    }
    Ok(watched)
}

fn rate(servers: &mut Servers, events: u64, http: &str) -> anyhow::Result<f64> {
    let measured = end_to_end::measure_with(servers, events, WORKERS, &["--http", http])?;
    Ok(measured.events_per_s)
}

fn looked_at(servers: &mut Servers, events: u64, watched: &mut Watched) -> anyhow::Result<f64> {
    // Free a moment ago: whoever takes it in between makes the run fail, not wrong.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let end = Arc::new(AtomicBool::new(false));
    let counts = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let [snapshots, scrapes] = counts.clone();
    let (page_end, scraper_end) = (Arc::clone(&end), Arc::clone(&end));
    let page = std::thread::spawn(move || follow(address, &page_end, &snapshots));
    let scraper = std::thread::spawn(move || scrape(address, &scraper_end, &scrapes));
    let measured = rate(servers, events, &address.to_string());
    end.store(true, Ordering::Relaxed);
    ensure!(page.join().is_ok() && scraper.join().is_ok(), "who looked has died");
    let measured = measured?;
    let [snapshots, scrapes] = counts.map(|count| count.load(Ordering::Relaxed));
    ensure!(snapshots > 0 && scrapes > 0, "nobody has looked: a run is too short");
    watched.snapshots += snapshots;
    watched.scrapes += scrapes;
    Ok(measured)
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// A page: it takes each snapshot, and comes back when it has lost the run.
fn follow(address: SocketAddr, end: &AtomicBool, snapshots: &AtomicU64) {
    while !end.load(Ordering::Relaxed) {
        if let Ok(stream) = ask(address, "/events") {
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            lines.filter(|line| line.starts_with("data: ")).for_each(|_snapshot| {
                snapshots.fetch_add(1, Ordering::Relaxed);
            });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn scrape(address: SocketAddr, end: &AtomicBool, scrapes: &AtomicU64) {
    while !end.load(Ordering::Relaxed) {
        let mut text = String::new();
        let read = ask(address, "/metrics").and_then(|mut stream| stream.read_to_string(&mut text));
        if read.is_ok() && text.contains("contentflow_records_read_total") {
            scrapes.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

impl Watched {
    /// The ratio of each round, and their median.
    pub(crate) fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(out, "| looked at, events/s | not, events/s | ratio |\n|---:|---:|---:|")?;
        for [on, off] in &self.rounds {
            writeln!(out, "| {on:.0} | {off:.0} | {:.4} |", on / off)?;
        }
        let of = |value: fn(&[f64; 2]) -> f64| {
            let values: Vec<f64> = self.rounds.iter().map(value).collect();
            median(&values)
        };
        let (on, off) = (of(|it| it[0]), of(|it| it[1]));
        let ratio = of(|it| it[0] / it[1]);
        writeln!(out, "| **{on:.0}** | **{off:.0}** | **{ratio:.4}** (median of the ratios) |\n")?;
        let Watched { snapshots, scrapes, .. } = self;
        writeln!(out, "{snapshots} snapshots and {scrapes} pages of metrics were taken.")?;
        Ok(())
    }
}
