//! What the guest sees of its world.

use std::env;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::Failure;

/// One thing a line, each with what it is in front.
pub fn show() -> Result<(), Failure> {
    env::args().for_each(|argument| println!("arg {argument}"));
    env::vars().for_each(|(name, value)| println!("env {name}={value}"));
    println!("cwd {}", env::current_dir().map_err(|error| format!("cwd: {error}"))?.display());
    preopens().iter().for_each(|path| println!("preopen {path}"));
    Ok(())
}

#[cfg(target_env = "p2")]
fn preopens() -> Vec<String> {
    wasip2::filesystem::preopens::get_directories().into_iter().map(|(_, path)| path).collect()
}

#[cfg(target_env = "p1")]
fn preopens() -> Vec<String> {
    /// `prestat` of `wasi_snapshot_preview1`: a tag, which is 0 for a folder, and the length of its name.
    #[repr(C)]
    #[derive(Default)]
    struct Prestat {
        tag: u32,
        length: usize,
    }
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn fd_prestat_get(fd: u32, prestat: *mut Prestat) -> u16;
        fn fd_prestat_dir_name(fd: u32, path: *mut u8, length: usize) -> u16;
    }
    let name = |fd| {
        let mut prestat = Prestat::default();
        // SAFETY: the host writes a `prestat` there.
        let found = unsafe { fd_prestat_get(fd, &raw mut prestat) } == 0;
        let mut path = vec![0; prestat.length];
        // SAFETY: the host writes as many bytes as it said there are.
        let named = found && unsafe { fd_prestat_dir_name(fd, path.as_mut_ptr(), path.len()) } == 0;
        named.then(|| String::from_utf8_lossy(&path).into_owned())
    };
    // They follow the three standard streams, and the first that is none of them ends them.
    (3..).map_while(name).collect()
}

pub fn random(count: usize) -> Result<(), Failure> {
    unsafe extern "C" {
        fn getentropy(bytes: *mut u8, length: usize) -> i32;
    }
    let mut bytes = vec![0; count];
    // POSIX has at most 256 bytes a call.
    for chunk in bytes.chunks_mut(256) {
        // SAFETY: the chunk is as long as it says.
        if unsafe { getentropy(chunk.as_mut_ptr(), chunk.len()) } != 0 {
            return Err(format!("random: {}", std::io::Error::last_os_error()));
        }
    }
    println!("{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    Ok(())
}

pub fn clock() -> Result<(), Failure> {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| format!("clock: {error}"))?;
    let start = Instant::now();
    while start.elapsed().is_zero() {}
    println!("now {}\nthe monotonic clock runs", now.as_millis());
    Ok(())
}
