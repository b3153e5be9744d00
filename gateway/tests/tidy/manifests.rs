//! Rules about manifests and the lock file.

use toml::{Table, Value};

use crate::source::{Finding, Source};

/// What each package may use of the workspace, and of the world where that is closed.
struct Place {
    package: &'static str,
    workspace: &'static [&'static str],
    /// `None`: any published crate that `deny.toml` lets in.
    world: Option<&'static [&'static str]>,
}

const MEMBERS: [&str; 8] = [
    "kcp-core",
    "kcp-oracle",
    "netem",
    "net-io",
    "kcp-gateway",
    "kcp-loadgen",
    "kcp-benches",
    "kcp-deploy",
];

const PLACES: [Place; 10] = [
    Place { package: "kcp-core", workspace: &[], world: Some(&[]) },
    Place { package: "netem", workspace: &[], world: Some(&[]) },
    Place { package: "kcp-oracle", workspace: &[], world: Some(&["kcp-io"]) },
    Place {
        package: "net-io",
        workspace: &["netem"],
        world: Some(&["io-uring", "libc", "socket2", "thiserror"]),
    },
    Place { package: "kcp-gateway", workspace: &["kcp-core", "net-io"], world: None },
    Place {
        package: "kcp-loadgen",
        workspace: &["kcp-core", "net-io", "netem", "kcp-gateway"],
        world: None,
    },
    Place { package: "kcp-benches", workspace: &MEMBERS, world: None },
    // These two are no members: workspaces of their own, so that what it depends on stays out of everybody's build.
    Place {
        package: "kcp-peers",
        workspace: &[],
        world: Some(&["kcp", "kcp-tokio", "kcp2", "tokio", "tokio_kcp"]),
    },
    Place { package: "kcp-presence", workspace: &[], world: Some(&["kcp", "kcp-tokio", "tokio"]) },
    Place { package: "kcp-deploy", workspace: &[], world: None },
];

/// Dependencies that point against the grain. Tests may use any package but the benches.
pub(crate) fn direction(source: &Source) -> Vec<Finding> {
    let Some(manifest) = package_manifest(source) else { return Vec::new() };
    let name = package_name(&manifest);
    let Some(place) = PLACES.iter().find(|p| p.package == name) else {
        return vec![source.finding(1, format!("package `{name}` has no place in the rules"))];
    };
    let mut found = Vec::new();
    for dependency in names(&manifest, &["dependencies", "build-dependencies"]) {
        let allowed = if MEMBERS.contains(&dependency.as_str()) {
            place.workspace.contains(&dependency.as_str())
        } else {
            place.world.is_none_or(|world| world.contains(&dependency.as_str()))
        };
        if !allowed {
            found.push(source.finding(
                line_of(&source.text, &dependency),
                format!("`{name}` may not depend on `{dependency}`"),
            ));
        }
    }
    for dependency in names(&manifest, &["dev-dependencies"]) {
        if dependency == "kcp-benches" {
            found.push(
                source.finding(line_of(&source.text, &dependency), "nobody uses the benches"),
            );
        }
    }
    found
}

/// Packages that could be published, and members linked by a version that a stranger's crate could satisfy.
pub(crate) fn linking(source: &Source) -> Vec<Finding> {
    if !source.path.ends_with("Cargo.toml") {
        return Vec::new();
    }
    let manifest: Table = source.text.parse().expect("manifests parse");
    let mut found = Vec::new();
    if let Some(package) = manifest.get("package") {
        let publish = package.get("publish");
        let inherited = publish.and_then(|p| p.get("workspace")).and_then(Value::as_bool);
        if publish.and_then(Value::as_bool) != Some(false) && inherited != Some(true) {
            found.push(source.finding(1, "lacks publish = false"));
        }
    }
    let shared = manifest.get("workspace").and_then(Value::as_table);
    let tables = shared.into_iter().chain([&manifest]).flat_map(|table| {
        ["dependencies", "dev-dependencies", "build-dependencies"]
            .into_iter()
            .filter_map(|key| table.get(key).and_then(Value::as_table))
    });
    for (name, value) in tables.flatten().filter(|(name, _)| MEMBERS.contains(&name.as_str())) {
        let by_path = value.get("path").is_some() && value.get("version").is_none();
        let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
        if !by_path && !inherited {
            let line = line_of(&source.text, name);
            found.push(source.finding(line, format!("`{name}` must be linked by path alone")));
        }
    }
    found
}

