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

const ENOUGH: &[&str] = &["--max-memory-mib", "512", "--max-seconds", "60"];

/// A folder with an input, and what the compiler made of it.
struct Compiled {
    folder: TempDir,
    output: Output,
}

impl Compiled {
    fn new(input: &[u8], limits: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("in.wasm"), input).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_nodule-compile"))
            .args(["compile", "in.wasm", "out.cwasm"])
            .args(limits)
            .current_dir(folder.path())
            .output()
            .unwrap();
        Self { folder, output }
    }

    fn text(wat: &str) -> Self {
        Self::new(&wat::parse_str(wat).unwrap(), ENOUGH)
    }

    fn cwasm(&self) -> PathBuf {
        self.folder.path().join("out.cwasm")
    }

    fn said(&self) -> serde_json::Value {
        assert!(self.output.status.success(), "{}", self.complaint());
        serde_json::from_slice(&self.output.stdout).unwrap()
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
    let said = compiled.said();
    assert_eq!((&said["kind"], &said["wasi"]), (&"module".into(), &"p1".into()));
    assert_eq!(said["size"], cwasm.len());
    // Landlock may be missing, and for others than root the user: nothing else.
    let missing = said["missing"].as_array().unwrap();
    assert!(missing.iter().all(|layer| layer == "landlock" || layer == "user"), "{missing:?}");
    assert_eq!(fs::read_dir(compiled.folder.path()).unwrap().count(), 2);
}

#[test]
fn a_component_is_compiled_and_described() {
    let compiled = Compiled::text(&format!(
        r#"(component {RUN} (export "wasi:cli/run@0.2.6" (instance $exports)))"#
    ));
    let said = compiled.said();
    assert_eq!((&said["kind"], &said["wasi"]), (&"component".into(), &"p2".into()));
}

