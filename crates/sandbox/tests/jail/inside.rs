//! The probes.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_long};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nodule_sandbox::jail::{Held, Jail, Sockets, Stage};
use nodule_sandbox_proto::{
    Access, Container, Kind, Limits, Log, Mount, Net, Program, Stdin, User,
};

/// The environment variable that says how far the process goes before it tries.
pub(crate) const STAGE: &str = "NODULE_JAIL_STAGE";
/// What lies between a probe's name and what it found.
pub(crate) const SEPARATOR: &str = " => ";

#[test]
#[ignore = "a probe: the other tests run it in a process of its own"]
fn inside() {
    let Ok(stage) = std::env::var(STAGE) else { return };
    match stage.as_str() {
        "half-a-namespace" => return half_a_namespace(),
        "abort" => return abort(),
        _ => {}
    }
    let world = World::new();
    let user = rustix::process::geteuid().is_root();
    let user = user.then(|| User { uid: 4242, gid: 4243, groups: vec![4244] });
    let sockets = match stage.as_str() {
        "sealed-with-sockets" => Sockets::Internet,
        _ => Sockets::None,
    };
    let mut jail = Jail::enter(&world.container()).unwrap();
    let mut missing = Vec::new();
    if stage != "free" {
        let held = Held { mounts: &world.stage.mounts, folders: &[&world.own] };
        jail.confine(&world.stage, &held, user.as_ref(), sockets).unwrap();
    }
    if stage.starts_with("sealed") {
        missing = jail.seal(sockets).unwrap();
    }
    // The test harness has begun a line.
    println!();
    world.tell();
    tell("missing", format!("{missing:?}"));
}

/// A user who may have a namespace, but not finish it: without /proc nobody can say who is who in there.
fn half_a_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    fs::create_dir(&own).unwrap();
    for path in [folder.path(), &own] {
        std::os::unix::fs::chown(path, Some(4242), Some(4242)).unwrap();
    }
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null::<libc::c_void>();
        assert_eq!(libc::mount(none.cast(), c"/".as_ptr(), none.cast(), private, none), 0);
        assert_eq!(libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH), 0);
        // For this thread alone, as the jail does.
        assert_eq!(libc::syscall(libc::SYS_setresuid, 4242, 4242, 4242), 0);
    }
    let mut jail = Jail::default();
    let stage = jail.stage(&[], &[&own], folder.path()).unwrap();
    println!();
    tell("own", stage.own[0] == own);
    tell("user", unsafe { libc::geteuid() });
    tell("write-to-own", File::create(own.join("file")).is_ok());
    // For the folder to go.
    drop(folder);
}

/// As musl does it.
fn abort() {
    let world = World::new();
    let mut jail = Jail::default();
    let held = Held { mounts: &world.stage.mounts, folders: &[&world.own] };
    jail.confine(&world.stage, &held, None, Sockets::None).unwrap();
    jail.seal(Sockets::None).unwrap();
    unsafe { libc::syscall(libc::SYS_tkill, libc::getpid(), libc::SIGABRT) };
}

/// What a process holds that is about to be confined, and a descriptor that it should not.
struct World {
    folder: tempfile::TempDir,
    stage: Stage,
    held: OwnedFd,
    read_only: OwnedFd,
    /// As the folder of the log.
    own: OwnedFd,
    leak: OwnedFd,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        let mounts = ["held", "read-only"].map(|name| {
            let host = folder.path().join(name);
            fs::create_dir(&host).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(&host, mode).unwrap();
            let access = if name == "held" { Access::ReadWrite } else { Access::ReadOnly };
            Mount { host, sub_path: None, guest: format!("/{name}"), access }
        });
        let free = std::env::var(STAGE).is_ok_and(|stage| stage == "free");
        let path = folder.path().join("own");
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(4242), Some(4243)).unwrap_or_default();
        let stage = if free {
            Stage::bare(mounts.to_vec(), &[&path])
        } else {
            Jail::default().stage(&mounts, &[&path], folder.path()).unwrap()
        };
        let (held, read_only) = (open(&stage.mounts[0].host), open(&stage.mounts[1].host));
        let own = open(&stage.own[0]);
        Self { stage, held, read_only, own, leak: open(Path::new("/")), folder }
    }

    fn container(&self) -> Container {
        Container {
            version: nodule_sandbox_proto::VERSION,
            id: String::new(),
            program: Program { cwasm: self.folder.path().to_owned(), kind: Kind::Module },
            args: Vec::new(),
            env: Vec::new(),
            mounts: Vec::new(),
            stdin: Stdin::Empty,
            limits: Limits::default(),
            log: Log { path: self.folder.path().join("0.log"), max_size: 1, max_files: 2 },
            user: None,
            cgroup: None,
            oom_score_adj: None,
            nice: None,
            net: Net::default(),
            config: BTreeMap::new(),
            http: None,
            roots: Vec::new(),
        }
    }

    fn tell(&self) {
        files(self);
        identity();
        calls();
    }
}

fn tell(name: &str, found: impl std::fmt::Display) {
    println!("{name}{SEPARATOR}{found}");
}

/// Tells what a system call gave.
fn tried(name: &str, result: c_long) {
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or_default();
    if result < 0 { tell(name, error) } else { tell(name, "ok") }
}

fn open_at(folder: i32, path: &CStr, flags: i32) -> c_long {
    unsafe { libc::openat(folder, path.as_ptr(), flags, 0o600).into() }
}

