//! Names to addresses.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use net_io::StreamAddr;
use tokio::time::timeout;

use super::member::Place;
use crate::config::{Resolver, Target};

/// Who is asked, made anew when the configuration says somebody else.
pub(super) struct Names {
    asked: Resolver,
    resolver: Result<TokioResolver, String>,
}

impl Names {
    pub(super) fn new(asked: &Resolver) -> Self {
        Self { asked: asked.clone(), resolver: build(asked) }
    }

    /// The resolver for `asked`. One that could not be made is tried again: the host's file may have come by now.
    pub(super) fn get(&mut self, asked: &Resolver) -> Result<TokioResolver, String> {
        if *asked != self.asked || self.resolver.is_err() {
            *self = Self::new(asked);
        }
        self.resolver.clone()
    }
}

fn build(asked: &Resolver) -> Result<TokioResolver, String> {
    let mut builder = match asked {
        Resolver::System => TokioResolver::builder_tokio().map_err(|e| e.to_string())?,
        Resolver::At(servers) => {
            let servers = servers.iter().map(|server| {
                let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
                (udp.port, tcp.port) = (server.port(), server.port());
                NameServerConfig::new(server.ip(), true, vec![udp, tcp])
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(config, provider);
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // How old an answer may be is `upstream.resolve_interval_ms`.
    options.cache_size = 0;
    builder.build().map_err(|e| e.to_string())
}

/// The addresses of `target`.
///
/// # Errors
/// None, or no answer in time; in words.
pub(super) async fn places(
    resolver: Result<TokioResolver, String>,
    target: &Target,
) -> Result<Vec<Place>, String> {
    let resolver = resolver?;
    let lookup = async {
        match target {
            Target::Host { name, port } => hosts(&resolver, name, *port, (1, 0)).await,
            Target::Srv(name) => services(&resolver, name).await,
            Target::Addr(_) | Target::Unix(_) => Ok(Vec::new()),
        }
    };
    let places = timeout(PATIENCE, lookup).await.map_err(|_| format!("{target}: no answer"))??;
    if places.is_empty() { Err(format!("{target}: no addresses")) } else { Ok(places) }
}

async fn hosts(
    resolver: &TokioResolver,
    name: &str,
    port: u16,
    (weight, priority): (u16, u16),
) -> Result<Vec<Place>, String> {
    let answer = resolver.lookup_ip(name).await.map_err(|error| told(name, &error))?;
    let place = |ip| {
        let addr = StreamAddr::Tcp(SocketAddr::new(ip, port));
        Place { addr, weight, priority }
    };
    Ok(answer.iter().take(ADDRESSES_MAX).map(place).collect())
}

/// What SRV records name. One without addresses is left out while others have some.
async fn services(resolver: &TokioResolver, name: &str) -> Result<Vec<Place>, String> {
    let answer = resolver.srv_lookup(name).await.map_err(|error| told(name, &error))?;
    let mut places = Vec::new();
    let mut failure = None;
    let records = answer.answers().iter().filter_map(|record| {
        if let RData::SRV(srv) = &record.data { Some(srv.clone()) } else { None }
    });
    // The root stands for "not here".
    for srv in records.filter(|srv| !srv.target.is_root()).take(ADDRESSES_MAX) {
        // A weight of 0 is the least share there is, not none.
        let rank = (srv.weight.max(1), srv.priority);
        match hosts(resolver, &srv.target.to_ascii(), srv.port, rank).await {
            Ok(found) => places.extend(found),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if places.is_empty() => Err(error),
        Some(_) | None => Ok(places),
    }
}

/// The resolver's own words for these are those of its source.
fn told(name: &str, error: &NetError) -> String {
    if error.is_nx_domain() {
        format!("{name}: there is no such name")
    } else if error.is_no_records_found() {
        format!("{name}: the name has no such records")
    } else {
        format!("{name}: {error}")
    }
}

const PATIENCE: Duration = Duration::from_secs(15);
/// As many as there are places for.
const ADDRESSES_MAX: usize = 64;
