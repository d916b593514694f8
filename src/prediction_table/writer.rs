//! The trainer's side: creates the table and publishes into it.
//!
//! A publication writes the inactive buffer in full and then the file header with the next sequence
//! number: killed in between, the table before stays in force. There is one writer a volume; the
//! trainer's lock on its state folder sees to that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zerocopy::IntoBytes;

use super::layout::{
    BUFFER_MAGIC, BufferHeader, ENTRY_BYTES, Entry, FILE_BYTES, FILE_MAGIC, FileHeader, MAX_ENTRIES,
    MODEL_NAME_BYTES, VERSION, buffer_offset, crc32c, header_crc, plausible,
};
use super::{TableError, TableInfo, TableReader};
use crate::geometry::Epoch;
use crate::prediction::{Horizon, Prediction};
use crate::utc::now_us;

/// Publishes predictions into a table that it created.
#[derive(Debug)]
pub struct TableWriter {
    file: File,
    path: PathBuf,
    volume: [u8; 16],
    sequence: u64,
    generation: u64,
}

impl TableWriter {
    /// Creates an empty table for `volume` at `path`, in place of what is there.
    ///
    /// The file appears whole (written beside, then renamed). Generations are the time of day in microseconds, and
    /// go on above those of the file that was there: they grow over a restart even if the clock was set back.
    ///
    /// # Errors
    /// The folder is missing, full or not writable.
    pub fn create(path: &Path, volume: [u8; 16]) -> Result<Self, TableError> {
        let beside = path.with_extension(format!("new.{}", std::process::id()));
        let open = || {
            let _ = fs::remove_file(&beside);
            let file =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&beside)?;
            file.set_len(FILE_BYTES)?;
            Ok(file)
        };
        let fail = |action| {
            let path = path.to_path_buf();
            move |source| TableError::Io { action, path, source }
        };
        let file = open().map_err(fail("create"))?;
        let generation = TableReader::generation_at(path, volume);
        let writer = Self { file, path: path.to_path_buf(), volume, sequence: 0, generation };
        // The next writer looks for the generation, also where this one publishes nothing.
        let nothing = TableInfo {
            generation,
            model: String::new(),
            epoch: Epoch(0),
            horizon: Horizon::DEFAULT,
            published_us: 0,
        };
        writer
            .write_buffer(0, &nothing, &[])
            .and_then(|()| writer.write_file_header(0))
            .map_err(fail("write"))?;
        fs::rename(&beside, path).map_err(fail("put in place"))?;
        Ok(writer)
    }

    /// Whether the file is still the one at its path: a cleared run folder takes it away.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(own), Ok(there)) => place(own) == place(there),
            _ => false,
        }
    }

    /// Publishes predictions made after `epoch` for the `horizon` epochs after it.
    ///
    /// They may come in any order; only the [`MAX_ENTRIES`] most probable are kept. Returns what the
    /// table now says about itself.
    ///
    /// # Errors
    /// A block that is predicted twice (nothing is published then), or a write that failed (the
    /// table before stays in force).
    pub fn publish(
        &mut self,
        model: &str,
        epoch: Epoch,
        horizon: Horizon,
        predictions: &[Prediction],
    ) -> Result<TableInfo, TableError> {
        self.publish_at(model, epoch, horizon, predictions, now_us())
    }

    pub(super) fn publish_at(
        &mut self,
        model: &str,
        epoch: Epoch,
        horizon: Horizon,
        predictions: &[Prediction],
        published_us: u64,
    ) -> Result<TableInfo, TableError> {
        let mut blocks: Vec<u32> = predictions.iter().map(|prediction| prediction.block.0).collect();
        blocks.sort_unstable();
        if let Some(twice) = super::layout::first_twice(&blocks) {
            return Err(TableError::Duplicate(crate::geometry::BlockIndex(twice)));
        }
        let mut sorted: Vec<&Prediction> = predictions.iter().collect();
        sorted.sort_unstable_by(|a, b| {
            b.probability.get().total_cmp(&a.probability.get()).then(a.block.cmp(&b.block))
        });
        sorted.truncate(MAX_ENTRIES);

        let before = plausible(self.generation, published_us);
        let info = TableInfo {
            generation: published_us.max(before + 1),
            model: fitting(model).to_owned(),
            epoch,
            horizon,
            published_us,
        };
        let sequence = self.sequence + 1;
        self.write_buffer(sequence, &info, &sorted)
            .and_then(|()| self.write_file_header(sequence))
            .map_err(|source| TableError::Io { action: "write", path: self.path.clone(), source })?;
        self.sequence = sequence;
        self.generation = info.generation;
        Ok(info)
    }

    fn write_buffer(&self, sequence: u64, info: &TableInfo, predictions: &[&Prediction]) -> io::Result<()> {
        let mut entries = Vec::with_capacity(predictions.len() * ENTRY_BYTES);
        for prediction in predictions {
            let entry = Entry {
                block: prediction.block.0.into(),
                kind: prediction.kind as u8,
                reserved: [0; 3],
                // +0.0 for -0.0, whose bits would sort apart from it
                probability: (prediction.probability.get() + 0.0).into(),
            };
            entries.extend_from_slice(entry.as_bytes());
        }
        let mut model = [0; MODEL_NAME_BYTES];
        for (to, from) in model.iter_mut().zip(info.model.bytes()) {
            *to = from;
        }
        let mut header = BufferHeader {
            magic: BUFFER_MAGIC,
            sequence: sequence.into(),
            generation: info.generation.into(),
            volume: self.volume,
            model,
            epoch: info.epoch.0.into(),
            horizon: info.horizon.epochs().into(),
            published_us: info.published_us.into(),
            entries: (predictions.len() as u32).into(),
            reserved: [0; 28],
            entries_crc: crc32c(&entries).into(),
            crc: 0.into(),
        };
        header.crc = header_crc(header.as_bytes()).into();
        let at = buffer_offset(sequence);
        self.file.write_all_at(&entries, at + size_of::<BufferHeader>() as u64)?;
        self.file.write_all_at(header.as_bytes(), at)
    }

    fn write_file_header(&self, sequence: u64) -> io::Result<()> {
        let mut header = FileHeader {
            magic: FILE_MAGIC,
            version: VERSION.into(),
            entry_bytes: (ENTRY_BYTES as u32).into(),
            max_entries: (MAX_ENTRIES as u32).into(),
            reserved_a: 0.into(),
            sequence: sequence.into(),
            volume: self.volume,
            reserved_b: [0; 12],
            crc: 0.into(),
        };
        header.crc = header_crc(header.as_bytes()).into();
        self.file.write_all_at(header.as_bytes(), 0)
    }
}

/// As much of a model's name as fits into its field, cut between characters.
fn fitting(model: &str) -> &str {
    let mut end = model.len().min(MODEL_NAME_BYTES);
    while !model.is_char_boundary(end) {
        end -= 1;
    }
    model.get(..end).unwrap_or_default()
}
