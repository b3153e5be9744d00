//! Replays the committed fuzz corpus, so that what the fuzzer once reached stays reached without it.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a replay fails by panicking and prints its file"
)]

#[path = "../fuzz/src/decode.rs"]
mod decode;
#[path = "../fuzz/src/differential.rs"]
mod differential;
#[expect(dead_code, reason = "shared with the lockstep test, which calls more of it")]
#[path = "differential/lockstep.rs"]
mod lockstep;
#[path = "../fuzz/src/ops.rs"]
mod ops;
#[path = "../fuzz/src/script.rs"]
mod script;

use std::path::{Path, PathBuf};

#[test]
fn decode() {
    replay("decode", decode::run);
}

#[test]
fn ops() {
    replay("ops", ops::run);
}

#[test]
fn differential() {
    replay("differential", differential::run);
}

fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).expect("the corpus is committed");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the corpus can be read").path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{} has {} files", dir.display(), files.len());
    for file in files {
        let _name = NameOnPanic(&file);
        run(&std::fs::read(&file).expect("the corpus can be read"));
    }
}

/// Says which file a panic is about.
struct NameOnPanic<'a>(&'a Path);

impl Drop for NameOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while replaying {}", self.0.display());
        }
    }
}
