//! An application on the crate `kcp` or `kcp-tokio`, unchanged, that does as it is told: it reads orders as lines from its
//! standard input and answers each with the line `done`.
//!
//! | order | meaning |
//! |---|---|
//! | `echo` | send one message and get it back |
//! | `restart` | forget the session without a word, begin another with the same conversation from the same port, and echo |
//!
//! Between orders it is an error when a message arrives that nobody asked for.

#![forbid(unsafe_code)]

mod asynchronous;
mod plain;

use std::error::Error;
use std::io::{BufRead, Write};
use std::net::{SocketAddr, UdpSocket};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [library, target] = &args[..] else {
        return Err("usage: kcp-presence kcp|kcp-tokio TARGET".into());
    };
    let target: SocketAddr = target.parse()?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    match library.as_str() {
        "kcp" => plain::run(&socket, target),
        "kcp-tokio" => asynchronous::run(&socket, target),
        other => Err(format!("{other}: no such library here").into()),
    }
}

/// Passes orders on from a thread of their own; `true` is a restart.
fn orders(mut pass: impl FnMut(bool) -> bool + Send + 'static) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if !pass(line == "restart") {
                return;
            }
        }
    });
}

/// Tells that an order is done; the other end is a pipe, so the line must leave at once.
fn done() -> Outcome {
    let mut out = std::io::stdout();
    writeln!(out, "done")?;
    Ok(out.flush()?)
}

const CONV: u32 = 0x0A_5CED;
const MESSAGE: &[u8] = b"hello";
