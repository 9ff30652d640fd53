//! The built compiler, with real input.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should panic"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder with an input, and what the compiler made of it.
struct Compiled {
    folder: TempDir,
    output: Output,
}

impl Compiled {
    fn new(input: &[u8], limits: [&str; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("in.wasm"), input).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_nodule-compile"))
            .args([
                "compile",
                "in.wasm",
                "out.cwasm",
                "--max-memory-mib",
                limits[0],
                "--max-seconds",
                limits[1],
            ])
            .current_dir(folder.path())
            .output()
            .unwrap();
        Self { folder, output }
    }

    fn text(wat: &str) -> Self {
        Self::new(&wat::parse_str(wat).unwrap(), ["512", "60"])
    }

    fn cwasm(&self) -> PathBuf {
        self.folder.path().join("out.cwasm")
    }

    fn complaint(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    /// The input is refused in one line with these words, and nothing is left of it.
    fn assert_bad(&self, words: &str) {
        let complaint = self.complaint();
        assert_eq!(self.output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains(words), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 1);
    }
}

const COMMAND: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
    (memory (export "memory") 1)
    (func (export "_start")))"#;

const RUN: &str = r#"
    (core module $m (func (export "run") (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $exports (export "run" (func $run)))"#;

#[test]
fn a_module_is_compiled_and_described() {
    let compiled = Compiled::text(COMMAND);
    assert!(compiled.output.status.success(), "{}", compiled.complaint());
    let cwasm = fs::read(compiled.cwasm()).unwrap();
    assert_eq!(&cwasm[..4], b"\x7fELF");
    let said: serde_json::Value = serde_json::from_slice(&compiled.output.stdout).unwrap();
    assert_eq!(said, serde_json::json!({"kind": "module", "wasi": "p1", "size": cwasm.len()}));
    assert_eq!(fs::read_dir(compiled.folder.path()).unwrap().count(), 2);
}

#[test]
fn a_component_is_compiled_and_described() {
    let compiled = Compiled::text(&format!(
        r#"(component {RUN} (export "wasi:cli/run@0.2.6" (instance $exports)))"#
    ));
    assert!(compiled.output.status.success(), "{}", compiled.complaint());
    let said: serde_json::Value = serde_json::from_slice(&compiled.output.stdout).unwrap();
    assert_eq!((&said["kind"], &said["wasi"]), (&"component".into(), &"p2".into()));
}

#[test]
fn compiled_code_is_the_same_each_time() {
    let [one, two] = [(); 2].map(|()| Compiled::text(COMMAND));
    assert_eq!(fs::read(one.cwasm()).unwrap(), fs::read(two.cwasm()).unwrap());
}

#[test]
fn compiled_code_is_not_for_writing() {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(Compiled::text(COMMAND).cwasm()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
}

#[test]
fn what_is_no_wasm_is_refused_by_name() {
    let compile = |input: &[u8]| Compiled::new(input, ["512", "60"]);
    compile(b"").assert_bad("empty");
    compile(b"\x7fELF\x02\x01\x01").assert_bad("native code (ELF)");
    compile(b"(module)").assert_bad("text format");
    compile(b"\0asm\x01\0\0\0\x01\xff").assert_bad("not valid here");
    compile(b"\0asm\x0d\0\x01\0\x07\xff").assert_bad("not valid here");
}

#[test]
fn a_module_that_does_not_validate_is_refused_with_the_place() {
    let mut wasm =
        wat::parse_str(r#"(module (func (export "_start") (drop (i32.const 7))))"#).unwrap();
    let drop = wasm.iter().rposition(|byte| *byte == 0x1a).unwrap();
    wasm[drop] = 0x01;
    Compiled::new(&wasm, ["512", "60"]).assert_bad("offset");
}

#[test]
fn modules_that_are_no_commands_are_refused() {
    Compiled::text("(module)").assert_bad("no function `_start`");
    Compiled::text(r#"(module (func (export "_initialize")))"#).assert_bad("it is a reactor");
    Compiled::text(r#"(module (func (export "_start") (param i32)))"#)
        .assert_bad("without parameters");
    Compiled::text(r#"(module (memory (export "_start") 1))"#).assert_bad("without parameters");
}

#[test]
fn imports_of_modules_are_refused_by_name_with_what_to_do() {
    let import = |module: &str, name: &str, ty: &str| {
        Compiled::text(&format!(
            r#"(module (import "{module}" "{name}" {ty}) (func (export "_start")))"#
        ))
    };
    let wasi = "wasi_snapshot_preview1";
    import(wasi, "sock_open", "(func (param i32 i32 i32) (result i32))")
        .assert_bad("extension of WasmEdge");
    import(wasi, "sock_accept", "(func (param i32 i32) (result i32))")
        .assert_bad("wasi_snapshot_preview1.sock_accept");
    import(wasi, "fd_fly", "(func)").assert_bad("no such function");
    import("wasix_32v1", "proc_fork", "(func)").assert_bad("WASIX");
    import("wasi_unstable", "fd_write", "(func)").assert_bad("2019");
    import("wasi", "thread-spawn", "(func (param i32) (result i32))").assert_bad("threads");
    import("env", "emscripten_resize_heap", "(func (param i32) (result i32))")
        .assert_bad("Emscripten");
    import("wbg", "__wbindgen_throw", "(func)").assert_bad("browser");
    import("acme", "rockets", "(global i32)").assert_bad("`acme.rockets`");
}

#[test]
fn a_known_function_of_another_type_is_refused() {
    let wat = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i64))) (func (export "_start")))"#;
    Compiled::text(wat).assert_bad("wasi_snapshot_preview1.proc_exit");
}

#[test]
fn components_that_are_no_commands_are_refused() {
    Compiled::text("(component (core module))").assert_bad("exports nothing");
    let export = |name: &str| {
        Compiled::text(&format!(r#"(component {RUN} (export "{name}" (instance $exports)))"#))
    };
    export("wasi:cli/run@0.3.0").assert_bad("another version of WASI");
    export("wasi:http/incoming-handler@0.2.0").assert_bad("serves HTTP");
    export("acme:shop/stock@1.0.0").assert_bad("it exports acme:shop/stock@1.0.0");
}

#[test]
fn imports_of_components_are_refused_by_name() {
    let wat = format!(
        r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)) (import "acme:shop/stock@1.0.0" (instance))
            {RUN} (export "wasi:cli/run@0.2.0" (instance $exports)))"#
    );
    let compiled = Compiled::text(&wat);
    compiled.assert_bad("`wasi:keyvalue/store@0.2.0`, `acme:shop/stock@1.0.0`");
    compiled.assert_bad("wac plug");
}

#[test]
fn a_wit_package_is_refused_by_name() {
    let wat = r#"(component (type $t (component (type $i (instance (export "f" (func)))) (export "acme:a/b" (instance (type $i)))))
        (export "b" (type $t)))"#;
    Compiled::text(wat).assert_bad("WIT package");
}

/// Many functions, each of them long: so many seconds and MiB are never enough.
fn large() -> Vec<u8> {
    let body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 3)) (i32.xor (local.get 0) (local.get 1))))".repeat(4000);
    let functions = format!("(func (param i32 i32) (result i32) {body} (local.get 0))").repeat(40);
    wat::parse_str(format!(r#"(module {functions} (func (export "_start")))"#)).unwrap()
}

#[test]
fn a_program_that_takes_too_much_memory_is_refused() {
    Compiled::new(&large(), ["24", "60"]).assert_bad("more than the 24 MiB of memory");
}

#[test]
fn a_program_that_takes_too_long_is_refused() {
    Compiled::new(&large(), ["2048", "1"]).assert_bad("more than the 1 s of CPU time");
}

#[test]
fn a_missing_input_is_no_fault_of_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_nodule-compile"))
        .args([
            "compile",
            "/nowhere.wasm",
            "/nowhere.cwasm",
            "--max-memory-mib",
            "64",
            "--max-seconds",
            "9",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("read /nowhere.wasm: No such file"));
}

#[test]
fn a_wrong_usage_is_no_bad_input() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_nodule-compile")).args(["compile", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_key_is_the_same_from_run_to_run() {
    let key = || Command::new(env!("CARGO_BIN_EXE_nodule-compile")).arg("key").output().unwrap();
    let [one, two] = [key(), key()];
    assert!(one.status.success());
    assert_eq!(one.stdout.trim_ascii().len(), 32);
    assert_eq!(one.stdout, two.stdout);
}
