//! What the kernel says of a process, and of the loopback device.

use anyhow::{Context, Result};

/// The kernel's ticks of CPU time in a second, on every Linux that cube runs on.
const TICKS: f64 = 100.0;

/// CPU time that a process has had, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} has no stat"))?;
    // The name, in brackets, may have blanks in it.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Bytes that a process had written to disk.
pub fn disk_bytes(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).with_context(|| format!("process {pid} has no io"))?;
    let written = text.lines().find_map(|line| line.strip_prefix("write_bytes:")).context("no write_bytes")?;
    Ok(written.trim().parse()?)
}

/// Bytes that went over the loopback device, by whomever, with their headers. Sockets are in no counter of a process.
pub fn loopback_bytes() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/net/dev")?;
    let received = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("no loopback device")?;
    Ok(received.split_whitespace().next().context("a short line")?.parse()?)
}
