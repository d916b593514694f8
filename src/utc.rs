//! Moments as calendar time (UTC), for names and for people. The API and all files count microseconds.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970 (UTC), by the machine's clock; 0 on a clock before 1970.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A second of calendar time; `Display` gives `2026-11-23 09:45:00`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Utc {
    /// The year, from 1970.
    pub year: u64,
    /// The month, 1 to 12.
    pub month: u64,
    /// The day of the month, 1 to 31.
    pub day: u64,
    /// The hour, 0 to 23.
    pub hour: u64,
    /// The minute, 0 to 59.
    pub minute: u64,
    /// The second, 0 to 59.
    pub second: u64,
}

const DAYS_IN_400_YEARS: u64 = 146_097;
const DAYS_BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

impl Utc {
    /// The second that a moment in microseconds since 1970 falls into.
    #[must_use]
    pub fn from_us(us: u64) -> Self {
        let seconds = us / 1_000_000;
        // Calendars repeat every 400 years, so the loop over the years is short for any moment.
        let days = seconds / 86_400;
        let mut year = 1970 + 400 * (days / DAYS_IN_400_YEARS);
        let mut day = days % DAYS_IN_400_YEARS;
        while day >= days_in_year(year) {
            day -= days_in_year(year);
            year += 1;
        }
        let before = |month: &u64| days_before(year, *month);
        let month = (1..=12).rev().find(|month| before(month) <= day).unwrap_or(1);
        Self {
            year,
            month,
            day: day - days_before(year, month) + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// The moment as part of a name, `20261123-094500`.
    #[must_use]
    pub fn compact(&self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_before(year: u64, month: u64) -> u64 {
    let index = usize::try_from(month.saturating_sub(1)).unwrap_or(0);
    let days = DAYS_BEFORE_MONTH.get(index).copied().unwrap_or(0);
    days + u64::from(month > 2 && is_leap(year))
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_795_427_100, "2026-11-23 09:45:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(Utc::from_us(seconds * 1_000_000).to_string(), text);
        }
        assert_eq!(Utc::from_us(1_795_427_100_000_000).compact(), "20261123-094500");
    }

    #[test]
    fn days_follow_each_other() {
        let mut last = Utc::from_us(0);
        for day in 1..200_000u64 {
            let now = Utc::from_us(day * 86_400_000_000);
            let next_day = now.month == last.month && now.day == last.day + 1;
            let next_month =
                now.day == 1 && (now.month == last.month + 1 || (now.month == 1 && last.month == 12));
            assert!(next_day || next_month, "{last} then {now}");
            last = now;
        }
        assert!(Utc::from_us(u64::MAX).year > 500_000);
    }
}
