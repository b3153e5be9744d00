//! Rules about what the tree says: to operators, to readers, and of itself.

use std::collections::BTreeSet;

use crate::source::{Finding, Part, Source, is_word};

const METRICS_PAGE: &str = "deploy/METRICS.md";
const FUZZ_PAGE: &str = "kcp-core/fuzz/README.md";

/// Configuration fields whose documentation lacks the default, what a reload does, or, for numbers, the unit.
pub(crate) fn config_fields(tree: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut all = Vec::new();
    for path in CONFIG {
        let Some(source) = tree.iter().find(|s| s.path == path) else {
            found.push(Source::new(path, "").finding(1, "the manual is missing"));
            continue;
        };
        let fields = fields(source);
        if fields.is_empty() {
            found.push(source.finding(1, "no configuration field found"));
        }
        all.extend(fields.into_iter().map(|field| (source, field)));
    }
    let sections: BTreeSet<&str> = all.iter().map(|(_, f)| f.section.as_str()).collect();
    // A section's keys are documented where they are; what is no key says so.
    let keys = all
        .iter()
        .filter(|(_, f)| !sections.contains(f.kind.as_str()) && !f.doc.contains("not a key"));
    for (source, field) in keys {
        let words: Vec<String> = field.doc.split(|c| !is_word(c)).map(str::to_lowercase).collect();
        let says = |any: &[&str]| words.iter().any(|w| any.contains(&w.as_str()));
        let mut require = |holds: bool, what: &str| {
            if !holds {
                found.push(source.finding(field.line, format!("`{}` {what}", field.name)));
            }
        };
        require(says(&["default", "defaults"]), "hides its default");
        require(says(&["reloadable", "restart"]), "hides what a reload does");
        require(!NUMBERS.contains(&field.kind.as_str()) || says(&UNITS), "has no unit");
    }
    found
}

const CONFIG: [&str; 2] = ["gateway/src/config/mod.rs", "gateway/src/config/upstream.rs"];
const NUMBERS: [&str; 9] = ["u8", "u16", "u32", "u64", "usize", "i32", "i64", "f32", "f64"];
const UNITS: [&str; 19] = [
    "ms",
    "milliseconds",
    "microseconds",
    "seconds",
    "bytes",
    "kib",
    "mib",
    "segments",
    "datagrams",
    "messages",
    "sessions",
    "shards",
    "buffers",
    "keys",
    "entries",
    "connections",
    "acknowledgements",
    "transmissions",
    "checks",
];

/// A public field of a configuration struct.
struct Field {
    section: String,
    name: String,
    /// Its type, without what wraps it.
    kind: String,
    doc: String,
    line: usize,
}

fn fields(source: &Source) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut section: Option<String> = None;
    let mut doc = String::new();
    for (index, line) in source.text.lines().enumerate() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
            continue;
        }
        if line.starts_with("#[") {
            continue;
        }
        let doc = std::mem::take(&mut doc);
        if let Some(rest) = line.strip_prefix("pub struct ") {
            section = Some(rest.chars().take_while(|&c| is_word(c)).collect());
        } else if line.starts_with('}') {
            section = None;
        } else if let (Some(section), Some((name, kind))) =
            (&section, line.strip_prefix("pub ").and_then(|f| f.split_once(": ")))
        {
            let (name, kind) = (name.to_owned(), base_type(kind));
            fields.push(Field { section: section.clone(), name, kind, doc, line: index + 1 });
        }
    }
    fields
}

fn base_type(kind: &str) -> String {
    let mut kind = kind.trim_end_matches(',');
    for wrapper in ["Option<", "Vec<", "Auto<"].repeat(2) {
        kind = kind.strip_prefix(wrapper).and_then(|k| k.strip_suffix('>')).unwrap_or(kind);
    }
    kind.rsplit("::").next().unwrap_or(kind).to_owned()
}

