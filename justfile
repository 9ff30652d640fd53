# What can be done here. `e2e/just` runs these on a machine that has only Rust: it brings `just` itself and what it needs.

set shell := ["bash", "-euo", "pipefail", "-c"]

cache := env("XDG_CACHE_HOME", env("HOME") / ".cache") / "nodule"

# In CI what is built is kept outside of the checkout, which is a new one each time.
target := if env("CI", "") == "true" { cache / "target" } else { justfile_directory() / "target" }
export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", target)

e2e := CARGO_TARGET_DIR / "debug/nodule-e2e"
guests := CARGO_TARGET_DIR / "guests"

deny-version := "0.20.2"
deny-root := cache / "cargo-deny-" + deny-version
deny := deny-root / "bin/cargo-deny"

fuzz-version := "0.13.2"
fuzz-root := cache / "cargo-fuzz-" + fuzz-version

# Cargo unifies the features of all that one command builds, so the three sides are always built by three commands:
# the agent shall not get Wasmtime, nor the sandbox the compiler.
agent := "-p nodule -p nodule-api -p nodule-cgroup -p nodule-image -p nodule-logs -p nodule-manifest -p nodule-node -p nodule-pod -p nodule-volume"
sandbox := "-p nodule-sandbox -p nodule-sandbox-proto -p nodule-engine"
compile := "-p nodule-compile"

# Lists the recipes.
default:
    @just --justfile '{{justfile()}}' --list --unsorted

# Starts a control plane, a registry and a node, runs a first pod and leaves all of it running.
demo: build guests setup
    '{{e2e}}' demo up

# Ends the demo and removes its folder.
demo-down: e2e-program
    '{{e2e}}' demo down

# Runs every test: unit, integration, in a virtual machine, and against a real control plane.
test: test-unit test-vm test-e2e

# Runs the tests that need no cluster. Some run a sandbox or compile a program, so these are built first.
test-unit: test-programs build (cargo "test") test-riscv64 test-e2e-unit

# Runs the tests of cgroup limits in an emulated machine with cgroup v2. An argument is a test's name.
test-vm *arguments:
    e2e/vm {{arguments}}

# Runs the tests against a real control plane. Arguments go to the test program: a test's name, --nocapture.
test-e2e *arguments: build guests setup packers test-programs
    '{{e2e}}' run -- cargo test --locked -p nodule-e2e --test cluster -- {{arguments}}

# Peers that the tests run themselves.
[private]
test-programs:
    e2e/need dbus-daemon zstd

# Other people's programs that make images.
[private]
packers:
    e2e/need buildah skopeo umoci
    e2e/wkg --version >/dev/null

# What the compiler can do for RISC-V: its code for that CPU is built for this alone.
[private]
test-riscv64:
    cargo test --locked -p nodule-compile --features riscv64 --test riscv64

[private]
test-e2e-unit:
    cargo test --locked -p nodule-e2e --lib

# Measures release builds: `start`, a pod's start; `crowd`, a thousand pods; `image`, pulls; `sandbox`, containers alone.
bench what="start" *arguments:
    @'{{just_executable()}}' --justfile '{{justfile()}}' 'bench-{{what}}' {{arguments}}

# A pod's start over 50 pods, beside a bare start of the same sandbox, in one run.
[private]
bench-start: guests setup bench-programs
    cargo build --locked --release -p nodule
    NODULE_BIN='{{CARGO_TARGET_DIR}}/release' '{{e2e}}' bench start

# An agent's memory and work with 1, 100 and 1,000 idle pods.
[private]
bench-crowd: guests setup bench-programs
    cargo build --locked --release -p nodule
    NODULE_BIN='{{CARGO_TARGET_DIR}}/release' '{{e2e}}' bench crowd

# Pulls, beside skopeo and containerd, as root.
[private]
bench-image: guests setup bench-programs
    e2e/need skopeo containerd
    cargo build --locked --release -p nodule
    NODULE_BIN='{{CARGO_TARGET_DIR}}/release' '{{e2e}}' bench image

