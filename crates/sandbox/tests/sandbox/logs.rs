//! What the guest writes.

use nodule_sandbox_proto::{Request, Stdin};

use crate::guests::{both, module};
use crate::setup::{Line, Setup};

fn line(stream: &str, tag: &str, text: &str) -> Line {
    Line { stream: stream.into(), tag: tag.into(), text: text.into() }
}

#[test]
fn both_streams_are_in_the_log_under_their_names() {
    for program in both() {
        let ended = Setup::new(program.clone(), &["exit", "0"]).run();
        assert_eq!(ended.log, []);
        let ended = Setup::new(program.clone(), &["lines", "1", "0"]).run();
        assert_eq!(ended.log, [line("stdout", "F", "line 1")]);
        let ended = Setup::new(program, &["read", "/missing"]).run();
        assert_eq!(ended.log.len(), 1);
        assert_eq!((ended.log[0].stream.as_str(), ended.log[0].tag.as_str()), ("stderr", "F"));
    }
}

#[test]
fn a_flood_is_in_the_log_to_the_last_byte() {
    for program in both() {
        let ended = Setup::new(program, &["flood", "200010"]).run();
        let lines = ended.text();
        assert_eq!(
            lines.iter().map(|line| line.len() + 1).sum::<usize>(),
            200_010 + 1,
            "the last has no newline"
        );
        for (number, line) in lines[..lines.len() - 1].iter().enumerate() {
            assert_eq!(line.parse::<usize>().unwrap(), number);
        }
    }
}

#[test]
fn a_log_that_is_full_is_rotated() {
    let mut setup = Setup::new(module(), &["flood", "50000"]);
    (setup.container.log.max_size, setup.container.log.max_files) = (20_000, 2);
    let logs = setup.container.log.path.parent().unwrap().to_owned();
    let sandbox = setup.start();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.ended();
    let files = std::fs::read_dir(logs).unwrap().count();
    assert_eq!(files, 2);
}

/// A prompt without a newline, a whole line on standard error, then it waits for standard input.
const PROMPT: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\06\00\00\00")
    (data (i32.const 16) "name? ")
    (data (i32.const 32) "\30\00\00\00\08\00\00\00")
    (data (i32.const 48) "waiting\n")
    (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
        (drop (call $write (i32.const 2) (i32.const 32) (i32.const 1) (i32.const 64)))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64)))))"#;

#[test]
fn an_unfinished_line_is_held_until_the_end() {
    let ended = Setup::text(PROMPT).run();
    assert_eq!(ended.log, [line("stderr", "F", "waiting"), line("stdout", "F", "name? ")]);
}

#[test]
fn the_stop_notice_writes_what_is_held() {
    let sandbox = Setup::text(PROMPT).stdin(Stdin::Held).start();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.started();
    while sandbox.log().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(sandbox.log(), [line("stderr", "F", "waiting")]);
    agent.say(&Request::Stop);
    agent.ended();
    let log = sandbox.wait().log;
    assert_eq!(log[1].text, "name? ");
    assert_eq!(log[1].tag, "P");
}
