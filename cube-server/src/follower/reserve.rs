//! What a node keeps back for its machine: pods may reserve the rest. Plain arithmetic.

use cube_api::node::Capacity;
use cube_api::quantity::{Bytes, MilliCpu};

/// What is kept back of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// Of the cores, in thousandths of one.
    pub cpu: Part,
    /// Of the memory, in bytes.
    pub memory: Part,
    /// Of the disk space, in bytes.
    pub disk: Part,
}

/// An amount, or a part of what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// So much.
    Amount(u64),
    /// So many hundredths of all.
    Percent(u8),
    /// The smaller of both.
    Smaller(u64, u8),
}

impl Part {
    /// Of so much.
    fn of(self, all: u64) -> u64 {
        let hundredths = |percent: u8| u64::try_from(u128::from(all) * u128::from(percent) / 100).unwrap_or(u64::MAX);
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => hundredths(percent),
            Self::Smaller(amount, percent) => amount.min(hundredths(percent)),
        }
    }

    /// Of cores, as it is typed: `100m` or `5%`.
    pub fn of_cpu(text: &str) -> Result<Self, String> {
        Self::typed(text, |text| text.parse::<MilliCpu>().map(|cpu| cpu.0).map_err(|error| error.to_string()))
    }

    /// Of memory or disk space, as it is typed: `256Mi` or `10%`.
    pub fn of_bytes(text: &str) -> Result<Self, String> {
        Self::typed(text, |text| text.parse::<Bytes>().map(|bytes| bytes.0).map_err(|error| error.to_string()))
    }

    fn typed(text: &str, amount: impl FnOnce(&str) -> Result<u64, String>) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            return amount(text).map(Self::Amount).map_err(|error| format!("{error}, or a part such as 10%"));
        };
        let wrong = || format!("'{text}' is not a part: a whole number from 0% to 100%");
        percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(wrong)
    }
}

impl Reserve {
    /// Nothing.
    pub const NOTHING: Self = Self { cpu: Part::Amount(0), memory: Part::Amount(0), disk: Part::Amount(0) };

    /// What pods may reserve. `Err` says of what more is kept back than there is.
    pub fn allocatable(&self, capacity: &Capacity) -> Result<Capacity, String> {
        let Capacity { cpu, memory, disk, pods } = *capacity;
        let left = |part: Part, all: u64, option: &str, what: &str, show: &dyn Fn(u64) -> String| {
            let kept = part.of(all);
            let too_much = || format!("--reserve-{option} keeps back {} of the {} of {what} that there are", show(kept), show(all));
            all.checked_sub(kept).ok_or_else(too_much)
        };
        let cores = |cpu| MilliCpu(cpu).to_string();
        let mebibytes = |bytes| format!("{}Mi", bytes >> 20);
        Ok(Capacity {
            cpu: MilliCpu(left(self.cpu, cpu.0, "cpu", "cpu", &cores)?),
            memory: Bytes(left(self.memory, memory.0, "memory", "memory", &mebibytes)?),
            disk: Bytes(left(self.disk, disk.0, "disk", "disk space", &mebibytes)?),
            pods,
        })
    }
}

impl Default for Reserve {
    /// * 100m of cpu: Docker, the kernel and this server at work for some pods that come and go.
    /// * 256Mi of memory, of a machine with less than 2.5 GiB a tenth: Docker takes some 100 to 150 MiB with a few dozen containers, this server
    ///   15 to 30, a system without a desktop the rest. Pods that use all that they reserve would else drive those out, and the node with them.
    /// * a tenth of the disk: images, logs (50 MiB a container) and this server's database come without a request, and where less than that
    ///   is free file systems get slow; it is also where Kubernetes begins to evict.
    fn default() -> Self {
        Self { cpu: Part::Amount(100), memory: Part::Smaller(256 << 20, 10), disk: Part::Percent(10) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GI: u64 = 1 << 30;

    fn capacity(cpu: u64, memory: u64, disk: u64) -> Capacity {
        Capacity { cpu: MilliCpu(cpu), memory: Bytes(memory), disk: Bytes(disk), pods: 110 }
    }

    #[test]
    fn unless_told_otherwise_a_node_keeps_back_100m_of_cpu_256_mib_or_a_tenth_of_memory_and_a_tenth_of_its_disk() {
        let left = |capacity| Reserve::default().allocatable(&capacity).expect("enough");
        assert_eq!(left(capacity(2_000, 8 * GI, 100 * GI)), capacity(1_900, 8 * GI - (256 << 20), 90 * GI));
        assert_eq!(left(capacity(1_000, 1_000, 1_000)), capacity(900, 900, 900));
        assert_eq!(left(capacity(100, 0, 0)).cpu, MilliCpu(0));
    }

    #[test]
    fn a_reserve_is_an_amount_or_a_part() {
        assert_eq!((Part::of_cpu("0.5"), Part::of_cpu("5%")), (Ok(Part::Amount(500)), Ok(Part::Percent(5))));
        assert_eq!((Part::of_bytes("1Gi"), Part::of_bytes("0")), (Ok(Part::Amount(GI)), Ok(Part::Amount(0))));
        for wrong in ["101%", "-1%", "%", "1.5%", "a lot", "-1", "1 Gi"] {
            assert!(Part::of_bytes(wrong).is_err(), "{wrong}");
            assert!(Part::of_cpu(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Part::of_bytes("150%"), Err("'150%' is not a part: a whole number from 0% to 100%".to_owned()));
    }

    #[test]
    fn more_than_there_is_is_refused_with_the_amounts() {
        let small = capacity(2_000, 4 * GI, 10 * GI);
        let refused = |reserve: Reserve| reserve.allocatable(&small).expect_err("a refusal");
        let cpu = refused(Reserve { cpu: Part::Amount(2_500), ..Reserve::NOTHING });
        assert_eq!(cpu, "--reserve-cpu keeps back 2500m of the 2 of cpu that there are");
        let memory = refused(Reserve { memory: Part::Amount(64 * GI), ..Reserve::NOTHING });
        assert_eq!(memory, "--reserve-memory keeps back 65536Mi of the 4096Mi of memory that there are");
        assert!(refused(Reserve { disk: Part::Amount(10 * GI + 1), ..Reserve::NOTHING }).starts_with("--reserve-disk"));
        let all = Reserve { cpu: Part::Percent(100), memory: Part::Amount(4 * GI), disk: Part::Smaller(GI, 50) };
        assert_eq!(all.allocatable(&small), Ok(capacity(0, 0, 9 * GI)));
    }

    proptest! {
        #[test]
        fn a_part_is_never_more_than_all(all in any::<u64>(), percent in 0..=100u8, amount in any::<u64>()) {
            prop_assert!(Part::Percent(percent).of(all) <= all);
            prop_assert!(Part::Smaller(amount, percent).of(all) <= all);
        }
    }
}
