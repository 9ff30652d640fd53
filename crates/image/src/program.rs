//! Which of an image's files is the program that a container runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use crate::Inner;
use crate::digest::{Digest, Hasher};
use crate::image::Image;
use crate::store::StoreError;
use crate::tree::Root;
use crate::wasm::{self, Kind};

/// Where a name without a `/` is sought if the image has no `PATH` (runc's own default).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Wasm binary that is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The Wasm binary. It is never changed.
    pub wasm: PathBuf,
    /// `sha256:…` of the Wasm binary.
    pub digest: String,
    /// What it is.
    pub kind: Kind,
    pub(crate) id: Digest,
}

impl Program {
    pub(crate) fn new(wasm: PathBuf, id: Digest, kind: Kind) -> Self {
        Self { wasm, digest: id.to_string(), kind, id }
    }
}

/// An image that has no such program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Neither the image nor the container says what to run.
    #[error("the image says of no file that it is the program: name it in the container's command")]
    Unnamed,
    /// There is no such file.
    #[error(
        "there is no program {name:?} in the image: the first word of the container's command, or of the image's entrypoint, must be the path of a Wasm file"
    )]
    Missing {
        /// As it was asked for.
        name: String,
    },
    /// The file is none that can be run.
    #[error("{name:?} is {found}, and this node runs WebAssembly: {}", wasm::INSTEAD)]
    NotWasm {
        /// Its path in the image.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// The file is larger than a program may be.
    #[error("{name:?} has {size} bytes, more than the limit of {limit}: make it smaller")]
    TooLarge {
        /// Its path in the image.
        name: String,
        /// Bytes.
        size: u64,
        /// Bytes.
        limit: u64,
    },
    /// This node is at fault.
    #[error("note the image's program")]
    Note {
        /// Why not.
        source: StoreError,
    },
    /// This node is at fault.
    #[error("read {name:?} of the image")]
    Read {
        /// Its path in the image.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

/// Programs that are known, by their paths.
pub(crate) type Programs = Arc<Mutex<HashMap<PathBuf, Program>>>;

impl Inner {
    pub(crate) async fn program(
        &self,
        image: &Image,
        argv0: &str,
        cwd: &str,
    ) -> Result<Program, ProgramError> {
        if let Some(program) = &image.program {
            return Ok(program.clone());
        }
        let Some(root) = image.root.clone().filter(|_| !argv0.is_empty()) else {
            return Err(ProgramError::Unnamed);
        };
        let names = names(argv0, cwd, &image.config.env);
        let search = Search {
            asked: argv0.to_owned(),
            known: Arc::clone(&self.programs),
            limit: self.config.limits.wasm,
        };
        let store = Arc::clone(&self.store);
        let find = move || {
            let program = search.find(&root, &names)?;
            let noted = store.note_program(&root, &program.id);
            let failed = |source| ProgramError::Note { source };
            noted.map(|()| program).map_err(failed)
        };
        let found = spawn_blocking(find).await;
        found.expect("file work does not panic and the runtime waits for it")
    }
}

/// The paths at which a program may be, the best first.
fn names(argv0: &str, cwd: &str, env: &[(String, String)]) -> Vec<String> {
    if argv0.starts_with('/') {
        return vec![argv0.to_owned()];
    }
    let own = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_str());
    let path = own.unwrap_or(PATH).split(':').filter(|_| !argv0.contains('/'));
    let folders = path.filter(|folder| folder.starts_with('/')).chain([cwd]);
    folders.map(|folder| format!("{}/{argv0}", folder.trim_end_matches('/'))).collect()
}

struct Search {
    asked: String,
    known: Programs,
    limit: u64,
}

impl Search {
    fn find(self, root: &std::path::Path, names: &[String]) -> Result<Program, ProgramError> {
        let failed = |source| ProgramError::Read { name: self.asked.clone(), source };
        let root = Root::open(root).map_err(failed)?;
        for name in names {
            match root.file(name) {
                Ok((file, path)) => return self.look(name, &file, path),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(ProgramError::Missing { name: self.asked })
    }

    fn look(&self, name: &str, file: &File, path: PathBuf) -> Result<Program, ProgramError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = known().get(&path) {
            return Ok(program.clone());
        }
        let name = || name.to_owned();
        let failed = |source| ProgramError::Read { name: name(), source };
        let (size, limit) = (file.metadata().map_err(failed)?.len(), self.limit);
        if size > limit {
            return Err(ProgramError::TooLarge { name: name(), size, limit });
        }
        let kind = wasm::look(&path).map_err(failed)?;
        let kind = kind.map_err(|found| ProgramError::NotWasm { name: name(), found })?;
        let program = Program::new(path.clone(), digest(file).map_err(failed)?, kind);
        known().insert(path, program.clone());
        Ok(program)
    }
}

fn digest(mut file: &File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Whether the next name is to be tried: this one is nothing, or no file.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::NAMETOOLONG];
    Errno::from_io_error(error).is_some_and(|error| absent.contains(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_sought_as_a_shell_seeks_it() {
        let env = [("PATH".to_owned(), "/opt/bin/:relative:/bin".to_owned())];
        for (argv0, cwd, expected) in [
            ("/app.wasm", "/w", &["/app.wasm"][..]),
            ("./app.wasm", "/w/", &["/w/./app.wasm"]),
            ("app.wasm", "/", &["/opt/bin/app.wasm", "/bin/app.wasm", "/app.wasm"]),
        ] {
            assert_eq!(names(argv0, cwd, &env), expected);
        }
        assert_eq!(names("a", "/w", &[]).len(), 7);
    }
}