/// A component with one core function, which loops, that exports its instance by these names.
fn serving(names: &[&str]) -> Compiled {
    let exports: String =
        names.iter().map(|name| format!(r#"(export "{name}" (instance $exports))"#)).collect();
    let run = RUN.replace("i32.const 0", "(loop (br 0)) i32.const 0");
    Compiled::text(&format!("(component {run} {exports})"))
}

#[test]
fn a_component_that_serves_http_is_a_proxy_whatever_else_it_is() {
    let both = serving(&["wasi:cli/run@0.2.3", "wasi:http/incoming-handler@0.2.3"]);
    assert_eq!(both.said()["kind"], "proxy");
    let proxy = serving(&["wasi:http/incoming-handler@0.2.0"]);
    assert_eq!((&proxy.said()["kind"], &proxy.said()["wasi"]), (&"proxy".into(), &"p2".into()));
}

#[test]
fn a_proxy_is_compiled_for_an_engine_of_its_own() {
    let loads = |compiled: &Compiled, config: &wasmtime::Config| {
        let engine = wasmtime::Engine::new(config).unwrap();
        // SAFETY: this is what the compiler has just made.
        #[expect(unsafe_code, reason = "the code is loaded as a sandbox loads it")]
        unsafe {
            wasmtime::component::Component::deserialize_file(&engine, compiled.cwasm()).is_ok()
        }
    };
    let (command, proxy) = (nodule_engine::config(), nodule_engine::proxy_config());
    let serves = serving(&["wasi:http/incoming-handler@0.2.0"]);
    assert!(loads(&serves, &proxy) && !loads(&serves, &command));
    let runs = serving(&["wasi:cli/run@0.2.0"]);
    assert!(loads(&runs, &command) && !loads(&runs, &proxy));
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
    let compile = |input: &[u8]| Compiled::new(input, ENOUGH);
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
    Compiled::new(&wasm, ENOUGH).assert_bad("offset");
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
        .assert_bad("needs the WasmEdge runtime's sockets");
    import(wasi, "sock_accept", "(func (param i32 i32) (result i32))")
        .assert_bad("wasi_snapshot_preview1.sock_accept");
    import(wasi, "fd_fly", "(func)").assert_bad("no such function");
    import("wasix_32v1", "proc_fork", "(func)").assert_bad("needs the Wasmer runtime's WASIX");
    import("wasix_64v1", "proc_fork", "(func)").assert_bad("wasix_64v1.proc_fork");
    import("wasi_unstable", "fd_write", "(func)").assert_bad("2019");
    import("wasi", "thread-spawn", "(func (param i32) (result i32))").assert_bad("threads");
    import("env", "emscripten_resize_heap", "(func (param i32) (result i32))")
        .assert_bad("Emscripten");
    import("wbg", "__wbindgen_throw", "(func)").assert_bad("browser");
    import("rb-js-abi-host", "js-call", "(func)").assert_bad("Ruby for a JavaScript host");
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
    export("wasi:cli/run@0.2.0-rc-2023-12-05").assert_bad("another version of WASI");
    export("wasi:cli/run@0.1.0").assert_bad("another version of WASI");
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

/// An unsigned number in LEB128.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// A command with so many long functions, written byte by byte: as text it would take longer to make than to compile.
fn large(functions: usize) -> Vec<u8> {
    let section = |id: u8, body: &[u8]| [&[id][..], &leb128(body.len()), body].concat();
    let vector = |item: &[u8], last: &[u8]| {
        [leb128(functions + 1), item.repeat(functions), last.to_vec()].concat()
    };
    // (local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 3)) (i32.xor (local.get 0) (local.get 1))))
    let step = [0x20, 0, 0x41, 3, 0x6a, 0x20, 0, 0x20, 1, 0x73, 0x6c, 0x21, 0];
    let body = [&[0][..], &step.repeat(4000), &[0x20, 0, 0x0b]].concat();
    let code = [leb128(body.len()), body].concat();
    let start = [&[1, 6][..], b"_start", &[0], &leb128(functions)].concat();
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[2, 0x60, 2, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0]),
        section(3, &vector(&[0], &[1])),
        section(7, &start),
        section(10, &vector(&code, &[2, 0, 0x0b])),
    ]
    .concat()
}

#[test]
fn a_program_that_takes_too_much_memory_is_refused() {
    Compiled::new(&large(40), &["--max-memory-mib", "24", "--max-seconds", "60"])
        .assert_bad("more than the 24 MiB of memory");
}

#[test]
fn a_program_that_is_larger_than_the_memory_is_refused() {
    let mut program = large(1);
    // A custom section without a name: 64 MiB of nothing.
    program.extend([&[0][..], &leb128((64 << 20) + 1), &vec![0; (64 << 20) + 1]].concat());
    Compiled::new(&program, &["--max-memory-mib", "48", "--max-seconds", "60"])
        .assert_bad("more than the 48 MiB of memory");
}

/// It is far more than a second's work for any machine: the compiler makes less than 10,000 such functions in a minute.
#[test]
fn a_program_that_takes_too_long_is_refused() {
    Compiled::new(&large(1000), &["--max-memory-mib", "4096", "--max-seconds", "1"])
        .assert_bad("more than the 1 s of CPU time");
}

#[test]
fn a_program_whose_code_is_too_large_is_refused() {
    let limits = ["--max-memory-mib", "512", "--max-seconds", "60", "--max-output-mib", "1"];
    Compiled::new(&large(40), &limits).assert_bad("more than the 1 MiB that this node gives");
}

#[test]
fn what_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in.wasm"), large(1)).unwrap();
    fs::write(folder.path().join("out.cwasm"), "mapped by others").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nodule-compile"))
        .args(["compile", "in.wasm", "out.cwasm"])
        .args(ENOUGH)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(folder.path().join("out.cwasm")).unwrap(), b"mapped by others");
}

#[test]
fn a_missing_input_is_no_fault_of_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_nodule-compile"))
        .args(["compile", "/nowhere.wasm", "/nowhere.cwasm"])
        .args(ENOUGH)
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
