//! The types that a key can have: how each is read from what was written, what it allows, how it is shown.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use kcp_core::{FlushPolicy, Reference};
use net_io::IoChoice;
use serde_json::Value as Json;

use super::layers::Raw;
use super::upstream::is_gateway_id;
use super::{
    Auto, BackendUrl, Check, Farewell, GatewayId, LogFormat, LogLevel, Profile, Resolver, Sources,
    Steer, UpstreamUrl,
};
use crate::upstream::backend::{OnLoss, OnOverflow};
use crate::upstream::framing::Framing;
use crate::upstream::route::Policy;

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// What restricts it further.
    type Allowed;
    /// The value as written, or `None` when it is of another type.
    fn read(raw: &Raw) -> Option<Self>;
    /// Whether the restriction holds.
    fn within(&self, allowed: &Self::Allowed) -> bool;
    /// What to write, in words.
    fn wanted(allowed: &Self::Allowed) -> String;
    /// The value for the status page.
    fn show(&self) -> Json;
}

/// A range of whole numbers, both ends allowed, and what is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub(super) u64, pub(super) u64, pub(super) &'static str);

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Value for $type {
            type Allowed = Count;

            fn read(raw: &Raw) -> Option<Self> {
                match raw {
                    Raw::Integer(n) => (*n)?.try_into().ok(),
                    Raw::Untyped(s) => s.trim().parse().ok(),
                    Raw::Text(_) | Raw::Bool(_) | Raw::Other(_) => None,
                }
            }
            fn within(&self, Count(min, max, _): &Count) -> bool {
                (*min..=*max).contains(&u64::from(*self))
            }
            fn wanted(Count(min, max, unit): &Count) -> String {
                format!("{min} to {max} {unit}")
            }
            fn show(&self) -> Json {
                (*self).into()
            }
        }
    )*};
}
numbers!(u16 u32 u64);

impl<N: Value<Allowed = Count>> Value for Auto<N> {
    type Allowed = Count;

    fn read(raw: &Raw) -> Option<Self> {
        if raw.word() == Some("auto") { Some(Self::Auto) } else { N::read(raw).map(Self::Exactly) }
    }
    fn within(&self, allowed: &Count) -> bool {
        match self {
            Self::Auto => true,
            Self::Exactly(n) => n.within(allowed),
        }
    }
    fn wanted(allowed: &Count) -> String {
        format!("\"auto\" or {}", N::wanted(allowed))
    }
    fn show(&self) -> Json {
        match self {
            Self::Auto => "auto".into(),
            Self::Exactly(n) => n.show(),
        }
    }
}

impl Value for bool {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Bool(b) => Some(*b),
            Raw::Untyped(s) => s.trim().parse().ok(),
            Raw::Integer(_) | Raw::Text(_) | Raw::Other(_) => None,
        }
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "true or false".into()
    }
    fn show(&self) -> Json {
        (*self).into()
    }
}

impl Value for SocketAddr {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        raw.word()?.trim().parse().ok()
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "an address and a port, like \"0.0.0.0:4000\" or \"[::]:4000\"".into()
    }
    fn show(&self) -> Json {
        self.to_string().into()
    }
}

impl Value for Option<SocketAddr> {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        if raw.word() == Some("off") { Some(None) } else { SocketAddr::read(raw).map(Some) }
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "an address and a port, like \"127.0.0.1:9600\", or \"off\"".into()
    }
    fn show(&self) -> Json {
        self.map_or_else(|| "off".into(), |addr| addr.show())
    }
}

/// A backend's name.
impl Value for String {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        raw.word().map(Self::from)
    }
    fn within(&self, (): &()) -> bool {
        (1..=64).contains(&self.len())
            && self.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }
    fn wanted((): &()) -> String {
        "a name of 1 to 64 letters, digits, \".\", \"_\" and \"-\"".into()
    }
    fn show(&self) -> Json {
        self.as_str().into()
    }
}

impl Value for Farewell {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.word()?;
        let Some(digits) = text.strip_prefix(HEX) else { return Some(Self(text.into())) };
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| match pair {
            [high, low] if pair.iter().all(u8::is_ascii_hexdigit) => {
                u8::from_str_radix(&String::from_utf8_lossy(&[*high, *low]), 16).ok()
            }
            _ => None,
        };
        pairs.map(byte).collect::<Option<_>>().map(Self)
    }
    fn within(&self, (): &()) -> bool {
        self.0.len() <= FAREWELL_BYTES_MAX
    }
    fn wanted((): &()) -> String {
        format!("a text of up to {FAREWELL_BYTES_MAX} bytes, or \"{HEX}\" and two digits a byte")
    }
    fn show(&self) -> Json {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with(HEX) => text.into(),
            Ok(_) | Err(_) => {
                self.0.iter().fold(HEX.to_owned(), |text, byte| format!("{text}{byte:02x}")).into()
            }
        }
    }
}

const HEX: &str = "hex:";
const FAREWELL_BYTES_MAX: usize = 512;

