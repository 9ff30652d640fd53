//! Images of files: what they become on the node, and that evil ones become nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nodule_image::{Config, Packaging, ProgramError};
use serde_json::json;
use tar::EntryType;

use crate::layers::{Layer, TAR, config, gzip};
use crate::node::{Node, command, compile, told};
use crate::registry::Registry;

fn app() -> Layer {
    Layer::default().file("app.wasm", &command(""))
}

/// All files below a folder, by their paths.
fn files(root: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_symlink() || !path.is_dir() {
                names.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            } else {
                folders.push(path);
            }
        }
    }
    names
}

#[tokio::test]
async fn an_image_of_files_becomes_a_tree_and_its_program_runs() {
    let registry = Registry::start().await;
    let layer = app()
        .folder("etc/")
        .file("./etc/motd", b"hello")
        .symlink("run.wasm", "/app.wasm")
        .link("twin.wasm", "app.wasm")
        .device("null");
    let digest = registry.rooted("app", &[layer]);
    let node = Node::new(&registry).await;
    let name = format!("{}/app:1", registry.host);

    let image = node.pull(&name).await.unwrap();

    assert_eq!((image.packaging, &image.digest), (Packaging::Root, &digest));
    assert_eq!(image.argv(&[], &[]), ["/app.wasm"]);
    let root = image.root.clone().unwrap();
    let expected = ["app.wasm", "etc/motd", "run.wasm", "twin.wasm"].map(str::to_owned);
    assert_eq!(files(&root), BTreeSet::from(expected));
    let modes = ["app.wasm", "etc"].map(|name| fs::metadata(root.join(name)).unwrap().mode());
    assert_eq!(modes.map(|mode| mode & 0o7777), [0o777; 2], "no set-user-id");
    let program = node.images.program(&image, "/run.wasm", "/").await.unwrap();
    assert_eq!(program.wasm, root.join("app.wasm"));
    assert!(node.images.compile(&image, &program).await.unwrap().took.is_some());
    assert_eq!(node.find(&name).unwrap().root, image.root);
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn layers_hide_and_replace_what_is_below_them() {
    let registry = Registry::start().await;
    let below = app()
        .file("d/a", b"a")
        .file("e/x", b"x")
        .file("f2d", b"")
        .file("d2f/in", b"")
        .file("keep", b"old")
        .symlink("bin", "usr/bin")
        .file("usr/bin/sh", b"");
    let above = Layer::default()
        .file("d/b", b"b")
        .file("e/y", b"y")
        .file("e/.wh..wh..opq", b"")
        .file("d/.wh.a", b"")
        .file(".wh.absent", b"")
        .folder("f2d/")
        .file("f2d/in", b"")
        .file("d2f", b"file")
        .file("keep", b"new")
        .file("bin/tool", b"")
        .link("hard", "app.wasm");
    registry.rooted("app", &[below, above]);
    let node = Node::new(&registry).await;

    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();

    let root = image.root.unwrap();
    let expected = [
        "app.wasm",
        "bin",
        "d/b",
        "d2f",
        "e/y",
        "f2d/in",
        "hard",
        "keep",
        "usr/bin/sh",
        "usr/bin/tool",
    ];
    assert_eq!(files(&root), BTreeSet::from(expected.map(str::to_owned)));
    assert_eq!(fs::read(root.join("keep")).unwrap(), b"new");
    assert_eq!(fs::metadata(root.join("hard")).unwrap().nlink(), 2);
}

/// The end of an archive is two blocks of zeros, and the last block of a file is filled up with zeros: tools leave out both.
#[tokio::test]
async fn an_archive_is_whole_if_its_last_file_is() {
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    let whole = app().file("motd", b"hello").tar();
    for (name, missing, is_whole) in [
        ("end", 1024, true),
        ("some", 1024 + 100, true),
        ("all", 1024 + 507, true),
        ("cut", 1024 + 508, false),
    ] {
        let tar = whole[..whole.len() - missing].to_vec();
        let config = config(("wasi", "wasm"), &json!({}), std::slice::from_ref(&tar));
        registry.image(name, &config, &[(TAR, tar)]);
        let pulled = node.pull(&format!("{}/{name}:1", registry.host)).await;
        match pulled.map(|image| fs::read(image.root.unwrap().join("motd")).unwrap()) {
            Ok(motd) => assert!(is_whole && motd == b"hello", "{name}"),
            Err(error) => assert!(!is_whole, "{name}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn images_of_the_same_layers_share_one_tree() {
    let registry = Registry::start().await;
    let tar = app().tar();
    for (name, entrypoint) in [("a", "/app.wasm"), ("b", "app.wasm")] {
        let config = config(
            ("wasip1", "wasm"),
            &json!({ "Entrypoint": [entrypoint] }),
            std::slice::from_ref(&tar),
        );
        registry.image(name, &config, &[(TAR, gzip(&tar))]);
    }
    let node = Node::new(&registry).await;
    let pull = async |name| node.pull(&format!("{}/{name}:1", registry.host)).await.unwrap();

    let (a, b) = (pull("a").await, pull("b").await);

    assert!(a.digest != b.digest && a.root == b.root);
    assert_eq!(node.files("trees").len(), 1);
}

#[tokio::test]
async fn a_wasm_layer_may_have_files_beside_it() {
    let registry = Registry::start().await;
    let tar = Layer::default().file("data/x", b"x").tar();
    let config =
        config(("wasip1", "wasm"), &json!({ "Entrypoint": ["run"] }), std::slice::from_ref(&tar));
    registry.image("app", &config, &[("application/wasm", command("")), (TAR, tar)]);
    let node = Node::new(&registry).await;

    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();

    assert_eq!(image.packaging, Packaging::Image);
    assert_eq!(files(image.root.as_deref().unwrap()), BTreeSet::from(["data/x".to_owned()]));
    assert!(compile(&node.images, &image).await.is_ok());
}

#[tokio::test]
async fn the_program_is_found_as_a_shell_finds_it_and_named_if_it_is_none() {
    let registry = Registry::start().await;
    let layer = app()
        .file("usr/bin/tool", &command("tool"))
        .file("native", b"\x7fELF\x02\x01\x01\0")
        .symlink("out", "/../../../../etc/hostname")
        .symlink("loop", "loop");
    registry.rooted("app", &[layer]);
    let node = Node::new(&registry).await;
    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    let root = image.root.clone().unwrap();
    let find = async |name, cwd| node.images.program(&image, name, cwd).await;

    assert_eq!(find("tool", "/").await.unwrap().wasm, root.join("usr/bin/tool"));
    assert_eq!(find("../app.wasm", "/usr").await.unwrap().wasm, root.join("app.wasm"));
    for missing in ["none", "/usr", "out", "/loop", "../../../../etc/hostname"] {
        let error = find(missing, "/").await.unwrap_err();
        assert!(matches!(error, ProgramError::Missing { .. }), "{missing}: {error}");
    }
    let native = find("/native", "/").await.unwrap_err().to_string();
    assert!(native.contains("native code (ELF)"), "{native}");
    assert!(matches!(find("", "/").await, Err(ProgramError::Unnamed)));
}

/// Pulls an image that must fail, and sees that nothing but the layers before the bad one is left.
async fn refused(layers: &[Layer], change: impl FnOnce(&mut Config)) -> String {
    let registry = Registry::start().await;
    registry.rooted("app", layers);
    let node = Node::with(&registry, change).await;
    let (text, reason) = told(&registry, node.pull(&format!("{}/app:1", registry.host)).await);
    assert_eq!(reason, "ErrImagePull", "{text}");
    for folder in ["partial", "trees", "images"] {
        assert_eq!(node.files(folder), Vec::<String>::new(), "{folder}: {text}");
    }
    let bad = format!("layer {} of the image", layers.len());
    assert!(text.contains(&bad), "{text}");
    let kept = node.files("blobs/sha256").len();
    assert_eq!(kept, 2 + layers.len() - 1, "manifest, configuration and the layers below: {text}");
    text
}

#[tokio::test]
async fn an_evil_layer_is_refused_with_its_reason() {
    for (layer, word) in [
        (app().file("../../escape", b""), "leads out of the image"),
        (app().link("passwd", "/etc/passwd"), "not in the image"),
        (app().link("passwd", "../../../etc/passwd"), "not in the image"),
        (app().folder("d").link("h", "d"), "not in the image"),
        (app().file("../.wh.passwd", b""), "leads out of the image"),
        (app().file("d/.wh...", b""), "no name of a file"),
        (app().file("d/.wh.", b""), "no name of a file"),
        (app().entry("sparse", EntryType::GNUSparse, "", 0), "a sparse file"),
        (app().symlink("a", "b").symlink("b", "a").file("a/x", b""), "cannot be made"),
        (app().file("f", b"").file("f/x", b""), "cannot be made"),
        (app().entry("big", EntryType::Regular, "", 1 << 40), "more than 4294967296 bytes"),
        (app().entry("cut", EntryType::Regular, "", 9999), "cut off"),
        (app().entry("short", EntryType::Regular, "", 1).padded(&[7; 1024]), "no tar archive"),
        (app().symlink("dev", "/dev").file("dev/null/x", b""), "cannot be made"),
        (Layer::default().padded(b"<html>"), "no tar archive"),
        (app().file("zeros", &vec![0; 64 << 20]), "decompression bomb"),
    ] {
        let text = refused(&[layer], |_| ()).await;
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn an_upper_layer_that_is_evil_leaves_the_lower_ones_alone() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), b"alive").unwrap();
    let target = outside.path().to_str().unwrap();
    for name in [format!("out{target}/pwned"), "up/../pwned".to_owned()] {
        drop(
            refused(
                &[app().symlink("out", "/"), Layer::default().file(&name, b"").file("../x", b"")],
                |_| (),
            )
            .await,
        );
    }
    assert_eq!(files(outside.path()), BTreeSet::from(["victim".to_owned()]));
}

#[tokio::test]
async fn links_lead_nowhere_but_into_the_image() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), b"alive").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let target = outside.path().to_str().unwrap();
    let registry = Registry::start().await;
    let below =
        app().symlink("out", target).symlink("up", "../../../../../../../..").folder(target);
    let above = Layer::default()
        .file("out/pwned", b"x")
        .file(&format!("up{target}/pwned-too"), b"x")
        .file("out/.wh.victim", b"")
        .file(&format!("up{target}/.wh..wh..opq"), b"");
    registry.rooted("app", &[below, above]);
    let node = Node::new(&registry).await;

    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();

    let inside = image.root.unwrap().join(target.trim_start_matches('/'));
    let expected = ["pwned", "pwned-too"].map(str::to_owned);
    assert_eq!(files(&inside), BTreeSet::from(expected));
    assert_eq!(files(outside.path()), BTreeSet::from(["victim".to_owned()]));
}

