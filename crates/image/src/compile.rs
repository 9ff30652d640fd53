//! Compiles programs, each once per engine, in a process of its own that is limited and may die.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::cache::Entry;
use crate::flight::Turn;
use crate::image::Image;
use crate::program::Program;
use crate::store::{StoreError, blocking};
use crate::wasm::Kind;
use crate::{Config, Inner};

/// What is read of the compiler's output.
const OUTPUT: u64 = 64 * 1024;
/// What of it is shown.
const SHOWN: usize = 1024;
/// The most layers of the jail that are told.
const LAYERS: usize = 16;
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

/// A program that was compiled on this node, for this node.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The native code. It never changes.
    pub code: PathBuf,
    /// What starts the program.
    pub kind: Kind,
    /// Bytes of native code.
    pub size: u64,
    /// How long compiling took, without waiting for other compilations; none if it had been compiled before.
    pub took: Option<Duration>,
}

/// What the compiler says of a program.
#[derive(Debug, Deserialize)]
struct Report {
    kind: Kind,
    /// The layers of its jail that are not there.
    #[serde(default)]
    missing: Vec<String>,
}

impl Inner {
    /// The compiled form of an image's program.
    pub(crate) async fn compile(
        &self,
        image: &Image,
        program: &Program,
    ) -> Result<Compiled, CompileError> {
        let made = self.find_or_make(image, program).await;
        made.map_err(|failure| failure.of(image))
    }

    async fn find_or_make(&self, image: &Image, program: &Program) -> Result<Compiled, Failure> {
        let turn = self.compilations.turn(program.id.hex()).await;
        let (cache, id, held) = (self.cache.clone(), program.id.clone(), turn.clone());
        let found = blocking(move || cache.find(&id).inspect(|_| drop(held))).await?;
        let result = if found.is_some() { "hit" } else { "miss" };
        self.metrics.code.with_label_values(&[result]).inc();
        if let Some(entry) = found {
            return Ok(Compiled::of(entry, None));
        }
        let _slot = self.compilers.acquire().await;
        let begin = Instant::now();
        let entry = self.make(program, turn).await?;
        let compiled = Compiled::of(entry, Some(begin.elapsed()));
        tracing::info!(image = %image.reference, wasm = program.digest, size = compiled.size, "image compiled");
        Ok(compiled)
    }

    async fn make(&self, program: &Program, turn: Turn) -> Result<Entry, Failure> {
        let scratch = Scratch(self.store.scratch());
        let report = self.run(&program.wasm, &scratch.0).await?;
        self.tell_missing(&report.missing);
        let (cache, id) = (self.cache.clone(), program.id.clone());
        let keep = move || {
            let kept = cache.keep(&id, report.kind, &scratch.0);
            drop(turn);
            kept
        };
        Ok(blocking(keep).await?)
    }

    async fn run(&self, from: &Path, to: &Path) -> Result<Report, Failure> {
        let Config { compiler, compile, .. } = &self.config;
        let mut command = Command::new(compiler);
        command.arg("compile").arg(from).arg(to);
        command.arg("--max-memory-mib").arg(compile.memory_mib.to_string());
        command.arg("--max-seconds").arg(compile.seconds.to_string());
        command.arg("--max-output-mib").arg(compile.output_mib.to_string());
        command.arg("--user").arg(compile.user.to_string());
        command.arg("--parent").arg(std::process::id().to_string());
        // The compiler counts its processor time; on a busy node the clock runs faster.
        let limit = Duration::from_secs(compile.seconds.saturating_mul(2).into());
        let output = output(command, limit).await?;
        judge(&output, compiler)?;
        let unread =
            |error| Failure::Died(format!("the compiler's report is not readable: {error}"));
        serde_json::from_slice(&output.stdout).map_err(unread)
    }

    /// Each layer is told once.
    fn tell_missing(&self, layers: &[String]) {
        let mut told = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers.iter().take(LAYERS) {
            if told.len() < LAYERS && told.insert(layer.chars().take(SHOWN).collect()) {
                tracing::warn!(layer, "programs are compiled in a jail without this layer");
            }
        }
    }
}

impl Compiled {
    fn of(entry: Entry, took: Option<Duration>) -> Self {
        let Entry { code, kind, size } = entry;
        Self { code, kind, size, took }
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
    #[error(
        "the compiler was killed: it took longer than {0:?}, which is twice the processor time that it may use; this node is too busy, or raise `compile.timeout`"
    )]
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
