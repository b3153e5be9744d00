//! `kcp-loadgen serve`: its flags, and the backend they describe.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::UsageError;
use super::build::resolve;
use super::values::Chance;
use crate::serve::{
    Behaviour, Crash, Cut, Dialect, Ending, Framing, Garbage, Kind, Listen, Misdeed, Rooms, Serve,
    Side, Slow,
};

/// `kcp-loadgen serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// How sessions arrive
    #[arg(long, default_value = "tcp")]
    pub kind: KindArg,
    /// What happens to messages
    #[arg(long, default_value = "echo")]
    pub behaviour: BehaviourArg,
    /// Where to listen, HOST:PORT or unix:PATH; repeatable; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    pub listen: Vec<String>,
    /// For --kind nats: the server
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    pub nats: String,
    /// How messages are told apart
    #[arg(long, default_value = "u32be")]
    pub framing: FramingArg,
    /// Whether each session begins with a PROXY header
    #[arg(long, default_value = "v2")]
    pub proxy: ProxyArg,
    /// The longest message taken, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub message_max: u32,
    /// Threads [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Kernel buffers of each TCP connection, each way, in bytes [default: the kernel's choice]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=1 << 30))]
    pub socket_buffer: Option<u32>,
    /// Makes chance repeatable [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// End after this time [default: at SIGINT or SIGTERM]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Write the counters as one JSON object at the end
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// For swell: how many times over a message comes back, in one message
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub times: u32,
    /// For rooms: sessions in a room
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub room_size: u32,
    /// For rooms: messages that may wait for one member; further ones are dropped for it and counted
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub room_queue: u16,
    /// For slow: what is slow
    #[arg(long, default_value = "reads")]
    pub slow: SlowArg,
    /// For slow: of each session
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub bytes_per_s: u32,
    /// For crash and garbage: in place of the answer to a session's N-th message
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub after: Option<u32>,
    /// For crash: this long after a session began
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub after_time: Option<Duration>,
    /// For crash: with each message, so likely
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub chance: Chance,
    /// For crash: what is cut off
    #[arg(long, default_value = "session")]
    pub cut: CutArg,
    /// For crash: how
    #[arg(long, default_value = "fin")]
    pub ending: EndingArg,
    /// For garbage: what is sent; `link-*` need --kind yamux and concern the whole connection
    #[arg(long, default_value = "oversize")]
    pub garbage: MisdeedArg,
}

impl ServeArgs {
    /// The backend that the flags describe.
    ///
    /// # Errors
    /// An address that is none, or flags that do not fit each other.
    pub fn serve(&self) -> Result<Serve, UsageError> {
        let listen = self.listen.iter().map(|text| self.listen(text)).collect::<Result<_, _>>()?;
        Ok(Serve {
            kind: self.kind.into(),
            listen,
            nats: self.nats.clone(),
            dialect: Dialect {
                framing: self.framing.into(),
                proxy: matches!(self.proxy, ProxyArg::V2),
                message_max: self.message_max as usize,
            },
            behaviour: self.behaviour()?,
            threads: self.threads.map_or_else(cores, usize::from),
            socket_buffer: self.socket_buffer,
            seed: self.seed.unwrap_or_else(crate::seed::fresh),
        })
    }

    fn listen(&self, text: &str) -> Result<Listen, UsageError> {
        match text.strip_prefix("unix:") {
            None => resolve("--listen", text).map(Listen::Inet),
            Some("") => {
                Err(unfit("--listen unix:", "write a path after it, e.g. unix:/run/game.sock"))
            }
            Some(path) => Ok(Listen::Unix(path.into())),
        }
    }

    fn behaviour(&self) -> Result<Behaviour, UsageError> {
        if Kind::from(self.kind) == Kind::Nats {
            self.fits_nats()?;
        }
        Ok(match self.behaviour {
            BehaviourArg::Echo => Behaviour::Echo,
            BehaviourArg::Swell => Behaviour::Swell(self.swell()?),
            BehaviourArg::Rooms => Behaviour::Rooms(Rooms {
                size: self.room_size,
                queue: usize::from(self.room_queue),
            }),
            BehaviourArg::Slow => {
                Behaviour::Slow(Slow { side: self.slow.into(), bytes_per_s: self.bytes_per_s })
            }
            BehaviourArg::Crash => Behaviour::Crash(self.crash()?),
            BehaviourArg::Garbage => Behaviour::Garbage(self.garbage()?),
        })
    }

    /// A messaging engine has neither streams to be slow on nor connections to cut.
    fn fits_nats(&self) -> Result<(), UsageError> {
        let noise = matches!(self.garbage, MisdeedArg::Noise);
        match self.behaviour {
            BehaviourArg::Slow => Err(unfit("--behaviour slow", "not with --kind nats")),
            BehaviourArg::Swell => Err(unfit("--behaviour swell", "not with --kind nats")),
            BehaviourArg::Garbage if !noise => {
                Err(unfit("--garbage", "with --kind nats it can only be noise"))
            }
            BehaviourArg::Crash if self.after_time.is_some() => {
                Err(unfit("--after-time", "not with --kind nats; --after or --chance"))
            }
            BehaviourArg::Crash if matches!(self.cut, CutArg::Link) => {
                Err(unfit("--cut link", "not with --kind nats: kill the server instead"))
            }
            BehaviourArg::Echo
            | BehaviourArg::Rooms
            | BehaviourArg::Crash
            | BehaviourArg::Garbage => Ok(()),
        }
    }

