//! Notices that the configuration file was replaced or written to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A file as it stood at the last look. Looking costs one system call, follows links (a mounted directory is replaced by moving a
/// link) and needs no room in the kernel's tables of watches.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    /// As it stood when it was last taken over.
    taken: Option<Sign>,
    /// As it stood at the last look.
    seen: Option<Sign>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sign {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Watch {
    /// Begins with the file as it stands, which is going to be read now.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        let taken = sign(&file);
        Self { file, taken, seen: taken }
    }

    /// Whether there is something to take over: the file is another than the one taken last, and the same as at the look before,
    /// so that nobody is in the middle of writing it. A file that is gone is nothing to take.
    #[must_use]
    pub fn look(&mut self) -> bool {
        let now = sign(&self.file);
        let before = std::mem::replace(&mut self.seen, now);
        let is_new = now.is_some() && now == before && now != self.taken;
        if is_new {
            self.taken = now;
        }
        is_new
    }

    /// The file is going to be taken over by other means.
    pub fn take(&mut self) {
        self.taken = sign(&self.file);
        self.seen = self.taken;
    }
}

fn sign(file: &PathBuf) -> Option<Sign> {
    let meta = fs::metadata(file).ok()?;
    let modified = (meta.mtime(), meta.mtime_nsec());
    Some(Sign { device: meta.dev(), inode: meta.ino(), len: meta.len(), modified })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_taken_once_and_only_when_it_stands_still() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(file.clone());
        assert!(!watch.look() && !watch.look(), "nothing changed");
        fs::write(&file, "22").unwrap();
        assert!(!watch.look(), "it may still be written to");
        fs::write(&file, "333").unwrap();
        assert!(!watch.look(), "and was");
        assert!(watch.look() && !watch.look(), "taken once");
        fs::write(&file, "4444").unwrap();
        watch.take();
        assert!(!watch.look() && !watch.look(), "somebody else took it");
    }

    #[test]
    fn a_file_that_is_replaced_is_another_and_one_that_is_gone_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
        fs::write(&file, "same").unwrap();
        let mut watch = Watch::new(file.clone());
        fs::remove_file(&file).unwrap();
        assert!(!watch.look() && !watch.look());
        fs::write(&other, "same").unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(!watch.look() && watch.look());
    }

    /// As Kubernetes mounts a ConfigMap: the file is a link through a directory that is a link, and that one is moved.
    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("v1", "a"), ("v2", "b")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config.toml"), text).unwrap();
        }
        symlink("v1", at("data")).unwrap();
        symlink("data/config.toml", at("config.toml")).unwrap();
        let mut watch = Watch::new(at("config.toml"));
        symlink("v2", at("new")).unwrap();
        fs::rename(at("new"), at("data")).unwrap();
        assert!(!watch.look() && watch.look());
    }
}
