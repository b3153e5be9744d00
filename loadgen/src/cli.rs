//! The command line: what each flag means, and how the flags become a checked [`Scenario`](crate::Scenario).

mod build;
pub mod serve;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::build::UsageError;
use self::serve::ServeArgs;
use self::values::parse_rate;
pub use self::values::{BitRate, Chance, Cores, RampArg, Rate, StormArg, ValueError, Windows};
use crate::check::Check;
use crate::sources::Sources;

/// Real KCP sessions against a KCP server, with honest latency figures.
///
/// Exit codes: 0 sound, 1 failed (messages lost, duplicated, out of order or damaged, sessions not established, or the run
/// could not be made), 2 bad usage, 3 sound but a --check is not met.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Loads a KCP server that echoes messages, and says how fast it was
    Run(Box<RunArgs>),
    /// A gateway and a load in one process: nothing to set up
    Demo(DemoArgs),
    /// A bad network: forwards the datagrams of any UDP clients to a server, and loses, delays, reorders some
    Impair(ImpairArgs),
    /// A backend to test gateways with: `tcp`, `yamux` or `nats`, well-behaved or not
    Serve(Box<ServeArgs>),
}

/// `kcp-loadgen impair`. Everything applies to both directions, each with its own dice.
#[derive(Debug, Args)]
pub struct ImpairArgs {
    /// Where clients send, HOST:PORT; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR")]
    pub listen: String,
    /// The server, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub target: String,
    /// Datagrams lost
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub loss: Chance,
    /// Time on the way
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    pub delay: Duration,
    /// At most so much longer on the way, evenly distributed; the order is kept
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    pub jitter: Duration,
    /// Datagrams held back so that later ones overtake them
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub reorder: Chance,
    /// How long those are held back
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    pub reorder_by: Duration,
    /// Datagrams that arrive twice
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub duplicate: Chance,
    /// Datagrams that arrive with one bit flipped
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub corrupt: Chance,
    /// Bits per second of all clients together: 512kbit, 10mbit, 1gbit [default: no limit]
    #[arg(long)]
    pub rate: Option<BitRate>,
    /// Makes the dice repeatable [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Clients at once; each has a socket of its own towards the server
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=65_534))]
    pub clients: u16,
    /// A client silent for this long is forgotten
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,
    /// End after this time [default: at SIGINT or SIGTERM]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// How datagrams are moved
    #[arg(long, default_value = "auto")]
    pub io: IoArg,
}

/// `kcp-loadgen demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Sessions
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub sessions: u32,
    /// Messages per second per session
    #[arg(long, value_name = "R", default_value = "2", value_parser = parse_rate)]
    pub rate: Rate,
    /// How long to measure
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How datagrams are moved, by the gateway and by the load
    #[arg(long, default_value = "auto")]
    pub io: IoArg,
    /// The gateway's shards [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Makes the run repeatable [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `kcp-loadgen run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The server, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub target: String,
    /// What the sessions are and do.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How this process does it.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// The protocol's settings.
    #[command(flatten)]
    pub kcp: KcpArgs,
    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What the sessions are and do.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Sessions
    #[arg(long, default_value_t = 100)]
    pub sessions: u32,
    /// Open loop: messages per second per session, sent on schedule whatever comes back; 0 = idle after the first message
    #[arg(long, value_name = "R", conflicts_with = "outstanding", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Closed loop: messages kept on the way per session [default: 1, when --rate is not given]
    #[arg(long, value_name = "K")]
    pub outstanding: Option<u32>,
    /// Bytes per message, 1 and more; from 24 bytes on each message carries session, sequence, time and checksum
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// What the target's upstream does with messages, and so what is verified
    #[arg(long, default_value = "echo")]
    pub upstream: UpstreamArg,
    /// The upstream answers a message with so many times its bytes, in one message (`serve --behaviour swell`)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub times: u32,
    /// Slow clients: messages per second that the application of a session takes until the load ends, bystanders apart; 0 =
    /// none. Its receive window closes meanwhile; at the end it takes all [default: as they come]
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub read_rate: Option<Rate>,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Load before the measurement
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Start of the sessions: all within a time (10s), or so many per second (20000/s)
    #[arg(long, default_value = "10000/s")]
    pub ramp: RampArg,
    /// Silence between the ramp and the load
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// Sessions that may be opening at once; beyond, starts wait, and the wait counts as time to connect
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub opening_max: u32,
    /// Give up on the sessions still missing when none was established for this long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub establish_timeout: Duration,
    /// How long to wait at the end for echoes still on the way
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// N clients vanish at once and as many new ones come within a time, in the middle of the measurement: 100000@2s
    #[arg(long, value_name = "N@TIME", conflicts_with = "avalanche")]
    pub storm: Option<StormArg>,
    /// All clients but the bystanders vanish at once in the middle of the measurement
    #[arg(long)]
    pub avalanche: bool,
    /// When that happens, from the start of the measurement [default: half of --duration]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub storm_after: Option<Duration>,
    /// Sessions whose latency is reported on its own as well: before a storm, in it, after it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bystanders: u32,
    /// Open loop of the bystanders: messages per second each [default: as all others]
    #[arg(long, value_name = "R", requires = "bystanders", value_parser = parse_rate)]
    pub bystander_rate: Option<Rate>,
    /// UDP sockets that the sessions share [default: one per session, 64 at most]
    #[arg(long)]
    pub sockets: Option<u32>,
    /// Source addresses, in turn: ADDR, FIRST-LAST, FIRST+COUNT, ADDR/PREFIX, joined by commas [default: the host's choice]
    #[arg(long, value_name = "ADDRS")]
    pub sources: Option<Sources>,
    /// Session n gets conversation id N + n
    #[arg(long, value_name = "N", conflicts_with = "conv_random")]
    pub conv_base: Option<u32>,
    /// Distinct conversation ids without pattern (the default)
    #[arg(long)]
    pub conv_random: bool,
    /// Makes the run repeatable [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Plain datagrams instead of KCP, of the size KCP's would have (the message and two 24-byte headers) or of BYTES
    #[arg(long, value_name = "BYTES", num_args = 0..=1, require_equals = true)]
    pub raw: Option<Option<usize>>,
}

