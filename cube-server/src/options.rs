//! The command line of `cube-server`. Each flag is also a `CUBE_*` variable.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use cube_api::duration;
use cube_api::meta::{ClusterId, Labels, Name};
use cube_api::pod::Strategy;
use cube_api::quantity::{Bytes, MilliCpu};
use jiff::{Span, SpanRelativeTo};

use crate::follower::ports::FreePorts;
use crate::follower::reserve::{Part, Reserve};

/// A container cluster on machines with Docker: a leader (control plane, and a node) and any number of followers (nodes).
#[derive(Debug, Parser)]
#[command(name = "cube-server", version, after_help = EXAMPLES)]
pub struct Options {
    /// What to run as.
    #[command(subcommand)]
    pub role: RoleOptions,
}

const EXAMPLES: &str = "Examples:
  cube-server leader                          a whole cluster on this machine
  cube-server leader --listen 0.0.0.0:4242    also for followers on other machines
  cube-server follower --leader 10.0.0.1:4242 --token-file token
  cube-server hollow --nodes 500 --leader 127.0.0.1:4242 --token-file token
  cube-server backup --output cube.db         all that the leader knows, in one file

A leader without a token makes one, keeps it in its data folder, and says how nodes join
and how the client, cube, is set up. The log goes to stderr; CUBE_LOG=debug says more.";

/// What it runs as, or does.
#[derive(Debug, Subcommand)]
pub enum RoleOptions {
    /// Run the control plane, and pods on this machine
    Leader(LeaderOptions),
    /// Run pods for a leader
    Follower(FollowerOptions),
    /// Join many nodes that only pretend to run their pods, to see what a leader bears; for planning, never beside real pods
    Hollow(HollowOptions),
    /// Copy the leader's database into one file, while the leader runs or not
    Backup(BackupOptions),
    /// Replace the leader's database by a backup, while the leader is stopped
    Restore(RestoreOptions),
    /// Stop and remove this machine's containers and its node's database; its cube-server must be stopped
    Reset(ResetOptions),
}

/// Flags of `reset`.
#[derive(Debug, Args)]
pub struct ResetOptions {
    /// Where the server keeps its state [default: /var/lib/cube for root, else the user's state folder]
    #[arg(long, env = "CUBE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Docker's socket [default: DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, env = "CUBE_DOCKER", value_name = "unix:///SOCKET")]
    pub docker: Option<String>,
    /// Seconds between the stop signal and the kill [default: what each pod was assigned, or 30]
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<u32>,
    /// The cluster whose containers go, where the data folder doesn't tell or another's are meant: its files then stay
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<ClusterId>,
    /// The node whose containers go, where the data folder doesn't tell or, with --cluster-id, another's are meant
    #[arg(long, value_name = "NAME")]
    pub name: Option<Name>,
    /// Remove the leader's database and the token too
    #[arg(long)]
    pub everything: bool,
    /// Don't ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Flags of the leader.
#[derive(Debug, Args)]
pub struct LeaderOptions {
    /// Where to listen; 0.0.0.0:4242 lets other machines in, port 0 takes a free one
    #[arg(long, env = "CUBE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:4242")]
    pub listen: String,
    /// Run no pods on this machine
    #[arg(long, env = "CUBE_NO_PODS", value_parser = BoolishValueParser::new())]
    pub no_pods: bool,
    /// Back the database up into this folder on schedule
    #[arg(long, env = "CUBE_BACKUP_DIR", value_name = "FOLDER")]
    pub backup_dir: Option<PathBuf>,
    /// Between two backups: 30m, 24h, 7d
    #[arg(long, env = "CUBE_BACKUP_EVERY", value_name = "TIME", default_value = "24h", value_parser = interval)]
    pub backup_every: Duration,
    /// How many backups of this cluster are kept in the folder; older ones are deleted
    #[arg(long, env = "CUBE_BACKUP_KEEP", value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pub backup_keep: u16,
    /// A node that is silent for so long is NotReady and gets no new pods
    #[arg(long, env = "CUBE_NODE_NOT_READY_AFTER", value_name = "TIME", default_value = "10s", value_parser = limit)]
    pub node_not_ready_after: Duration,
    /// A node that is silent for so long is lost: its pods are replaced on other nodes, but those with onNodeLoss: wait. Nobody is lost in the first
    /// two such times after the leader's start, nor while most nodes fell silent at once. 'never' switches it off
    #[arg(long, env = "CUBE_NODE_LOST_AFTER", value_name = "TIME", default_value = "30s")]
    pub node_lost_after: LostAfter,
    /// Which of the nodes that fit a pod gets, unless its own `strategy` says: spread (the least loaded), binpack (the fullest), round-robin (the next
    /// by name) or epvm (the one whose cost rises least)
    #[arg(long, env = "CUBE_STRATEGY", value_name = "STRATEGY", default_value_t)]
    pub strategy: Strategy,
    /// What both roles take.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// How long a node may be silent before it is lost; none: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostAfter(pub Option<Duration>);

impl FromStr for LostAfter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        duration::parse_or_never(text).map(Self)
    }
}

