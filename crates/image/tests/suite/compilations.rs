//! Compilations by the real compiler.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use futures::future::join_all;
use nodule_image::{CompileError, Config, Image, Kind};

use crate::endings::Waiting;
use crate::node::{Node, command, compile, config, module, try_open};
use crate::registry::Registry;

pub(crate) async fn pulled(wasm: &[u8], change: impl FnOnce(&mut Config)) -> (Node, Image) {
    let registry = Registry::start().await;
    registry.artifact("app", "1", wasm);
    let node = Node::with(&registry, change).await;
    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    (node, image)
}

#[tokio::test]
async fn a_program_is_compiled_once_however_many_ask() {
    let (node, image) = pulled(&command(""), |_| ()).await;

    let compiled = join_all((0..5).map(|_| compile(&node.images, &image))).await;

    let compiled: Vec<_> = compiled.into_iter().map(Result::unwrap).collect();
    assert!(compiled.iter().all(|other| other.code == compiled[0].code));
    assert_eq!(compiled.iter().filter(|one| one.took.is_some()).count(), 1);
    assert_eq!(compiled[0].kind, Kind::Module);
    assert_eq!(compiled[0].size, fs::metadata(&compiled[0].code).unwrap().len());
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn compiled_code_is_read_only_in_a_folder_of_the_agents_own() {
    let (node, image) = pulled(&command(""), |_| ()).await;
    let code = compile(&node.images, &image).await.unwrap().code;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert!(code.starts_with(node.root().join("aot")));
    assert_eq!((mode(&code), mode(code.parent().unwrap())), (0o400, 0o700));
    assert_eq!(mode(&code.with_extension("json")), 0o400);
    assert_eq!(mode(&node.root().join("aot.key")), 0o600);
}

#[tokio::test]
async fn the_compiler_gets_its_limits_and_nothing_of_our_environment() {
    let (node, image) = pulled(&command(""), |config| {
        config.compile.memory_mib = 77;
        config.compile.output_mib = 7;
    })
    .await;
    let waiting = Waiting::new(&image);
    tokio::select! {
        _ = compile(&node.images, &image) => unreachable!("the compiler waits for its program"),
        (line, environment) = async {
            let compiler = waiting.compiler().await;
            let read = |file: &str| fs::read_to_string(format!("/proc/{compiler}/{file}")).unwrap();
            (read("cmdline").replace('\0', " "), read("environ"))
        } => {
            let parent = std::process::id();
            let limits = "--max-memory-mib 77 --max-seconds 300 --max-output-mib 7 --user 1999999999";
            assert!(line.ends_with(&format!("{limits} --parent {parent} ")), "{line}");
            assert_eq!(environment, "");
        }
    }
}

#[tokio::test]
async fn a_bad_program_is_told_in_the_compilers_words() {
    let (node, image) = pulled(&module(""), |_| ()).await;
    let error = compile(&node.images, &image).await.unwrap_err();
    assert!(matches!(error, CompileError::BadProgram { .. }));
    let text = error.to_string();
    let words = "/app:1 cannot run on this node: the module has no function `_start`";
    assert!(text.contains(words), "{text}");
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn without_a_compiler_there_are_no_images() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.compiler = folder.path().join("absent");
    let error = try_open(config).await.err().unwrap().to_string();
    assert!(error.contains("absent") && error.contains("engine"), "{error}");
}
