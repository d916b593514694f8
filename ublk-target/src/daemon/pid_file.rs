//! `/run/ublksrvd/<id>.pid`: which process serves a device, and what it is.
//!
//! The format is the stock `ublk` tool's, which lists, recovers and deletes by it:
//!
//! | bytes | what |
//! |---|---|
//! | 0-31 | the process's id in decimal and a newline, the rest zeros |
//! | 32- | JSON, ended by one zero byte, where the file ends |
//!
//! The JSON has `target` (`name`, `type`, `dev_size`, and our own `volume` and `not_granted`; less than 512 bytes), `dev_info`,
//! `params`, and for every queue `queues["q"]` with `qid`, `tid` and the CPUs as a string. The file is
//! written under another name and renamed, so that nobody reads half of it. A crash leaves it there, which is what
//! `recover` needs; a stop in good order removes it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use forerun::config::read_small_file;
use serde_json::{Value, json};

use crate::device::DeviceInfo;

/// Where the stock tool looks.
pub const RUN_DIR: &str = "/run/ublksrvd";
/// Our type for `ublk -t` and in `target.name`.
pub const TARGET_NAME: &str = "forerun";
/// Where the JSON begins.
const JSON_OFFSET: usize = 32;
/// The stock tool prints stale text from this length of `target` on.
const TARGET_LIMIT_BYTES: usize = 512;
/// The largest file that is read at all, in bytes; a device of 4,096 queues has less.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What a pid file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PidFile {
    /// The process that serves the device.
    pub pid: i32,
    /// The volume's name.
    pub volume: String,
    /// The whole JSON.
    pub json: Value,
}

impl PidFile {
    /// Where the file of a device is.
    #[must_use]
    pub fn path(run_dir: &Path, id: u32) -> PathBuf {
        run_dir.join(format!("{id}.pid"))
    }

    /// What to write for a device.
    ///
    /// # Errors
    /// The volume's name is too long to be shown by the stock tool.
    pub fn of(info: &DeviceInfo, volume: &str) -> anyhow::Result<Self> {
        let mut target = json!({
            "name": TARGET_NAME, "type": 0, "dev_size": info.geometry.size_bytes(), "volume": volume,
        });
        if !info.not_granted.is_empty() {
            target["not_granted"] = json!(info.not_granted);
        }
        if target.to_string().len() >= TARGET_LIMIT_BYTES {
            bail!("the volume's name is too long for {RUN_DIR}: {volume:?}");
        }
        let queues: serde_json::Map<String, Value> = info
            .queues
            .iter()
            .enumerate()
            .map(|(number, queue)| {
                let cpus: String = queue.cpus.iter().map(|cpu| format!("{cpu} ")).collect();
                (number.to_string(), json!({"qid": number, "tid": queue.tid, "affinity": cpus}))
            })
            .collect();
        let json = json!({
            "target": target,
            "dev_info": {
                "nr_hw_queues": info.queues.len(), "queue_depth": info.depth, "state": 1, "pad0": 0,
                "max_io_buf_bytes": info.io_buffer_bytes, "dev_id": info.id, "ublksrv_pid": info.pid, "pad1": 0,
                "flags": info.granted_flags, "ublksrv_flags": 0, "owner_uid": 0, "owner_gid": 0,
                "reserved1": 0, "reserved2": 0,
            },
            "params": {
                "len": 0, "types": 1,
                "basic": {
                    "attrs": 0, "logical_bs_shift": info.geometry.logical_block_bytes().trailing_zeros(),
                    "physical_bs_shift": 12, "io_opt_shift": 16, "io_min_shift": 12,
                    "max_sectors": info.io_buffer_bytes >> 9, "chunk_sectors": 0,
                    "dev_sectors": info.geometry.size_bytes() >> 9, "virt_boundary_mask": 0,
                },
            },
            "queues": queues,
        });
        Ok(Self { pid: info.pid, volume: volume.to_owned(), json })
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\n", self.pid).into_bytes();
        bytes.resize(JSON_OFFSET, 0);
        bytes.extend_from_slice(self.json.to_string().as_bytes());
        bytes.push(0);
        bytes
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// It is not such a file, or not of a device of ours.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let (head, json) = bytes.split_at_checked(JSON_OFFSET).context("it is too short")?;
        let pid = std::str::from_utf8(head).context("its pid is no text")?;
        let pid = pid.trim_end_matches('\0').trim_end().parse().context("its pid is no number")?;
        let json = json.split(|byte| *byte == 0).next().unwrap_or_default();
        let json: Value = serde_json::from_slice(json).context("its JSON cannot be read")?;
        let name = json["target"]["name"].as_str().context("it names no target")?;
        if name != TARGET_NAME {
            bail!("it is of a device of type {name}, not {TARGET_NAME}");
        }
        let volume = json["target"]["volume"].as_str().context("it names no volume")?.to_owned();
        Ok(Self { pid, volume, json })
    }

