//! The machine below the engine: what its file systems hold, and how much of it is in use. The engine tells the rest of what a node has.
//!
//! Read where Linux tells it (`/proc/stat`, `/proc/meminfo`, `/proc/loadavg`, `statvfs`). Every call blocks: [`crate::blocking`]. Knows neither engine nor leader.

#[cfg(any(test, feature = "fake"))]
pub mod scripted;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cube_api::node::{LoadAverage, Usage};
use cube_api::quantity::{Bytes, MilliCpu};

use crate::disk::{self, Space};

/// A machine that can be measured. Tests have their own.
pub trait Machine: fmt::Debug + Send + Sync + 'static {
    /// The file system that a folder is on.
    fn space(&self, folder: &Path) -> io::Result<Space>;
    /// What its cores did since it was started, how busy it is, and its memory now.
    fn load(&self) -> io::Result<Load>;
}

/// A look at a machine's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// How many cores it has.
    pub cores: u64,
    /// The time of all cores, in the kernel's ticks.
    pub ticks: u64,
    /// Those in which a core did nothing, or waited for a disk.
    pub idle: u64,
    /// Its memory in bytes.
    pub memory: u64,
    /// What programs could still be given of it.
    pub available: u64,
    /// How many processes run or wait to.
    pub average: LoadAverage,
}

/// The disk space of a node: that of the file system on which its engine keeps its data, if that can be seen from here (another mount namespace
/// may not have it), else that of its own folder's. With the folder that counts.
pub fn disk(machine: &dyn Machine, engines: Option<&Path>, own: &Path) -> io::Result<(PathBuf, Space)> {
    match engines.map(|folder| (folder, machine.space(folder))) {
        Some((folder, Ok(space))) => Ok((folder.to_owned(), space)),
        Some((_, Err(_))) | None => machine.space(own).map(|space| (own.to_owned(), space)),
    }
}

/// The size to go by: the one that is known, unless it is another one by a hundredth. Some file systems (ZFS) count as theirs what others leave
/// free, and whatever a node has is a write at the leader.
pub fn steady(known: Bytes, now: u64) -> Bytes {
    if known.0.abs_diff(now).saturating_mul(100) < now.max(known.0) { known } else { Bytes(now) }
}

/// What is in use, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// In use.
    pub used: Usage,
    /// All there is.
    pub all: Usage,
}

impl Measured {
    /// Whether something is in use that differs by a hundredth of all there is from what was said before: what is less is not worth a message.
    pub fn is_news_after(&self, said: &Usage) -> bool {
        let Self { used, all } = self;
        let moved = |now: u64, then: u64, all: u64| now != then && now.abs_diff(then).saturating_mul(100) >= all;
        // Hundredths against thousandths of cores: a tenth of a process for each core. The minute's average follows every breath of a machine, and
        // what is less would be news all the time.
        let minute = |usage: &Usage| usage.load.map_or(0, |load| u64::from(load.hundredths[0]));
        moved(used.cpu.0, said.cpu.0, all.cpu.0)
            || moved(minute(used), minute(said), all.cpu.0)
            || moved(used.memory.0, said.memory.0, all.memory.0)
            || moved(used.disk.0, said.disk.0, all.disk.0)
    }
}

/// Makes shares of counters: cores are in use on average between two looks.
#[derive(Debug, Default)]
pub struct Meter {
    before: Option<Load>,
}