#[tokio::test]
async fn a_file_below_a_link_that_leads_nowhere_lies_where_it_leads() {
    let registry = Registry::start().await;
    let layer = app()
        .symlink("data", "/srv/data")
        .file("data/a", b"a")
        .symlink("srv/data/more", "../../var/more")
        .file("data/more/b", b"b")
        .symlink("far", "../../../../out")
        .file("far/c", b"c");
    registry.rooted("app", &[layer]);
    let node = Node::new(&registry).await;

    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();

    let expected =
        ["app.wasm", "data", "far", "out/c", "srv/data/a", "srv/data/more", "var/more/b"];
    assert_eq!(files(&image.root.unwrap()), BTreeSet::from(expected.map(str::to_owned)));
    let text = refused(&[app().symlink("a", "b").symlink("b", "a").file("a/x", b"")], |_| ()).await;
    assert!(text.contains("\"a/x\" cannot be made: Too many levels of symbolic links"), "{text}");
}

#[tokio::test]
async fn too_many_files_or_layers_are_refused() {
    let many = (0..100).fold(app(), |layer, number| layer.file(&format!("f{number}"), b""));
    let text = refused(&[many], |config| config.limits.files = 50).await;
    assert!(text.contains("more than 50 files"), "{text}");
    let registry = Registry::start().await;
    registry.rooted("app", &[app(), app(), app()]);
    let node = Node::with(&registry, |config| config.limits.layers = 2).await;
    let (text, _) = told(&registry, node.pull(&format!("{}/app:1", registry.host)).await);
    assert!(text.contains("3 layers, more than the limit of 2"), "{text}");
    assert!(registry.seen("/blobs/").len() == 1, "no layer was fetched");
}