fn limit(text: &str) -> Result<Duration, String> {
    let limit = duration::parse(text)?.unsigned_abs();
    if limit.is_zero() { Err("no time at all: every node would be NotReady between two heartbeats".to_owned()) } else { Ok(limit) }
}

impl LeaderOptions {
    /// The limits on the silence of nodes. The error is a sentence.
    pub fn silence_limits(&self) -> Result<(Duration, Option<Duration>), String> {
        let (not_ready_after, LostAfter(lost_after)) = (self.node_not_ready_after, self.node_lost_after);
        match lost_after {
            Some(lost_after) if lost_after < not_ready_after => Err(format!(
                "--node-lost-after {} is less than --node-not-ready-after {}: a node is NotReady before it is lost",
                duration::text(lost_after),
                duration::text(not_ready_after)
            )),
            Some(_) | None => Ok((not_ready_after, lost_after)),
        }
    }
}

/// Flags of a follower.
#[derive(Debug, Args)]
pub struct FollowerOptions {
    /// The leader's host and port; the port is 4242 unless given
    #[arg(long, env = "CUBE_LEADER", value_name = "HOST:PORT")]
    pub leader: String,
    /// What both roles take.
    #[command(flatten)]
    pub common: CommonOptions,
}

const HOLLOW: &str = "\
Real are the sessions, assignments, statuses and events of each node, over sockets of its own; the
containers are entries in memory. They run for ever, unless their args are 'exit-after TIME [CODE]'.
There are no images, logs, ports or commands, and nothing is kept: when this process ends, its pods
are gone, and its nodes are lost to the leader like machines that died. `cube delete node/hollow-1
--force` makes the leader forget one; started again with the same prefix, they take their names back.

Use a leader of its own: pods that it places on hollow nodes run nowhere.";

/// Flags of `hollow`.
#[derive(Debug, Clone, Args)]
#[command(after_help = HOLLOW)]
pub struct HollowOptions {
    /// The leader's host and port; the port is 4242 unless given
    #[arg(long, env = "CUBE_LEADER", value_name = "HOST:PORT")]
    pub leader: String,
    /// How many nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,
    /// What their names begin with: PREFIX-1, PREFIX-2 and so on
    #[arg(long, value_name = "PREFIX", default_value = "hollow", value_parser = prefix)]
    pub name_prefix: Name,
    /// The cluster's secret; better given as CUBE_TOKEN or --token-file: other users of a machine see its command lines
    #[arg(long, env = "CUBE_TOKEN", value_name = "TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the cluster's secret
    #[arg(long, env = "CUBE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A label of these nodes for pods to select by; may be repeated
    #[arg(long = "label", env = "CUBE_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// The cores that each node pretends to have
    #[arg(long, value_name = "CPU", default_value = "4")]
    pub cpu: MilliCpu,
    /// The memory that each node pretends to have
    #[arg(long, value_name = "BYTES", default_value = "8Gi")]
    pub memory: Bytes,
    /// The disk space that each node pretends to have
    #[arg(long, value_name = "BYTES", default_value = "100Gi")]
    pub disk: Bytes,
    /// The most pods that each node takes (110 is Kubernetes' default)
    #[arg(long, env = "CUBE_MAX_PODS", value_name = "N", default_value_t = 110)]
    pub max_pods: u32,
    /// From one node's first try to join to the next one's: all at once are more than a machine's queue of connections takes
    #[arg(long, value_name = "TIME", default_value = "2ms", value_parser = wait)]
    pub join_every: Duration,
}

fn wait(text: &str) -> Result<Duration, String> {
    duration::parse(text).map(|wait| wait.unsigned_abs())
}

/// The longest name has 63 characters; ten of them are for the number.
fn prefix(text: &str) -> Result<Name, String> {
    match Name::new(text) {
        Ok(name) if text.len() <= 52 => Ok(name),
        Ok(_) => Err(format!("'{text}' is too long: the prefix of a node's name has at most 52 characters")),
        Err(error) => Err(error.to_string()),
    }
}

