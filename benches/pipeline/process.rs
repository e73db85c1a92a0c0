//! What a process has used, as Linux tells it in /proc.

use std::process::{Child, Output};
use std::time::{Duration, Instant};

use super::results::{per_second, us_per_event};

/// The unit of times in /proc: a hundredth of a second on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// How often the process is looked at. Its peak of memory is kept by the system, so that none is
/// missed but at the end.
const LOOK: Duration = Duration::from_millis(50);

/// CPU and memory of a process. All zero where there is no /proc.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Its time on the CPUs, for itself and inside the system.
    pub(crate) cpu: Duration,
    /// The most memory that it had.
    pub(crate) peak_rss_kb: u64,
}

/// Waits for the end of the process and tells what it used. Until it is waited for, an ended
/// process keeps its times.
pub(crate) fn wait(child: Child) -> std::io::Result<(Output, Usage)> {
    let mut usage = Usage::default();
    let id = child.id();
    while let Some((state, cpu)) = stat(id) {
        usage.cpu = cpu;
        if state == "Z" {
            break;
        }
        usage.peak_rss_kb = memory_kb(id, "VmHWM:").unwrap_or(usage.peak_rss_kb);
        std::thread::sleep(LOOK);
    }
    Ok((child.wait_with_output()?, usage))
}

/// A process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// Its time on the CPUs until now.
    pub(crate) cpu: Duration,
    /// The memory that it has.
    pub(crate) rss_kb: u64,
}

/// Looks at a process; `None` when it is gone.
pub(crate) fn snapshot(id: u32) -> Option<Snapshot> {
    let (_state, cpu) = stat(id)?;
    Some(Snapshot { cpu, rss_kb: memory_kb(id, "VmRSS:")? })
}

/// The CPU time of this process until now.
fn own_cpu() -> Duration {
    stat(std::process::id()).map_or(Duration::ZERO, |(_state, cpu)| cpu)
}

/// The CPU time of all processes and of the system until now: what all cores have not idled away,
/// nor others of the host have taken.
fn machine_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let times = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let times: Vec<u32> = times.map_while(|time| time.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq; behind them what others have taken.
    let busy = [0, 1, 2, 5, 6].into_iter().filter_map(|place| times.get(place));
    TICK * busy.sum::<u32>()
}

/// Measures a stretch of work.
pub(crate) struct Stopwatch {
    began: Instant,
    own: Duration,
    machine: Duration,
}

/// What a stretch of work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Events, records, rows a second.
    pub(crate) per_s: f64,
    /// Microseconds of CPU of this process for each of them.
    pub(crate) own_us: f64,
    /// Microseconds of CPU of the whole machine, the servers with it, for each of them.
    pub(crate) machine_us: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch { machine: machine_cpu(), own: own_cpu(), began: Instant::now() }
    }

    /// So many events, records, rows were done.
    pub(crate) fn stop(self, count: u64) -> Taken {
        let Stopwatch { began, own, machine } = self;
        Taken {
            per_s: per_second(count, began.elapsed()),
            own_us: us_per_event(own_cpu().saturating_sub(own), count),
            machine_us: us_per_event(machine_cpu().saturating_sub(machine), count),
        }
    }
}

/// The state of the process and its CPU time.
fn stat(id: u32) -> Option<(String, Duration)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Behind the name, which may hold anything, in parentheses: the state, ten other fields, and
    // the two times.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some((fields.first()?.to_string(), TICK * ticks))
}

/// What the system says of the process's memory under that name.
fn memory_kb(id: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
