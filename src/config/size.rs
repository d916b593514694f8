//! Sizes as people write and read them.
//!
//! Units are powers of 1024 and nothing else: `K M G T` and `KiB MiB GiB TiB` mean the same, in
//! either case, as in LVM's and QEMU's options. `KB MB GB TB` are refused, because half of their
//! readers take them for powers of 1000: a volume of the wrong size is found too late.

use thiserror::Error;

/// A size that was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SizeError {
    /// No number, or an unknown unit.
    #[error(
        "{0:?} is not a size; write a whole number and a unit, such as 64MiB, 10G or 1T (powers of 1024), or plain bytes"
    )]
    Form(String),
    /// A fraction.
    #[error("{0:?} is not a whole number; use the next smaller unit, such as 1536M for 1.5G")]
    Fraction(String),
    /// A unit that people read in two ways.
    #[error(
        "{text:?}: the unit {unit:?} is read as 1000 by some and as 1024 by others; write {letter} or {letter}iB (powers of 1024), or plain bytes"
    )]
    Ambiguous {
        /// The whole text.
        text: String,
        /// The unit in it.
        unit: String,
        /// The unit's first letter in upper case.
        letter: char,
    },
    /// More than 64 bits hold.
    #[error("{0:?} is too large; the largest volume has 64T")]
    TooLarge(String),
}

/// How much of a refused text a message shows, in characters.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// Reads a size in bytes: a whole number, then `K M G T` or `KiB MiB GiB TiB` (powers of 1024, either
/// case), or nothing or `B` for bytes. A space may stand between them.
///
/// # Errors
/// No whole number, an unknown or ambiguous unit, or more than 64 bits hold.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let shown = || text.chars().take(SHOWN_CHARACTERS_MAX).collect::<String>();
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(end);
    if digits.is_empty() {
        return Err(SizeError::Form(shown()));
    }
    if unit.starts_with(['.', ',']) {
        return Err(SizeError::Fraction(shown()));
    }
    let unit = unit.trim_start();
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "kb" | "mb" | "gb" | "tb" => {
            let letter = unit.chars().next().map_or('?', |c| c.to_ascii_uppercase());
            return Err(SizeError::Ambiguous { text: shown(), unit: unit.into(), letter });
        }
        _ => return Err(SizeError::Form(shown())),
    };
    let number: u64 = digits.parse().map_err(|_| SizeError::TooLarge(shown()))?;
    number.checked_mul(1 << shift).ok_or_else(|| SizeError::TooLarge(shown()))
}

/// A size for people: at most one decimal and a binary unit, such as `1.5 GiB`; `0 B` to `16 EiB`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("10G", 10 << 30),
            ("10g", 10 << 30),
            ("1T", 1 << 40),
            (" 512k ", 512 << 10),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_unclear_is_refused_with_the_way_out() {
        assert!(matches!(parse_size(""), Err(SizeError::Form(_))));
        assert!(matches!(parse_size("-1"), Err(SizeError::Form(_))));
        assert!(matches!(parse_size("ten"), Err(SizeError::Form(_))));
        assert!(matches!(parse_size("10X"), Err(SizeError::Form(_))));
        assert!(matches!(parse_size("10 G G"), Err(SizeError::Form(_))));
        assert!(matches!(parse_size("0x10"), Err(SizeError::Form(_))));
        assert!(matches!(parse_size("1.5G"), Err(SizeError::Fraction(_))));
        assert!(matches!(parse_size("99999999999999999999"), Err(SizeError::TooLarge(_))));
        assert!(matches!(parse_size("17179869184G"), Err(SizeError::TooLarge(_))));
        let message = parse_size("10GB").expect_err("ambiguous").to_string();
        assert_eq!(
            message,
            "\"10GB\": the unit \"GB\" is read as 1000 by some and as 1024 by others; write G or GiB (powers of 1024), or plain bytes"
        );
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(format_size(0), "0 B");
        assert_eq!(format_size(64 << 20), "64.0 MiB");
        assert_eq!(format_size(3 << 29), "1.5 GiB");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[0-9]{0,25} ?[kmgtKMGTiIbB]{0,4}") {
            let _ = parse_size(&text);
        }

        #[test]
        fn every_unit_multiplies_exactly(number in 0u64..1 << 20, unit in 0usize..4) {
            for suffix in [["K", "M", "G", "T"][unit], ["KiB", "MiB", "GiB", "TiB"][unit]] {
                let expected = number << (10 * (unit + 1));
                prop_assert_eq!(parse_size(&format!("{number}{suffix}")), Ok(expected));
            }
        }
    }
}