/// Flags of `backup`.
#[derive(Debug, Args)]
pub struct BackupOptions {
    /// The leader's data folder [default: /var/lib/cube for root, else the user's state folder]
    #[arg(long, env = "CUBE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
    /// Say what the backup holds as JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub struct RestoreOptions {
    /// The leader's data folder [default: /var/lib/cube for root, else the user's state folder]
    #[arg(long, env = "CUBE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The backup
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
}

/// Flags of both roles.
#[derive(Debug, Args)]
pub struct CommonOptions {
    /// The cluster's secret; better given as CUBE_TOKEN or --token-file: other users of a machine see its command lines
    #[arg(long, env = "CUBE_TOKEN", value_name = "TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the cluster's secret
    #[arg(long, env = "CUBE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where this server keeps its state [default: /var/lib/cube for root, else the user's state folder]
    #[arg(long, env = "CUBE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// This node's name in the cluster [default: the machine's host name]
    #[arg(long, env = "CUBE_NAME", value_name = "NAME")]
    pub name: Option<Name>,
    /// Docker's socket [default: DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, env = "CUBE_DOCKER", value_name = "unix:///SOCKET")]
    pub docker: Option<String>,
    /// A label of this node for pods to select by; may be repeated
    #[arg(long = "label", env = "CUBE_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// The most pods that this node takes (110 is Kubernetes' default)
    #[arg(long, env = "CUBE_MAX_PODS", value_name = "N", default_value_t = 110)]
    pub max_pods: u32,
    /// Cpu that pods may not reserve, for the machine itself: 500m, or 5%
    #[arg(long, env = "CUBE_RESERVE_CPU", value_name = "CPU", default_value = "100m", value_parser = Part::of_cpu)]
    pub reserve_cpu: Part,
    /// Memory that pods may not reserve: 1Gi, or 10% [default: 256Mi, or 10% of less than 2.5Gi]
    #[arg(long, env = "CUBE_RESERVE_MEMORY", value_name = "BYTES", value_parser = Part::of_bytes)]
    pub reserve_memory: Option<Part>,
    /// Disk space that pods may not reserve: 20Gi, or 10%
    #[arg(long, env = "CUBE_RESERVE_DISK", value_name = "BYTES", default_value = "10%", value_parser = Part::of_bytes)]
    pub reserve_disk: Part,
    /// How many sandboxes are kept ready for pods that publish no port and ask for no hostname: such a pod starts in a third of the time. 0
    /// keeps none
    #[arg(long, env = "CUBE_SPARE_SANDBOXES", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(..=16))]
    pub spare_sandboxes: u8,
    /// The host ports that pods get which publish a port and leave the number to the node (`hostPort: 0`). Followers on one machine may share a range
    #[arg(long, env = "CUBE_FREE_PORTS", value_name = "FIRST-LAST", default_value_t)]
    pub free_ports: FreePorts,
    /// This machine's address, as pods are told it (status.hostIP) and `cube nodes -o wide` shows it [default: that of the default route]
    #[arg(long, env = "CUBE_ADDRESS", value_name = "IP")]
    pub address: Option<IpAddr>,
}

impl CommonOptions {
    /// The labels as a map; a repeated key keeps the last value, as repeated flags do.
    pub fn labels(&self) -> Labels {
        self.labels.iter().cloned().collect()
    }

    /// What pods may not reserve.
    pub fn reserve(&self) -> Reserve {
        let memory = self.reserve_memory.unwrap_or(Reserve::default().memory);
        Reserve { cpu: self.reserve_cpu, memory, disk: self.reserve_disk }
    }
}

