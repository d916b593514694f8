//! Pins of clones in a capacity directory: `clones/<uuid>`, made when the first clone is.
//!
//! A pin gets its name when its bytes are durable, and counts when the folder is. Whatever is there under a clone's name is
//! given to the reader as it is: a pin that cannot be read must not be taken for none.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use uuid::Uuid;

use super::names::VolumeUuid;
use super::pin::PIN_BYTES;
use super::plain_file::{OTHER_KIND, open_now};

/// The folder of pins.
pub(super) const CLONES: &str = "clones";

/// Writes a pin durably, in the place of one of the same clone.
pub fn put(directory: &Path, clone: VolumeUuid, bytes: &[u8]) -> io::Result<()> {
    let folder = directory.join(CLONES);
    match DirBuilder::new().create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => File::open(directory)?.sync_all()?,
    }
    let draft = folder.join(format!("{clone}.tmp"));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(clone.to_string()))?;
    File::open(&folder)?.sync_all()
}

/// The pins that are there, as they are.
pub fn all(directory: &Path) -> io::Result<Vec<(VolumeUuid, Vec<u8>)>> {
    let entries = match fs::read_dir(directory.join(CLONES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut pins = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(clone) = entry.file_name().to_str().and_then(uuid_of) else { continue };
        let mut bytes = Vec::new();
        match open_now(&entry.path(), false) {
            Ok(file) => file.take(PIN_BYTES as u64 + 1).read_to_end(&mut bytes).map(drop)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // What is no file is no pin that can be read.
            Err(error) if error.kind() == OTHER_KIND => {}
            Err(error) => return Err(error),
        }
        pins.push((clone, bytes));
    }
    pins.sort_unstable();
    Ok(pins)
}

fn uuid_of(name: &str) -> Option<VolumeUuid> {
    let uuid = Uuid::try_parse(name).ok()?;
    let clone = VolumeUuid(*uuid.as_bytes());
    (clone.to_string() == name).then_some(clone)
}

/// Removes a pin durably; one that is not there counts as removed.
pub fn remove(directory: &Path, clone: VolumeUuid) -> io::Result<()> {
    let folder = directory.join(CLONES);
    match fs::remove_file(folder.join(clone.to_string())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    File::open(&folder)?.sync_all()?;
    // Only if it is empty.
    let _ = fs::remove_dir(&folder);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (VolumeUuid([1; 16]), VolumeUuid([2; 16]));
        assert_eq!(all(dir.path()).unwrap(), []);
        remove(dir.path(), a).unwrap();
        put(dir.path(), a, b"first").unwrap();
        put(dir.path(), a, b"second").unwrap();
        put(dir.path(), b, b"other").unwrap();
        fs::write(dir.path().join(CLONES).join("letter"), "dear").unwrap();
        fs::write(dir.path().join(CLONES).join(format!("{a}.tmp")), "half").unwrap();
        assert_eq!(all(dir.path()).unwrap(), [(a, b"second".to_vec()), (b, b"other".to_vec())]);
        remove(dir.path(), a).unwrap();
        assert_eq!(all(dir.path()).unwrap(), [(b, b"other".to_vec())]);
        // What is no file is there all the same.
        fs::remove_file(dir.path().join(CLONES).join(b.to_string())).unwrap();
        fs::create_dir(dir.path().join(CLONES).join(b.to_string())).unwrap();
        assert_eq!(all(dir.path()).unwrap(), [(b, Vec::new())]);
    }
}
