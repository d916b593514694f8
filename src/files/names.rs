//! The names of inodes. Every directory is looked through once for those that are wanted; from there it goes upwards by `..`,
//! a level at a time, so that neither the tree's size nor a circle in it matters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use super::Kind;
use super::error::Result;
use super::file_system::{Budget, FileSystem, Inode, Which};
use super::finder::ok_or_count;

/// How many directories deep a name is looked for; a path of the kernel has at most 2,048 names.
const LEVELS_MAX: usize = 2_048;
/// The longest path that is told whole, in bytes, as the kernel's.
const PATH_BYTES_MAX: usize = 4_096;

/// What was found: each inode's directory, and its name there.
pub struct Names {
    root: u64,
    links: HashMap<u64, (u64, Box<[u8]>)>,
}

/// Finds names for `wanted` and for all directories above.
pub fn find(file_system: &dyn FileSystem, wanted: &BTreeSet<u64>, damaged: &mut u64) -> Result<Names> {
    let mut names = Names { root: file_system.root(), links: HashMap::new() };
    let missing = wanted.iter().filter(|inode| **inode != names.root).count();
    if missing == 0 {
        return Ok(names);
    }
    let mut blocks = Budget::new(file_system.blocks());
    let mut inodes = Budget::new(file_system.blocks());
    file_system.inodes(Which::Directories, &mut inodes, &mut |directory| {
        let Some(directory) = ok_or_count(directory, damaged)? else { return Ok(ControlFlow::Continue(())) };
        let looked = names.look(file_system, directory, &mut blocks, |inode| wanted.contains(&inode));
        ok_or_count(looked, damaged)?;
        Ok(if names.links.len() >= missing { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let mut level: BTreeSet<u64> = names.links.values().map(|(directory, _)| *directory).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..LEVELS_MAX {
        level.retain(|directory| {
            *directory != names.root && !names.links.contains_key(directory) && seen.insert(*directory)
        });
        if level.is_empty() {
            break;
        }
        level = names.one_up(file_system, &level, damaged)?;
    }
    Ok(names)
}

impl Names {
    /// Notes the names that a directory has for inodes that are wanted and have none yet.
    fn look(
        &mut self,
        file_system: &dyn FileSystem,
        directory: &Inode,
        budget: &mut Budget,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Result<()> {
        file_system.entries(directory, budget, &mut |inode, name| {
            if is_wanted(inode) && inode != self.root && !matches!(name, b"." | b"..") {
                self.links.entry(inode).or_insert_with(|| (directory.number, name.into()));
            }
            ControlFlow::Continue(())
        })
    }

    /// Names directories by the ones above them, which it returns.
    fn one_up(
        &mut self,
        file_system: &dyn FileSystem,
        level: &BTreeSet<u64>,
        damaged: &mut u64,
    ) -> Result<BTreeSet<u64>> {
        let mut budget = Budget::new(file_system.blocks());
        let mut above: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for directory in level {
            let mut parent = None;
            let looked = file_system.inode(*directory).and_then(|directory| {
                file_system.entries(&directory, &mut budget, &mut |inode, name| {
                    if name != b".." {
                        return ControlFlow::Continue(());
                    }
                    parent = Some(inode);
                    ControlFlow::Break(())
                })
            });
            ok_or_count(looked, damaged)?;
            if let Some(parent) = parent {
                above.entry(parent).or_default().insert(*directory);
            }
        }
        for (parent, children) in &above {
            let looked = file_system.inode(*parent).and_then(|parent| match parent.kind {
                Kind::Directory => {
                    self.look(file_system, &parent, &mut budget, |inode| children.contains(&inode))
                }
                _ => Ok(()),
            });
            ok_or_count(looked, damaged)?;
        }
        Ok(above.into_keys().collect())
    }

    /// The path from the root; `None` where an inode has no name. Where a directory above has none, or the path is longer
    /// than the kernel's may be, it begins with `...`.
    pub fn path(&self, inode: u64) -> Option<String> {
        if inode == self.root {
            return Some("/".into());
        }
        let (directory, name) = self.links.get(&inode)?;
        let mut directory = *directory;
        let mut names = vec![escaped(name)];
        let mut length: usize = names.iter().map(String::len).sum();
        while directory != self.root {
            let Some((above, name)) = self.links.get(&directory) else {
                names.push("...".into());
                break;
            };
            let name = escaped(name);
            length += name.len() + 1;
            // Each name has a byte at least, so that a circle ends here as well.
            if length >= PATH_BYTES_MAX {
                names.push("...".into());
                break;
            }
            names.push(name);
            directory = *above;
        }
        let mut path = String::with_capacity(length + 1);
        for name in names.iter().rev() {
            if name != "..." || !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
        }
        Some(path)
    }
}

/// A name as text that is safe to print: a file's name must not steer a terminal.
fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' || is_invisible(character) {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Characters that change the order in which others are shown, or show nothing.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(links: &[(u64, u64, &[u8])]) -> Names {
        let links = links.iter().map(|(inode, directory, name)| (*inode, (*directory, (*name).into())));
        Names { root: 2, links: links.collect() }
    }

    #[test]
    fn a_path_leads_from_the_root() {
        let names =
            names(&[(5, 2, b"var"), (6, 5, b"log"), (7, 6, b"app.log"), (9, 8, b"lost"), (10, 11, b"a")]);
        assert_eq!(names.path(7).as_deref(), Some("/var/log/app.log"));
        assert_eq!(names.path(2).as_deref(), Some("/"));
        assert_eq!(names.path(9).as_deref(), Some(".../lost"));
        assert_eq!(names.path(8), None);
    }

    #[test]
    fn a_circle_of_directories_ends() {
        let path = names(&[(5, 6, b"a"), (6, 5, b"b")]).path(5).expect("a name");
        assert!(path.starts_with(".../") && path.ends_with("/b/a") && path.len() <= PATH_BYTES_MAX + 4);
    }

    #[test]
    fn a_name_cannot_steer_a_terminal() {
        assert_eq!(escaped(b"plain name.txt"), "plain name.txt");
        assert_eq!(escaped("m\u{fc}ll".as_bytes()), "m\u{fc}ll");
        assert_eq!(escaped(b"\x1b[31m\n\\\xff"), "\\x1b[31m\\x0a\\x5c\\xff");
        assert_eq!(escaped("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }
}
