//! The entries of a tar archive: their headers, and those before them that only lengthen a header's fields.
//!
//! The formats are POSIX's `ustar` and `pax` and GNU's, each field bounded before it is read.

use std::io::{self, Read};

use tar::{Header, PaxExtensions};

use super::error::{LayerError, shown};
use super::inflate::failure;

const BLOCK: usize = 512;
/// The longest field of a header that another entry holds. Names are shorter; extended attributes may be there too.
const FIELD: u64 = 1 << 20;

/// Reads a layer entry by entry.
pub(crate) struct Archive<R> {
    reader: R,
    /// Bytes of the last entry that were not read.
    rest: u64,
    /// What fills its last block.
    filling: u64,
}

/// What an entry says of a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    /// Whether anybody may execute it.
    pub(super) is_program: bool,
    /// Seconds since 1970.
    pub(super) modified: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    /// A device or a pipe: nothing that a guest could use.
    Device,
}

/// Fields that came before the header that they belong to.
#[derive(Default)]
struct Longer {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, rest: 0, filling: 0 }
    }

    /// The next entry; none at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut longer = Longer::default();
        // Long names come in two entries of GNU's or two of POSIX'.
        for _ in 0..8 {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            if kind.is_gnu_longname() {
                longer.name = Some(self.text(&header)?);
            } else if kind.is_gnu_longlink() {
                longer.link = Some(self.text(&header)?);
            } else if kind.is_pax_local_extensions() {
                longer.read(&self.field(&header)?)?;
            } else if kind.is_pax_global_extensions() {
                drop(self.field(&header)?);
            } else {
                return self.entry(&header, longer).map(Some);
            }
        }
        Err(LayerError::NotTar("headers of headers without end"))
    }

    /// The content of the last entry.
    pub(crate) fn content(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Notes that so much of the last entry's content was read.
    pub(crate) fn read(&mut self, count: u64) {
        self.rest = self.rest.saturating_sub(count);
    }

    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    fn entry(&mut self, header: &Header, longer: Longer) -> Result<Entry, LayerError> {
        let name = longer.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = || {
            let own = || header.link_name_bytes().map(std::borrow::Cow::into_owned);
            longer.link.clone().or_else(own).unwrap_or_default()
        };
        let kind = match header.entry_type().as_byte() {
            // Before POSIX a folder was a file whose name ends so.
            0 | b'0' | b'7' if name.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' => Kind::File,
            b'5' => Kind::Folder,
            b'2' => Kind::Symlink(link()),
            b'1' => Kind::HardLink(link()),
            b'3' | b'4' | b'6' => Kind::Device,
            b'S' => return Err(refused(&name, "a sparse file")),
            _ => return Err(refused(&name, "an entry of an unknown type")),
        };
        let said = longer.size.map_or_else(|| header.entry_size(), Ok);
        // Only files have content: older tools write the size of what a link leads to.
        let size = if kind == Kind::File { said.map_err(|_| bad_size())? } else { 0 };
        self.expect(size)?;
        let is_program = header.mode().is_ok_and(|mode| mode & 0o111 != 0);
        let modified = header.mtime().unwrap_or_default();
        Ok(Entry { name, kind, size, is_program, modified })
    }

    /// Passes over what is left of the last entry. Some tools do not fill the last block of the last one (umoci's `insert`).
    fn skip(&mut self) -> Result<(), LayerError> {
        let (rest, filling) = (std::mem::take(&mut self.rest), std::mem::take(&mut self.filling));
        let mut pass =
            |count| io::copy(&mut (&mut self.reader).take(count), &mut io::sink()).map_err(failure);
        if pass(rest)? < rest {
            return Err(LayerError::Truncated);
        }
        pass(filling).map(drop)
    }

    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let mut block = Vec::with_capacity(BLOCK);
        (&mut self.reader).take(BLOCK as u64).read_to_end(&mut block).map_err(failure)?;
        // An archive ends with blocks of zeros; some tools leave them out.
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if block.len() < BLOCK {
            return Err(LayerError::Truncated);
        }
        let header = Header::from_byte_slice(&block);
        if header.cksum().ok() != Some(sum(&block)) {
            return Err(LayerError::NotTar("a header's checksum is wrong"));
        }
        Ok(Some(header.clone()))
    }

    /// Notes the size of the content that follows.
    fn expect(&mut self, size: u64) -> Result<(), LayerError> {
        let blocks = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(bad_size)?;
        (self.rest, self.filling) = (size, blocks - size);
        Ok(())
    }

    fn field(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        let size = header.entry_size().map_err(|_| bad_size())?;
        if size > FIELD {
            return Err(LayerError::NotTar("a field of a header is too long"));
        }
        self.expect(size)?;
        let mut field = Vec::new();
        (&mut self.reader).take(size).read_to_end(&mut field).map_err(failure)?;
        self.read(field.len() as u64);
        if field.len() as u64 == size { Ok(field) } else { Err(LayerError::Truncated) }
    }

    /// A field that ends with a NUL.
    fn text(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        let mut text = self.field(header)?;
        text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
        Ok(text)
    }
}

