//! Reading a stream that anybody may have written: nothing of it is believed before its checksum was.

use std::io::{self, Read};

use zerocopy::FromBytes;

use super::error::StreamError;
use super::format::{Content, END_MARK, HEADER_BYTES, Header, MARK, RECORD_BYTES, RawRecord, checksum};
use crate::geometry::{BLOCK_BYTES, BlockIndex};

/// A block of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The block.
    pub block: BlockIndex,
    /// Its 64 KiB; `None`: it holds nothing.
    pub data: Option<Vec<u8>>,
}

/// Whether a file that begins with these bytes is a stream.
#[must_use]
pub fn starts_a_stream(bytes: &[u8]) -> bool {
    bytes.starts_with(&MARK)
}

/// Reads one stream, record by record.
pub struct StreamReader<R: Read> {
    input: R,
    header: Header,
    records: u32,
    last: Option<BlockIndex>,
    read: u64,
    ended: bool,
}

impl<R: Read> StreamReader<R> {
    /// Reads and verifies the header.
    ///
    /// # Errors
    /// `input` fails or ends; it is no stream, or one of another version; the header is damaged.
    pub fn begin(mut input: R) -> Result<Self, StreamError> {
        let mut bytes = [0; HEADER_BYTES];
        read_exact(&mut input, &mut bytes, 0, "its header")?;
        let header = Header::decode(&bytes).map_err(StreamError::NotAStream)?;
        Ok(Self { input, header, records: 0, last: None, read: HEADER_BYTES as u64, ended: false })
    }

    /// What the stream is about.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes read so far.
    pub const fn bytes_read(&self) -> u64 {
        self.read
    }

    fn damaged(&self, at: u64, problem: impl Into<String>) -> StreamError {
        StreamError::Damaged { at, problem: problem.into() }
    }

    /// The next block; `None` once the stream has ended as it should.
    ///
    /// # Errors
    /// `input` fails or ends too early; damage. What came before is whole.
    pub fn next_record(&mut self) -> Result<Option<Record>, StreamError> {
        if self.ended {
            return Ok(None);
        }
        let (at, number) = (self.read, u64::from(self.records));
        let mut bytes = [0; RECORD_BYTES];
        read_exact(&mut self.input, &mut bytes, at, "a record")?;
        self.read += RECORD_BYTES as u64;
        let raw = RawRecord::read_from_bytes(&bytes).map_err(|error| self.damaged(at, error.to_string()))?;
        let content = raw.check(number).map_err(|problem| self.damaged(at, problem))?;
        if raw.mark == END_MARK {
            if self.records != self.header.records || raw.number.get() != self.records {
                let (found, wanted) = (self.records, self.header.records);
                return Err(self.damaged(at, format!("it ends after {found} of {wanted} records")));
            }
            self.ended = true;
            return Ok(None);
        }
        let block = BlockIndex(raw.number.get());
        if block.0 >= self.header.geometry.blocks() || self.last.is_some_and(|last| block <= last) {
            return Err(self.damaged(at, format!("block {block} cannot be here")));
        }
        let data = self.data(content, &raw)?;
        (self.last, self.records) = (Some(block), self.records + 1);
        Ok(Some(Record { block, data }))
    }

    fn data(&mut self, content: Content, raw: &RawRecord) -> Result<Option<Vec<u8>>, StreamError> {
        if content == Content::Empty {
            return Ok(None);
        }
        let at = self.read;
        // The length was checked: a block at most.
        let mut stored = vec![0; raw.stored_bytes.get() as usize];
        read_exact(&mut self.input, &mut stored, at, "a block's data")?;
        self.read += stored.len() as u64;
        if checksum(&[&stored]) != raw.data_checksum.get() {
            return Err(self.damaged(at, "a block's data does not match its checksum"));
        }
        if content == Content::Raw {
            return Ok(Some(stored));
        }
        match zstd::bulk::decompress(&stored, BLOCK_BYTES as usize) {
            Ok(data) if data.len() as u64 == BLOCK_BYTES => Ok(Some(data)),
            Ok(data) => Err(self.damaged(at, format!("a block has {} bytes unpacked", data.len()))),
            Err(error) => Err(self.damaged(at, format!("a block cannot be unpacked: {error}"))),
        }
    }
}