# Starts, memory, wake-ups and speed. `--plots docs/benchmarks` draws them, `--only start,density` leaves out the others.
[private]
bench-sandbox *arguments: guests e2e-program bench-programs
    NODULE_WASMTIME=$(e2e/wasmtime) NODULE_BIN='{{CARGO_TARGET_DIR}}/release' '{{e2e}}' bench sandbox {{arguments}}

[private]
bench-programs:
    cargo build --locked --release -p nodule-sandbox
    cargo build --locked --release -p nodule-compile

# Fuzzes what reads strangers' bytes: a target of crates/image/fuzz, for so many seconds. Fetches a nightly compiler.
fuzz target="layer" seconds="60":
    @[ -x '{{fuzz-root}}/bin/cargo-fuzz' ] || echo "setup: building cargo-fuzz {{fuzz-version}}, once" >&2
    @[ -x '{{fuzz-root}}/bin/cargo-fuzz' ] || env -u CARGO_TARGET_DIR cargo install --quiet --locked --root '{{fuzz-root}}' --version {{fuzz-version}} cargo-fuzz
    @rustup toolchain list | grep -q ^nightly || rustup toolchain install --profile minimal --no-self-update nightly
    mkdir -p '{{cache}}/fuzz/{{target}}'
    cd crates/image && PATH='{{fuzz-root}}/bin':$PATH CARGO_TARGET_DIR='{{cache}}/fuzz/target' \
        cargo +nightly fuzz run --dev {{target}} '{{cache}}/fuzz/{{target}}' fuzz/corpus/{{target}} -- -max_total_time={{seconds}}

# Builds the agent, the sandbox and the compiler.
build:
    cargo build --locked -p nodule
    cargo build --locked -p nodule-sandbox
    cargo build --locked -p nodule-compile

# Builds the test guests.
guests:
    GUESTS_TARGET_DIR='{{guests}}-build' e2e/guests/build '{{guests}}'

# Builds the control plane and the registry into the cache: a quarter of an hour the first time, nothing afterwards.
setup: e2e-program
    '{{e2e}}' setup

# Handles a control plane with a registry, without a node: up, down, status, kubeconfig, stop NAME, start NAME.
control-plane +action: e2e-program
    '{{e2e}}' control-plane {{action}}

[private]
e2e-program:
    cargo build --locked --quiet -p nodule-e2e

# Checks form, lints, dependency rules and scripts.
lint: format-check (cargo "clippy" "--all-targets" "--" "-D" "warnings") clippy-e2e dependencies scripts

# Runs cargo for each of the three sides.
[private]
cargo command *arguments:
    cargo {{command}} --locked {{agent}} {{arguments}}
    cargo {{command}} --locked {{sandbox}} {{arguments}}
    cargo {{command}} --locked {{compile}} {{arguments}}

[private]
format-check:
    cargo fmt --all --check

[private]
clippy-e2e:
    cargo clippy --locked -p nodule-e2e --all-targets -- -D warnings

# Licences, bans, sources, and who may depend on whom (deny.toml).
[private]
dependencies: deny-program
    '{{deny}}' --locked check bans licenses sources
    @# The agent holds the node's credentials: it never links what runs guests.
    tree=$(cargo tree --locked -p nodule -e normal --prefix none) && ! grep '^wasmtime ' <<<"$tree"

[private]
deny-program:
    @[ -x '{{deny}}' ] || echo "setup: building cargo-deny {{deny-version}}, once" >&2
    @[ -x '{{deny}}' ] || env -u CARGO_TARGET_DIR cargo install --quiet --locked --root '{{deny-root}}' --version {{deny-version}} cargo-deny

[private]
scripts:
    e2e/need shellcheck
    e2e/contract
    git ls-files -z | xargs -0 grep -lZE '^#!.*\b(ba)?sh\b' -- | xargs -0 shellcheck
