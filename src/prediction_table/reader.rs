//! The target's side: takes a table only after it has checked every byte of it.
//!
//! Nothing in the file is trusted: lengths are bounded before anything is allocated, and the file may
//! be cut short, replaced or rewritten at any moment without more than an error. The reader opens the
//! path anew each time, because a restarted trainer replaces the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::layout::{
    BUFFER_MAGIC, BufferHeader, ENTRY_BYTES, Entry, FILE_BYTES, FILE_MAGIC, FileHeader, MAX_ENTRIES, VERSION,
    buffer_offset, crc32c, first_twice, header_crc, plausible,
};
use super::{Table, TableError, TableInfo};
use crate::geometry::{BlockIndex, Epoch};
use crate::prediction::{Horizon, PredictedKind, Prediction, Probability};
use crate::utc::now_us;

/// How often a table that changes under the reader is read again before it gives up.
const ATTEMPTS: u32 = 4;

/// Reads the tables at a path, each generation once.
#[derive(Debug)]
pub struct TableReader {
    path: PathBuf,
    taken: u64,
}

/// What one look at the file found.
enum Look {
    Nothing,
    Overtaken,
    Found(Table),
}

impl TableReader {
    /// A reader of the table at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), taken: 0 }
    }

    /// Takes the table at the path if there is one for `volume` that was not taken yet.
    ///
    /// `None`: there is no file, nothing was published yet, or nothing since the last table taken.
    /// `volume_blocks` bounds the blocks. After an error the table taken before is still the newest
    /// that can be trusted.
    ///
    /// # Errors
    /// Anything about the file that is not exactly as a writer leaves it: see [`TableError`].
    pub fn read(&mut self, volume: [u8; 16], volume_blocks: u32) -> Result<Option<Table>, TableError> {
        self.read_at(volume, volume_blocks, now_us())
    }

    pub(super) fn read_at(
        &mut self,
        volume: [u8; 16],
        volume_blocks: u32,
        now_us: u64,
    ) -> Result<Option<Table>, TableError> {
        // The clock was set back since by more than it can be ahead: the writer begins anew as well.
        self.taken = plausible(self.taken, now_us);
        let Some(file) = self.open()? else { return Ok(None) };
        let mut problem = None;
        for _ in 0..ATTEMPTS {
            match self.look(&file, volume, volume_blocks, now_us) {
                Ok(Look::Nothing) => return Ok(None),
                Ok(Look::Overtaken) => {}
                Ok(Look::Found(table)) => {
                    self.taken = table.info.generation;
                    return Ok(Some(table));
                }
                // Half-written headers look like this; a second look settles it.
                Err(error @ TableError::Checksum(_)) => problem = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(problem.unwrap_or(TableError::Torn(ATTEMPTS)))
    }

    fn open(&self) -> Result<Option<File>, TableError> {
        let fail = |source| self.io_error("open", source);
        // Not to hang on a FIFO, not to follow a link to somebody else's file.
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(TableError::NotAFile(self.path.clone()));
        }
        if metadata.len() != FILE_BYTES {
            return Err(TableError::Length { actual: metadata.len(), expected: FILE_BYTES });
        }
        Ok(Some(file))
    }

    /// The generation that a file is at, which a writer is about to replace; 0 where that cannot be told.
    pub(super) fn generation_at(path: &Path, volume: [u8; 16]) -> u64 {
        let reader = Self::new(path);
        let read = || -> Result<u64, TableError> {
            let Some(file) = reader.open()? else { return Ok(0) };
            let sequence = reader.sequence(&file, volume)?;
            reader.buffer(&file, sequence, volume).map(|(_, info)| info.generation)
        };
        read().unwrap_or(0)
    }

    fn buffer(
        &self,
        file: &File,
        sequence: u64,
        volume: [u8; 16],
    ) -> Result<(BufferHeader, TableInfo), TableError> {
        let mut header = BufferHeader::new_zeroed();
        self.fill(file, header.as_mut_bytes(), buffer_offset(sequence))?;
        let info = check_buffer_header(&header, sequence, volume)?;
        Ok((header, info))
    }

    fn look(
        &self,
        file: &File,
        volume: [u8; 16],
        volume_blocks: u32,
        now_us: u64,
    ) -> Result<Look, TableError> {
        let sequence = self.sequence(file, volume)?;
        if sequence == 0 {
            return Ok(Look::Nothing);
        }
        let checked = self.buffer(file, sequence, volume);
        let entries = match &checked {
            Ok((_, info)) if info.generation == self.taken => return Ok(Look::Nothing),
            Ok((header, _)) => {
                let mut bytes = vec![0; header.entries.get() as usize * ENTRY_BYTES];
                self.fill(file, &mut bytes, buffer_offset(sequence) + size_of::<BufferHeader>() as u64)?;
                bytes
            }
            Err(_) => Vec::new(),
        };
        // The writer fills this buffer again only after the next flip: while the sequence
        // is the same, what was read is of one piece.
        if self.sequence(file, volume)? != sequence {
            return Ok(Look::Overtaken);
        }
        let (header, info) = checked?;
        if plausible(info.generation, now_us) == 0 {
            return Err(TableError::Ahead { found: info.generation });
        }
        if info.generation < self.taken {
            return Err(TableError::Stale { found: info.generation, taken: self.taken });
        }
        if crc32c(&entries) != header.entries_crc.get() {
            return Err(TableError::Checksum("entries"));
        }
        let predictions = check_entries(&entries, volume_blocks)?;
        Ok(Look::Found(Table { info, predictions }))
    }

    /// The active sequence number, from a file header that was checked.
    fn sequence(&self, file: &File, volume: [u8; 16]) -> Result<u64, TableError> {
        let mut header = FileHeader::new_zeroed();
        self.fill(file, header.as_mut_bytes(), 0)?;
        if header.magic != FILE_MAGIC {
            return Err(TableError::Magic("header"));
        }
        if header_crc(header.as_bytes()) != header.crc.get() {
            return Err(TableError::Checksum("header"));
        }
        if header.version.get() != VERSION {
            return Err(TableError::Version(header.version.get()));
        }
        if header.entry_bytes.get() as usize != ENTRY_BYTES
            || header.max_entries.get() as usize != MAX_ENTRIES
        {
            return Err(TableError::Field("size of entries"));
        }
        if header.volume != volume {
            return Err(TableError::Volume);
        }
        Ok(header.sequence.get())
    }

    fn fill(&self, file: &File, bytes: &mut [u8], at: u64) -> Result<(), TableError> {
        file.read_exact_at(bytes, at).map_err(|source| self.io_error("read", source))
    }

    fn io_error(&self, action: &'static str, source: io::Error) -> TableError {
        TableError::Io { action, path: self.path.clone(), source }
    }
}

