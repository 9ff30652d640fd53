//! A layer as it was before it was compressed: hashed, and stopped where it grows out of proportion.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::error::LayerError;
use crate::digest::{Digest, Hasher};

/// No layer of files that somebody made is smaller than this part of them. Small ones may be.
const RATIO: u64 = 200;
const FREE: u64 = 16 << 20;
/// The most memory of the agent's that a zstd frame may have kept for it, whatever its size: RFC 8878 (3.1.1.1.2) asks for
/// 8 MiB, which is also what `zstd -19` and the builders of images write (klauspost/compress); `zstd --ultra -20` takes this.
const WINDOW: u64 = 32 << 20;
const BUFFER: usize = 64 << 10;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The middle of the magic numbers of a skippable frame, with which zstd:chunked may begin.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The content of a layer. What compression it has, its first bytes say: media types are often wrong.
pub(crate) struct Inflated<R: Read> {
    source: Source<Counted<R>>,
    taken: Rc<Cell<u64>>,
    given: u64,
    hasher: Hasher,
}

/// A compressed file is counted where it is read.
type Input<R> = BufReader<R>;

enum Source<R: Read> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(Box<Zstd<Input<R>>>),
}

impl<R: Read + Seek> Inflated<R> {
    pub(crate) fn new(mut layer: R) -> io::Result<Self> {
        let mut start = Vec::new();
        (&mut layer).take(4).read_to_end(&mut start)?;
        layer.seek(SeekFrom::Start(0))?;
        let taken = Rc::new(Cell::new(0));
        let input = Counted { reader: layer, taken: Rc::clone(&taken) };
        let input = BufReader::with_capacity(BUFFER, input);
        let source = match start.as_slice() {
            start if start.starts_with(&GZIP) => Source::Gzip(Box::new(MultiGzDecoder::new(input))),
            start if start == ZSTD || start.ends_with(&SKIPPABLE) => {
                Source::Zstd(Box::new(Zstd::new(input)))
            }
            _ => Source::Plain(input),
        };
        Ok(Self { source, taken, given: 0, hasher: Hasher::new() })
    }
}

impl<R: Read> Inflated<R> {
    /// Reads the rest, and gives the digest of all.
    pub(super) fn finish(mut self) -> Result<Digest, LayerError> {
        let mut buffer = vec![0; BUFFER];
        while self.read(&mut buffer).map_err(failure)? > 0 {}
        Ok(self.hasher.finish())
    }

    fn check(&self) -> io::Result<()> {
        let (input, output) = (self.taken.get(), self.given);
        match output > FREE && output / RATIO > input {
            true => Err(io::Error::other(Bomb { input, output })),
            false => Ok(()),
        }
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.source {
            Source::Plain(reader) => reader.read(buffer)?,
            Source::Gzip(reader) => reader.read(buffer)?,
            Source::Zstd(reader) => reader.read(buffer)?,
        };
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.given += count as u64;
        self.check().map(|()| count)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{input} bytes became {output}")]
struct Bomb {
    input: u64,
    output: u64,
}

/// What an error of reading means.
pub(super) fn failure(error: io::Error) -> LayerError {
    if let Some(Bomb { input, output }) = cause(&error) {
        return LayerError::Bomb { input: *input, output: *output };
    }
    match cause(&error) {
        Some(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
            LayerError::Window { asked: *requested, limit: *max }
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => LayerError::Truncated,
        _ => LayerError::Read(error),
    }
}

fn cause<E: std::error::Error + 'static>(error: &io::Error) -> Option<&E> {
    error.get_ref()?.downcast_ref()
}

/// Counts what is read.
struct Counted<R> {
    reader: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

/// All frames of a zstd file, one after the other; skippable ones are passed over.
struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self { input, decoder, is_in_frame: false }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => skip(&mut self.input, length.into())?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

fn skip(input: &mut impl Read, length: u64) -> io::Result<()> {
    let skipped = io::copy(&mut input.take(length), &mut io::sink())?;
    if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame && !self.begin()? {
                return Ok(0);
            }
            self.is_in_frame = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.input, one).map_err(io::Error::other)?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.is_in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        compress_to_vec(content, CompressionLevel::Fastest)
    }

    fn read(layer: &[u8]) -> Result<Vec<u8>, LayerError> {
        let mut content = Vec::new();
        let mut inflated = Inflated::new(Cursor::new(layer)).map_err(failure)?;
        inflated.read_to_end(&mut content).map_err(failure)?;
        assert_eq!(inflated.finish()?, Digest::of(&content));
        Ok(content)
    }

    #[test]
    fn a_layer_is_what_was_compressed_in_one_piece_or_several() {
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
        for layer in [
            b"ab".to_vec(),
            gzip(b"ab"),
            [gzip(b"a"), gzip(b"b")].concat(),
            zstd(b"ab"),
            [zstd(b"a"), skippable.clone(), zstd(b"b"), skippable.clone()].concat(),
            [skippable, zstd(b"ab")].concat(),
        ] {
            assert_eq!(read(&layer).unwrap(), b"ab", "{layer:?}");
        }
    }

    #[test]
    fn a_layer_that_is_cut_or_broken_is_an_error() {
        let long = (0_u32..9999).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
        for layer in [gzip(&long), zstd(&long)] {
            assert!(read(&layer[..layer.len() / 2]).is_err());
            let mut broken = layer;
            let middle = broken.len() / 2;
            broken[middle] ^= 0x55;
            broken.truncate(middle + 1);
            assert!(read(&broken).is_err());
        }
    }

    #[test]
    fn what_grows_out_of_proportion_is_stopped() {
        let small = usize::try_from(FREE).unwrap();
        for compress in [gzip, zstd] {
            assert!(read(&compress(&vec![0; small])).is_ok());
            let bomb = read(&compress(&vec![0; 4 * small])).unwrap_err();
            assert!(matches!(bomb, LayerError::Bomb { .. }), "{bomb}");
        }
    }

    #[test]
    fn a_frame_that_wants_more_memory_than_others_is_refused() {
        // A header with a window of 2 to the power of 10 and this much, and an empty block, the last one (RFC 8878, 3.1.1).
        let frame = |power: u8| [&ZSTD[..], &[0, power << 3, 1, 0, 0]].concat();
        assert!(read(&frame(15)).unwrap().is_empty(), "{WINDOW} bytes");
        for layer in [frame(16), [zstd(b"a"), frame(17)].concat()] {
            assert!(matches!(read(&layer), Err(LayerError::Window { limit: WINDOW, .. })));
        }
    }
}
