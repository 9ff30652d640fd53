//! Compiled guests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nodule_sandbox_proto::{Kind, Program};

/// The probe as WASI 0.1 module.
pub(crate) fn module() -> Program {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    let cwasm = PROBE.get_or_init(|| compile(&probes().join("probe.p1.wasm"))).clone();
    Program { cwasm, kind: Kind::Module }
}

/// The probe as WASI 0.2 component.
pub(crate) fn component() -> Program {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    let cwasm = PROBE.get_or_init(|| compile(&probes().join("probe.p2.wasm"))).clone();
    Program { cwasm, kind: Kind::Component }
}

/// The probe of WASI 0.3.
pub(crate) fn component_p3() -> Program {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    let cwasm = PROBE.get_or_init(|| compile(&probes().join("probe.p3.wasm"))).clone();
    Program { cwasm, kind: Kind::Component }
}

/// The HTTP program of WASI 0.2.
pub(crate) fn web() -> Program {
    static WEB: OnceLock<PathBuf> = OnceLock::new();
    let cwasm = WEB.get_or_init(|| compile(&probes().join("web.p2.wasm"))).clone();
    Program { cwasm, kind: Kind::Proxy }
}

/// The HTTP program of WASI 0.3.
pub(crate) fn web3() -> Program {
    static WEB: OnceLock<PathBuf> = OnceLock::new();
    let cwasm = WEB.get_or_init(|| compile(&probes().join("web.p3.wasm"))).clone();
    Program { cwasm, kind: Kind::Proxy }
}

/// Both, for what must not differ between them.
pub(crate) fn both() -> [Program; 2] {
    [module(), component()]
}

/// A module or component in the text format, compiled into `folder`.
pub(crate) fn text(folder: &Path, wat: &str) -> Program {
    let wasm = folder.join("guest.wasm");
    fs::write(&wasm, wat::parse_str(wat).unwrap()).unwrap();
    let kind = if wat.starts_with("(component") { Kind::Component } else { Kind::Module };
    Program { cwasm: compile(&wasm), kind }
}

fn probes() -> &'static Path {
    static PROBES: OnceLock<PathBuf> = OnceLock::new();
    PROBES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/guests");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let status = Command::new(root.join("build")).arg(&out).status().unwrap();
        assert!(status.success(), "e2e/guests/build: {status}");
        out
    })
}

fn compile(wasm: &Path) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_nodule-sandbox")).with_file_name("nodule-compile");
    let compiler = std::env::var_os("NODULE_COMPILE").map_or(beside, PathBuf::from);
    let cwasm = wasm.with_extension("cwasm");
    // Of an earlier run: the compiler writes over nothing.
    _ = fs::remove_file(&cwasm);
    let output = Command::new(&compiler)
        .args([Path::new("compile"), wasm, &cwasm])
        .args(["--max-memory-mib", "1024", "--max-seconds", "300"])
        .output()
        .unwrap_or_else(|error| {
            panic!("{}: {error}: cargo build -p nodule-compile", compiler.display())
        });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cwasm
}