impl Meter {
    /// What is in use by this look; none at the first.
    pub fn measure(&mut self, load: Load, disk: Space) -> Option<Measured> {
        let before = self.before.replace(load)?;
        let ticks = load.ticks.saturating_sub(before.ticks);
        // The kernel's own words: the time of waiting for disks may fall.
        let idle = load.idle.saturating_sub(before.idle).min(ticks);
        let cores = MilliCpu(load.cores.saturating_mul(1_000));
        let busy = cores.0.saturating_mul(ticks - idle).checked_div(ticks)?;
        let used = Usage {
            cpu: MilliCpu(busy),
            memory: Bytes(load.memory.saturating_sub(load.available)),
            disk: Bytes(disk.all.saturating_sub(disk.free)),
            load: Some(load.average),
        };
        Some(Measured { used, all: Usage { cpu: cores, memory: Bytes(load.memory), disk: Bytes(disk.all), load: None } })
    }
}

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn space(&self, folder: &Path) -> io::Result<Space> {
        disk::space(folder)
    }

    fn load(&self) -> io::Result<Load> {
        let [stat, meminfo, loadavg] = ["/proc/stat", "/proc/meminfo", "/proc/loadavg"].map(fs::read_to_string);
        let load = read_load(&stat?, &meminfo?, &loadavg?);
        let foreign = || io::Error::new(io::ErrorKind::InvalidData, "/proc/stat, /proc/meminfo or /proc/loadavg is not as Linux writes it");
        load.ok_or_else(foreign)
    }
}