/// Metrics of the product that the operator's page does not name, and names on the page that no code exports.
pub(crate) fn metrics(tree: &[Source]) -> Vec<Finding> {
    let Some(page) = tree.iter().find(|s| s.path == METRICS_PAGE) else {
        return vec![Source::new(METRICS_PAGE, "").finding(1, "the page is missing")];
    };
    let source = |s: &&Source| {
        s.is_rust() && ["gateway/src/", "loadgen/src/"].iter().any(|dir| s.path.starts_with(dir))
    };
    let mut exported = BTreeSet::new();
    let mut found = Vec::new();
    for file in tree.iter().filter(source) {
        for (line, name) in metric_names(&file.only(Part::Literal)) {
            if !page.text.contains(&format!("`{name}`")) {
                found.push(file.finding(line, format!("`{name}` is not in {METRICS_PAGE}")));
            }
            exported.insert(name);
        }
    }
    for (line, name) in metric_names(&page.text) {
        if !exported.contains(&name) {
            found.push(page.finding(line, format!("`{name}` is exported nowhere")));
        }
    }
    if exported.is_empty() {
        found.push(page.finding(1, "no metric found in the code"));
    }
    found
}

/// Reasons that label a drop or an end and that the operator's page does not explain.
pub(crate) fn reasons(tree: &[Source]) -> Vec<Finding> {
    let page = tree.iter().find(|s| s.path == METRICS_PAGE).map_or("", |s| s.text.as_str());
    let Some(code) = tree.iter().find(|s| s.path == REASONS) else {
        return vec![Source::new(REASONS, "").finding(1, "the reasons are missing")];
    };
    let mut found = Vec::new();
    let (mut inside, mut count) = (false, 0);
    for (index, line) in code.text.lines().enumerate() {
        inside = (inside || line.ends_with("Reason {")) && line.trim() != "}";
        if let (true, Some((_, label))) = (inside, line.split_once("=> \"")) {
            let label = label.trim_end_matches("\",");
            count += 1;
            if !page.contains(&format!("`{label}`")) {
                found.push(code.finding(index + 1, format!("`{label}` is not in {METRICS_PAGE}")));
            }
        }
    }
    if count == 0 {
        found.push(code.finding(1, "no reason found"));
    }
    found
}

const REASONS: &str = "gateway/src/shard/stats.rs";

fn metric_names(text: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = line.split(|c: char| !is_word(c));
        let metrics = words.filter(|w| {
            ["kcp_gateway_", "kcp_loadgen_"].iter().any(|p| w.len() > p.len() && w.starts_with(p))
        });
        names.extend(metrics.map(|w| (index + 1, w.to_owned())));
    }
    names
}

/// Fuzz targets that their page does not name.
pub(crate) fn fuzz_targets(tree: &[Source]) -> Vec<Finding> {
    let page = tree.iter().find(|s| s.path == FUZZ_PAGE).map_or("", |s| s.text.as_str());
    let targets: Vec<(&Source, &str)> = tree
        .iter()
        .filter_map(|s| {
            let file = s.path.strip_prefix("kcp-core/fuzz/fuzz_targets/")?;
            Some((s, file.strip_suffix(".rs")?))
        })
        .collect();
    if targets.is_empty() {
        return vec![Source::new(FUZZ_PAGE, "").finding(1, "no fuzz target found")];
    }
    targets
        .into_iter()
        .filter(|(_, name)| !page.contains(&format!("`{name}`")))
        .map(|(source, name)| source.finding(1, format!("`{name}` is not in {FUZZ_PAGE}")))
        .collect()
}

/// Paths of somebody's machine, talk about how the tree came to be, and hosts a reader may not reach.
pub(crate) fn foreign_words(source: &Source) -> Vec<Finding> {
    // In two halves, so that this file does not break its own rule.
    const FOREIGN: [(&str, &str); 17] = [
        ("/wo", "rk/"),
        ("/tm", "p/wt"),
        ("/ho", "me/"),
        ("house ", "style"),
        ("design", ".md"),
        ("kcp-proto", "col.md"),
        ("io-uring-", "udp.md"),
        ("dialect", ".md"),
        ("the ", "brief"),
        ("work", "tree"),
        ("sub", "agent"),
        ("language ", "model"),
        ("clau", "de"),
        ("anthro", "pic"),
        ("chat", "gpt"),
        ("co", "pilot"),
        ("this ", "workplace"),
    ];
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (a, b) in FOREIGN {
            let word = [a, b].concat();
            if lower.contains(&word) {
                found.push(source.finding(index + 1, format!("`{word}` says nothing to a reader")));
            }
        }
        if names_a_ticket(&lower) {
            found.push(source.finding(index + 1, "names a ticket instead of the reason"));
        }
        for host in hosts(line).filter(|host| !reachable(host)) {
            found.push(source.finding(index + 1, format!("leads to `{host}`")));
        }
    }
    found
}

