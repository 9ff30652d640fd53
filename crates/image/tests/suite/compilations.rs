//! Compilations by a compiler that does what the program says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures::future::join_all;
use nodule_image::{CompileError, Config, Image, Images};

use crate::node::{Node, config, module};
use crate::registry::Registry;

async fn pulled(wasm: &[u8], change: impl FnOnce(&mut Config)) -> (Node, Image) {
    let registry = Registry::start().await;
    registry.artifact("app", "1", wasm);
    let node = Node::with(&registry, change).await;
    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    (node, image)
}

/// The process ids of the compilers that were started for an image.
fn runs(image: &Image) -> Vec<String> {
    let path = image.wasm.with_extension("runs");
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits for something that must come, and fails if it does not.
async fn until(mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), so).await.unwrap();
}

#[tokio::test]
async fn a_program_is_compiled_once_however_many_ask() {
    let (node, image) = pulled(&module(""), |_| ()).await;

    let paths = join_all((0..5).map(|_| node.images.compile(&image))).await;

    let path = paths[0].as_ref().unwrap();
    assert!(paths.iter().all(|other| other.as_ref().unwrap() == path));
    let hex = image.wasm_digest.replace("sha256:", "");
    assert_eq!(*path, node.root().join(format!("aot/engine1/{hex}.cwasm")));
    assert_eq!(runs(&image).len(), 1);
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn a_compiled_program_is_read_only_in_a_folder_of_the_agents_own() {
    let (node, image) = pulled(&module(""), |_| ()).await;
    let path = node.images.compile(&image).await.unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o400, 0o700));
}

#[tokio::test]
async fn the_compiler_gets_its_limits_and_nothing_of_our_environment() {
    let (node, image) = pulled(&module(""), |config| config.compile_memory_mib = 77).await;
    let written = fs::read_to_string(node.images.compile(&image).await.unwrap()).unwrap();
    assert!(written.starts_with("--max-memory-mib 77 --max-seconds 300\n"), "{written}");
    assert!(!written.contains("CARGO"), "{written}");
}

#[tokio::test]
async fn a_bad_program_is_told_in_the_compilers_words() {
    let (node, image) = pulled(&module("no start"), |_| ()).await;
    let error = node.images.compile(&image).await.unwrap_err();
    assert!(matches!(error, CompileError::BadProgram { .. }));
    let text = error.to_string();
    assert!(
        text.contains("/app:1 cannot run on this node: the module exports no _start"),
        "{text}"
    );
}

#[tokio::test]
async fn a_compiler_that_fails_or_dies_is_no_fault_of_the_program() {
    for (program, words) in [("fail", "exit code 1: no space left"), ("die", "SIGKILL")] {
        let (node, image) = pulled(&module(program), |_| ()).await;
        let error = node.images.compile(&image).await.unwrap_err();
        assert!(matches!(error, CompileError::Failed { .. }));
        assert!(error.to_string().contains(words), "{error}");
        assert!(node.files("partial").is_empty());
    }
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_killed() {
    let (node, image) = pulled(&module("slow"), |config| config.compile_seconds = 0).await;
    let error = node.images.compile(&image).await.unwrap_err();
    assert!(error.to_string().contains("was killed: it took longer"), "{error}");
}

#[tokio::test]
async fn a_compilation_that_is_dropped_ends_its_compiler_and_can_be_made_again() {
    let (node, image) = pulled(&module("slow"), |_| ()).await;
    tokio::select! {
        _ = node.images.compile(&image) => unreachable!("the compiler sleeps"),
        () = until(|| !runs(&image).is_empty()) => {}
    }
    let command = format!("/proc/{}/cmdline", runs(&image)[0]);
    until(|| fs::read(&command).unwrap_or_default().is_empty()).await;

    tokio::select! {
        _ = node.images.compile(&image) => unreachable!("the compiler sleeps"),
        () = until(|| runs(&image).len() == 2) => {}
    }
}

#[tokio::test]
async fn without_a_compiler_there_are_no_images() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.compiler = folder.path().join("absent");
    let error = Images::open(config).await.err().unwrap().to_string();
    assert!(error.contains("absent") && error.contains("engine"), "{error}");
}
