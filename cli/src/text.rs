//! Durations and times as people read and write them.

use std::time::Duration;

/// Units of a duration, largest first: suffix and milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration such as `500ms`, `30s`, `5min` (or `5m`), `2h`, `1d`.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 500ms, 30s, 5min, 2h or 1d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = if unit == "m" { "min" } else { unit };
    let ms = UNITS
        .iter()
        .find(|(suffix, _)| *suffix == unit)
        .map(|(_, ms)| ms)
        .ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(*ms)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is too long a duration"))
}

/// Writes milliseconds with at most two units: `870 ms`, `4.2 s`, `3 min 5 s`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => {
            let tenths = ms / 100;
            match tenths % 10 {
                0 => format!("{} s", tenths / 10),
                rest => format!("{}.{rest} s", tenths / 10),
            }
        }
        10_000..60_000 => format!("{} s", ms / 1_000),
        60_000..3_600_000 => two(ms, (60_000, "min"), (1_000, "s")),
        3_600_000..86_400_000 => two(ms, (3_600_000, "h"), (60_000, "min")),
        _ => two(ms, (86_400_000, "d"), (3_600_000, "h")),
    }
}

fn two(ms: u64, large: (u64, &str), small: (u64, &str)) -> String {
    let (whole, rest) = (ms / large.0, ms % large.0 / small.0);
    match rest {
        0 => format!("{whole} {}", large.1),
        _ => format!("{whole} {} {rest} {}", large.1, small.1),
    }
}

/// Writes a wall time as `2026-11-21 02:40:53 UTC`; `-` for 0, which means unknown.
pub(crate) fn wall_time(wall_ms: u64) -> String {
    if wall_ms == 0 {
        return "-".to_owned();
    }
    let seconds = wall_ms / 1_000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3_600, of_day % 3_600 / 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The Gregorian date of a day counted from 1970-01-01. Years begin in March
/// here, so that the leap day is a year's last one.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    let calendar_year = year + era * 400 + u64::from(calendar_month <= 2);
    (calendar_year, calendar_month, date)
}

/// `1 row lock`, `2 row locks`.
pub(crate) fn count(number: u64, singular: &str) -> String {
    match number {
        1 => format!("1 {singular}"),
        _ if singular.ends_with("ch") => format!("{number} {singular}es"),
        _ => format!("{number} {singular}s"),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Bytes as `3.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut tenths = count.saturating_mul(10) / 1_024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("5min", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
        for bad in ["", "s", "30", "-1s", "1.5s", "30 s", "30x", "ms30"] {
            let error = parse_duration(bad).expect_err(bad);
            assert!(error.contains("write 500ms"), "{error}");
        }
        let long = parse_duration("99999999999999999d").expect_err("overflows");
        assert!(long.contains("too long"), "{long}");
    }

    #[test]
    fn durations_are_written() {
        for (ms, text) in [
            (0, "0 ms"),
            (870, "870 ms"),
            (1_000, "1 s"),
            (4_250, "4.2 s"),
            (59_999, "59 s"),
            (185_000, "3 min 5 s"),
            (3_600_000, "1 h"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn wall_times_are_written() {
        for (ms, text) in [
            (0, "-"),
            (1, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_767_225_599_999, "2025-12-31 23:59:59 UTC"),
            (1_795_228_853_000, "2026-11-21 02:40:53 UTC"),
        ] {
            assert_eq!(wall_time(ms), text);
        }
    }

    #[test]
    fn small_words() {
        assert_eq!(count(1, "branch"), "1 branch");
        assert_eq!(count(2, "branch"), "2 branches");
        assert_eq!(count(0, "row lock"), "0 row locks");
        let items: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(list(&items), "a, b and c");
        assert_eq!(list(&items[..2]), "a and b");
        assert_eq!(list(&items[..1]), "a");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(64 * 1024 * 1024), "64.0 MiB");
        assert_eq!(bytes(1_536), "1.5 KiB");
    }

    proptest! {
        #[test]
        fn no_text_and_no_number_panics(text in ".{0,20}", ms: u64) {
            let _ = parse_duration(&text);
            let _ = (duration(ms), wall_time(ms), bytes(ms));
        }
    }
}