#[tokio::test]
async fn a_layer_that_is_not_the_one_of_the_configuration_is_refused() {
    let registry = Registry::start().await;
    let tar = app().tar();
    for (name, diffs, word) in [
        ("other", vec![b"other".to_vec()], "the configuration says sha256:"),
        ("none", vec![], "0 diff_ids for 1 layers"),
    ] {
        let config = config(("wasi", "wasm"), &json!({}), &diffs);
        registry.image(name, &config, &[(TAR, tar.clone())]);
        let node = Node::new(&registry).await;
        let (text, _) = told(&registry, node.pull(&format!("{}/{name}:1", registry.host)).await);
        assert!(text.contains(word), "{text}");
        assert!(node.files("trees").is_empty() && node.files("partial").is_empty());
    }
}

#[tokio::test]
async fn an_image_of_native_programs_is_refused_before_its_layers_are_fetched() {
    let registry = Registry::start().await;
    let tar = app().tar();
    let execution = json!({ "Entrypoint": ["/bin/sh"] });
    let config = config(("linux", "amd64"), &execution, std::slice::from_ref(&tar));
    registry.image("app", &config, &[(TAR, tar)]);
    let node = Node::new(&registry).await;
    let (text, _) = told(&registry, node.pull(&format!("{}/app:1", registry.host)).await);
    assert!(text.contains("native code") && text.contains("wasi/wasm"), "{text}");
    assert_eq!(registry.seen("/blobs/").len(), 1);
}
