//! kcp-go and the crates `kcp` and `kcp-tokio`, unchanged, asked by the gateway whether they are there.
//!
//! Needs Go and Debian's package of kcp-go; without them it fails and says so.
#![expect(clippy::expect_used, reason = "a step that cannot be taken fails the test")]

mod live;
mod presence;

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use presence::{Application, Order};

#[test]
fn kcp_go_is_asked() {
    let program = built("presence-go", "tests/interop/go-presence", |source, program| {
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(program).arg(".").current_dir(source);
        go.envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")]);
        go.env("GOCACHE", program.with_extension("cache")); // go's own place needs a home directory
        go
    });
    presence::play(|target| Process::start(Command::new(&program).arg(target.to_string())));
}

#[test]
fn crate_kcp_is_asked() {
    presence::play(|target| {
        Process::start(Command::new(&*CRATES).args(["kcp", &target.to_string()]))
    });
}

#[test]
fn crate_kcp_tokio_is_asked() {
    presence::play(|target| {
        Process::start(Command::new(&*CRATES).args(["kcp-tokio", &target.to_string()]))
    });
}

/// The applications on the crates; built without optimisation, so that an overflow in them would be seen.
static CRATES: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("presence-rust");
    built("presence-rust", "tests/interop/rust", |source, _| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--quiet", "--target-dir"]).arg(&target);
        cargo.current_dir(source);
        cargo
    });
    target.join("debug/kcp-presence")
});

/// Builds what stands in `source`.
fn built(name: &str, source: &str, command: impl Fn(&Path, &Path) -> Command) -> PathBuf {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(source);
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = command(&source, &program)
        .output()
        .unwrap_or_else(|error| panic!("cannot build {name}: {error}; {INSTALL}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} does not build; {INSTALL}\n{complaint}");
    program
}

const INSTALL: &str = "install golang-go and golang-github-xtaci-kcp-dev (apt-get install)";

/// An application that takes its orders as lines and answers each with `done`.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was just built");
        let orders = child.stdin.take().expect("a pipe was asked for");
        let answers = BufReader::new(child.stdout.take().expect("a pipe was asked for")).lines();
        Self { child, orders, answers }
    }
}

impl Application for Process {
    fn obey(&mut self, order: Order) {
        let word = match order {
            Order::Echo => "echo",
            Order::Restart => "restart",
        };
        writeln!(self.orders, "{word}").expect("it is still there");
        let answer = self.answers.next().expect("it answers").expect("in words");
        assert_eq!(answer, "done", "to {word}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killed, so that no library says goodbye.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
