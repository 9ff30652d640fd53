//! Layers that the program zstd compressed: how far back they reach.

use std::fs;

use serde_json::json;

use crate::layers::{Layer, config, zstd};
use crate::node::{Node, command, told};
use crate::registry::Registry;

const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn app() -> Layer {
    Layer::default().file("app.wasm", &command(""))
}

#[tokio::test]
async fn a_layer_with_a_larger_window_than_the_limit_is_refused_with_both_and_the_remedy() {
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    let tar = app().file("data", &vec![7; 1 << 20]).tar();
    let config = config(("wasi", "wasm"), &json!({}), std::slice::from_ref(&tar));
    let name = format!("{}/app:1", registry.host);
    for (window, size) in [("--long=26", 64), ("--long=27", 128), ("--long", 128)] {
        registry.image("app", &config, &[(ZSTD, zstd(&tar, &[window]))]);
        let (text, reason) = told(&registry, node.pull(&name).await);
        let words = format!(
            "layer 1 of the image: its zstd window, which whoever reads it keeps in memory, has {size} MiB, more than the limit of 32 MiB"
        );
        assert!(text.contains(&words) && text.contains("--long=25 at most"), "{text}");
        assert_eq!(reason, "ErrImagePull");
        assert!(node.files("trees").is_empty() && node.files("partial").is_empty());
    }
}

#[tokio::test]
async fn layers_with_windows_up_to_the_limit_are_taken() {
    let registry = Registry::start().await;
    let tar = app().file("data", &vec![7; 1 << 20]).tar();
    let config = config(("wasi", "wasm"), &json!({}), std::slice::from_ref(&tar));
    let own: [&[&str]; 4] = [&["-19"], &["--long=24"], &["--long=25"], &["--ultra", "-20"]];
    for (number, arguments) in own.into_iter().enumerate() {
        let name = format!("app{number}");
        registry.image(&name, &config, &[(ZSTD, zstd(&tar, arguments))]);
        // Of another node: the tree of the same layer would be here already.
        let node = Node::new(&registry).await;
        let image = node.pull(&format!("{}/{name}:1", registry.host)).await.unwrap();
        assert!(image.root.unwrap().join("data").is_file(), "{arguments:?}");
    }
}

#[tokio::test]
async fn what_is_far_back_in_a_window_is_found_there() {
    let registry = Registry::start().await;
    // More than the 8 MiB that every reader has, and nothing that could be made smaller but by the copy.
    let (mut state, mut noise) = (1_u64, Vec::new());
    while noise.len() < 9 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.extend_from_slice(&state.to_le_bytes()[4..]);
    }
    let tar = app().file("one", &noise).file("other", &noise).tar();
    let config = config(("wasi", "wasm"), &json!({}), std::slice::from_ref(&tar));
    let layer = zstd(&tar, &["--long=24"]);
    assert!(layer.len() < noise.len() * 3 / 2, "{} bytes: found once", layer.len());
    registry.image("app", &config, &[(ZSTD, layer)]);
    let node = Node::new(&registry).await;
    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    assert!(fs::read(image.root.unwrap().join("other")).unwrap() == noise);
}
