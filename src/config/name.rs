//! The names of volumes and snapshots.
//!
//! A name is 1 to 63 characters of `a-z 0-9 . _ -` and begins with a letter or a digit. So it is
//! always exactly one path component, never `.` or `..`, and needs no quoting anywhere.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest name, in bytes (all characters of a name are ASCII).
pub const NAME_BYTES_MAX: usize = 63;

/// How much of a refused name a message shows, in characters.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// A name that was refused; the message holds the rule.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{what} name {shown:?}: {problem}; a name has 1 to 63 characters of a-z 0-9 . _ - and begins with a letter or digit"
)]
pub struct NameError {
    /// "volume" or "snapshot".
    pub what: &'static str,
    /// The name given, shortened where it is very long.
    pub shown: String,
    /// What is wrong with it.
    pub problem: String,
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    let refuse = |problem: String| {
        Err(NameError { what, shown: name.chars().take(SHOWN_CHARACTERS_MAX).collect(), problem })
    };
    let Some(first) = name.chars().next() else { return refuse("it is empty".into()) };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
        return refuse(format!("it contains {wrong:?}"));
    }
    if !first.is_ascii_alphanumeric() {
        return refuse(format!("it begins with {first:?}"));
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse(format!("it has {} characters", name.len()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $type(String);

        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// Anything but 1 to 63 characters of `a-z 0-9 . _ -` beginning with a letter or digit.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check($what, &name)?;
                Ok(Self(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a volume on this machine.
    VolumeName, "volume"
}
name! {
    /// The name of a snapshot within its volume.
    SnapshotName, "snapshot"
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rule_and_its_edges() {
        for good in ["a", "0", "data", "db-1.main_x", &"z".repeat(63)] {
            assert!(VolumeName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "../a", "A", "a b", "a\0", "ä", "a\n", &"z".repeat(64)]
        {
            assert!(VolumeName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_message_names_the_fault_and_the_rule() {
        let error = SnapshotName::new("../etc").expect_err("not a name");
        assert_eq!(
            error.to_string(),
            "snapshot name \"../etc\": it contains '/'; a name has 1 to 63 characters of a-z 0-9 . _ - \
             and begins with a letter or digit"
        );
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_one_normal_path_component(name in "\\PC{0,70}|[a-z0-9._/-]{0,70}") {
            if let Ok(accepted) = VolumeName::new(name.clone()) {
                prop_assert_eq!(accepted.as_str(), name.as_str());
                let parts: Vec<_> = Path::new(accepted.as_str()).components().collect();
                prop_assert!(matches!(parts.as_slice(), [Component::Normal(_)]));
                prop_assert!(name.len() <= NAME_BYTES_MAX);
            }
        }

        #[test]
        fn what_the_rule_describes_is_accepted(name in "[a-z0-9][a-z0-9._-]{0,62}") {
            prop_assert!(SnapshotName::new(name).is_ok());
        }
    }
}
