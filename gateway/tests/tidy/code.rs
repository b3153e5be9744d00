//! Rules about Rust files.

use crate::source::{Finding, Part, Source};

const UNSAFE_FILES: [&str; 3] =
    ["net-io/src/uring/ring.rs", "net-io/src/sys.rs", "net-io/src/cmsg.rs"];
const UNSAFE_CRATE: &str = "kcp-core/oracle/";

/// `unsafe` outside the three files of the kernel boundary and the test-only oracle.
pub(crate) fn unsafe_outside(source: &Source) -> Vec<Finding> {
    let allowed =
        UNSAFE_FILES.contains(&source.path.as_str()) || source.path.starts_with(UNSAFE_CRATE);
    if !source.is_rust() || allowed {
        return Vec::new();
    }
    words_among(source, &["unsafe"], "unsafe code outside its files")
}

/// Crate roots that do not ban unsafe code for everything below them.
pub(crate) fn roots_without_ban(tree: &[Source]) -> Vec<Finding> {
    let is_root = |path: &str| {
        let root = path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
        root && !path.starts_with(UNSAFE_CRATE)
    };
    let banned = |source: &Source| {
        let code: String = source.only(Part::Code).chars().filter(|c| !c.is_whitespace()).collect();
        let boundary = source.path.starts_with("net-io/");
        code.contains("#![forbid(unsafe_code)]")
            || boundary && code.contains("#![deny(unsafe_code)]")
    };
    tree.iter()
        .filter(|s| is_root(&s.path) && !banned(s))
        .map(|s| s.finding(1, "lacks #![forbid(unsafe_code)]"))
        .collect()
}

/// Locks, and shared ownership outside the four places where a shard meets other threads.
pub(crate) fn shared_in_shard(source: &Source) -> Vec<Finding> {
    let Some(file) = source.path.strip_prefix("gateway/src/shard/") else { return Vec::new() };
    let locks = ["Mutex", "RwLock", "Condvar", "OnceLock", "LazyLock", "Barrier", "thread_local"];
    let mut found = words_among(source, &locks, "a lock or shared state in a shard");
    if !["mailbox.rs", "handoff.rs", "stats.rs", "backend_stats.rs"].contains(&file) {
        found.extend(words_among(source, &["Arc"], "shared ownership in a shard"));
    }
    found
}

/// Files longer than anyone reads.
pub(crate) fn too_long(source: &Source) -> Vec<Finding> {
    const LINES_MAX: usize = 800;
    let lines = source.text.lines().count();
    let code = source.is_rust() || source.path.ends_with(".go");
    if code && lines > LINES_MAX {
        return vec![
            source.finding(LINES_MAX, format!("{lines} lines; {LINES_MAX} is the ceiling")),
        ];
    }
    Vec::new()
}

/// Modules named for nothing in particular.
pub(crate) fn drawer(source: &Source) -> Vec<Finding> {
    const DRAWERS: [&str; 8] =
        ["util", "utils", "common", "misc", "types", "helpers", "helper", "shared"];
    if !source.is_rust() {
        return Vec::new();
    }
    let in_path = source
        .path
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| DRAWERS.contains(part))
        .map(|part| source.finding(1, format!("`{part}` names no idea")));
    let words = source.words();
    let inline = words
        .windows(2)
        .filter(|w| w[0].1 == "mod" && DRAWERS.contains(&w[1].1.as_str()))
        .map(|w| source.finding(w[1].0, format!("`mod {}` names no idea", w[1].1)));
    in_path.chain(inline).collect()
}

/// Marks of unfinished work without a number, and macros that stand for missing code.
pub(crate) fn leftovers(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let marks = ["TODO", "FIXME", "XXX", "HACK"];
    let comments = source.only(Part::Comment);
    let marked = comments.lines().enumerate().filter(|(_, line)| {
        let has_mark = line.split(|c: char| !c.is_alphanumeric()).any(|word| marks.contains(&word));
        has_mark && !line.contains("(#")
    });
    let mut found: Vec<Finding> =
        marked.map(|(i, _)| source.finding(i + 1, "unfinished, and no number")).collect();
    let code = source.only(Part::Code);
    for (i, line) in code.lines().enumerate() {
        for name in ["todo!", "unimplemented!", "dbg!"] {
            if line.contains(name) {
                found.push(source.finding(i + 1, format!("{name} left behind")));
            }
        }
    }
    found
}

/// Ordinary comments that read like code. Documentation may hold examples and is left alone.
pub(crate) fn commented_out(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let comments = source.only(Part::Comment);
    let lines = comments.lines().enumerate().filter_map(|(i, line)| {
        let text = line.trim_start().strip_prefix("//")?;
        let documentation = text.starts_with('/') || text.starts_with('!');
        (!documentation && reads_like_code(text.trim())).then_some(i)
    });
    lines.map(|i| source.finding(i + 1, "commented-out code")).collect()
}

fn reads_like_code(text: &str) -> bool {
    let statement = text.ends_with(';')
        && ["=", "(", "::", "use ", "return"].iter().any(|part| text.contains(part));
    let block = ["{", "}", "});", "};", "},"].contains(&text)
        || text.ends_with(" {")
        || text.starts_with("} ");
    statement || block
}

