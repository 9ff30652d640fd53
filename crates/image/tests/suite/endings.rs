//! How compilations end that do not end well, and how many there are at once. The real compiler waits for a program that
//! does not come, until something happens to it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nodule_image::{CompileError, Image};

use crate::compilations::pulled;
use crate::node::{Node, command, compile, program};
use crate::registry::Registry;

/// An image whose program was replaced by a pipe that nothing comes out of.
pub(crate) struct Waiting {
    program: PathBuf,
    /// Its ends.
    _pipe: File,
}

impl Waiting {
    pub(crate) fn new(image: &Image) -> Self {
        let program = program(image).wasm;
        fs::remove_file(&program).unwrap();
        assert!(Command::new("mkfifo").arg(&program).status().unwrap().success());
        let pipe = File::options().read(true).write(true).open(&program).unwrap();
        Self { program, _pipe: pipe }
    }

    /// The compiler, once it has its worker.
    pub(crate) async fn compiler(&self) -> u32 {
        until(|| self.running().filter(|compiler| !children(*compiler).is_empty())).await
    }

    async fn worker(&self) -> u32 {
        let compiler = self.compiler().await;
        until(|| children(compiler).first().copied()).await
    }

    /// The compiler, if there is one.
    fn running(&self) -> Option<u32> {
        let program = self.program.to_str().unwrap();
        children(std::process::id()).into_iter().find(|child| {
            let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split('\0').any(|word| word == program)
        })
    }
}

fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Waits for what must come, and fails if it does not.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap()
}

fn kill(process: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_compiler_that_dies_is_told_in_words_and_leaves_nothing() {
    for (signal, is_worker, words) in [
        ("-KILL", true, "the compiler was killed (SIGKILL): most likely this node had no memory"),
        ("-XCPU", true, "more than the 300 s of CPU time"),
        ("-XFSZ", true, "more than the 1024 MiB that this node gives"),
        ("-TRAP", true, "the compiler crashes on the program"),
        ("-KILL", false, "was killed (SIGKILL)"),
    ] {
        let (node, image) = pulled(&command(""), |_| ()).await;
        let waiting = Waiting::new(&image);
        let killing = async {
            let worker = waiting.worker().await;
            kill(if is_worker { worker } else { waiting.compiler().await }, signal);
        };
        let (error, ()) = tokio::join!(compile(&node.images, &image), killing);
        let error = error.unwrap_err();
        let is_bad = is_worker && signal != "-KILL";
        assert_eq!(matches!(error, CompileError::BadProgram { .. }), is_bad, "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("/app:1"), "{text}");
        assert!(node.files("partial").is_empty());
    }
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_killed() {
    let (node, image) = pulled(&command(""), |config| config.compile.seconds = 1).await;
    let _waiting = Waiting::new(&image);
    let error = compile(&node.images, &image).await.unwrap_err().to_string();
    assert!(error.contains("was killed: it took longer than 2s"), "{error}");
    assert!(error.contains("`compile.timeout`"), "{error}");
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn a_compilation_that_is_dropped_ends_its_compiler_and_can_be_made_again() {
    let (node, image) = pulled(&command(""), |_| ()).await;
    let waiting = Waiting::new(&image);
    let worker = tokio::select! {
        _ = compile(&node.images, &image) => unreachable!("the compiler waits"),
        worker = waiting.worker() => worker,
    };
    let line = format!("/proc/{worker}/cmdline");
    until(|| fs::read(&line).unwrap_or_default().is_empty().then_some(())).await;

    fs::remove_file(program(&image).wasm).unwrap();
    fs::write(program(&image).wasm, command("")).unwrap();
    assert!(compile(&node.images, &image).await.unwrap().took.is_some());
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn no_more_programs_are_compiled_at_once_than_may_be() {
    let registry = Registry::start().await;
    for (name, program) in [("a", "1"), ("b", "2"), ("c", "3")] {
        registry.artifact(name, "1", &command(program));
    }
    let node = Node::with(&registry, |config| config.compile.parallel = 2).await;
    let mut images = Vec::new();
    for name in ["a", "b", "c"] {
        images.push(node.pull(&format!("{}/{name}:1", registry.host)).await.unwrap());
    }
    let waiting: Vec<_> = images.iter().map(Waiting::new).collect();
    let running = || waiting.iter().filter(|one| one.running().is_some()).count();
    let watch = async {
        let first =
            until(|| (running() == 2).then(|| waiting[0].running().or(waiting[1].running()))).await;
        // The third has been asked for as long as the others: it is the slot that it waits for.
        for _ in 0..1000 {
            assert_eq!(running(), 2);
            tokio::task::yield_now().await;
        }
        let third = waiting.iter().find(|one| one.running().is_none()).unwrap();
        kill(first.unwrap(), "-KILL");
        third.compiler().await
    };
    tokio::select! {
        _ = futures::future::join_all(images.iter().map(|image| compile(&node.images, image))) => {
            unreachable!("the compilers wait")
        }
        _ = watch => {}
    }
}
