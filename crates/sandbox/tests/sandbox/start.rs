//! What keeps a guest from starting.

use std::fs;
use std::process::{Command, Stdio};

use nodule_sandbox_proto::{CONTAINER, Cause, Kind, Report, Request, VERSION};

use crate::guests::module;
use crate::setup::{Agent, Ended, Setup};

fn assert_not_started(ended: &Ended, words: &str) {
    let exit = ended.exit();
    assert_eq!((exit.cause, exit.code, exit.started_at), (Cause::StartFailed, 128, None));
    assert!(exit.message.contains(words), "{}", exit.message);
    assert_eq!(ended.started, None);
    assert!(ended.diagnostics.contains(&exit.message), "{}", ended.diagnostics);
}

#[test]
fn a_corrupted_container_file_is_named() {
    let setup = Setup::new(module(), &[]);
    fs::write(setup.folder.path().join(CONTAINER), "{\"version\": 1, ").unwrap();
    assert_not_started(&setup.start_as_it_is().wait(), CONTAINER);
}

#[test]
fn a_missing_container_file_is_named() {
    assert_not_started(&Setup::new(module(), &[]).start_as_it_is().wait(), "No such file");
}

#[test]
fn another_version_is_refused_by_name() {
    let mut setup = Setup::new(module(), &["exit", "0"]);
    setup.container.version = VERSION + 1;
    assert_not_started(
        &setup.start().wait(),
        &format!("version {}, this program knows version {VERSION}", VERSION + 1),
    );
}

#[test]
fn compiled_code_that_is_damaged_missing_or_of_another_kind_is_refused() {
    let mut setup = Setup::new(module(), &[]);
    setup.container.program.cwasm = setup.folder.path().join("gone.cwasm");
    assert_not_started(&setup.run(), "gone.cwasm");

    let mut setup = Setup::new(module(), &[]);
    let damaged = setup.folder.path().join("damaged.cwasm");
    fs::write(&damaged, b"\x7fELF and then nothing").unwrap();
    setup.container.program.cwasm = damaged;
    assert_not_started(&setup.run(), "damaged.cwasm");

    let mut setup = Setup::new(module(), &[]);
    setup.container.program.kind = Kind::Component;
    assert_not_started(&setup.run(), "probe.p1.cwasm");
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let mut setup = Setup::new(module(), &[]);
    let file = setup.folder.path().join("file");
    fs::write(&file, "").unwrap();
    setup.container.log.path = file.join("0.log");
    assert_not_started(&setup.run(), "/file");
}

#[test]
fn an_agent_hears_why_nothing_started() {
    // It connects before the sandbox is there: the socket is the agent's own.
    let setup = Setup::new(module(), &[]);
    fs::write(setup.folder.path().join(CONTAINER), "").unwrap();
    setup.state().create(None).unwrap();
    let stdin = setup.bind();
    let mut agent = Agent::connect(&setup);
    agent.say(&Request::Hello { version: VERSION });
    let mut child = Command::new(env!("CARGO_BIN_EXE_nodule-sandbox"))
        .args(["run", "--state"])
        .arg(setup.folder.path())
        .stdin(stdin)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(agent.hear(), Some(Report::Hello { version: VERSION, id: String::new() }));
    assert_eq!(agent.ended(), setup.state().exit().unwrap().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(128));
}

#[test]
fn without_a_socket_nothing_starts() {
    let setup = Setup::new(module(), &["exit", "0"]);
    setup.write();
    let output = Command::new(env!("CARGO_BIN_EXE_nodule-sandbox"))
        .args(["run", "--state"])
        .arg(setup.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(128));
    assert!(setup.state().exit().unwrap().unwrap().message.contains("descriptor 0"));
}

#[test]
fn a_wrong_usage_is_answered_with_the_right_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_nodule-sandbox")).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run --state DIR"));
}