/// The shortest interval: a copy of a large database takes a part of a second.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Days have 24 hours.
fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a length of time, such as 30m, 24h or 7d");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    let interval = Duration::try_from(duration).map_err(|_| format!("'{text}' is negative"))?;
    if interval < SHORTEST_INTERVAL { Err(format!("'{text}' is too short: a second at least")) } else { Ok(interval) }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("'{text}' is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The leader's limits by its command line, or clap's or our refusal.
    fn limits(arguments: &[&str]) -> Result<(Duration, Option<Duration>), String> {
        leader(arguments)?.silence_limits()
    }

    fn leader(arguments: &[&str]) -> Result<LeaderOptions, String> {
        match Options::try_parse_from(["cube-server", "leader"].iter().chain(arguments)).map_err(|error| error.to_string())?.role {
            RoleOptions::Leader(options) => Ok(options),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_node_is_lost_after_30_s_unless_the_command_line_says_otherwise() {
        let seconds = Duration::from_secs;
        assert_eq!(limits(&[]), Ok((seconds(10), Some(seconds(30)))));
        assert_eq!(limits(&["--node-not-ready-after", "2m", "--node-lost-after", "5m"]), Ok((seconds(120), Some(seconds(300)))));
        for never in ["never", "0", "0s"] {
            assert_eq!(limits(&["--node-lost-after", never]), Ok((seconds(10), None)));
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused_with_the_reason() {
        let refused = |arguments: &[&str]| limits(arguments).expect_err("a refusal");
        let expected = "--node-lost-after 9s is less than --node-not-ready-after 10s: a node is NotReady before it is lost";
        assert_eq!(refused(&["--node-lost-after", "9s"]), expected);
        assert!(refused(&["--node-lost-after", "soon"]).contains("'soon' is not a length of time, such as 90s, 5m or 1h30m, or never"));
        assert!(refused(&["--node-not-ready-after", "0s"]).contains("no time at all"));
    }

    fn hollow(arguments: &[&str]) -> Result<HollowOptions, String> {
        let words = ["cube-server", "hollow", "--leader", "leader:4242"].iter().chain(arguments);
        match Options::try_parse_from(words).map_err(|error| error.to_string())?.role {
            RoleOptions::Hollow(options) => Ok(options),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn hollow_nodes_are_as_large_as_their_options_say() {
        let options = hollow(&["--nodes", "500"]).expect("all that is needed");
        assert_eq!((options.cpu, options.memory, options.max_pods), (MilliCpu(4_000), Bytes(8 << 30), 110));
        assert_eq!((options.name_prefix.as_str(), options.join_every), ("hollow", Duration::from_millis(2)));
        let options = hollow(&["--nodes", "1", "--cpu", "500m", "--memory", "64Mi", "--max-pods", "7"]).expect("all that is needed");
        assert_eq!((options.cpu, options.memory, options.max_pods), (MilliCpu(500), Bytes(64 << 20), 7));
    }

    #[test]
    fn hollow_nodes_that_could_not_be_are_refused() {
        let refused = |arguments: &[&str]| hollow(arguments).expect_err("a refusal");
        assert!(refused(&[]).contains("--nodes"));
        assert!(refused(&["--nodes", "0"]).contains("0 is not in 1.."));
        let long = "x".repeat(53);
        assert!(refused(&["--nodes", "1", "--name-prefix", &long]).contains("at most 52 characters"));
        assert!(refused(&["--nodes", "1", "--memory", "much"]).contains("'much' is not an amount of memory"));
    }

    #[test]
    fn a_reserve_is_the_default_one_unless_the_command_line_says_otherwise() {
        let reserve = |arguments: &[&str]| {
            let words = ["cube-server", "follower", "--leader", "a:1"].iter().chain(arguments);
            match Options::try_parse_from(words).map_err(|error| error.to_string())?.role {
                RoleOptions::Follower(options) => Ok::<_, String>(options.common.reserve()),
                other => unreachable!("{other:?}"),
            }
        };
        assert_eq!(reserve(&[]), Ok(Reserve::default()));
        let given = reserve(&["--reserve-cpu", "5%", "--reserve-memory", "1Gi", "--reserve-disk", "0"]);
        assert_eq!(given, Ok(Reserve { cpu: Part::Percent(5), memory: Part::Amount(1 << 30), disk: Part::Amount(0) }));
        assert!(reserve(&["--reserve-memory=lots"]).expect_err("a refusal").contains("or a part such as 10%"));
    }

    #[test]
    fn the_strategy_is_spread_unless_the_command_line_names_another_of_the_four() {
        let strategy = |arguments: &[&str]| leader(arguments).map(|options| options.strategy);
        assert_eq!(strategy(&[]), Ok(Strategy::Spread));
        for each in Strategy::ALL {
            assert_eq!(strategy(&["--strategy", each.as_str()]), Ok(each));
        }
        let refused: Result<Strategy, String> = strategy(&["--strategy", "fastest"]);
        assert!(refused.is_err_and(|error| error.contains("'fastest' is no strategy; there are spread, binpack, round-robin, epvm")));
    }

    #[test]
    fn an_interval_is_read_as_people_type_it() {
        for (typed, seconds) in [("30s", 30), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5_400)] {
            assert_eq!(interval(typed), Ok(Duration::from_secs(seconds)));
        }
        for wrong in ["", "7", "daily", "-1h", "0s", "10ms", "2 months"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_words_are_consistent_and_no_example_is_wrapped() {
        let mut command = Options::command();
        command.build();
        command.clone().debug_assert();
        let help = command.get_after_help().expect("there are examples").to_string();
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
        assert!(command.render_help().to_string().starts_with("A container cluster"));
    }
}