/// How this process does it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// Cores to pin the workers to, in turn, e.g. 1 or 2,4-7
    #[arg(long, value_name = "CORES")]
    pub pin: Option<Cores>,
    /// How datagrams are moved
    #[arg(long, default_value = "auto")]
    pub io: IoArg,
    /// Receive and send buffer of each socket, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub socket_buffer: usize,
    /// Most bytes that all sessions together may hold queued or in flight
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    pub store_bytes: usize,
    /// Microseconds to gather datagrams after the first of a turn; fewer system calls, later answers
    #[arg(long, value_name = "US", default_value_t = 0)]
    pub min_wait_us: u32,
}

/// The protocol's settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "KCP")]
pub struct KcpArgs {
    /// Where the settings below start from: game (nodelay 1, 10 ms, resend 2, nc, windows 256) or reference (the C library's)
    #[arg(long, default_value = "game")]
    pub profile: ProfileArg,
    /// 0 = normal, 1 or 2 = faster retransmission
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=2))]
    pub nodelay: Option<u32>,
    /// Flush interval in milliseconds
    #[arg(long, value_name = "MS")]
    pub interval: Option<u32>,
    /// Resend after so many later acknowledgements, 0 = never
    #[arg(long, value_name = "N")]
    pub resend: Option<u32>,
    /// 1 = no congestion window, 0 = with
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub nc: Option<u8>,
    /// Send and receive window in segments
    #[arg(long, value_name = "SND,RCV")]
    pub window: Option<Windows>,
    /// Largest datagram in bytes
    #[arg(long)]
    pub mtu: Option<u32>,
    /// When output leaves: at the end of the turn that made it, or every interval as in the C library
    #[arg(long)]
    pub flush: Option<FlushArg>,
}

/// Where the results go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub struct OutputArgs {
    /// Write the results as one JSON object
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What must hold, else exit 3; repeatable: 'p99<50ms' 'service.max<=1s' 'loss<0.1%' 'messages_per_s>1000'
    #[arg(long, value_name = "EXPR")]
    pub check: Vec<Check>,
    /// Progress on standard error
    #[arg(long, default_value = "auto")]
    pub progress: ProgressArg,
}

/// `--io`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum IoArg {
    /// io_uring if the host allows it, else epoll
    Auto,
    /// io_uring or fail
    Uring,
    /// epoll
    Epoll,
}

/// `--upstream`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum UpstreamArg {
    /// Each message comes back as it is
    Echo,
    /// The bytes come back in order, cut anywhere (framing none): the byte stream is verified
    Stream,
    /// Each message comes back to its sender, and so do others': one's own are verified, others' for damage alone
    Rooms,
}

/// `--profile`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProfileArg {
    /// Latency first
    Game,
    /// The C library's defaults
    Reference,
}

/// `--flush`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FlushArg {
    /// At the end of the turn
    Turn,
    /// Every interval
    Interval,
}

/// `--progress`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProgressArg {
    /// A bar on a terminal, else lines
    Auto,
    /// One line a second
    Lines,
    /// Nothing
    Off,
}

#[cfg(test)]
mod tests;