    /// What the device's first process wanted and was not granted.
    #[must_use]
    pub fn not_granted(&self) -> Vec<String> {
        let names = self.json["target"]["not_granted"].as_array();
        names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    }

    /// Reads a device's file.
    ///
    /// # Errors
    /// There is none, or it cannot be read as one of ours.
    pub fn read(run_dir: &Path, id: u32) -> anyhow::Result<Self> {
        let path = Self::path(run_dir, id);
        let bytes = read_small_file(&path, FILE_BYTES_MAX)
            .with_context(|| format!("there is no {}: which volume is device {id}?", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{} is not of forerun", path.display()))
    }

    /// Writes a device's file, whole or not at all.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn write(&self, run_dir: &Path, id: u32) -> anyhow::Result<()> {
        let path = Self::path(run_dir, id);
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(run_dir)?;
            let temporary = path.with_extension(format!("pid.{}", self.pid));
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&temporary)?;
            io::Write::write_all(&mut file, &self.to_bytes())?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Notes in a device's file that it shows another size.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn resize(run_dir: &Path, id: u32, size_bytes: u64) -> anyhow::Result<()> {
        let mut file = Self::read(run_dir, id)?;
        file.json["target"]["dev_size"] = json!(size_bytes);
        file.json["params"]["basic"]["dev_sectors"] = json!(size_bytes >> 9);
        file.write(run_dir, id)
    }

