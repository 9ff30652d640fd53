//! What a program may import.
//!
//! `nodule-compile` refuses what is not listed here, with words for the user, long before a sandbox would; a test of
//! `nodule-sandbox` holds the lists against what it really provides.

/// The module that WASI 0.1 functions are imported from.
pub const WASI_P1: &str = "wasi_snapshot_preview1";

/// The functions of WASI 0.1 with their types: a letter a value (`i` an `i32`, `I` an `i64`), parameters before the
/// colon, results after it.
pub const WASI_P1_FUNCTIONS: &[(&str, &str)] = &[];

/// The interfaces of WASI 0.2, without their version.
pub const WASI_P2_INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The beginning of the versions of WASI 0.2. A later one of them is compatible with an earlier one.
pub const WASI_P2_VERSIONS: &str = "0.2.";
