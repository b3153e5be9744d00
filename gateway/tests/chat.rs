//! The chat of `examples/chat`: each of its backends behind the gateway, and two players with the example's client.
//!
//! Needs Go, Python and the examples built (`cargo build -p kcp-gateway --examples`); without them it fails and says so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and says what it saw")]

mod live;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use kcp_gateway::Config;
use kcp_gateway::config::UpstreamUrl;
use kcp_gateway::upstream::framing::Framing;

#[test]
fn two_players_chat_through_the_backend_in_rust() {
    let chat = example("chat");
    two_players_chat(&mut Command::new(chat));
}

#[test]
fn two_players_chat_through_the_backend_in_go() {
    let chat = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chat-go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&chat)
        .arg(sources().join("chat.go"))
        .env("GO111MODULE", "off")
        .env("GOCACHE", chat.with_extension("cache")) // go's own place needs a home directory
        .status()
        .expect("go runs: apt-get install golang-go");
    assert!(built.success(), "the chat in Go does not build");
    two_players_chat(&mut Command::new(chat));
}

#[test]
fn two_players_chat_through_the_backend_in_python() {
    two_players_chat(Command::new("python3").arg(sources().join("chat.py")));
}

fn two_players_chat(backend: &mut Command) {
    let backend = Running::start(backend.arg("127.0.0.1:0"));
    let listening = backend.hear("on 127");
    let addr: SocketAddr = listening.rsplit(' ').next().unwrap().parse().unwrap();
    let mut config = Config::default();
    config.upstream.url = UpstreamUrl::parse(&format!("tcp://{addr}")).unwrap();
    config.upstream.each.framing = Framing::U16Be;
    let gateway = live::start(config, live::DRIVERS[0]);
    let server = gateway.listen_addrs()[0].to_string();
    let client = example("chat_client");

    let mut ann = Running::start(Command::new(&client).args([&server, "ann"]));
    ann.hear("welcome, ann");
    ann.hear("* ann joined lobby");
    let mut bob = Running::start(Command::new(&client).args([&server, "bob"]));
    bob.hear("welcome, bob");
    ann.hear("* bob joined lobby");
    bob.say("good evening");
    ann.hear("bob: good evening");
    bob.hear("bob: good evening");
    ann.say("/who");
    ann.hear("* in lobby: ann, bob");
    ann.say("/join den");
    bob.hear("* ann left");
    ann.hear("* ann joined den");
    ann.say("/quit");
    ann.hear("bye");
    assert!(ann.child.wait().unwrap().success());
    bob.input = None; // nothing more is typed
    bob.hear("bye");
    assert!(bob.child.wait().unwrap().success());
}

/// A program of ours; dropping it kills it.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let _ = output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line));
        });
        Self { input: child.stdin.take(), child, lines }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for a line with `part` in it.
    fn hear(&self, part: &str) -> String {
        let mut heard = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => heard.push(line),
                Err(_) => panic!("no {part:?} among {heard:#?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An example of this package, which `cargo test --workspace` builds.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "build it first: cargo build -p kcp-gateway --examples");
    path
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/chat")
}
