//! Mounts.

use std::fs;

use nodule_sandbox_proto::{Access, Cause};

use crate::guests::{both, module};
use crate::setup::Setup;

#[test]
fn a_mount_is_seen_at_its_path_and_can_be_written() {
    for program in both() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("a"), "old\n").unwrap();
        let data = |arguments: &[&str]| {
            Setup::new(program.clone(), arguments)
                .mount(host.path(), "/var/data", Access::ReadWrite)
                .run()
        };
        assert_eq!(data(&["read", "/var/data/a"]).text(), ["old"]);
        assert_eq!(data(&["write", "/var/data/b", "new"]).exit().code, 0);
        assert_eq!(fs::read_to_string(host.path().join("b")).unwrap(), "new");
        assert_eq!(data(&["ls", "/var/data"]).text(), ["a", "b"]);
    }
}

#[test]
fn a_read_only_mount_cannot_be_changed() {
    for program in both() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("a"), "old\n").unwrap();
        let data = |arguments: &[&str]| {
            Setup::new(program.clone(), arguments)
                .mount(host.path(), "/data", Access::ReadOnly)
                .run()
        };
        assert_eq!(data(&["read", "/data/a"]).text(), ["old"]);
        for path in ["/data/a", "/data/b"] {
            let ended = data(&["write", path, "new"]);
            assert_eq!(ended.exit().code, 1);
            assert_eq!(ended.log[0].stream, "stderr");
        }
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(host.path().join("a")).unwrap(), "old\n");
    }
}

#[test]
fn a_guest_does_not_leave_its_mounts() {
    for program in both() {
        let host = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", host.path().join("out")).unwrap();
        for path in ["/data/../etc/passwd", "/data/out", "/etc/passwd"] {
            let ended = Setup::new(program.clone(), &["read", path])
                .mount(host.path(), "/data", Access::ReadWrite)
                .run();
            assert_eq!(ended.exit().code, 1, "{path} was read");
        }
    }
}

#[test]
fn a_missing_mount_is_named() {
    let ended =
        Setup::new(module(), &["show"]).mount("/nowhere/at/all", "/data", Access::ReadOnly).run();
    let exit = ended.exit();
    assert_eq!((exit.cause, exit.code), (Cause::StartFailed, 128));
    assert_eq!(
        exit.message,
        "mount /nowhere/at/all at /data: No such file or directory (os error 2)"
    );
    assert_eq!((exit.started_at, ended.started), (None, None));
    assert!(ended.diagnostics.contains("/nowhere/at/all"), "{}", ended.diagnostics);
}