fn names_a_ticket(line: &str) -> bool {
    line.match_indices("issue ")
        .any(|(at, word)| line[at + word.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

/// The hosts of the links in a line. Placeholders of format strings are none.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("://").filter_map(|(at, mark)| {
        let scheme = line[..at].ends_with("http") || line[..at].ends_with("https");
        let rest = &line[at + mark.len()..];
        let host = rest.split(|c: char| !(c.is_alphanumeric() || ".-[]".contains(c))).next()?;
        (scheme && !host.is_empty()).then_some(host)
    })
}

fn reachable(host: &str) -> bool {
    const HOSTS: [&str; 17] = [
        "www.w3.org", // names the language of pictures
        "github.com",
        "crates.io",
        "docs.rs",
        "keepachangelog.com",
        "semver.org",
        "www.apache.org",
        "man7.org",
        "docs.kernel.org",
        "lwn.net",
        "prometheus.io",
        "www.haproxy.org",
        "example.com",
        "example.org",
        "localhost",
        "127.0.0.1",
        "[::1]",
    ];
    // Set aside for documentation; they exist nowhere.
    let reserved = [".example", ".invalid", ".test"].iter().any(|tld| host.ends_with(tld));
    reserved
        || HOSTS.contains(&host.trim_end_matches('.'))
        || host.starts_with("[") && !host.ends_with("]")
}

/// Relative links, anchors and paths in the pages that lead nowhere.
pub(crate) fn links(tree: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    for page in tree.iter().filter(|s| s.path.ends_with(".md")) {
        for (index, line) in page.text.lines().enumerate() {
            for (at, mark) in line.match_indices("](") {
                let target = line[at + mark.len()..].split(')').next().unwrap_or_default();
                if !target.contains("://") && !leads_somewhere(tree, page, target) {
                    found.push(page.finding(index + 1, format!("`{target}` leads nowhere")));
                }
            }
            for path in line.split('`').skip(1).step_by(2).filter(|span| is_path(tree, span)) {
                let within = format!("{}/", path.trim_end_matches('/'));
                if !tree.iter().any(|s| s.path == path || s.path.starts_with(&within)) {
                    found.push(page.finding(index + 1, format!("`{path}` leads nowhere")));
                }
            }
        }
    }
    found
}

/// Whether code in a page is a path from the root of the tree, and nothing else.
fn is_path(tree: &[Source], span: &str) -> bool {
    let plain = span.chars().all(|c| is_word(c) || "./-".contains(c));
    let top = span.split_once('/').map(|(top, _)| format!("{top}/"));
    plain && top.is_some_and(|top| tree.iter().any(|s| s.path.starts_with(&top)))
}

fn leads_somewhere(tree: &[Source], page: &Source, target: &str) -> bool {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let mut path: Vec<&str> = page.path.split('/').collect();
    if !file.is_empty() {
        path.pop();
        for part in file.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                path.pop();
            } else {
                path.push(part);
            }
        }
    }
    let path = path.join("/");
    let Some(target) = tree.iter().find(|s| s.path == path) else {
        let directory = format!("{path}/");
        return anchor.is_empty() && tree.iter().any(|s| s.path.starts_with(&directory));
    };
    let mut headings = target.text.lines().filter(|line| line.starts_with('#'));
    anchor.is_empty() || headings.any(|line| slug(line) == anchor)
}

