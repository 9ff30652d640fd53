//! The ways in which a guest ends.

use nodule_sandbox_proto::Cause;

use crate::guests::{both, component, module};
use crate::setup::Setup;

#[test]
fn a_guest_that_returns_exits_with_0() {
    for program in both() {
        let ended = Setup::new(program, &["lines", "2", "0"]).run();
        let exit = ended.exit();
        assert_eq!((exit.cause, exit.code, exit.message.as_str()), (Cause::Exited, 0, ""));
        assert_eq!(ended.text(), ["line 1", "line 2"]);
        assert_eq!(exit.started_at, ended.started.as_ref().map(|started| started.at));
        assert!(exit.started_at.unwrap() <= exit.finished_at);
    }
}

#[test]
fn a_guest_exits_with_the_code_it_gives() {
    for code in [0, 1, 3, 125, 126, 143, 255] {
        let ended = Setup::new(module(), &["exit", &code.to_string()]).run();
        assert_eq!((ended.exit().cause, ended.exit().code), (Cause::Exited, code));
    }
}

#[test]
fn a_component_exits_with_0_or_1() {
    for (given, seen) in [(0, 0), (1, 1)] {
        let ended = Setup::new(component(), &["exit", &given.to_string()]).run();
        assert_eq!((ended.exit().cause, ended.exit().code), (Cause::Exited, seen));
    }
}

#[test]
fn traps_are_told_by_kind_and_place() {
    for program in both() {
        for (kind, words) in [
            ("unreachable", "wasm `unreachable` instruction executed"),
            ("memory", "out of bounds memory access"),
            ("stack", "call stack exhausted"),
            ("divide", "integer divide by zero"),
        ] {
            let ended = Setup::new(program.clone(), &["trap", kind]).run();
            let exit = ended.exit();
            assert_eq!((exit.cause, exit.code), (Cause::Trapped, 134), "{kind}: {}", exit.message);
            assert!(exit.message.starts_with("wasm trap: "), "{}", exit.message);
            assert!(exit.message.contains(words), "{}", exit.message);
            assert!(exit.message.contains("\n  0: probe"), "no place: {}", exit.message);
            assert!(exit.message.len() <= 4096);
        }
    }
}

#[test]
fn a_trap_of_a_nameless_function_has_its_number() {
    let ended = Setup::text(r#"(module (func (export "_start") unreachable))"#).run();
    let message = &ended.exit().message;
    assert!(message.contains("0: <module>!function[0] @ 0x"), "{message}");
}

#[test]
fn an_exit_code_is_what_a_parent_process_sees_of_it() {
    let ended = Setup::text(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (func (export "_start") (call $exit (i32.const -1))))"#,
    )
    .run();
    assert_eq!((ended.exit().cause, ended.exit().code), (Cause::Exited, 255));
}

#[test]
fn sigkill_leaves_no_exit() {
    let mut sandbox = Setup::new(module(), &["spin"]).start();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.started();
    sandbox.child.kill().unwrap();
    assert_eq!(agent.hear(), None);
    let ended = sandbox.wait();
    assert!(!ended.has_exit());
    assert!(!ended.process.is_alive().unwrap());
}
