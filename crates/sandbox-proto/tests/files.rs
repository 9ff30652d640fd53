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
    Access, CONTAINER, Cause, Container, EXIT, Exit, Fate, Host, Http, Kind, Limits, Log, Mount,
    Names, Net, OUT, Out, Process, Program, Roots, SPOKEN, Started, State, StateError, Stdin, User,
    VERSION,
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
            sub_path: None,
            host: "/srv".into(),
            guest: "/data".into(),
            access: Access::ReadOnly,
        }],
        stdin: Stdin::Held,
        limits: Limits { memory: Some(64 << 20) },
        log: Log { path: "/var/log/pods/x/0.log".into(), max_size: 10 << 20, max_files: 5 },
        user: Some(User { uid: 7, gid: 8, groups: vec![9] }),
        cgroup: Some("/sys/fs/cgroup/kubepods/pod1/2".into()),
        oom_score_adj: Some(1000),
        nice: Some(5),
        net: Net {
            deny: vec!["169.254.169.254/32".parse().unwrap(), "fd00::/8:80-90".parse().unwrap()],
            names: Names {
                hosts: vec![Host { address: [10, 0, 0, 1].into(), names: vec!["db".into()] }],
                servers: vec!["[::1]:53".parse().unwrap()],
                search: vec!["cluster.local".into()],
                ndots: 5,
                timeout: 1,
                attempts: 3,
                rotate: true,
            },
        },
        config: [("greeting".into(), "hello".into())].into(),
        http: Some(Http::new(([127, 0, 0, 1], 8080).into())),
        roots: vec![Roots::Pem("pem".into()), Roots::File("/ca.pem".into())],
    }
}

fn made() -> (tempfile::TempDir, State) {
    let folder = tempfile::tempdir().unwrap();
    let state = State::new(folder.path());
    state.create(None).unwrap();
    (folder, state)
}

#[test]
fn what_one_side_writes_the_other_reads() {
    let (folder, state) = made();
    assert_eq!(state.started().unwrap(), None);
    assert_eq!(state.exit().unwrap(), None);
    assert!(!state.has_container());

    let started = Started { at: 5, missing: vec!["landlock".into()], served: None };
    let exit = Exit::new(Cause::Trapped, "unreachable", Some(5), 6);
    let here = Process::here().unwrap();
    let out = Out::open(&state).unwrap();
    state.write_container(&container()).unwrap();
    state.write_process(&here).unwrap();
    state.write_fate(Fate::Signal(9)).unwrap();
    out.write_started(&started).unwrap();
    out.write_exit(&exit).unwrap();

    assert!(state.has_container());
    assert_eq!(state.container().unwrap(), container());
    assert_eq!(state.process().unwrap(), Some(here));
    assert_eq!(state.fate().unwrap(), Some(Fate::Signal(9)));
    assert_eq!(state.started().unwrap(), Some(started));
    assert_eq!(state.exit().unwrap(), Some(exit));
    let names = |path| fs::read_dir(path).unwrap().count();
    assert_eq!((names(folder.path().to_owned()), names(folder.path().join(OUT))), (4, 2));
}

#[test]
fn the_agents_word_on_an_exit_counts_more_than_the_sandboxs() {
    let (_folder, state) = made();
    Out::open(&state).unwrap().write_exit(&Exit::exited(0, 1, 2)).unwrap();
    let killed = Exit::new(Cause::Killed, "by the agent", Some(1), 2);
    state.write_exit(&killed).unwrap();
    assert_eq!(state.exit().unwrap(), Some(killed));
}

#[test]
fn what_a_guest_may_put_in_its_folder_is_not_followed() {
    let (folder, state) = made();
    let path = folder.path().join(OUT).join(EXIT);
    let elsewhere = folder.path().join("secret");
    fs::write(&elsewhere, serde_json::to_vec(&Exit::exited(0, 1, 2)).unwrap()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(matches!(state.exit(), Err(StateError::Read { .. })));
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(matches!(state.exit(), Err(StateError::Read { .. })));
    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(state.exit(), Err(StateError::Read { .. })));
    // The temporary name is taken by a link: nothing is written through it.
    fs::remove_file(&path).unwrap();
    let kept = fs::read(&elsewhere).unwrap();
    let temporary = folder.path().join(OUT).join(format!(".{EXIT}.new"));
    std::os::unix::fs::symlink(&elsewhere, temporary).unwrap();
    Out::open(&state).unwrap().write_exit(&Exit::exited(3, 1, 2)).unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), kept);
    assert_eq!(state.exit().unwrap().unwrap().code, 3);
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

#[test]
fn what_a_guest_of_the_last_release_or_the_next_sees_is_known_though_it_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::new(folder.path());
    let written = |version: u32| {
        let mut value = serde_json::to_value(container()).unwrap();
        value["version"] = version.into();
        value["wings"] = 2.into();
        fs::write(folder.path().join(CONTAINER), value.to_string()).unwrap();
    };
    for version in SPOKEN.filter(|version| *version != VERSION) {
        written(version);
        assert!(matches!(state.container().unwrap_err(), StateError::Version { .. }), "{version}");
        assert_eq!(state.mounts().unwrap(), container().mounts, "{version}");
    }
    for version in [SPOKEN.start() - 1, SPOKEN.end() + 1] {
        written(version);
        assert!(matches!(state.mounts().unwrap_err(), StateError::Version { .. }), "{version}");
    }
}
