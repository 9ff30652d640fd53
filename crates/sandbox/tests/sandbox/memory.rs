//! The memory limit.

use nodule_sandbox_proto::{Cause, Report, Request};

use crate::guests::both;
use crate::setup::Setup;

/// Eight pages, and four times as many as soon as it may.
const PATIENT: &str = r#"(module (memory 8)
    (func (export "_start") (loop (br_if 0 (i32.eq (memory.grow (i32.const 24)) (i32.const -1))))))"#;

#[test]
fn the_agent_changes_the_limit_of_a_running_guest() {
    const KIB: u64 = 1 << 10;
    let sandbox = Setup::text(PATIENT).memory(1).start();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.started();
    let used = 512 * KIB;
    // A limit below what it has is not taken.
    for (limit, wanted) in
        [(256 * KIB, 1024 * KIB), (768 * KIB, 768 * KIB), (2048 * KIB, 2048 * KIB)]
    {
        agent.say(&Request::Limit { memory: Some(limit) });
        let told = agent.hear();
        assert_eq!(told, Some(Report::Limited { used, memory: Some(wanted) }), "{limit}");
    }
    assert_eq!(agent.ended().code, 0);
}

#[test]
fn a_guest_that_dies_of_a_refused_growth_is_out_of_memory() {
    for program in both() {
        let ended = Setup::new(program, &["alloc", "64"]).memory(32).run();
        let exit = ended.exit();
        assert_eq!((exit.cause, exit.code), (Cause::OutOfMemory, 137), "{}", exit.message);
        assert!(exit.message.contains("a limit of 33554432 bytes"), "{}", exit.message);
        assert!(exit.message.contains("\n  0: probe"), "{}", exit.message);
    }
}

#[test]
fn a_guest_within_its_limit_runs() {
    for program in both() {
        let sandbox = Setup::new(program, &["alloc", "16"]).memory(32).start();
        let mut agent = sandbox.connect();
        agent.greet();
        agent.started();
        while sandbox.log().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(sandbox.log()[0].text, "allocated 16 MiB");
    }
}

#[test]
fn a_guest_that_lives_with_a_refusal_ends_as_it_likes() {
    let ended = Setup::text(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (call $exit (i32.eq (memory.grow (i32.const 100)) (i32.const -1)))))"#,
    )
    .memory(1)
    .run();
    assert_eq!((ended.exit().cause, ended.exit().code), (Cause::Exited, 1));
}

#[test]
fn a_table_counts_too() {
    let ended = Setup::text(
        r#"(module
            (table $t 1 funcref)
            (func (export "_start")
                (if (i32.eq (table.grow $t (ref.null func) (i32.const 1000000)) (i32.const -1))
                    (then unreachable))))"#,
    )
    .memory(1)
    .run();
    assert_eq!(ended.exit().cause, Cause::OutOfMemory, "{}", ended.exit().message);
}

#[test]
fn a_program_that_begins_above_its_limit_does_not_start() {
    let ended = Setup::text(r#"(module (memory 1000) (func (export "_start")))"#).memory(1).run();
    let exit = ended.exit();
    assert_eq!((exit.cause, exit.code), (Cause::StartFailed, 128));
    assert!(
        exit.message
            .contains("begins with 65536000 bytes of memory, and its limit is 1048576 bytes"),
        "{}",
        exit.message
    );
    assert_eq!(ended.started, None);
}