/// Uses of the gateway library outside the gateway, its benches, tests, and the one file that runs both in one process.
pub(crate) fn gateway_callers(source: &Source) -> Vec<Finding> {
    let allowed = ["gateway/", "benches/"].iter().any(|dir| source.path.starts_with(dir))
        || source.path.contains("/tests/")
        || source.path == "loadgen/src/demo.rs";
    if !source.is_rust() || allowed {
        return Vec::new();
    }
    words_among(source, &["kcp_gateway"], "calls the gateway library")
}

fn words_among(source: &Source, banned: &[&str], what: &str) -> Vec<Finding> {
    source
        .words()
        .into_iter()
        .filter(|(_, word)| banned.contains(&word.as_str()))
        .map(|(line, word)| source.finding(line, format!("`{word}`: {what}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: impl Fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text)).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn unsafe_is_seen_outside_its_files_only() {
        let bad = "// unsafe is explained\nfn f() { unsafe { g() } }\n#![forbid(unsafe_code)]\n";
        assert_eq!(lines(unsafe_outside, "gateway/src/a.rs", bad), [2]);
        assert_eq!(lines(unsafe_outside, "net-io/src/uring/mod.rs", bad), [2]);
        assert_eq!(lines(unsafe_outside, "loadgen/tests/a.rs", bad), [2]);
        for file in UNSAFE_FILES {
            assert_eq!(lines(unsafe_outside, file, bad), []);
        }
        assert_eq!(lines(unsafe_outside, "kcp-core/oracle/src/lib.rs", bad), []);
    }

    #[test]
    fn a_root_without_the_ban_is_seen() {
        let root = |path: &str, text: &str| roots_without_ban(&[Source::new(path, text)]).len();
        assert_eq!(root("gateway/src/lib.rs", "pub mod a;"), 1);
        assert_eq!(root("gateway/src/main.rs", "// #![forbid(unsafe_code)]\n"), 1);
        assert_eq!(root("gateway/src/lib.rs", "#![deny(unsafe_code)]"), 1);
        assert_eq!(root("gateway/src/lib.rs", "#![forbid(unsafe_code)]"), 0);
        assert_eq!(root("net-io/src/lib.rs", "#![deny(unsafe_code)]"), 0);
        assert_eq!(root("kcp-core/oracle/src/lib.rs", ""), 0);
        assert_eq!(root("gateway/src/shard/mod.rs", ""), 0);
    }

    #[test]
    fn locks_and_arcs_in_a_shard_are_seen() {
        let bad = "use std::sync::Mutex;\nuse std::sync::Arc;\n";
        assert_eq!(lines(shared_in_shard, "gateway/src/shard/table.rs", bad), [1, 2]);
        assert_eq!(lines(shared_in_shard, "gateway/src/shard/mailbox.rs", bad), [1]);
        assert_eq!(lines(shared_in_shard, "gateway/src/shard/tests/stats.rs", bad), [1, 2]);
        assert_eq!(lines(shared_in_shard, "gateway/src/supervisor.rs", bad), []);
    }

    #[test]
    fn the_ceiling_is_seen() {
        assert_eq!(lines(too_long, "a.rs", &"\n".repeat(801)), [800]);
        assert_eq!(lines(too_long, "a.go", &"\n".repeat(801)), [800]);
        assert_eq!(lines(too_long, "a.rs", &"\n".repeat(800)), []);
        assert_eq!(lines(too_long, "Cargo.lock", &"\n".repeat(5000)), []);
    }

    #[test]
    fn drawers_are_seen() {
        assert_eq!(lines(drawer, "gateway/src/utils.rs", ""), [1]);
        assert_eq!(lines(drawer, "gateway/src/common/mod.rs", ""), [1]);
        assert_eq!(lines(drawer, "gateway/src/lib.rs", "mod a;\npub mod misc;"), [2]);
        assert_eq!(lines(drawer, "gateway/src/lib.rs", "mod uncommon; // mod misc"), []);
    }

    #[test]
    fn leftovers_are_seen() {
        let bad = "// TODO: later\n// FIXME(#12): known\nfn f() { todo!() }\nlet s = \"TODO\";\n";
        assert_eq!(lines(leftovers, "a.rs", bad), [1, 3]);
    }

    #[test]
    fn commented_out_code_is_seen() {
        let bad = "// let a = b;\n// call(x);\n// }\n// if a {\n// foo::bar();\n";
        assert_eq!(lines(commented_out, "a.rs", bad), [1, 2, 3, 4, 5]);
        let good = "// The kernel owns it until then;\n/// let a = b;\nlet x = 1; // SAFETY: (as above) fine.\n";
        assert_eq!(lines(commented_out, "a.rs", good), []);
    }

    #[test]
    fn callers_of_the_gateway_are_seen() {
        let bad = "//! not kcp_gateway\nuse kcp_gateway::Gateway;\n";
        assert_eq!(lines(gateway_callers, "loadgen/src/worker.rs", bad), [2]);
        assert_eq!(lines(gateway_callers, "net-io/src/lib.rs", bad), [2]);
        assert_eq!(lines(gateway_callers, "loadgen/src/demo.rs", bad), []);
        assert_eq!(lines(gateway_callers, "loadgen/tests/e2e.rs", bad), []);
        assert_eq!(lines(gateway_callers, "gateway/src/main.rs", bad), []);
    }
}
