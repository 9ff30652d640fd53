//! What a program may import.
//!
//! `nodule-compile` refuses what is not listed here, with words for the user, long before a sandbox would; a test of
//! `nodule-sandbox` holds the lists against what it really provides.

/// The module that WASI 0.1 functions are imported from.
pub const WASI_P1: &str = "wasi_snapshot_preview1";

/// The functions of WASI 0.1 with their types: a letter a value (`i` an `i32`, `I` an `i64`), parameters before the
/// colon, results after it.
pub const WASI_P1_FUNCTIONS: &[(&str, &str)] = &[
    ("args_get", "ii:i"),
    ("args_sizes_get", "ii:i"),
    ("clock_res_get", "ii:i"),
    ("clock_time_get", "iIi:i"),
    ("environ_get", "ii:i"),
    ("environ_sizes_get", "ii:i"),
    ("fd_advise", "iIIi:i"),
    ("fd_allocate", "iII:i"),
    ("fd_close", "i:i"),
    ("fd_datasync", "i:i"),
    ("fd_fdstat_get", "ii:i"),
    ("fd_fdstat_set_flags", "ii:i"),
    ("fd_fdstat_set_rights", "iII:i"),
    ("fd_filestat_get", "ii:i"),
    ("fd_filestat_set_size", "iI:i"),
    ("fd_filestat_set_times", "iIIi:i"),
    ("fd_pread", "iiiIi:i"),
    ("fd_prestat_dir_name", "iii:i"),
    ("fd_prestat_get", "ii:i"),
    ("fd_pwrite", "iiiIi:i"),
    ("fd_read", "iiii:i"),
    ("fd_readdir", "iiiIi:i"),
    ("fd_renumber", "ii:i"),
    ("fd_seek", "iIii:i"),
    ("fd_sync", "i:i"),
    ("fd_tell", "ii:i"),
    ("fd_write", "iiii:i"),
    ("path_create_directory", "iii:i"),
    ("path_filestat_get", "iiiii:i"),
    ("path_filestat_set_times", "iiiiIIi:i"),
    ("path_link", "iiiiiii:i"),
    ("path_open", "iiiiiIIii:i"),
    ("path_readlink", "iiiiii:i"),
    ("path_remove_directory", "iii:i"),
    ("path_rename", "iiiiii:i"),
    ("path_symlink", "iiiii:i"),
    ("path_unlink_file", "iii:i"),
    ("poll_oneoff", "iiii:i"),
    ("proc_exit", "i:"),
    ("proc_raise", "i:i"),
    ("random_get", "ii:i"),
    ("sched_yield", ":i"),
    ("sock_accept", "iii:i"),
    ("sock_recv", "iiiiii:i"),
    ("sock_send", "iiiii:i"),
    ("sock_shutdown", "ii:i"),
];

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

/// The interfaces of WASI 0.2's world `wasi:http/proxy` that are beside those of [`WASI_P2_INTERFACES`].
pub const WASI_HTTP_P2_INTERFACES: &[&str] = &["wasi:http/outgoing-handler", "wasi:http/types"];

/// The interfaces of WASI 0.3's worlds `wasi:cli/command` and `wasi:http/service`, without their version.
pub const WASI_P3_INTERFACES: &[&str] = &[
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
    "wasi:cli/types",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/system-clock",
    "wasi:clocks/types",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/client",
    "wasi:http/types",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/types",
];

/// The beginning of the versions of WASI 0.3. A later one of them is compatible with an earlier one.
pub const WASI_P3_VERSIONS: &str = "0.3.";

/// The guest's configuration. It is not of WASI 0.2 yet, so that its candidates are names of their own.
pub const WASI_CONFIG: &str = "wasi:config/store@0.2.0-rc.1";

/// What a command exports, of WASI 0.2 or 0.3.
pub const RUN: &str = "wasi:cli/run";

/// What a program that serves HTTP exports, of WASI 0.2.
pub const HTTP_INCOMING_HANDLER: &str = "wasi:http/incoming-handler";

/// What a program that serves HTTP exports, of WASI 0.3.
pub const HTTP_HANDLER: &str = "wasi:http/handler";