/// Locked crates from anywhere but the public registry, and cargo settings that would send others elsewhere.
pub(crate) fn origins(source: &Source) -> Vec<Finding> {
    const PUBLIC: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    if source.path.contains(".cargo/") {
        return vec![source.finding(1, "cargo settings belong to the machine, not to the tree")];
    }
    if !source.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| line.starts_with("source = ") && *line != PUBLIC)
        .map(|(i, line)| source.finding(i + 1, format!("not the public registry: {line}")))
        .collect()
}

/// A member's manifest; the workspace's own and the fuzz crate's are none.
fn package_manifest(source: &Source) -> Option<Table> {
    if !source.path.ends_with("/Cargo.toml") || source.path.contains("/fuzz/") {
        return None;
    }
    Some(source.text.parse().expect("manifests parse"))
}

fn package_name(manifest: &Table) -> String {
    let name = manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

/// The names in the given tables, those of `[target.*]` included.
fn names(manifest: &Table, tables: &[&str]) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let scopes = targets.into_iter().flat_map(|t| t.values().filter_map(Value::as_table));
    [manifest]
        .into_iter()
        .chain(scopes)
        .flat_map(|scope| tables.iter().filter_map(|t| scope.get(*t).and_then(Value::as_table)))
        .flat_map(|dependencies| dependencies.keys().cloned())
        .collect()
}

fn line_of(text: &str, start: &str) -> usize {
    text.lines().position(|line| line.starts_with(start)).map_or(1, |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: impl Fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text)).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn a_dependency_against_the_grain_is_seen() {
        let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
        let core = manifest("kcp-core", "[dependencies]\nnet-io.workspace = true\nrand = \"1\"\n");
        assert_eq!(lines(direction, "kcp-core/Cargo.toml", &core), [4, 5]);
        let net_io = manifest("net-io", "[dependencies]\nlibc = \"0.2\"\ntokio = \"1\"\n");
        assert_eq!(lines(direction, "net-io/Cargo.toml", &net_io), [5]);
        let target = manifest("kcp-core", "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n");
        assert_eq!(lines(direction, "kcp-core/Cargo.toml", &target), [4]);
        let gateway = manifest("kcp-gateway", "[dependencies]\nkcp-loadgen.workspace = true\n");
        assert_eq!(lines(direction, "gateway/Cargo.toml", &gateway), [4]);
        let tests =
            manifest("kcp-gateway", "[dev-dependencies]\nkcp-loadgen = {}\nkcp-benches = {}\n");
        assert_eq!(lines(direction, "gateway/Cargo.toml", &tests), [5]);
        let stranger = manifest("another", "");
        assert_eq!(lines(direction, "another/Cargo.toml", &stranger), [1]);
        let good =
            manifest("kcp-loadgen", "[dependencies]\nkcp-gateway.workspace = true\nclap = \"4\"\n");
        assert_eq!(lines(direction, "loadgen/Cargo.toml", &good), []);
    }

    #[test]
    fn a_publishable_or_versioned_member_is_seen() {
        assert_eq!(lines(linking, "a/Cargo.toml", "[package]\nname = \"a\"\n"), [1]);
        let versioned =
            "[workspace.dependencies]\nkcp-core = \"0.1\"\nnet-io = { path = \"net-io\" }\n";
        assert_eq!(lines(linking, "Cargo.toml", versioned), [2]);
        let both = "[dependencies]\nnet-io = { path = \"x\", version = \"1\" }\n";
        assert_eq!(lines(linking, "a/Cargo.toml", both), [2]);
        let good = "[package]\npublish.workspace = true\n[dependencies]\nnet-io.workspace = true\n";
        assert_eq!(lines(linking, "a/Cargo.toml", good), []);
    }

    #[test]
    fn another_registry_is_seen() {
        let lock = "name = \"a\"\nsource = \"registry+file:///mirror\"\n";
        assert_eq!(lines(origins, "Cargo.lock", lock), [2]);
        assert_eq!(lines(origins, ".cargo/config.toml", ""), [1]);
        let good = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert_eq!(lines(origins, "Cargo.lock", good), []);
    }
}
