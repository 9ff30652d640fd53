//! Mounts.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use nodule_sandbox_proto::{Access, Cause, User};

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

#[test]
fn a_mount_that_is_a_file_is_seen_at_its_path() {
    for program in both() {
        let host = tempfile::tempdir().unwrap();
        let (settings, other) = (host.path().join("settings-7f3a"), host.path().join("other"));
        fs::write(&settings, "colour: blue\n").unwrap();
        fs::write(&other, "").unwrap();
        let run = |arguments: &[&str]| {
            Setup::new(program.clone(), arguments)
                .mount(&settings, "/etc/app/settings.yaml", Access::ReadOnly)
                .mount(&other, "/etc/app/state", Access::ReadWrite)
                .mount(host.path(), "/data", Access::ReadOnly)
                .run()
        };
        assert_eq!(run(&["read", "/etc/app/settings.yaml"]).text(), ["colour: blue"]);
        assert_eq!(run(&["ls", "/etc/app"]).text(), ["settings.yaml", "state"]);
        assert_eq!(run(&["ls", "/data"]).text(), ["other", "settings-7f3a"]);

        assert_eq!(run(&["write", "/etc/app/state", "7"]).exit().code, 0);
        assert_eq!(fs::read_to_string(&other).unwrap(), "7");
        for path in ["/etc/app/settings.yaml", "/etc/app/new"] {
            assert_eq!(run(&["write", path, "x"]).exit().code, 1, "{path} was written");
        }
        assert_eq!(fs::read_to_string(&settings).unwrap(), "colour: blue\n");
    }
}

#[test]
fn nothing_of_a_mounted_file_is_left_on_the_node() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("a"), "").unwrap();
    let sandbox = Setup::new(module(), &["exit", "0"])
        .mount(host.path().join("a"), "/a", Access::ReadOnly)
        .start();
    let stage = sandbox.setup.folder.path().join("files");
    let mut agent = sandbox.connect();
    agent.greet();
    agent.ended();
    assert_eq!(fs::read_dir(stage).unwrap().count(), 0);
    let own = sandbox.setup.folder.path().to_str().unwrap();
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(own));
}

#[test]
fn a_file_within_a_mounted_folder_is_refused_by_name() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("a"), "").unwrap();
    let ended = Setup::new(module(), &["show"])
        .mount(host.path(), "/data", Access::ReadOnly)
        .mount(host.path().join("a"), "/data/a", Access::ReadOnly)
        .run();
    assert_eq!(ended.exit().cause, Cause::StartFailed);
    assert!(ended.exit().message.ends_with("mounted at /data"), "{}", ended.exit().message);
}

/// A root as an image has one: with files of its own in `/etc`, and a link there that leads nowhere.
fn image() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/ssl")).unwrap();
    fs::write(root.path().join("etc/ssl/ca.pem"), "trust").unwrap();
    fs::write(root.path().join("etc/hosts"), "of the image").unwrap();
    symlink("/run/resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
    for folder in ["", "etc", "etc/ssl"] {
        fs::set_permissions(root.path().join(folder), Permissions::from_mode(0o777)).unwrap();
    }
    root
}

#[test]
fn files_that_are_mounted_into_a_root_hide_nothing_beside_them() {
    for program in both() {
        let (root, host) = (image(), tempfile::tempdir().unwrap());
        for name in ["hosts", "resolv.conf", "app.yaml"] {
            fs::write(host.path().join(name), name).unwrap();
        }
        for access in [Access::Private, Access::ReadOnly] {
            let run = |arguments: &[&str]| {
                Setup::new(program.clone(), arguments)
                    .mount(root.path(), "/", access)
                    .mount(host.path().join("hosts"), "/etc/hosts", Access::ReadOnly)
                    .mount(host.path().join("resolv.conf"), "/etc/resolv.conf", Access::ReadOnly)
                    .mount(host.path().join("app.yaml"), "/app.yaml", Access::ReadOnly)
                    .mount(host.path().join("app.yaml"), "/new/folder/app.yaml", Access::ReadOnly)
                    .run()
            };
            for (path, text) in [
                ("/etc/hosts", "hosts"),
                ("/etc/resolv.conf", "resolv.conf"),
                ("/etc/ssl/ca.pem", "trust"),
                ("/app.yaml", "app.yaml"),
                ("/new/folder/app.yaml", "app.yaml"),
            ] {
                assert_eq!(run(&["read", path]).text(), [text], "{access:?}");
            }
            assert_eq!(run(&["ls", "/etc"]).text(), ["hosts", "resolv.conf", "ssl/"]);
            assert_eq!(run(&["write", "/etc/hosts", "x"]).exit().code, 1, "{access:?}");
            let own = run(&["write", "/etc/own", "x"]).exit().code;
            assert_eq!(own, u8::from(access == Access::ReadOnly));
        }
        assert_eq!(fs::read_to_string(host.path().join("hosts")).unwrap(), "hosts");
        let unchanged = fs::read_to_string(root.path().join("etc/hosts")).unwrap();
        assert_eq!(
            (unchanged.as_str(), root.path().join("app.yaml").exists()),
            ("of the image", false)
        );
    }
}