/// The anchor a heading gets.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|&c| is_word(c) || c == ' ' || c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|f| format!("{} {}", f.line, f.what)).collect()
    }

    #[test]
    fn a_config_field_that_hides_something_is_seen() {
        let text = "pub struct Top {\n    /// The limits.\n    pub limits: Option<Limits>,\n}\n\
            pub struct Limits {\n    /// How long.\n    #[doc(hidden)]\n    pub wait: Auto<u32>,\n    \
            /// How long, in milliseconds. Default 5. Reloadable.\n    pub good: u64,\n    \
            /// Whether to. Default true.\n    pub flag: bool,\n    /// Computed; not a key.\n    pub own: u8,\n}\n\
            fn f() {\n    pub a: u32,\n}\n";
        let [root, upstream] = CONFIG;
        let other = "pub struct More {\n    /// Default 1. Restart.\n    pub on: bool,\n}\n";
        let other = Source::new(upstream, other);
        assert_eq!(
            whats(config_fields(&[Source::new(root, text), other.clone()])),
            [
                "8 `wait` hides its default",
                "8 `wait` hides what a reload does",
                "8 `wait` has no unit",
                "12 `flag` hides what a reload does"
            ]
        );
        assert_eq!(config_fields(&[]).len(), 2);
        assert_eq!(config_fields(&[Source::new(root, ""), other]).len(), 1);
    }

    #[test]
    fn metrics_and_their_page_must_agree() {
        let page =
            Source::new("deploy/METRICS.md", "| `kcp_gateway_a_total` |\n`kcp_gateway_gone` |");
        let code = Source::new(
            "gateway/src/metrics.rs",
            "// kcp_gateway_comment\nlet a = \"kcp_gateway_a_total\";\nlet b = \"kcp_gateway_b\";\n",
        );
        assert_eq!(
            whats(metrics(&[page.clone(), code.clone()])),
            [
                "3 `kcp_gateway_b` is not in deploy/METRICS.md",
                "2 `kcp_gateway_gone` is exported nowhere"
            ]
        );
        assert_eq!(metrics(&[code]).len(), 1);
        assert_eq!(metrics(&[Source::new("deploy/METRICS.md", "")]).len(), 1);
    }

    #[test]
    fn an_unexplained_reason_is_seen() {
        let page = Source::new(METRICS_PAGE, "| `short` | too short |");
        let text = "    DropReason {\n        Short => \"short\",\n        /// Doc.\n        Long => \"long\",\n    }\n\
            Stat {\n        Turns => \"turns\",\n    }\n";
        let code = Source::new(REASONS, text);
        assert_eq!(whats(reasons(&[page, code])), ["4 `long` is not in deploy/METRICS.md"]);
        assert_eq!(reasons(&[Source::new(REASONS, "")]).len(), 1);
        assert_eq!(reasons(&[]).len(), 1);
    }

    #[test]
    fn an_undocumented_fuzz_target_is_seen() {
        let target = |name: &str| Source::new(&format!("kcp-core/fuzz/fuzz_targets/{name}.rs"), "");
        let page = Source::new("kcp-core/fuzz/README.md", "`decode`: any bytes");
        assert_eq!(fuzz_targets(&[page, target("decode"), target("ops")]).len(), 1);
        assert_eq!(fuzz_targets(&[target("decode")]).len(), 1);
        assert_eq!(fuzz_targets(&[]).len(), 1);
    }

    #[test]
    fn foreign_words_are_seen() {
        let seen = |text: &str| foreign_words(&Source::new("README.md", text)).len();
        assert_eq!(seen(&["see /wo", "rk/x"].concat()), 1);
        assert_eq!(seen(&["As the House ", "Style says"].concat()), 1);
        assert_eq!(seen(&["for issue", " 12"].concat()), 1);
        assert_eq!(seen(&["https:/", "/mirror.corp.local/index"].concat()), 1);
        assert_eq!(
            seen("the issue is old; https://docs.rs/a and http://127.0.0.1:9600/metrics"),
            0
        );
        assert_eq!(seen("format!(\"http://{addr}/metrics\") http://$ADMIN/ http://[::1]:1/"), 0);
    }

    #[test]
    fn links_that_lead_nowhere_are_seen() {
        let page = |text: &str| {
            let other = Source::new("benches/README.md", "# On noise, here\n");
            whats(links(&[Source::new("docs/A.md", text), other]))
        };
        assert_eq!(
            page("[a](../benches/README.md#on-noise-here) [d](../benches) [w](https://docs.rs)")
                .len(),
            0
        );
        assert_eq!(page("[a](gone.md)"), ["1 `gone.md` leads nowhere"]);
        assert_eq!(page("[a](../benches/README.md#gone)").len(), 1);
        assert_eq!(page("# Here\n[a](#here) [b](#there)").len(), 1);
        assert_eq!(page("`benches/README.md` `benches/` `any/thing` `benches/*.md`").len(), 0);
        assert_eq!(page("`benches/gone.rs`"), ["1 `benches/gone.rs` leads nowhere"]);
    }
}
