//! The state folder as both sides use it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should panic"
)]

use std::fs;
use std::path::PathBuf;

use nodule_sandbox_proto::{
    Access, CONTAINER, Cause, Container, EXIT, Exit, Kind, Limits, Log, Mount, Program, Started,
    State, StateError, Stdin, VERSION,
};

fn container() -> Container {
    Container {
        version: VERSION,
        id: "ab".repeat(32),
        program: Program {
            cwasm: PathBuf::from("/var/lib/nodule/images/aot/x"),
            kind: Kind::Module,
        },
        args: vec!["hello".into(), "--loud".into()],
        env: vec![("A".into(), "1".into()), ("A".into(), "2".into())],
        mounts: vec![Mount {
            host: "/srv".into(),
            guest: "/data".into(),
            access: Access::ReadOnly,
        }],
        stdin: Stdin::Held,
        limits: Limits { memory: Some(64 << 20) },
        log: Log { path: "/var/log/pods/x/0.log".into(), max_size: 10 << 20, max_files: 5 },
    }
}

#[test]
fn what_one_side_writes_the_other_reads() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::new(folder.path());
    assert_eq!(state.started().unwrap(), None);
    assert_eq!(state.exit().unwrap(), None);

    let started = Started::here(5).unwrap();
    let exit = Exit::new(Cause::Trapped, "unreachable", Some(5), 6);
    state.write_container(&container()).unwrap();
    state.write_started(&started).unwrap();
    state.write_exit(&exit).unwrap();

    assert_eq!(state.container().unwrap(), container());
    assert_eq!(state.started().unwrap(), Some(started));
    assert_eq!(state.exit().unwrap(), Some(exit));
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "temporary files are left: {left:?}");
}

#[test]
fn a_missing_container_file_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = State::new(folder.path()).container().unwrap_err();
    assert!(matches!(error, StateError::Read { .. }));
    assert!(error.to_string().ends_with(CONTAINER), "{error}");
}

#[test]
fn another_version_is_told_even_when_its_fields_are_unknown() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CONTAINER), br#"{"version": 99, "wings": 2}"#).unwrap();
    let error = State::new(folder.path()).container().unwrap_err();
    assert!(matches!(error, StateError::Version { found: 99, .. }));
    assert!(error.to_string().contains("version 99"), "{error}");
}

#[test]
fn a_field_that_this_version_does_not_know_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut value = serde_json::to_value(container()).unwrap();
    value.as_object_mut().unwrap().insert("wings".into(), 2.into());
    fs::write(folder.path().join(CONTAINER), value.to_string()).unwrap();
    let error = State::new(folder.path()).container().unwrap_err();
    assert!(matches!(error, StateError::Parse { .. }));
}

#[test]
fn a_torn_exit_file_is_an_error_and_not_an_exit() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(EXIT), br#"{"cause": "Exited", "code""#).unwrap();
    assert!(matches!(State::new(folder.path()).exit(), Err(StateError::Parse { .. })));
}