fn files(world: &World) {
    let create = libc::O_CREAT | libc::O_WRONLY;
    tried("open", open_at(libc::AT_FDCWD, c"/etc/passwd", libc::O_RDONLY));
    tried("open-below-a-leak", open_at(world.leak.as_raw_fd(), c"etc/passwd", libc::O_RDONLY));
    tried("write-to-held", open_at(world.held.as_raw_fd(), c"new", create));
    let link = unsafe {
        libc::symlinkat(c"/etc/shadow".as_ptr(), world.own.as_raw_fd(), c"0.log".as_ptr())
    };
    tried("link-in-own", link.into());
    // Landlock has nothing to say of who only looks.
    let above = c"../own/../read-only";
    tried("look-above-own", unsafe {
        let mut found = std::mem::zeroed();
        libc::fstatat(world.own.as_raw_fd(), above.as_ptr(), &raw mut found, 0).into()
    });
    tried("write-to-own", open_at(world.own.as_raw_fd(), c"file", create));
    tried("write-to-read-only", open_at(world.read_only.as_raw_fd(), c"new", create));
}

fn identity() {
    let mut groups = [0; 8];
    let count = unsafe { libc::getgroups(8, groups.as_mut_ptr()) };
    let groups = &groups[..usize::try_from(count).unwrap_or(0)];
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    tell("user", format!("{uid} {gid} {groups:?}"));
    let all = rustix::thread::capabilities(None)
        .map(|sets| (sets.effective | sets.permitted | sets.inheritable).bits());
    tell("capabilities", all.map_or_else(|error| error.to_string(), |bits| bits.to_string()));
    let prctl = |option| unsafe { libc::prctl(option, 0, 0, 0, 0) };
    tell("no-new-privileges", prctl(libc::PR_GET_NO_NEW_PRIVS));
    tell("dumpable", prctl(libc::PR_GET_DUMPABLE));
    let mut core = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut core) };
    tell("core", core.rlim_max);
}

fn calls() {
    let code = libc::PROT_READ | libc::PROT_EXEC;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = map(libc::PROT_READ, anonymous);
    let (parent, socket) = unsafe { (libc::getppid(), libc::socket) };
    unsafe {
        tried("mmap", page);
        tried("mmap-code", map(code, anonymous));
        tried("mmap-shared", map(libc::PROT_READ, libc::MAP_SHARED | libc::MAP_ANONYMOUS));
        tried("mprotect-code", libc::mprotect(page as *mut _, 4096, code).into());
        tried("socket-unix", socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).into());
        tried("socket-netlink", socket(libc::AF_NETLINK, libc::SOCK_RAW, 0).into());
        let internet = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        tried("socket-internet", internet.into());
        tried("socket-sctp", socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP).into());
        tried("connect", libc::connect(0, std::ptr::null(), 0).into());
        tried("kill-parent", libc::kill(parent, 0).into());
        tried("signal-by-descriptor", libc::fcntl(0, libc::F_SETOWN, parent).into());
        tried("ptrace-parent", libc::ptrace(libc::PTRACE_SEIZE, parent, 0, 0));
        tried("unshare", libc::unshare(libc::CLONE_NEWUSER).into());
        tried("io-uring", libc::syscall(libc::SYS_io_uring_setup, 1, 0));
        tried("bpf", libc::syscall(libc::SYS_bpf, 0, 0, 0));
        tried("memfd", libc::memfd_create(c"x".as_ptr(), 0).into());
        tried("open-by-handle", libc::syscall(libc::SYS_open_by_handle_at, 0, 0, 0));
        // Allowed, and nothing that a standard input would answer.
        tried("ioctl-pagemap", libc::ioctl(0, 0xc060_6610, std::ptr::null::<u8>()).into());
        tried("ioctl-tty", libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()).into());
        let program = [c"/bin/true".as_ptr(), std::ptr::null()];
        tried("exec", exec(&program));
        tried("fork", fork());
        tried("mount", mount());
        tried("setuid", libc::syscall(libc::SYS_setresuid, 0, 0, 0));
    }
    let thread = std::thread::Builder::new().spawn(|| ()).map(std::thread::JoinHandle::join);
    tell("thread", if thread.is_ok() { "ok" } else { "none" });
}

fn map(protection: i32, flags: i32) -> c_long {
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) as c_long }
}

/// Only where it cannot succeed: it would end the probes.
unsafe fn exec(program: &[*const libc::c_char; 2]) -> c_long {
    if std::env::var(STAGE).is_ok_and(|stage| stage.starts_with("sealed")) {
        unsafe { libc::execv(program[0], program.as_ptr()).into() }
    } else {
        0
    }
}

unsafe fn fork() -> c_long {
    match unsafe { libc::fork() } {
        0 => unsafe { libc::_exit(0) },
        pid => {
            let result = pid.into();
            let error = std::io::Error::last_os_error();
            if pid > 0 {
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
            unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or_default() };
            result
        }
    }
}

/// On a folder of this process's own.
unsafe fn mount() -> c_long {
    let target = std::env::temp_dir();
    if !target.exists() {
        // The host's root is gone; any folder will do to be refused.
        return unsafe { try_mount(c"/") };
    }
    unsafe { libc::unshare(libc::CLONE_NEWNS) };
    unsafe { try_mount(c"/tmp") }
}

unsafe fn try_mount(target: &CStr) -> c_long {
    let kind = c"tmpfs".as_ptr();
    unsafe { libc::mount(kind, target.as_ptr(), kind, libc::MS_NOSUID, std::ptr::null()).into() }
}
