//! Files and standard input.

use std::thread::sleep as pause;
use std::time::Duration;
use std::{fs, io};

use crate::Failure;

pub fn cat() -> Result<(), Failure> {
    io::copy(&mut io::stdin().lock(), &mut io::stdout().lock())
        .map_err(|error| format!("cat: {error}"))?;
    Ok(())
}

pub fn read(path: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
    print!("{text}");
    Ok(())
}

pub fn follow(path: &str) -> Result<(), Failure> {
    let mut known = None;
    loop {
        let text = fs::read_to_string(path).map_err(|error| format!("follow {path}: {error}"))?;
        if known.as_ref() != Some(&text) {
            print!("{text}");
            known = Some(text);
        }
        pause(Duration::from_millis(50));
    }
}

pub fn write(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("write {path}: {error}"))
}

/// Names, one a line, sorted; folders with a slash.
pub fn ls(path: &str) -> Result<(), Failure> {
    let failure = |error: io::Error| format!("ls {path}: {error}");
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let slash = if entry.file_type().map_err(failure)?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().display()));
    }
    names.sort();
    names.iter().for_each(|name| println!("{name}"));
    Ok(())
}
