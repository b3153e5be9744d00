//! kcp-go, unchanged, against the gateway over real UDP: sessions of the Go client beside this file, compared byte by byte.
//!
//! Needs Go and Debian's package of kcp-go; without them it fails and says so.

mod live;

use std::path::PathBuf;
use std::process::Command;

use kcp_gateway::Config;

/// Sessions of one run. Message sizes go from 1 byte to 100 kB.
const SESSIONS: &str = "100";

#[test]
fn kcp_go_clients_get_every_byte_back() {
    let client = build();
    for io in live::DRIVERS {
        let gateway = live::start(Config::default(), io);
        let output = Command::new(&client)
            .args(["-target", &gateway.listen_addrs()[0].to_string(), "-sessions", SESSIONS])
            .args(["-longest", "100000", "-timeout", "60s"])
            .output()
            .expect("the client was just built");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "on {io:?}: {out}{err}");
        println!("{io:?}: {out}");
        assert!(gateway.failure().is_none(), "a shard died: {:?}", gateway.failure());
    }
}

/// Compiles the client against the sources that Debian's package puts under `GOPATH`.
fn build() -> PathBuf {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop/go");
    let client = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kcp-go-client");
    let output = Command::new("go")
        .args(["build", "-o"])
        .arg(&client)
        .arg(".")
        .current_dir(source)
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")])
        .env("GOCACHE", client.with_extension("cache")) // go's own place needs a home directory
        .output()
        .unwrap_or_else(|error| panic!("cannot run go: {error}; {INSTALL}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the client does not build; {INSTALL}\n{complaint}");
    client
}

const INSTALL: &str = "install golang-go and golang-github-xtaci-kcp-dev (apt-get install)";
