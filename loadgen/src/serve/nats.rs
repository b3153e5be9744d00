//! A backend behind NATS: one connection, in one queue group with others of its kind, for the sessions of all gateways.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Message, PublishError, Subscriber};
use bytes::Bytes;
use futures::StreamExt;

use super::behaviour::{Act, Behaviour};
use super::counts::Counts;
use super::session::Host;

/// Connects and subscribes: when this returns, no session that begins is missed.
///
/// # Errors
/// There is no server, or it refuses.
pub(super) async fn connect(url: &str) -> io::Result<(Client, Subscriber)> {
    let options = ConnectOptions::new()
        .name("kcp-loadgen serve")
        // It hears what gateways publish, not its own answers.
        .no_echo()
        .max_reconnects(None)
        .reconnect_delay_callback(|_| RECONNECT_AFTER)
        .subscription_capacity(QUEUE);
    let client = options.connect(url).await.map_err(io::Error::other)?;
    let sessions =
        client.queue_subscribe(WILDCARD, GROUP.into()).await.map_err(io::Error::other)?;
    client.flush().await.map_err(io::Error::other)?;
    Ok((client, sessions))
}

/// Serves sessions until the runtime ends or the connection is given up.
pub(super) async fn run(host: Arc<Host>, client: Client, mut messages: Subscriber) {
    host.counts.connections.fetch_add(1, Ordering::Relaxed);
    host.counts.connections_open.fetch_add(1, Ordering::Relaxed);
    let mut backend = Backend { host: Arc::clone(&host), client, sessions: HashMap::new() };
    while let Some(message) = messages.next().await {
        if backend.take(&message).await.is_err() {
            break;
        }
    }
    host.counts.connections_open.fetch_sub(1, Ordering::Relaxed);
}

struct Backend {
    host: Arc<Host>,
    client: Client,
    /// By the part of their subjects that all have in common.
    sessions: HashMap<String, Session>,
}

#[derive(Clone, Copy)]
struct Session {
    number: u64,
    heard: u32,
}

impl Backend {
    /// An error is the connection's end.
    async fn take(&mut self, message: &Message) -> Result<(), PublishError> {
        let Some((base, verb)) = message.subject.rsplit_once('.') else { return Ok(()) };
        match verb {
            "open" => {
                self.describe(&message.payload);
                self.session(base).await?;
            }
            "in" => {
                self.session(base).await?;
                self.hear(base, &message.payload).await?;
            }
            "close" if self.sessions.remove(base).is_some() => {
                let counts = &self.host.counts;
                Counts::add(&counts.ended, 1);
                counts.sessions_open.fetch_sub(1, Ordering::Relaxed);
            }
            // Another backend's answer, or the end of a session that was never heard of.
            _ => {}
        }
        Ok(())
    }

    /// Makes sure that the session is known: one that began before this backend came is by its first message.
    async fn session(&mut self, base: &str) -> Result<(), PublishError> {
        if self.sessions.contains_key(base) {
            return Ok(());
        }
        let number = self.host.counts.on_session();
        self.sessions.insert(base.to_owned(), Session { number, heard: 0 });
        if let Some(room) = self.room(number) {
            self.ask(base, "join", room.into()).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, base: &str, payload: &Bytes) -> Result<(), PublishError> {
        let Host { serve, counts, .. } = &*self.host;
        let Some(session) = self.sessions.get_mut(base) else { return Ok(()) };
        session.heard = session.heard.saturating_add(1);
        let Session { number, heard } = *session;
        Counts::add(&counts.messages_in, 1);
        Counts::add(&counts.bytes_in, payload.len());
        match serve.behaviour.act(serve.seed, number, heard) {
            Some(Act::Crash(..)) => {
                Counts::add(&counts.crashes, 1);
                return self.ask(base, "close", Bytes::new()).await;
            }
            Some(Act::Misbehave(_)) => {
                Counts::add(&counts.misdeeds, 1);
                let noise = Bytes::copy_from_slice(&super::session::noise(serve.seed));
                return self.client.publish(format!("{base}.out"), noise).await;
            }
            None => {}
        }
        Counts::add(&counts.messages_out, 1);
        Counts::add(&counts.bytes_out, payload.len());
        let subject = match self.room(number) {
            Some(room) => format!("kcp.all.@{room}.out"),
            None => format!("{base}.out"),
        };
        self.client.publish(subject, payload.clone()).await
    }

    async fn ask(&self, base: &str, what: &str, payload: Bytes) -> Result<(), PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert("Kcp-Op", what);
        self.client.publish_with_headers(format!("{base}.out"), headers, payload).await
    }

    fn room(&self, number: u64) -> Option<String> {
        match self.host.serve.behaviour {
            Behaviour::Rooms(rooms) => {
                Some(format!("loadgen-{}", (number - 1) / u64::from(rooms.size)))
            }
            Behaviour::Echo
            | Behaviour::Swell(_)
            | Behaviour::Slow(_)
            | Behaviour::Crash(_)
            | Behaviour::Garbage(_) => None,
        }
    }

    /// Checks what a gateway says of a session; it counts as a PROXY header does.
    fn describe(&self, payload: &[u8]) {
        let counts = &self.host.counts;
        let described = serde_json::from_slice::<serde_json::Value>(payload);
        let is_addr = |value: &serde_json::Value| {
            value.as_str().is_some_and(|text| text.parse::<std::net::SocketAddr>().is_ok())
        };
        match described {
            Ok(it) if is_addr(&it["client"]) && is_addr(&it["listener"]) && it["conv"].is_u64() => {
                Counts::add(&counts.proxy_headers, 1);
            }
            Ok(it) => counts.on_proxy_error(&format!("a description without its parts: {it}")),
            Err(error) => counts.on_proxy_error(&error),
        }
    }
}

/// Everything that gateways publish.
const WILDCARD: &str = "kcp.*.*.*";
const GROUP: &str = "kcp-loadgen";
const RECONNECT_AFTER: Duration = Duration::from_millis(100);
/// Messages that wait here; a sixteenth of a gigabyte of small ones.
const QUEUE: usize = 1 << 20;
