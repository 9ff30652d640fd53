//! A disk that is full. It takes root to make a small one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodule_image::{Images, Keyring, PullError, Reference};
use tempfile::TempDir;

use crate::layers::Layer;
use crate::node::{command, config, module, open};
use crate::registry::Registry;

/// A small file system in memory, until dropped.
struct Disk(TempDir);

impl Disk {
    /// None where this user may not mount one.
    fn of_mib(size: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "tmpfs"])
            .arg(folder.path())
            .output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it, but for so many KiB.
    fn fill(&self, but: usize) -> PathBuf {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let free = usize::try_from(stat.f_bavail * stat.f_frsize).unwrap();
        let path = self.path().join("other");
        fs::write(&path, vec![1; free - but * 1024]).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.path()).status());
    }
}

async fn images(disk: &Disk, registry: &Registry) -> Images {
    let mut settings = config(&disk.path().join("images"));
    settings.plain_http.push(registry.host.clone());
    open(settings).await
}

async fn pull(images: &Images, registry: &Registry, name: &str) -> Result<(), PullError> {
    let name = Reference::parse(&format!("{}/{name}:1", registry.host)).unwrap();
    images.pull(&name, &Keyring::default()).await.map(|_| ())
}

#[tokio::test]
async fn a_full_disk_is_told_takes_no_more_room_and_is_forgotten_when_there_is_room() {
    let Some(disk) = Disk::of_mib(8) else { return };
    let registry = Registry::start().await;
    let noise = |len: usize| -> Vec<u8> {
        let step = |n: u32| n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let numbers = std::iter::successors(Some(1), |n| Some(step(*n)));
        numbers.map(|n: u32| n.to_be_bytes()[0]).take(len).collect()
    };
    let large = [module(""), noise(2 << 20)].concat();
    registry.artifact("blob", "1", &large);
    let files = Layer::default().file("app.wasm", &command("")).file("data", &noise(700 << 10));
    registry.rooted("files", &[files]);
    let images = images(&disk, &registry).await;

    // The one has no room for its blob, the other has it for its layer and not for its files.
    for (name, free) in [("blob", 1500), ("files", 1200)] {
        let other = disk.fill(free);
        let error = pull(&images, &registry, name).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("No space left on device"), "{name}: {text}");
        assert!(text.contains("check the disk of this node"), "{name}: {text}");
        assert_eq!(error.reason(), "ErrImagePull", "{name}");
        let partial = fs::read_dir(disk.path().join("images/partial")).unwrap();
        assert_eq!(partial.count(), 0, "{name}: nothing that is not whole takes up the disk");
        fs::remove_file(other).unwrap();
        pull(&images, &registry, name).await.unwrap();
    }
}
