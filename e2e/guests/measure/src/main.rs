//! Work that times itself: the same source runs as a guest and as a program of the machine.
//!
//! `measure loop`, `measure memory`, `measure read FILE`, `measure write FILE`: one line, the nanoseconds that it took.
//! Starting is not in them. A file must be there, of 16 MiB.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a file is read and written by.
const BLOCK: usize = 4096;
/// How many of them: 16 MiB, which stay in the page cache.
const BLOCKS: u64 = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let took = match *arguments.as_slice() {
        ["loop"] => Ok(compute()),
        ["memory"] => Ok(memory()),
        ["read", path] => read(path),
        ["write", path] => write(path),
        _ => {
            eprintln!("measure loop | memory | read FILE | write FILE");
            return ExitCode::from(2);
        }
    };
    match took {
        Ok(took) => {
            println!("{}", took.as_nanos());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Integers in registers, and branches that follow them: how often 3n + 1 goes on, for many n.
fn compute() -> Duration {
    let begin = Instant::now();
    let steps: u64 = (1..=300_000_u64).map(|n| collatz(black_box(n))).sum();
    black_box(steps);
    begin.elapsed()
}

fn collatz(mut n: u64) -> u64 {
    let mut steps = 0;
    while n != 1 {
        n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

/// Words of 8 MiB, here and there and one after another.
fn memory() -> Duration {
    const WORDS: usize = 1 << 21;
    let mut words = vec![1_u32; WORDS];
    let mut random = 0x9e37_79b9_u32;
    let begin = Instant::now();
    for _ in 0..8 {
        for _ in 0..WORDS {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let word = &mut words[random as usize % WORDS];
            *word = word.wrapping_add(random);
        }
        let sum = words.iter().fold(0_u32, |sum, word| sum.rotate_left(1) ^ word);
        random ^= black_box(sum) | 1;
        random |= 1;
    }
    begin.elapsed()
}

/// Reads every block, in an order that is none.
fn read(path: &str) -> Result<Duration> {
    let mut file = File::open(path)?;
    each_block(|number, block| {
        file.seek(SeekFrom::Start(number * BLOCK as u64))?;
        file.read_exact(block)
    })
}

/// Writes every block, in an order that is none.
fn write(path: &str) -> Result<Duration> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    each_block(|number, block| {
        file.seek(SeekFrom::Start(number * BLOCK as u64))?;
        file.write_all(block)
    })
}

fn each_block(mut visit: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Duration> {
    let mut block = [7; BLOCK];
    let begin = Instant::now();
    for count in 0..BLOCKS {
        // An odd factor visits every one of a power of two once.
        visit(count * 1597 % BLOCKS, &mut block)?;
    }
    Ok(begin.elapsed())
}