impl Longer {
    fn read(&mut self, records: &[u8]) -> Result<(), LayerError> {
        for record in PaxExtensions::new(records) {
            let record = record.map_err(|_| LayerError::NotTar("a bad extended header"))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value).ok_or_else(bad_size)?),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refused(self.name.as_deref().unwrap_or_default(), "a sparse file"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The sum of a header's bytes, where those of the sum itself count as spaces.
fn sum(block: &[u8]) -> u32 {
    let bytes = block.iter().enumerate();
    bytes.map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum()
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn bad_size() -> LayerError {
    LayerError::NotTar("the size of a file is no number")
}

fn refused(name: &[u8], what: &'static str) -> LayerError {
    LayerError::Kind { name: shown(name), what }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tar::EntryType;

    use super::*;

    fn header(name: &str, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        header.set_mtime(7);
        header.set_cksum();
        header
    }

    fn entry(name: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(name, kind, content.len() as u64).as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn all(layer: &[u8]) -> Result<Vec<(String, u64)>, LayerError> {
        let mut archive = Archive::new(Cursor::new(layer));
        let mut entries = Vec::new();
        while let Some(entry) = archive.next()? {
            entries.push((String::from_utf8(entry.name).unwrap(), entry.size));
        }
        Ok(entries)
    }

    #[test]
    fn long_names_and_sizes_come_before_their_header() {
        let long = "d/".repeat(100) + "f";
        let record = |text: String| format!("{} {text}\n", text.len() + 4);
        let pax = record(format!("path={}", "x".repeat(90)));
        assert_eq!(pax.len(), 99);
        let layer = [
            entry("././@LongLink", EntryType::GNULongName, format!("{long}\0").as_bytes()),
            entry("short", EntryType::Regular, b"abc"),
            entry("pax", EntryType::XHeader, format!("{pax}9 size=5\n").as_bytes()),
            header("y", EntryType::Regular, 0).as_bytes().to_vec(),
            b"12345".to_vec(),
            vec![0; 507],
            entry("z", EntryType::Regular, b""),
            vec![0; 1024],
        ]
        .concat();
        let expected = [(long, 3), ("x".repeat(90), 5), ("z".to_owned(), 0)];
        assert_eq!(all(&layer).unwrap(), expected);
    }

    #[test]
    fn what_is_no_archive_or_cut_is_refused() {
        let good = entry("a", EntryType::Regular, b"abc");
        assert!(all(&good).is_ok());
        let mut broken = good.clone();
        broken[0] = b'b';
        assert!(matches!(all(&broken), Err(LayerError::NotTar(_))));
        for length in [1, 511, 513, 514] {
            assert!(matches!(all(&good[..length]), Err(LayerError::Truncated)), "{length}");
        }
        assert!(all(&good[..515]).is_ok(), "all but what fills the block");
        let huge = header("a", EntryType::GNULongName, FIELD + 1);
        assert!(matches!(all(huge.as_bytes()), Err(LayerError::NotTar(_))));
        let endless = entry("a", EntryType::GNULongName, b"x").repeat(9);
        assert!(matches!(all(&endless), Err(LayerError::NotTar(_))));
        for kind in [EntryType::GNUSparse, EntryType::new(b'!')] {
            assert!(matches!(all(&entry("a", kind, b"")), Err(LayerError::Kind { .. })));
        }
    }

    #[test]
    fn a_link_with_a_size_has_no_content() {
        let mut link = header("l", EntryType::Link, 4096);
        link.set_link_name("a").unwrap();
        link.set_cksum();
        let layer = [link.as_bytes().to_vec(), entry("b", EntryType::Regular, b"x")].concat();
        assert_eq!(all(&layer).unwrap(), [("l".to_owned(), 0), ("b".to_owned(), 1)]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
            let _ = all(&bytes);
        }
    }
}
