//! What the process has used, as Linux tells it in /proc. All zero where there is none.

/// The unit of times in /proc: a hundredth of a second on every Linux of today.
const TICKS_PER_S: f64 = 100.0;

/// CPU and memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Its time on all CPUs, for itself and inside the system, seconds.
    pub(super) cpu_s: f64,
    /// The memory that it has, bytes.
    pub(super) resident_bytes: u64,
}

/// What it has used until now.
pub(super) fn used() -> Used {
    Used { cpu_s: cpu_s().unwrap_or_default(), resident_bytes: resident().unwrap_or_default() }
}

fn cpu_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything, in parentheses: the state, ten other fields, and
    // the two times.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some((f64::from(ticks(11)?) + f64::from(ticks(12)?)) / TICKS_PER_S)
}

fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
