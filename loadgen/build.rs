//! Bakes the commit into the binary, so that every report names what measured it.

use std::path::Path;
use std::process::Command;

fn main() {
    let describe = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty());
    println!("cargo::rustc-env=KCP_LOADGEN_COMMIT={}", describe.as_deref().unwrap_or("unknown"));
    // A source tree without git has neither file; watching a missing file would rebuild every time.
    let git_dir = Command::new("git").args(["rev-parse", "--git-dir"]).output().ok();
    if let Some(dir) = git_dir.and_then(|output| String::from_utf8(output.stdout).ok()) {
        for name in ["HEAD", "logs/HEAD"] {
            let path = Path::new(dir.trim()).join(name);
            if path.exists() {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
    println!("cargo::rerun-if-changed=src");
}
