# One-line aliases. Anything with logic is Rust; the whole gate is `.ci/run`.

default:
    @just --list

demo *ARGS:
    cargo run --release -p kcp-loadgen -- demo {{ARGS}}

gateway *ARGS:
    cargo run --release -p kcp-gateway -- {{ARGS}}

load *ARGS:
    cargo run --release -p kcp-loadgen -- {{ARGS}}

test:
    cargo test --workspace

lint:
    cargo fmt --all --check && cargo clippy --workspace --all-targets --locked -- -D warnings

tidy:
    cargo test -p kcp-gateway --test tidy

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny:
    cargo deny --locked check bans licenses sources

advisories:
    cargo deny --locked check advisories

fuzz TARGET SECONDS="60":
    cargo fuzz run --fuzz-dir kcp-core/fuzz --sanitizer none {{TARGET}} -- -max_total_time={{SECONDS}} -max_len=2000

compare *ARGS:
    cargo run --release -p kcp-benches -- compare {{ARGS}}

# Holds deploy/ to the tools that read it, and gets those first.
operators DIR="target/tools":
    deploy/tools.sh {{DIR}}
    PATH="$PWD/{{DIR}}/bin:$PATH" deploy/check.sh

# Fires every alert, live. As root; needs Debian's prometheus, prometheus-alertmanager and iptables.
drill *ARGS:
    cargo build --release -p kcp-gateway -p kcp-loadgen
    cargo run --release -p kcp-deploy -- drill {{ARGS}}

ci:
    .ci/run
