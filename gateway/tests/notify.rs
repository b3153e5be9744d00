//! The binary under a service manager: a datagram socket stands in for the manager's.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

#[test]
fn ready_alive_reloaded_stopped() {
    let dir = TempDir::new().unwrap();
    let manager = Manager::at(&dir.path().join("notify"));
    let config = dir.path().join("config.toml");
    fs::write(&config, "").unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_kcp-gateway"))
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"])
        .arg("--config")
        .arg(&config)
        .env("NOTIFY_SOCKET", manager.path())
        .env("WATCHDOG_USEC", "90000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    assert_eq!(manager.hear_past_watchdog(), "READY=1\nSTATUS=serving\n");
    // Idle shards sleep for ever; the watchdog is fed all the same, more often than once.
    for _ in 0..5 {
        assert_eq!(manager.hear(), "WATCHDOG=1\n");
    }

    fs::write(&config, "session = 1").unwrap();
    signal(&gateway, "HUP");
    let reloading = manager.hear_past_watchdog();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading:?}");
    let refused = manager.hear_past_watchdog();
    assert!(
        refused.starts_with("READY=1\nSTATUS=serving; the last reload failed: "),
        "{refused:?}"
    );

    fs::write(&config, "[session]\nidle_timeout_s = 60").unwrap();
    signal(&gateway, "HUP");
    assert!(manager.hear_past_watchdog().starts_with("RELOADING=1\n"));
    assert_eq!(manager.hear_past_watchdog(), "READY=1\nSTATUS=serving\n");

    signal(&gateway, "TERM");
    assert_eq!(manager.hear_past_watchdog(), "STOPPING=1\n");
    assert!(gateway.wait().unwrap().success());
}

struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(socket)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.local_addr().unwrap().as_pathname().unwrap().to_owned()
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let n = self.0.recv(&mut buffer).expect("nothing heard for 20 s");
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    fn hear_past_watchdog(&self) -> String {
        loop {
            let said = self.hear();
            if said != "WATCHDOG=1\n" {
                return said;
            }
        }
    }
}

fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
}
