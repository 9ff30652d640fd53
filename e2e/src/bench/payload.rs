//! Images to carry: each of its own content, so that nobody has any of it already.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use rand::Rng;
use serde_json::json;
use wasm_encoder::{CustomSection, Encode, Section};

use crate::paths;
use crate::push::{Blob, Image, Packaging, sha256};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Of each piece of content, the second half is the first one again: it shrinks as programs do.
const PIECE: usize = 4096;

/// A module of about this many bytes, which does as little as the test guest: most of it is in no section that is compiled.
pub(super) fn artifact(bytes: usize) -> Result<Image> {
    let mut program = guest()?;
    let mut data = vec![0; bytes];
    rand::rng().fill_bytes(&mut data);
    let section = CustomSection { name: "bench".into(), data: data.into() };
    program.push(section.id());
    section.encode(&mut program);
    Ok(Image::of_program(Packaging::Cncf, program))
}

/// A container image of the test guest and so many files, all of this size; and how many bytes its archive has.
pub(super) fn image(files: usize, size: usize) -> Result<(Image, usize)> {
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "app.wasm", &guest()?)?;
    for number in 0..files {
        add(&mut archive, &format!("data/{}/{number}", number / 100), &content(size))?;
    }
    let archive = archive.into_inner()?;
    let mut layer = GzEncoder::new(Vec::new(), Compression::fast());
    layer.write_all(&archive)?;
    let config = json!({
        "os": "linux", "architecture": architecture(), "config": { "Entrypoint": ["/app.wasm"] },
        "rootfs": { "type": "layers", "diff_ids": [sha256(&archive)] },
    });
    let image = Image {
        config: Blob::new(CONFIG, config.to_string().into_bytes()),
        layers: vec![Blob::new(LAYER, layer.finish()?)],
    };
    Ok((image, archive.len()))
}

/// How many bytes the registry has of it.
pub(super) fn size(image: &Image) -> usize {
    image.layers.iter().map(|layer| layer.content.len()).sum()
}

fn guest() -> Result<Vec<u8>> {
    let path = paths::guest("probe.p1.wasm")?;
    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
}

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(content.len())?);
    header.set_mode(0o644);
    Ok(archive.append_data(&mut header, path, content)?)
}

fn content(size: usize) -> Vec<u8> {
    let mut random = vec![0; size.div_ceil(2)];
    rand::rng().fill_bytes(&mut random);
    let pieces = random.chunks(PIECE / 2).flat_map(|half| [half, half]);
    let mut content = pieces.collect::<Vec<_>>().concat();
    content.truncate(size);
    content
}

/// What containerd looks for. The content is Wasm all the same.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_shrinks_to_half() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&content(1 << 20)).unwrap();
        let size = gzip.finish().unwrap().len();
        assert!((500 << 10..620 << 10).contains(&size), "{size}");
    }
}