    /// Answers must fit the framing's length, whatever is sent.
    fn swell(&self) -> Result<u32, UsageError> {
        let framing = Framing::from(self.framing);
        let longest = (self.message_max as usize).min(framing.length_max());
        if longest.saturating_mul(self.times as usize) > framing.length_max() {
            return Err(unfit(
                "--times",
                "answers to messages of --message-max must fit what the framing can tell",
            ));
        }
        Ok(self.times)
    }

    fn crash(&self) -> Result<Crash, UsageError> {
        if self.after.is_none() && self.after_time.is_none() && self.chance.0 == 0 {
            return Err(unfit(
                "--behaviour crash",
                "say when with --after, --after-time or --chance",
            ));
        }
        Ok(Crash {
            after_messages: self.after,
            after_time: self.after_time,
            chance_ppm: self.chance.0,
            cut: self.cut.into(),
            ending: self.ending.into(),
        })
    }

    fn garbage(&self) -> Result<Garbage, UsageError> {
        let misdeed = Misdeed::from(self.garbage);
        if misdeed.is_of_link() && Kind::from(self.kind) != Kind::Yamux {
            return Err(unfit(
                "--garbage link-*",
                "only --kind yamux has links that sessions share",
            ));
        }
        let framed = Framing::from(self.framing) != Framing::None;
        if matches!(misdeed, Misdeed::Oversize | Misdeed::Stall) && !framed {
            return Err(unfit(
                "--garbage oversize and stall",
                "without framing there is no message to be too long or to stop in",
            ));
        }
        Ok(Garbage { misdeed, after: self.after.unwrap_or(1) })
    }
}

fn unfit(flag: &'static str, rule: &str) -> UsageError {
    UsageError::Unfit { flag, rule: rule.to_owned() }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Declares the values of a flag, and what each stands for.
macro_rules! values {
    ($flag:literal $arg:ident => $into:ident { $($(#[doc = $doc:literal])+ $value:ident,)+ }) => {
        #[doc = concat!("`", $flag, "`.")]
        #[derive(Clone, Copy, Debug, ValueEnum)]
        pub enum $arg {
            $($(#[doc = $doc])+ $value,)+
        }

        impl From<$arg> for $into {
            fn from(arg: $arg) -> Self {
                match arg {
                    $($arg::$value => Self::$value,)+
                }
            }
        }
    };
}

values!("--kind" KindArg => Kind {
    /// A connection each
    Tcp,
    /// A stream each, of few connections
    Yamux,
    /// By their subjects, from a NATS server
    Nats,
});
values!("--slow" SlowArg => Side {
    /// Reading
    Reads,
    /// Writing; nothing is read meanwhile
    Writes,
});
values!("--cut" CutArg => Cut {
    /// The session alone
    Session,
    /// Its connection, with all sessions that share it
    Link,
});
values!("--ending" EndingArg => Ending {
    /// In order
    Fin,
    /// At once
    Reset,
});
values!("--garbage" MisdeedArg => Misdeed {
    /// A message announced as longer than any
    Oversize,
    /// A message that is begun and not gone on with
    Stall,
    /// Random bytes
    Noise,
    /// Data on a stream that nobody opened
    LinkUnknown,
    /// More data than the window allows
    LinkWindow,
    /// Bytes that begin no frame
    LinkNoise,
    /// A frame that is begun and not gone on with
    LinkStall,
});

/// `--behaviour`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BehaviourArg {
    /// Each message comes back
    Echo,
    /// Each message comes back many times over, in one message
    Swell,
    /// Each message goes to everybody in its sender's room
    Rooms,
    /// Each message comes back, but the backend cannot keep up
    Slow,
    /// As echo, until the backend cuts sessions off
    Crash,
    /// As echo, until the backend sends what it must not
    Garbage,
}

/// `--framing`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FramingArg {
    /// Not at all: bytes as they come
    None,
    /// Two bytes of length, the highest first
    #[value(name = "u16be")]
    U16Be,
    /// Two bytes of length, the lowest first
    #[value(name = "u16le")]
    U16Le,
    /// Four bytes of length, the highest first
    #[value(name = "u32be")]
    U32Be,
    /// Four bytes of length, the lowest first
    #[value(name = "u32le")]
    U32Le,
}

impl From<FramingArg> for Framing {
    fn from(arg: FramingArg) -> Self {
        match arg {
            FramingArg::None => Self::None,
            FramingArg::U16Be => Self::U16Be,
            FramingArg::U16Le => Self::U16Le,
            FramingArg::U32Be => Self::U32Be,
            FramingArg::U32Le => Self::U32Le,
        }
    }
}

/// `--proxy`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProxyArg {
    /// Version 2, checked
    V2,
    /// None
    None,
}
