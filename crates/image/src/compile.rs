//! Compiles programs, each once per engine, in a process of its own that is limited and may die.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::image::Image;
use crate::store::{StoreError, blocking};
use crate::{Config, Inner};

/// What is read of the compiler's output.
const OUTPUT: u64 = 64 * 1024;
/// What of it is shown.
const SHOWN: usize = 1024;
/// Exit code of the compiler when the program is at fault.
const BAD_PROGRAM: i32 = 2;
/// The compiler says in a moment which engine it compiles for.
const KEY: Duration = Duration::from_secs(60);

/// An image whose program could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The program is at fault: it will not compile next time either.
    #[error("image {image} cannot run on this node: {cause}")]
    BadProgram {
        /// The image's name.
        image: String,
        /// The compiler's words.
        cause: String,
    },
    /// This node is at fault, or the program asks too much of it.
    #[error("compile image {image}: {cause}")]
    Failed {
        /// The image's name.
        image: String,
        /// What happened to the compiler.
        cause: String,
    },
}

impl Inner {
    /// The compiled form of an image's program.
    pub(crate) async fn compile(&self, image: &Image) -> Result<PathBuf, CompileError> {
        let to = self.store.compiled(&self.engine, &image.program);
        let _turn = self.compilations.turn(image.program.hex()).await;
        if to.is_file() {
            return Ok(to);
        }
        let _slot = self.compilers.acquire().await;
        let scratch = Scratch(self.store.scratch());
        let made = self.make(&image.wasm, &scratch.0, &to).await;
        made.map_err(|failure| failure.of(image))?;
        tracing::info!(image = %image.reference, wasm = image.wasm_digest, "image compiled");
        Ok(to)
    }

    async fn make(&self, wasm: &Path, scratch: &Path, to: &Path) -> Result<(), Failure> {
        self.run(wasm, scratch).await?;
        let (store, scratch, to) = (self.store.clone(), scratch.to_owned(), to.to_owned());
        Ok(blocking(move || store.adopt(&scratch, &to, 0o400)).await?)
    }

    async fn run(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let Config { compiler, compile_memory_mib, compile_seconds, .. } = &self.config;
        let mut command = Command::new(compiler);
        command.arg("compile").arg(from).arg(to);
        command.arg("--max-memory-mib").arg(compile_memory_mib.to_string());
        command.arg("--max-seconds").arg(compile_seconds.to_string());
        // The compiler counts its processor time; on a busy node the clock runs faster.
        let limit = Duration::from_secs(compile_seconds.saturating_mul(2));
        let output = output(command, limit).await?;
        judge(&output, compiler)
    }
}

/// The engine that the compiler compiles for: the key of its cache.
pub(crate) async fn engine(compiler: &Path) -> Result<String, String> {
    let mut command = Command::new(compiler);
    command.arg("key");
    let output = output(command, KEY).await.map_err(|failure| failure.to_string())?;
    judge(&output, compiler).map_err(|failure| failure.to_string())?;
    let key = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => Ok(key),
        false => Err(format!("{key:?} is not an engine's key")),
    }
}

/// Removes what a compilation that failed, or was dropped, has left.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Program(String),
    #[error("start {}: {cause}", .compiler.display())]
    Start { compiler: PathBuf, cause: io::Error },
    #[error("the compiler was killed: it took longer than {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Died(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    fn of(self, image: &Image) -> CompileError {
        let (image, cause) = (image.reference.to_string(), self.to_string());
        match self {
            Self::Program(_) => CompileError::BadProgram { image, cause },
            Self::Start { .. } | Self::Late(_) | Self::Died(_) | Self::Store(_) => {
                CompileError::Failed { image, cause }
            }
        }
    }
}

/// Runs a child with nothing of ours: no environment, no input. Dropped, it is killed.
async fn output(mut command: Command, limit: Duration) -> Result<Output, Failure> {
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let compiler = PathBuf::from(command.as_std().get_program());
    let start = |cause| Failure::Start { compiler, cause };
    let mut child = command.kill_on_drop(true).spawn().map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
    let Ok((stdout, stderr, status)) = timeout(limit, all).await else {
        // Waits for the end too: nobody writes to the scratch file any more.
        drop(child.kill().await);
        return Err(Failure::Late(limit));
    };
    let status =
        status.map_err(|error| Failure::Died(format!("wait for the compiler: {error}")))?;
    Ok(Output { status, stdout, stderr })
}

/// Reads up to a limit; the rest is read and thrown away, so that the child does not block.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        let read = (&mut pipe).take(OUTPUT).read_to_end(&mut kept).await;
        drop(read);
        drop(tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await);
    }
    kept
}

fn judge(output: &Output, compiler: &Path) -> Result<(), Failure> {
    let words = last_line(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(BAD_PROGRAM) => Err(Failure::Program(words)),
        _ => {
            Err(Failure::Died(format!("{} {}: {words}", compiler.display(), ended(output.status))))
        }
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(9)) => {
            "was killed (SIGKILL): perhaps out of memory or processor time".to_owned()
        }
        (None, Some(24)) => "was killed (SIGXCPU): it used up its processor time".to_owned(),
        (None, Some(6)) => "aborted (SIGABRT): perhaps out of memory".to_owned(),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(no message)");
    line.trim().chars().take(SHOWN).collect()
}
