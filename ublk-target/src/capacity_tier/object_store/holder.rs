//! Who holds a claim: what a claim's object says, and whether that process is still there.
//!
//! Only for a process of this very boot and process namespace that can be told at once. All others show that they live by
//! rewriting an object (`claims`).

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The claims that writers of this process hold: its being alive says nothing about a writer that was dropped.
static HELD_HERE: Mutex<BTreeSet<Uuid>> = Mutex::new(BTreeSet::new());

/// The longest claim that is read, in bytes.
pub const MAX_CLAIM_BYTES: usize = 4096;

/// The content of a claim.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The host's name, for people.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// When it was started, in clock ticks since boot: a process number is used again.
    pub started: u64,
    /// The kernel's boot and the namespace of process numbers.
    pub boot: String,
}

/// What can be told of a holder from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    Alive,
    Dead,
    /// It is not of this machine.
    Unknown,
}

impl Holder {
    /// This process.
    pub fn here() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string());
        let boot = text("/proc/sys/kernel/random/boot_id");
        let pid = std::process::id();
        // Without either no process is taken for one of this machine.
        let boot = match namespace {
            Ok(namespace) if !boot.is_empty() => format!("{boot} {namespace}"),
            _ => Uuid::new_v4().to_string(),
        };
        Self { host: text("/proc/sys/kernel/hostname"), pid, started: started(pid).unwrap_or(0), boot }
    }

    /// Of a machine of its own, for tests: nothing can be told of it from anywhere else.
    #[cfg(test)]
    pub fn elsewhere(host: &str) -> Self {
        Self { host: host.to_owned(), pid: 1, started: 1, boot: Uuid::new_v4().to_string() }
    }

    /// As the content of a claim.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the content of a claim; `None` for something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether the holder of the claim `uuid` lives, as far as `here` can tell.
    pub fn life(&self, here: &Self, uuid: Uuid) -> Life {
        if self.boot != here.boot {
            return Life::Unknown;
        }
        let lives = if self.pid == here.pid {
            held_here().contains(&uuid)
        } else {
            started(self.pid) == Some(self.started)
        };
        if lives { Life::Alive } else { Life::Dead }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It came from the store: nothing in it may play with a terminal.
        let host: String = self.host.chars().filter(|c| !c.is_control()).take(64).collect();
        write!(f, "process {} on host {host}", self.pid)
    }
}

fn held_here() -> std::sync::MutexGuard<'static, BTreeSet<Uuid>> {
    HELD_HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Field 22 of `/proc/PID/stat`; the second one is in brackets and may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A claim that a writer of this process holds, for as long as it lives.
pub struct HeldHere(Uuid);

impl HeldHere {
    pub fn new(uuid: Uuid) -> Self {
        held_here().insert(uuid);
        Self(uuid)
    }
}

impl Drop for HeldHere {
    fn drop(&mut self) {
        held_here().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_here_is_known_and_who_is_elsewhere_is_not() {
        let (here, uuid) = (Holder::here(), Uuid::new_v4());
        assert_eq!(Holder::decode(&here.encode()), Some(here.clone()));
        assert_eq!(here.life(&here, uuid), Life::Dead, "of this process, but no writer has it");
        let held = HeldHere::new(uuid);
        assert_eq!(here.life(&here, uuid), Life::Alive);
        drop(held);
        assert_eq!(here.life(&here, uuid), Life::Dead);
        let parent = std::os::unix::process::parent_id();
        let other = Holder { pid: parent, started: started(parent).unwrap(), ..here.clone() };
        assert_eq!(other.life(&here, uuid), Life::Alive);
        let later = Holder { started: other.started + 1, ..other };
        assert_eq!(later.life(&here, uuid), Life::Dead, "the number was given to another process");
        assert_eq!(Holder::elsewhere("b").life(&here, uuid), Life::Unknown);
        assert_eq!(Holder::decode(b"{}"), None);
        let odd = Holder { host: "a\x1b[2J".to_owned(), ..here };
        assert!(!odd.to_string().contains('\x1b'));
    }
}