#[test]
fn a_file_to_be_written_is_so_beside_a_root_that_is_only_read() {
    let (root, host) = (image(), tempfile::tempdir().unwrap());
    let state = host.path().join("state");
    fs::write(&state, "").unwrap();
    for access in [Access::Private, Access::ReadOnly] {
        let ended = Setup::new(module(), &["write", "/var/state", "7"])
            .mount(root.path(), "/", access)
            .mount(&state, "/var/state", Access::ReadWrite)
            .run();
        assert_eq!(ended.exit().code, 0, "{access:?}");
        assert_eq!(fs::read_to_string(&state).unwrap(), "7");
        fs::write(&state, "").unwrap();
    }
}

#[test]
fn a_part_of_a_volume_is_all_that_is_seen_of_it() {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir_all(host.path().join("deep/part")).unwrap();
    fs::write(host.path().join("deep/part/inner"), "in").unwrap();
    fs::write(host.path().join("settings"), "blue").unwrap();
    symlink("deep/part", host.path().join("link")).unwrap();
    let run = |arguments: &[&str]| {
        Setup::new(module(), arguments)
            .part(host.path(), "deep/part", "/data")
            .part(host.path(), "link", "/linked")
            .part(host.path(), "settings", "/etc/app.yaml")
            .run()
    };
    assert_eq!(run(&["ls", "/data"]).text(), ["inner"]);
    assert_eq!(run(&["read", "/linked/inner"]).text(), ["in"]);
    assert_eq!(run(&["read", "/etc/app.yaml"]).text(), ["blue"]);
    assert_eq!(run(&["read", "/data/../settings"]).exit().code, 1);
    assert_eq!(run(&["write", "/data/new", "x"]).exit().code, 0);
    assert!(host.path().join("deep/part/new").exists());
}

#[test]
fn a_link_in_a_volume_leads_no_sub_path_out_of_it() {
    let host = tempfile::tempdir().unwrap();
    let volume = host.path().join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::create_dir(host.path().join("other")).unwrap();
    fs::write(host.path().join("other/secret"), "no").unwrap();
    symlink("../other", volume.join("relative")).unwrap();
    symlink(host.path().join("other"), volume.join("absolute")).unwrap();
    symlink("/proc/self/root", volume.join("magic")).unwrap();
    for sub_path in ["relative", "absolute", "relative/secret", "magic", "../other", "/etc"] {
        let ended = Setup::new(module(), &["ls", "/data"]).part(&volume, sub_path, "/data").run();
        assert_eq!(ended.exit().cause, Cause::StartFailed, "{sub_path}");
    }
}

#[test]
fn a_private_mount_is_changed_for_one_container_alone() {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("sub")).unwrap();
    fs::write(host.path().join("sub/a"), "old\n").unwrap();
    for (path, mode) in [("", 0o755), ("sub", 0o777), ("sub/a", 0o666)] {
        fs::set_permissions(host.path().join(path), Permissions::from_mode(mode)).unwrap();
    }
    let root = rustix::process::geteuid().is_root();
    for program in both() {
        let run = |arguments: &[&str]| {
            let mut setup = Setup::new(program.clone(), arguments);
            setup.container.user = root.then(|| User { uid: 4242, gid: 4243, groups: vec![] });
            setup.mount(host.path(), "/", Access::Private).run()
        };
        assert_eq!(run(&["read", "/sub/a"]).text(), ["old"]);
        for path in ["/sub/a", "/sub/b", "/c"] {
            let ended = run(&["write", path, "new"]);
            assert_eq!(ended.exit().code, 0, "{path}: {:?}", ended.text());
        }
        assert_eq!(run(&["read", "/sub/a"]).text(), ["old"]);
        assert_eq!(run(&["ls", "/"]).text(), ["sub/"]);
    }
    assert_eq!(fs::read_to_string(host.path().join("sub/a")).unwrap(), "old\n");
    assert_eq!(fs::read_dir(host.path().join("sub")).unwrap().count(), 1);
}