    /// Removes a device's file if it is of process `pid`: the number may have become another's device.
    pub fn remove(run_dir: &Path, id: u32, pid: i32) {
        let path = Self::path(run_dir, id);
        let is_of_pid = read_small_file(&path, FILE_BYTES_MAX)
            .is_ok_and(|bytes| Self::parse(&bytes).is_ok_and(|file| file.pid == pid));
        if is_of_pid && let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "the pid file stays");
        }
    }

    /// Removes the files that devices which no longer exist have left.
    pub fn remove_stale(run_dir: &Path, exists: impl Fn(u32) -> bool) {
        let Ok(entries) = fs::read_dir(run_dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_pid_file = path.extension().is_some_and(|extension| extension == "pid");
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let Some(id) = id.filter(|_| is_pid_file) else { continue };
            let Some(file) =
                read_small_file(&path, FILE_BYTES_MAX).ok().and_then(|bytes| Self::parse(&bytes).ok())
            else {
                continue;
            };
            // Looked at after the file was read: a device that came since has a file of another process.
            if !exists(id) {
                tracing::info!(path = %path.display(), "removing the pid file of a device that is gone");
                Self::remove(run_dir, id, file.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use forerun::geometry::Geometry;

    use super::*;
    use crate::device::{DataPath, QueueInfo};

    fn info() -> DeviceInfo {
        DeviceInfo {
            id: 7,
            pid: std::process::id() as i32,
            geometry: Geometry::new(64 << 20, 4096).unwrap(),
            read_only: false,
            queues: vec![QueueInfo { tid: 11, cpus: vec![0, 2] }, QueueInfo { tid: 12, cpus: vec![1] }],
            depth: 64,
            io_buffer_bytes: 524_288,
            data_path: DataPath::Copy,
            asked_flags: 0x18,
            granted_flags: 0x5a,
            not_granted: vec![],
            recovered: false,
        }
    }

    /// What the stock tool demands of a file, check by check; its JSON library throws where a value
    /// has another type.
    fn stock_reads(bytes: &[u8], queues: usize) -> (i64, Value) {
        let head = &bytes[..32];
        let end = head.iter().position(|byte| *byte == b'\n').unwrap();
        assert!(head[end + 1..].iter().all(|byte| *byte == 0));
        let pid = std::str::from_utf8(&head[..end]).unwrap().parse::<i64>().unwrap();
        let json = &bytes[32..];
        assert_eq!(json.iter().position(|byte| *byte == 0), Some(json.len() - 1), "one zero, at the end");
        let json: Value = serde_json::from_slice(&json[..json.len() - 1]).unwrap();
        assert!(json["target"]["name"].as_str().unwrap().len() < 32);
        assert!(json["target"]["type"].is_i64() && json["target"]["dev_size"].is_u64());
        assert!(json["target"].to_string().len() < 512);
        assert!(json["dev_info"]["dev_id"].is_u64() && json["params"].is_object());
        for number in 0..queues {
            let queue = &json["queues"][number.to_string()];
            assert!(queue["qid"].is_u64() && queue["tid"].is_i64() && queue["affinity"].is_string());
        }
        (pid, json)
    }

    #[test]
    fn the_stock_tool_can_read_it() {
        let file = PidFile::of(&info(), "data").unwrap();
        let (pid, json) = stock_reads(&file.to_bytes(), 2);
        assert_eq!(pid, i64::from(std::process::id()));
        assert_eq!(json["queues"]["0"]["affinity"], "0 2 ");
        assert_eq!(json["dev_info"]["dev_id"], 7);
        assert_eq!(json["target"]["dev_size"], 64 << 20);
        assert_eq!(PidFile::parse(&file.to_bytes()).unwrap(), file);
    }

    #[test]
    fn it_is_written_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("ublksrvd");
        let file = PidFile::of(&info(), "data").unwrap();
        file.write(&run_dir, 7).unwrap();
        assert_eq!(PidFile::read(&run_dir, 7).unwrap().volume, "data");
        PidFile::resize(&run_dir, 7, 128 << 20).unwrap();
        let (_, json) = stock_reads(&PidFile::read(&run_dir, 7).unwrap().to_bytes(), 2);
        assert_eq!(
            (&json["target"]["dev_size"], &json["params"]["basic"]["dev_sectors"]),
            (&json!(128 << 20), &json!(128 << 11))
        );
        PidFile { pid: 1, ..file.clone() }.write(&run_dir, 8).unwrap();
        PidFile::remove(&run_dir, 7, file.pid);
        PidFile::remove(&run_dir, 8, file.pid);
        assert!(PidFile::read(&run_dir, 7).is_err());
        assert!(PidFile::read(&run_dir, 8).is_ok(), "another process's file stays");
        PidFile::remove_stale(&run_dir, |id| id != 8);
        assert!(PidFile::read(&run_dir, 8).is_err());
    }

    #[test]
    fn a_file_that_came_while_stale_ones_are_looked_for_stays() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("ublksrvd");
        let file = PidFile::of(&info(), "data").unwrap();
        PidFile { pid: 1, ..file.clone() }.write(&run_dir, 8).unwrap();
        PidFile::remove_stale(&run_dir, |_| {
            // Another process gets the number at this moment.
            file.write(&run_dir, 8).unwrap();
            false
        });
        assert_eq!(PidFile::read(&run_dir, 8).unwrap().pid, file.pid);
    }

    #[test]
    fn what_was_not_granted_is_kept_for_the_next_process() {
        let not_granted =
            vec!["AUTO_BUF_REG".to_owned(), "4 queues (it has 2: no more than CPUs)".to_owned()];
        let file = PidFile::of(&DeviceInfo { not_granted: not_granted.clone(), ..info() }, &"x".repeat(127))
            .unwrap();
        stock_reads(&file.to_bytes(), 2);
        assert_eq!(PidFile::parse(&file.to_bytes()).unwrap().not_granted(), not_granted);
        assert!(PidFile::of(&info(), "data").unwrap().not_granted().is_empty());
    }

    #[test]
    fn other_files_are_refused_and_long_names_too() {
        for bytes in
            [&b""[..], b"12\n", b"x\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0{}\0"]
        {
            assert!(PidFile::parse(bytes).is_err());
        }
        let mut other = PidFile::of(&info(), "data").unwrap();
        other.json["target"]["name"] = "loop".into();
        let error = PidFile::parse(&other.to_bytes()).unwrap_err().to_string();
        assert_eq!(error, "it is of a device of type loop, not forerun");
        assert!(PidFile::of(&info(), &"x".repeat(600)).is_err());
    }
}