fn read_exact(
    input: &mut impl Read,
    bytes: &mut [u8],
    at: u64,
    what: &'static str,
) -> Result<(), StreamError> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => return Err(StreamError::CutOff { at: at + done as u64, what }),
            Ok(len) => done += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(StreamError::Io { action: "read", at: at + done as u64, source }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::SnapshotName;
    use crate::geometry::Geometry;
    use crate::stream::{Side, StreamWriter};

    fn side(name: &str, epoch: u32) -> Side {
        Side { name: SnapshotName::new(name).expect("a name"), epoch, created_us: 1 << 50 }
    }

    fn header(records: usize, from: Option<Side>) -> Header {
        Header {
            volume: [7; 16],
            geometry: Geometry::new(64 << 20, 4096).expect("in range"),
            records: records as u32,
            from,
            to: side("tuesday", 12),
        }
    }

    fn written(header: &Header, records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::begin(&mut bytes, header).expect("begun");
        for record in records {
            writer.put(record.block, record.data.as_deref()).expect("written");
        }
        let length = writer.end().expect("ended");
        assert_eq!(length, bytes.len() as u64);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Header, Vec<Record>), (usize, StreamError)> {
        let mut reader = StreamReader::begin(bytes).map_err(|error| (0, error))?;
        let mut records = Vec::new();
        loop {
            match reader.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => return Ok((reader.header().clone(), records)),
                Err(error) => return Err((records.len(), error)),
            }
        }
    }

    /// Some blocks: empty ones, ones that can be packed, and ones that cannot.
    fn records(seed: u64, count: u32) -> Vec<Record> {
        let mut state = seed | 1;
        let mut noise = || {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (state >> 33) as u32
        };
        (0..count)
            .map(|at| {
                let data = match noise() % 3 {
                    0 => None,
                    1 => Some(vec![noise() as u8; BLOCK_BYTES as usize]),
                    _ => Some((0..BLOCK_BYTES).map(|_| noise() as u8).collect()),
                };
                Record { block: BlockIndex(at * 5 + noise() % 5), data }
            })
            .collect()
    }

    #[test]
    fn what_is_written_comes_back() {
        for from in [None, Some(side("monday", 11))] {
            let records = records(3, 20);
            let header = header(records.len(), from);
            let bytes = written(&header, &records);
            assert!(starts_a_stream(&bytes));
            assert_eq!(read(&bytes).expect("sound"), (header, records));
        }
        let empty = header(0, None);
        assert_eq!(read(&written(&empty, &[])).expect("sound"), (empty, Vec::new()));
    }

    #[test]
    fn any_cut_is_told_and_what_came_before_is_whole() {
        let all = records(5, 6);
        let bytes = written(&header(all.len(), None), &all);
        for len in (0..bytes.len()).step_by(997).chain([bytes.len() - 1, bytes.len() - RECORD_BYTES]) {
            let (whole, error) = read(&bytes[..len]).expect_err("it was cut off");
            assert!(matches!(error, StreamError::CutOff { .. }), "{error}");
            assert!(error.to_string().contains(&format!("byte {len}")), "{error} at {len}");
            assert!(whole <= all.len());
        }
    }

    #[test]
    fn any_changed_byte_is_found() {
        let all = records(9, 5);
        let bytes = written(&header(all.len(), Some(side("monday", 3))), &all);
        for at in (0..bytes.len()).step_by(61).chain(0..HEADER_BYTES + RECORD_BYTES) {
            let mut hurt = bytes.clone();
            hurt[at] ^= 0x10;
            assert!(read(&hurt).is_err(), "byte {at}");
        }
    }

    #[test]
    fn records_that_are_missing_twice_there_or_exchanged_are_found() {
        let all: Vec<Record> = (0..4).map(|block| Record { block: BlockIndex(block), data: None }).collect();
        let bytes = written(&header(4, None), &all);
        let record = |at: usize| HEADER_BYTES + at * RECORD_BYTES..HEADER_BYTES + (at + 1) * RECORD_BYTES;
        let missing = [&bytes[..record(1).start], &bytes[record(2).start..]].concat();
        let twice = [&bytes[..record(1).end], &bytes[record(1).start..]].concat();
        let mut exchanged = bytes.clone();
        exchanged.copy_within(record(2), record(1).start);
        exchanged[record(2)].copy_from_slice(&bytes[record(1)]);
        let other_end = [&bytes[..record(2).end], &bytes[record(3).end..]].concat();
        for hurt in [missing, twice, exchanged, other_end] {
            let (_, error) = read(&hurt).expect_err("found");
            assert!(matches!(error, StreamError::Damaged { .. }), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), begins in any::<bool>()) {
            let sound = written(&header(3, None), &records(1, 3));
            let bytes = if begins { [&sound[..HEADER_BYTES], &bytes].concat() } else { bytes };
            prop_assert!(read(&bytes).is_err());
        }
    }
}
