//! The files a capacity tier keeps open, so that a read of one block is one system call and not three.
//!
//! Never more than [`MAX_OPEN_FILES`]; the one that was used least recently goes. A file that is deleted is
//! forgotten first; reads of it that are under way keep their own hold on it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio_uring::fs::File;

use super::names::ObjectName;

/// The most files kept open between reads.
pub const MAX_OPEN_FILES: usize = 128;

#[derive(Default)]
struct State {
    files: BTreeMap<ObjectName, (u64, Rc<File>)>,
    uses: u64,
}

/// A bounded set of open files.
#[derive(Default)]
pub struct OpenFiles(RefCell<State>);

impl OpenFiles {
    /// The open file of an object.
    pub fn get(&self, name: ObjectName) -> Option<Rc<File>> {
        let mut state = self.0.borrow_mut();
        state.uses += 1;
        let uses = state.uses;
        let (used, file) = state.files.get_mut(&name)?;
        *used = uses;
        Some(Rc::clone(file))
    }

    /// Keeps a file open.
    pub fn put(&self, name: ObjectName, file: Rc<File>) {
        let mut state = self.0.borrow_mut();
        if state.files.len() >= MAX_OPEN_FILES {
            let oldest = state.files.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| *name);
            oldest.and_then(|name| state.files.remove(&name));
        }
        state.uses += 1;
        let uses = state.uses;
        state.files.insert(name, (uses, file));
    }

    /// Closes the file of an object that is about to be deleted.
    pub fn forget(&self, name: ObjectName) {
        self.0.borrow_mut().files.remove(&name);
    }
}
