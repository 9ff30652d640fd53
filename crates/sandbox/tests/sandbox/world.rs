//! What a guest sees beside its files.

use std::time::{SystemTime, UNIX_EPOCH};

use nodule_engine::imports::{WASI_CONFIG, WASI_P2_INTERFACES, WASI_P3_INTERFACES};
use nodule_sandbox_proto::{Access, Cause};

use crate::guests::both;
use crate::setup::Setup;

#[test]
fn arguments_environment_and_preopens_are_those_given() {
    for program in both() {
        let host = tempfile::tempdir().unwrap();
        let mut setup = Setup::new(program, &["show"])
            .mount(host.path(), "/data", Access::ReadOnly)
            .mount(host.path(), "/more", Access::ReadWrite);
        setup.container.env = vec![("B".into(), "2 = two".into()), ("A".into(), String::new())];
        let ended = setup.run();
        assert_eq!(
            ended.text(),
            [
                "arg probe",
                "arg show",
                "env B=2 = two",
                "env A=",
                "cwd /",
                "preopen /data",
                "preopen /more"
            ]
        );
    }
}

#[test]
fn no_two_containers_have_the_same_random_numbers() {
    let draw = |program| {
        let ended = Setup::new(program, &["random", "600"]).run();
        let text = ended.text().concat();
        assert_eq!(text.len(), 1200);
        assert_ne!(text[..600], text[600..]);
        text
    };
    for program in both() {
        assert_ne!(draw(program.clone()), draw(program));
    }
}

#[test]
fn the_clock_is_the_nodes() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    for program in both() {
        let before = now();
        let ended = Setup::new(program, &["clock"]).run();
        let text = ended.text();
        let seen = text[0].strip_prefix("now ").unwrap().parse().unwrap();
        assert!((before..=now()).contains(&seen));
        assert_eq!(text[1], "the monotonic clock runs");
    }
}

#[test]
fn a_component_may_import_all_that_the_compiler_lets_pass() {
    let import = |interface: &str| format!(r#"(import "{interface}" (instance))"#);
    let p2 = WASI_P2_INTERFACES.iter().map(|interface| format!("{interface}@0.2.0"));
    let p3 = WASI_P3_INTERFACES.iter().map(|interface| format!("{interface}@0.3.0"));
    let imports: String =
        p2.chain(p3).chain([WASI_CONFIG.to_owned()]).map(|name| import(&name)).collect();
    let ended = Setup::text(&format!(
        r#"(component {imports}
            (core module $m (func (export "run") (result i32) i32.const 1))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $exports (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exports)))"#
    ))
    .run();
    assert_eq!(
        (ended.exit().cause, ended.exit().code),
        (Cause::Exited, 1),
        "{}",
        ended.exit().message
    );
}

#[test]
fn a_component_may_exit_with_any_code() {
    let ended = Setup::text(
        r#"(component
            (import "wasi:cli/exit@0.2.12" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
            (core func $exit (canon lower (func $exit "exit-with-code")))
            (core module $m
                (import "host" "exit" (func $exit (param i32)))
                (func (export "run") (result i32) (call $exit (i32.const 42)) unreachable))
            (core instance $i (instantiate $m (with "host" (instance (export "exit" (func $exit))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $exports (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exports)))"#,
    )
    .run();
    assert_eq!(
        (ended.exit().cause, ended.exit().code),
        (Cause::Exited, 42),
        "{}",
        ended.exit().message
    );
}
