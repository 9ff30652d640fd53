//! What a guest reads by `wasi:config/store`.

use nodule_sandbox_proto::Cause;

use crate::setup::Setup;

/// Exits with the first byte of what it finds as `greeting`; with 1 if there is none, with 2 if that is an error.
const GUEST: &str = r#"(component
    (import "wasi:config/store@0.2.0-rc.1" (instance $config
        (type $given (variant (case "upstream" string) (case "io" string)))
        (export "error" (type $error (eq $given)))
        (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
    (import "wasi:cli/exit@0.2.12" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
    (core module $memory
        (memory (export "memory") 1)
        (data (i32.const 16) "greeting")
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
    (core instance $m (instantiate $memory))
    (core func $get (canon lower (func $config "get")
        (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
    (core func $exit (canon lower (func $exit "exit-with-code")))
    (core module $guest
        (import "host" "get" (func $get (param i32 i32 i32)))
        (import "host" "exit" (func $exit (param i32)))
        (import "host" "memory" (memory 1))
        (func (export "run") (result i32)
            (call $get (i32.const 16) (i32.const 8) (i32.const 64))
            (if (i32.load8_u (i32.const 64)) (then (call $exit (i32.const 2))))
            (if (i32.load8_u (i32.const 68))
                (then (call $exit (i32.load8_u (i32.load (i32.const 72))))))
            (i32.const 1)))
    (alias core export $m "memory" (core memory $own))
    (core instance $i (instantiate $guest (with "host" (instance
        (export "get" (func $get))
        (export "exit" (func $exit))
        (export "memory" (memory $own))))))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $exports (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $exports)))"#;

#[test]
fn a_component_reads_its_configuration() {
    for (key, code) in [("greeting", b'*'), ("other", 1)] {
        let mut setup = Setup::text(GUEST);
        setup.container.config = [(key.to_owned(), "* hello".to_owned())].into();
        let ended = setup.run();
        let exit = ended.exit();
        assert_eq!((exit.cause, exit.code), (Cause::Exited, code), "{}", exit.message);
    }
}
