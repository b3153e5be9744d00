#!/bin/sh
# Holds everything here to the tools that will read it. Prints what it runs; stops at the first complaint.
#
# Needs Debian's systemd, prometheus, prometheus-alertmanager, shellcheck and jq, what tools.sh gets, and a Rust toolchain.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check() {
    printf '  %s\n' "$*"
    "$@" >"$work/said" 2>&1 || { cat "$work/said"; exit 1; }
}

check shellcheck check.sh tools.sh test/*.sh debian/postinst
check systemd-analyze security --offline=true --threshold=20 debian/kcp-gateway.service
# The program is not installed here; everything else in the unit counts.
sed 's|/usr/bin/kcp-gateway|/bin/true|' debian/kcp-gateway.service > "$work/kcp-gateway.service"
check systemd-analyze verify "$work/kcp-gateway.service"

check promtool check config --syntax-only prometheus/prometheus.yml
check promtool check rules prometheus/recording.yml prometheus/alerts.yml
check promtool test rules prometheus/tests.yml
check amtool check-config alertmanager/alertmanager.yml

check helm lint --strict helm/kcp-gateway
for mode in daemonset statefulset; do
    printf '  kubectl kustomize kubernetes/%s, helm template --set mode=%s\n' $mode $mode
    kubectl kustomize kubernetes/$mode > "$work/kustomize.yaml"
    helm template kcp-gateway helm/kcp-gateway --namespace kcp-gateway --set mode=$mode > "$work/helm.yaml"
    for made in kustomize helm; do
        check kubernetes-validate --strict --no-warn -k 1.36 "$work/$made.yaml"
        check podmonitor-validate "$work/$made.yaml"
    done
    check cargo run --quiet --locked -p kcp-deploy -- same "$work/kustomize.yaml" "$work/helm.yaml"
done

# The profile says how it was made; Debian's sources of Docker have what it was made from.
(cd "$work" && apt-get download -q golang-github-docker-docker-dev >/dev/null 2>&1 && dpkg -x golang-github-docker-docker-dev_*.deb docker)
jq -f container/seccomp.jq "$work/docker/usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json" > "$work/seccomp.json"
check diff "$work/seccomp.json" container/seccomp.json
