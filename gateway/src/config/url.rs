//! Where a backend is, as one writes it: `tcp://game-1:7000`, `yamux+unix:///run/game.sock`, `tcp+srv://_kcp._tcp.game`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// Every message comes back.
    Echo,
    /// To one backend.
    Backend(BackendUrl),
    /// To subjects of a messaging engine.
    Nats(NatsUrl),
}

/// How a backend's sessions are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// Each over a connection of its own.
    Tcp,
    /// Each as a stream of a shared connection.
    Yamux,
}

/// Where a backend is and how its sessions are carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    /// How its sessions are carried.
    pub carrier: Carrier,
    /// Where it is; never empty. Names and SRV records may stand for several addresses.
    pub targets: Vec<Target>,
}

/// Where a NATS cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsUrl {
    /// Encrypted.
    pub tls: bool,
    /// Its servers; never empty. The others of the cluster are learned from the first that answers.
    pub targets: Vec<Target>,
}

/// One place of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// This address.
    Addr(SocketAddr),
    /// Every address of a name.
    Host {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// The hosts and ports of a name's SRV records.
    Srv(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Carrier {
    /// As one writes it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Yamux => "yamux",
        }
    }
}

impl UpstreamUrl {
    /// The URL `text`, or `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "echo" {
            return Some(Self::Echo);
        }
        NatsUrl::parse(text).map(Self::Nats).or_else(|| BackendUrl::parse(text).map(Self::Backend))
    }
}

impl BackendUrl {
    /// The URL `text`, or `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let each = |target| each(rest, target);
        let (carrier, targets) = match scheme {
            "tcp" => (Carrier::Tcp, each(host_port)?),
            "yamux" => (Carrier::Yamux, each(host_port)?),
            "tcp+srv" => (Carrier::Tcp, each(srv)?),
            "yamux+srv" => (Carrier::Yamux, each(srv)?),
            "yamux+unix" => (Carrier::Yamux, vec![unix(rest)?]),
            _ => return None,
        };
        Some(Self { carrier, targets })
    }
}

impl NatsUrl {
    /// The URL `text`, or `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "nats" => false,
            "nats+tls" => true,
            _ => return None,
        };
        Some(Self { tls, targets: each(rest, host_port)? })
    }

    /// As its client writes each server.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        let scheme = if self.tls { "tls" } else { "nats" };
        self.targets.iter().map(|target| format!("{scheme}://{target}")).collect()
    }
}

fn each(list: &str, target: fn(&str) -> Option<Target>) -> Option<Vec<Target>> {
    let targets: Option<Vec<_>> = list.split(',').map(target).collect();
    targets.filter(|targets| targets.len() <= TARGETS_MAX)
}

fn host_port(text: &str) -> Option<Target> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return (addr.port() != 0).then_some(Target::Addr(addr));
    }
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    // What ends like an IPv4 address and is none is a slip of the pen, not a name.
    let top = name.trim_end_matches('.').rsplit('.').next()?;
    let numeric = top.bytes().all(|b| b.is_ascii_digit());
    (is_name(name) && !numeric).then(|| Target::Host { name: name.into(), port })
}

fn srv(text: &str) -> Option<Target> {
    is_name(text).then(|| Target::Srv(text.into()))
}

fn unix(path: &str) -> Option<Target> {
    // 108 bytes of sun_path with the zero at the end.
    let fits = path.len() < 108 && path.len() > 1 && path.starts_with('/') && !path.contains('\0');
    fits.then(|| Target::Unix(path.into()))
}

/// A host name as DNS carries it; underscores are for SRV.
fn is_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && labels.split('.').all(is_label)
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => f.write_str("echo"),
            Self::Backend(url) => url.fmt(f),
            Self::Nats(NatsUrl { tls, targets }) => {
                f.write_str(if *tls { "nats+tls://" } else { "nats://" })?;
                list(targets, f)
            }
        }
    }
}

fn list(targets: &[Target], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, target) in targets.iter().enumerate() {
        write!(f, "{}{target}", if i > 0 { "," } else { "" })?;
    }
    Ok(())
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.targets.first() {
            Some(Target::Srv(_)) => "+srv",
            Some(Target::Unix(_)) => "+unix",
            Some(Target::Addr(_) | Target::Host { .. }) | None => "",
        };
        write!(f, "{}{suffix}://", self.carrier.label())?;
        list(&self.targets, f)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Srv(name) => f.write_str(name),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Places in one URL.
const TARGETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        for text in [
            "echo",
            "tcp://127.0.0.1:7000",
            "tcp://[::1]:7000,game-1:7000,10.0.0.1:1",
            "yamux://game.example.com.:7000",
            "yamux+unix:///run/game.sock",
            "tcp+srv://_kcp._tcp.game.example",
            "yamux+srv://a,b",
            "nats://127.0.0.1:4222,[::1]:4222",
            "nats+tls://nats.example:4222",
        ] {
            assert_eq!(UpstreamUrl::parse(text).unwrap().to_string(), text);
        }
        let Some(UpstreamUrl::Backend(url)) = UpstreamUrl::parse("tcp://a:1,[::1]:2") else {
            panic!("no backend")
        };
        let host = Target::Host { name: "a".into(), port: 1 };
        assert_eq!(url.targets, [host, Target::Addr("[::1]:2".parse().unwrap())]);
        assert_eq!(url.carrier, Carrier::Tcp);
    }

    #[test]
    fn what_is_none_is_refused() {
        let long = format!("yamux+unix:///{}", "x".repeat(108));
        let many = format!("tcp://{}", vec!["a:1"; 65].join(","));
        for text in [
            "",
            "tcp",
            "tcp://",
            "tcp://a",
            "tcp://a:",
            "tcp://a:0",
            "tcp://127.0.0.1:0",
            "tcp://a:65536",
            "tcp://10.0.0.256:1",
            "tcp://10.0.0:1",
            "tcp://a:1,",
            "tcp://a b:1",
            "tcp://-a:1",
            "tcp://a..b:1",
            "tcp://::1:1",
            "udp://a:1",
            "nats://",
            "nats://user:secret@a:1",
            "nats+srv://a",
            "tcp://a:1/path",
            "tcp+srv://a:1",
            "yamux+unix://run/x",
            "yamux+unix:///",
            "Echo",
            &long,
            &many,
        ] {
            assert_eq!(UpstreamUrl::parse(text), None, "{text}");
        }
    }
}
