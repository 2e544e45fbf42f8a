//! CPU time, and who else used the machine meanwhile.
//!
//! In scope: what Linux tells in /proc, in nanoseconds where it has them. Out of scope: other systems.

use std::fs;
use std::time::Duration;

use super::Outcome;

/// Clock ticks per second in /proc/stat: 100 on every Linux (USER_HZ).
const TICKS: u64 = 100;

/// How many cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// CPU time of the calling thread.
pub(crate) fn of_thread() -> Outcome<Duration> {
    on_cpu("/proc/thread-self/schedstat")
}

/// CPU time of all living threads of a process.
pub(crate) fn of_process(pid: u32) -> Outcome<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends between the listing and the reading is one that did nothing to speak of.
        total += on_cpu(&task?.path().join("schedstat").to_string_lossy()).unwrap_or_default();
    }
    Ok(total)
}

/// CPU time of everything on this machine, waiting for the disk not counted.
pub(crate) fn of_machine() -> Outcome<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(field, _)| ![3, 4].contains(field)).map(|(_, ticks)| ticks).sum();
    Ok(Duration::from_millis(busy * 1000 / TICKS))
}

/// The load average of the last minute, as the system writes it.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// The processor's name.
pub(crate) fn model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    name.trim_start_matches([' ', '\t', ':']).to_owned()
}

fn on_cpu(path: &str) -> Outcome<Duration> {
    let text = fs::read_to_string(path)?;
    let nanoseconds = text.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}
