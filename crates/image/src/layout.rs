//! A folder of content by digest (OCI image layout specification): what a registry would be asked for is read there. It is
//! verified as what a registry sends.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use reqwest::Response;
use tokio::task::spawn_blocking;

use crate::digest::Digest;
use crate::error::Problem;
use crate::store::StoreError;

/// The folder. Its content is at `blobs/sha256/HEX`, as it is in the store itself.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) folder: PathBuf,
    /// More of one blob is not read: in bytes.
    pub(crate) limit: u64,
}

impl Layout {
    /// A manifest, which is asked for by its digest.
    pub(crate) async fn manifest(&self, target: &str, limit: u64) -> Result<Vec<u8>, Problem> {
        let malformed = |cause: String| Problem::Malformed { what: "the manifest", cause };
        let digest = Digest::parse(target);
        let digest = digest.ok_or_else(|| malformed(format!("unknown digest {target:?}")))?;
        let content = self.read(&digest, limit).await?;
        if content.len() as u64 > limit {
            return Err(Problem::TooLong { what: "the manifest", size: limit });
        }
        Ok(content)
    }

    /// A blob, as the answer of a registry that sends all of it.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Response, Problem> {
        let content = self.read(digest, self.limit).await?;
        Ok(Response::from(http::Response::new(content)))
    }

    /// At most one byte more than `limit`.
    async fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Problem> {
        let path = self.folder.join("blobs/sha256").join(digest.hex());
        let at = path.clone();
        let read = spawn_blocking(move || {
            let mut content = Vec::new();
            regular(File::open(&at)?)?.take(limit + 1).read_to_end(&mut content)?;
            Ok(content)
        });
        let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        Ok(read.map_err(StoreError::on("read", &path))?)
    }
}

/// The file, if it is one: a pipe would hold up who reads.
pub(crate) fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}
