//! Servers that are programs of their own: built when a comparison asks for them, because what they are made of must not
//! reach into the build of what they are compared with.

use std::path::PathBuf;
use std::process::Command;

use crate::contender::Server;

/// The programs that could be built, and why the others could not.
#[derive(Debug, Default)]
pub(crate) struct Outsiders(Vec<(Server, Result<Program, String>)>);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    path: PathBuf,
    argument: Option<&'static str>,
}

impl Program {
    /// The program and its arguments.
    pub(crate) fn words(&self) -> impl Iterator<Item = PathBuf> {
        [self.path.clone()].into_iter().chain(self.argument.map(PathBuf::from))
    }
}

impl Outsiders {
    /// Builds what `servers` need.
    pub(crate) fn build(servers: &[Server]) -> Self {
        let mut outsiders = Self::default();
        let mut crates = None;
        for &server in servers {
            let program = match server {
                Server::Gateway | Server::RawUdp | Server::CIkcp => continue,
                Server::TokioKcp | Server::KcpTokio => {
                    let built: &Result<PathBuf, String> = crates.get_or_insert_with(build_crates);
                    let argument = Some(server.label());
                    built.clone().map(|path| Program { path, argument })
                }
                Server::KcpGo => build_go().map(|path| Program { path, argument: None }),
            };
            outsiders.0.push((server, program));
        }
        outsiders
    }

    /// How to run `server`, if it is an outsider and was built.
    pub(crate) fn program(&self, server: Server) -> Option<&Program> {
        self.0.iter().find(|(built, _)| *built == server)?.1.as_ref().ok()
    }

    /// Why `server` was not built.
    pub(crate) fn missing(&self, server: Server) -> Option<&str> {
        Some(self.0.iter().find(|(built, _)| *built == server)?.1.as_ref().err()?)
    }
}

/// The program that holds the other crates: `peers`, a workspace of its own.
pub(crate) fn build_crates() -> Result<PathBuf, String> {
    let target = built_here("peers");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(source("peers/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    run(command, "cargo", "install Rust's cargo")?;
    Ok(target.join("release/kcp-peers"))
}

/// The Go program, against the sources that Debian's package puts under `GOPATH`.
fn build_go() -> Result<PathBuf, String> {
    let program = built_here("kcp-go-echo");
    let mut command = Command::new("go");
    command
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source("peers/go"))
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")])
        .env("GOCACHE", built_here("go-cache")); // go's own place needs a home directory
    run(command, "go", "apt-get install golang-go golang-github-xtaci-kcp-dev")?;
    Ok(program)
}

fn run(mut command: Command, name: &str, remedy: &str) -> Result<(), String> {
    let output =
        command.output().map_err(|error| format!("cannot run {name}: {error}; {remedy}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let told = complaint.lines().find(|line| line.contains("error") || line.contains("cannot"));
    let told = told.or(complaint.lines().last()).unwrap_or("it said nothing").trim();
    Err(format!("does not build: {told}; {remedy}"))
}

/// Beside this program, so that it goes where builds go and is found again.
fn built_here(name: &str) -> PathBuf {
    let here = std::env::current_exe().ok();
    let here = here.as_deref().and_then(|program| program.parent());
    here.map_or_else(std::env::temp_dir, PathBuf::from).join("outsiders").join(name)
}

fn source(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_says_why_and_what_to_do() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo start; echo 'x.go:1: cannot find package' >&2; exit 1"]);
        let reason = run(failing, "sh", "install it").unwrap_err();
        assert_eq!(reason, "does not build: x.go:1: cannot find package; install it");
        let missing = run(Command::new("no-such-program"), "it", "install it").unwrap_err();
        assert!(missing.starts_with("cannot run it: ") && missing.ends_with("install it"));
    }

    #[test]
    fn ours_need_no_building() {
        let outsiders = Outsiders::build(&[Server::Gateway, Server::RawUdp, Server::CIkcp]);
        assert_eq!(outsiders.program(Server::Gateway), None);
        assert_eq!(outsiders.missing(Server::Gateway), None);
    }
}