fn check_buffer_header(
    header: &BufferHeader,
    sequence: u64,
    volume: [u8; 16],
) -> Result<TableInfo, TableError> {
    if header.magic != BUFFER_MAGIC {
        return Err(TableError::Magic("active buffer"));
    }
    if header_crc(header.as_bytes()) != header.crc.get() {
        return Err(TableError::Checksum("active buffer"));
    }
    if header.sequence.get() != sequence {
        return Err(TableError::Field("sequence number"));
    }
    if header.volume != volume {
        return Err(TableError::Volume);
    }
    if header.entries.get() as usize > MAX_ENTRIES {
        return Err(TableError::Field("number of entries"));
    }
    if header.generation.get() == 0 {
        return Err(TableError::Field("generation"));
    }
    let used = header.model.iter().position(|&byte| byte == 0).unwrap_or(header.model.len());
    let model = header.model.get(..used).and_then(|bytes| std::str::from_utf8(bytes).ok());
    Ok(TableInfo {
        generation: header.generation.get(),
        model: model.ok_or(TableError::Field("model's name"))?.to_owned(),
        epoch: Epoch(header.epoch.get()),
        horizon: Horizon::new(header.horizon.get()).map_err(|_| TableError::Field("horizon"))?,
        published_us: header.published_us.get(),
    })
}

fn check_entries(bytes: &[u8], volume_blocks: u32) -> Result<Vec<Prediction>, TableError> {
    let entries = <[Entry]>::ref_from_bytes(bytes).map_err(|_| TableError::Field("number of entries"))?;
    let mut predictions: Vec<Prediction> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let wrong = |problem| TableError::Entry { index, problem };
        let prediction = Prediction {
            block: BlockIndex(entry.block.get()),
            kind: PredictedKind::from_number(entry.kind).ok_or(wrong("has an unknown kind"))?,
            probability: Probability::new(entry.probability.get())
                .map_err(|_| wrong("has a probability outside of 0 to 1"))?,
        };
        if prediction.block.0 >= volume_blocks {
            return Err(wrong("lies past the volume's end"));
        }
        if entry.reserved != [0; 3] {
            return Err(wrong("has bytes set that mean nothing"));
        }
        if predictions.last().is_some_and(|last| last.probability < prediction.probability) {
            return Err(wrong("is more probable than the one before it"));
        }
        predictions.push(prediction);
    }
    let mut blocks: Vec<u32> = predictions.iter().map(|prediction| prediction.block.0).collect();
    blocks.sort_unstable();
    match first_twice(&blocks) {
        Some(twice) => Err(TableError::Duplicate(BlockIndex(twice))),
        None => Ok(predictions),
    }
}