impl Value for UpstreamUrl {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        Self::parse(raw.word()?.trim())
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        format!(
            "\"echo\", \"nats://HOST:PORT\", \"nats+tls://HOST:PORT\", {}",
            BackendUrl::wanted(&())
        )
    }
    fn show(&self) -> Json {
        self.to_string().into()
    }
}

#[cfg(test)]
pub(super) fn backend_url_wanted() -> String {
    BackendUrl::wanted(&())
}

impl Value for GatewayId {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.word()?.trim();
        Some(Self((text != "auto").then(|| text.to_owned())))
    }
    fn within(&self, (): &()) -> bool {
        self.0.as_deref().is_none_or(is_gateway_id)
    }
    fn wanted((): &()) -> String {
        "1 to 64 letters, digits, `_` and `-`, but not `all`; or \"auto\"".into()
    }
    fn show(&self) -> Json {
        self.0.as_deref().unwrap_or("auto").into()
    }
}

impl Value for BackendUrl {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        Self::parse(raw.word()?.trim())
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "\"tcp://HOST:PORT\", \"yamux://HOST:PORT\", \"yamux+unix:///PATH\", \"tcp+srv://NAME\" or \"yamux+srv://NAME\"; up to 64 places with commas between".into()
    }
    fn show(&self) -> Json {
        self.to_string().into()
    }
}

impl Value for Resolver {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.word()?.trim();
        if text == "system" {
            return Some(Self::System);
        }
        let servers: Option<Vec<_>> =
            text.split(',').map(|server| server.trim().parse().ok()).collect();
        servers.filter(|servers| servers.len() <= 8).map(Self::At)
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "\"system\", or up to 8 addresses with ports, like \"10.0.0.2:53,10.0.0.3:53\"".into()
    }
    fn show(&self) -> Json {
        match self {
            Self::System => "system".into(),
            Self::At(servers) => {
                servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",").into()
            }
        }
    }
}

impl Value for Sources {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.word()?.trim();
        if text == "any" {
            return Some(Self::default());
        }
        let addrs: Option<Vec<_>> = text.split(',').map(|ip| ip.trim().parse().ok()).collect();
        addrs.filter(|addrs| addrs.len() <= 64).map(Self)
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "\"any\", or up to 64 addresses of this host, like \"10.0.0.8,10.0.0.9\"".into()
    }
    fn show(&self) -> Json {
        if self.0.is_empty() {
            return "any".into();
        }
        self.0.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",").into()
    }
}

/// A file, or none.
impl Value for Option<PathBuf> {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.word().filter(|text| !text.is_empty() && !text.contains('\0'))?;
        Some((text != "off").then(|| text.into()))
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "a file's path, or \"off\"".into()
    }
    fn show(&self) -> Json {
        self.as_ref().map_or_else(|| "off".into(), |path| path.to_string_lossy().into())
    }
}

impl Value for Option<IpAddr> {
    type Allowed = ();

    fn read(raw: &Raw) -> Option<Self> {
        match raw.word()? {
            "loopback" => Some(None),
            text => text.trim().parse().ok().map(Some),
        }
    }
    fn within(&self, (): &()) -> bool {
        true
    }
    fn wanted((): &()) -> String {
        "an IP address, like \"192.0.2.7\", or \"loopback\"".into()
    }
    fn show(&self) -> Json {
        self.map_or_else(|| "loopback".into(), |ip| ip.to_string().into())
    }
}

macro_rules! choices {
    ($($type:ty { $($word:literal => $variant:path,)* })*) => {$(
        impl Value for $type {
            type Allowed = ();

            fn read(raw: &Raw) -> Option<Self> {
                match raw.word()? {
                    $($word => Some($variant),)*
                    _ => None,
                }
            }
            fn within(&self, (): &()) -> bool {
                true
            }
            fn wanted((): &()) -> String {
                one_of(&[$($word,)*])
            }
            fn show(&self) -> Json {
                match self { $($variant => $word.into(),)* }
            }
        }
    )*};
}
choices! {
    Profile { "game" => Profile::Game, "reference" => Profile::Reference, }
    Steer { "conv" => Steer::Conv, "address" => Steer::Address, }
    FlushPolicy { "turn" => FlushPolicy::Turn, "interval" => FlushPolicy::Interval, }
    Reference { "2.1.1" => Reference::V2_1_1, "1.7.1" => Reference::V1_7_1, }
    IoChoice { "auto" => IoChoice::Auto, "uring" => IoChoice::Uring, "epoll" => IoChoice::Epoll, }
    Policy {
        "round-robin" => Policy::RoundRobin,
        "least-sessions" => Policy::LeastSessions,
        "rendezvous" => Policy::Rendezvous,
    }
    OnLoss { "end" => OnLoss::End, "reroute" => OnLoss::Reroute, }
    OnOverflow { "pause" => OnOverflow::Pause, "disconnect" => OnOverflow::Disconnect, }
    Check { "connect" => Check::Connect, "off" => Check::Off, }
    Framing {
        "none" => Framing::None,
        "u16be" => Framing::U16Be,
        "u16le" => Framing::U16Le,
        "u32be" => Framing::U32Be,
        "u32le" => Framing::U32Le,
    }
    LogLevel {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
    }
    LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json, }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => String::new(),
    }
}
