//! Time, memory and output.

use std::hint::black_box;
use std::io::Write;
use std::thread::sleep as pause;
use std::time::Duration;

use crate::Failure;

/// Numbered lines, each as soon as it is its time.
pub fn lines(count: u64, period: u64) -> Result<(), Failure> {
    let last = if count == 0 { u64::MAX } else { count };
    for number in 1..=last {
        println!("line {number}");
        if number < last {
            pause(Duration::from_millis(period));
        }
    }
    Ok(())
}

pub fn sleep(seconds: u64) -> Result<(), Failure> {
    pause(Duration::from_secs(seconds));
    Ok(())
}

pub fn spin() -> Result<(), Failure> {
    println!("spinning");
    loop {
        black_box(());
    }
}

/// Takes memory a MiB at a time. Where it is refused, Rust's runtime aborts, as most programs do.
pub fn alloc(mib: usize) -> Result<(), Failure> {
    const MIB: usize = 1 << 20;
    let taken: Vec<Vec<u8>> = (1..=mib).map(|number| vec![number as u8; MIB]).collect();
    println!("allocated {} MiB", black_box(&taken).len());
    loop {
        pause(Duration::from_secs(3600));
    }
}

/// Exactly so many bytes, in lines that are numbered and as long as each other; the last may be cut.
pub fn flood(bytes: usize) -> Result<(), Failure> {
    const LINE: usize = 64;
    let mut out = std::io::stdout().lock();
    for (number, from) in (0..bytes).step_by(LINE).enumerate() {
        let line = format!("{number:0width$}\n", width = LINE - 1);
        out.write_all(&line.as_bytes()[..LINE.min(bytes - from)])
            .map_err(|error| format!("flood: {error}"))?;
    }
    out.flush().map_err(|error| format!("flood: {error}"))
}
