use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::Timestamp;

/// The files that `path` was renamed to when it was full, oldest first.
pub(crate) fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = prefix(path);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let name = entry?.file_name();
        if is_rotated(&name, &prefix) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| path.with_file_name(name)).collect())
}

/// A name for the full file that sorts after all that are there, even when the clock was set back. The
/// kubelet's pattern `<name>.<date>-<time>`, made finer: a container may fill several files in a second.
pub(crate) fn next(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let name = |stamp: String| {
        let mut name = prefix(path);
        name.push(stamp);
        path.with_file_name(name)
    };
    let next = name(now.strftime("%Y%m%d-%H%M%S.%9f").to_string());
    Ok(match list(path)?.pop() {
        Some(mut newest) if newest >= next => {
            newest.as_mut_os_string().push("1");
            newest
        }
        Some(_) | None => next,
    })
}

/// The folder that a log lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn prefix(path: &Path) -> OsString {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    prefix
}

fn is_rotated(name: &OsString, prefix: &OsString) -> bool {
    let stamp = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    stamp.and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_age_even_when_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut made = Vec::new();
        for second in [10, 11, 11, 5, 12] {
            let name = next(&path, Timestamp::from_second(second).unwrap()).unwrap();
            fs::write(&name, "").unwrap();
            made.push(name);
        }
        fs::write(folder.path().join("0.log.tmp"), "").unwrap();
        fs::write(folder.path().join("10.log.19700101-000000"), "").unwrap();

        assert_eq!(list(&path).unwrap(), made);
        assert!(made.first().unwrap().ends_with("0.log.19700101-000010.000000000"), "{made:?}");
    }
}
