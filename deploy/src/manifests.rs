//! Whether two sets of Kubernetes manifests make the same objects.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Compares what Kustomize made with what Helm made.
///
/// # Errors
/// A file that is not YAML, or the first object that differs.
pub fn same(kustomize: &Path, helm: &Path) -> anyhow::Result<()> {
    let (kustomize, helm) = (objects(kustomize)?, objects(helm)?);
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&kustomize) == names(&helm), "{:?} and {:?}", names(&kustomize), names(&helm));
    for (name, object) in &kustomize {
        ensure!(object == &helm[name], "{name} differs:\n{object:#}\n{:#}", helm[name]);
    }
    Ok(())
}

type Objects = BTreeMap<String, Value>;

fn objects(file: &Path) -> anyhow::Result<Objects> {
    let text = fs::read_to_string(file)?;
    // Kustomize renames a changed configuration, so that pods are replaced; Helm annotates the pods.
    let hashed = regex::Regex::new("kcp-gateway-[a-z0-9]{10}\\b")?;
    let text = hashed.replace_all(&text, "kcp-gateway");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let mut named = BTreeMap::new();
    for mut object in objects.into_iter().filter(|object| object["kind"] != "Namespace") {
        let name = object["metadata"]["name"].as_str().context("an object without a name")?;
        let name = format!("{} {name}", object["kind"]);
        if let Some(pod) =
            object.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut)
        {
            pod.remove("annotations");
        }
        ensure!(named.insert(name.clone(), object).is_none(), "{name} twice");
    }
    Ok(named)
}