fn read_load(stat: &str, meminfo: &str, loadavg: &str) -> Option<Load> {
    let kibibytes = |key: &str| {
        let amount = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        amount.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    // user nice system idle iowait irq softirq steal; what comes after is counted among them already.
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = all.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let is_core = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    Some(Load {
        cores: u64::try_from(stat.lines().filter(is_core).count()).ok()?,
        ticks: ticks.iter().sum(),
        idle: ticks.get(3)? + ticks.get(4).unwrap_or(&0),
        memory: kibibytes("MemTotal")?,
        available: kibibytes("MemAvailable")?,
        average: read_average(loadavg)?,
    })
}

/// `0.52 0.58 0.59 1/467 12345`: always two decimals.
fn read_average(loadavg: &str) -> Option<LoadAverage> {
    let mut averages = loadavg.split_whitespace().map(|average| {
        let (whole, hundredths) = average.split_once('.').filter(|(_, hundredths)| hundredths.len() == 2)?;
        whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths.parse().ok()?)
    });
    let mut next = || averages.next().flatten();
    Some(LoadAverage { hundredths: [next()?, next()?, next()?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 10 40 800 50 0 5 5 7 0\ncpu0 50 5 20 400 25 0 3 2 3 0\ncpu1 50 5 20 400 25 0 2 3 4 0\nintr 12 3\nctxt 9\n";
    const MEMINFO: &str =
        "MemTotal:        8000000 kB\nMemFree:          500000 kB\nMemAvailable:    6000000 kB\nHugePages_Total:       0\n";
    const LOADAVG: &str = "0.52 1.58 12.09 1/467 12345\n";
    const AVERAGE: LoadAverage = LoadAverage { hundredths: [52, 158, 1_209] };
    const DISK: Space = Space { free: 30, all: 100 };

    #[test]
    fn what_linux_writes_is_read() {
        let expected = Load { cores: 2, ticks: 1_010, idle: 850, memory: 8_192_000_000, available: 6_144_000_000, average: AVERAGE };
        assert_eq!(read_load(STAT, MEMINFO, LOADAVG), Some(expected));
        for wrong in ["", "0.52 1.58", "0.52 x 1.00", "0.5 1.58 1.00", "1 2 3", "99999999.00 1.00 1.00", "-1.00 1.00 1.00"] {
            assert_eq!(read_load(STAT, MEMINFO, wrong), None, "{wrong:?}");
        }
        for (stat, meminfo) in [("", MEMINFO), (STAT, ""), ("cpu  1 2 x 4\n", MEMINFO), ("cpu  1 2\n", MEMINFO), (STAT, "MemTotal: 1 kB\n")]
        {
            assert_eq!(read_load(stat, meminfo, LOADAVG), None, "{stat:?} {meminfo:?}");
        }
    }

    #[test]
    fn this_machine_tells_of_itself() {
        let load = ThisMachine.load().expect("Linux");
        assert!(load.cores > 0 && load.available <= load.memory && load.idle <= load.ticks, "{load:?}");
        let space = ThisMachine.space(Path::new("/")).expect("a root folder");
        assert!(space.free <= space.all && space.all > 0, "{space:?}");
    }

    #[test]
    fn cores_are_in_use_on_average_between_two_looks() {
        let mut meter = Meter::default();
        let first = read_load(STAT, MEMINFO, LOADAVG).expect("a load");
        assert_eq!(meter.measure(first, DISK), None, "one look tells of no time");
        let second = Load { ticks: first.ticks + 400, idle: first.idle + 300, ..first };
        let Measured { used, all } = meter.measure(second, DISK).expect("two looks");
        assert_eq!((used.cpu, used.memory, used.disk, used.load), (MilliCpu(500), Bytes(2_048_000_000), Bytes(70), Some(AVERAGE)));
        assert_eq!((all.cpu, all.memory, all.disk), (MilliCpu(2_000), Bytes(8_192_000_000), Bytes(100)));
        assert_eq!(meter.measure(second, DISK), None, "no time has passed");
        let backwards = Load { ticks: second.ticks + 10, idle: second.idle - 5, ..second };
        assert_eq!(meter.measure(backwards, DISK).map(|measured| measured.used.cpu), Some(MilliCpu(2_000)));
    }

    #[test]
    fn the_disk_is_the_engines_where_it_can_be_seen_else_the_data_folders() {
        let (engines, own) = (Path::new("/var/lib/docker"), Path::new("/data"));
        let all = |all| Space { free: 1, all };
        let both = scripted::Scripted::with_disks(&[(engines, all(100)), (own, all(7))]);
        let one = scripted::Scripted::with_disks(&[(own, all(7))]);
        assert_eq!(disk(&*both, Some(engines), own).expect("a disk"), (engines.to_owned(), all(100)));
        assert_eq!(disk(&*both, None, own).expect("a disk"), (own.to_owned(), all(7)));
        assert_eq!(disk(&*one, Some(engines), own).expect("a disk"), (own.to_owned(), all(7)));
        assert!(disk(&*one, Some(engines), Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_disk_that_changes_by_less_than_a_hundredth_is_the_same() {
        assert_eq!((steady(Bytes(1_000), 1_009), steady(Bytes(1_000), 991)), (Bytes(1_000), Bytes(1_000)));
        assert_eq!((steady(Bytes(1_000), 1_011), steady(Bytes(0), 5), steady(Bytes(5), 0)), (Bytes(1_011), Bytes(5), Bytes(0)));
    }

    #[test]
    fn a_hundredth_of_all_there_is_is_news() {
        let amounts = |amount| Usage { cpu: MilliCpu(amount), memory: Bytes(amount), disk: Bytes(amount), load: None };
        let measured = |used| Measured { used, all: amounts(1_000) };
        let said = amounts(500);
        assert!(!measured(said).is_news_after(&said));
        for less in [491, 509] {
            assert!(!measured(amounts(less)).is_news_after(&said), "{less}");
        }
        for more in [490, 510] {
            assert!(measured(Usage { cpu: MilliCpu(more), ..said }).is_news_after(&said), "cpu {more}");
            assert!(measured(Usage { memory: Bytes(more), ..said }).is_news_after(&said), "memory {more}");
            assert!(measured(Usage { disk: Bytes(more), ..said }).is_news_after(&said), "disk {more}");
        }
        // One core: a tenth of a process.
        let busy = |minute| Usage { load: Some(LoadAverage { hundredths: [minute, 0, 0] }), ..said };
        assert!(!measured(busy(9)).is_news_after(&said) && measured(busy(10)).is_news_after(&said), "the load of a minute");
        assert!(!measured(busy(59)).is_news_after(&busy(50)) && measured(said).is_news_after(&busy(10)), "the load of a minute");
    }
}
