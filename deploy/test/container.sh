#!/bin/sh
# In a virtual machine (debian.sh): the image is built and run as its Containerfile says. With the profile the gateway has its
# rings and a client gets its answers; with the engine's own the gateway says what is refused and runs all the same.
#
#   PACKAGES=podman,buildah,crun,netavark deploy/test/debian.sh deploy/test/container.sh \
#       deploy/container/{Containerfile,seccomp.json} target/x86_64-unknown-linux-gnu/release/kcp-gateway kcp-loadgen
set -eu
run() {
    podman run --detach --network host --read-only --cap-drop all --security-opt no-new-privileges "$@" >/dev/null
    for _ in $(seq 60); do curl -fs 127.0.0.1:9600/readyz >/dev/null && break; sleep 1; done
}
mkdir context
cp kcp-gateway context/
podman build --format docker -t kcp-gateway -f Containerfile context
podman image inspect kcp-gateway --format '{{.Size}} bytes, user {{.Config.User}}'

run --name good --security-opt seccomp=seccomp.json --ulimit memlock=-1 kcp-gateway
curl -s 127.0.0.1:9600/api/v1/status | jq -e '.driver == "uring"'
grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' "/proc/$(podman inspect good --format '{{.State.Pid}}')/status"
./kcp-loadgen run --target 127.0.0.1:4000 --sessions 50 --rate 10 --duration 5s --progress off
podman healthcheck run good
podman stop --time 40 good
podman logs good 2>&1 | grep stopped

run --name refused kcp-gateway
curl -s 127.0.0.1:9600/api/v1/status | jq -e '.driver == "epoll", .driver_reason'
podman rm --force refused
