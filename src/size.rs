//! Sizes and ages as people write them: `20G`, `1.5GiB`, `36h`, `60d`.

use crate::error::{Error, Result};
use std::time::Duration;

const SIZES: [(&str, u64); 5] = [
    ("", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
];

const AGES: [(&str, u64); 5] = [
    ("s", 1),
    ("m", 60),
    ("h", 60 * 60),
    ("d", 24 * 60 * 60),
    ("w", 7 * 24 * 60 * 60),
];

/// A number without a unit is bytes only from here on: nobody means 20 bytes by `20`.
const BARE_MIN: u64 = 1 << 20;

/// A size in bytes. `K`, `M`, `G` and `T` are powers of 1024, with or without `iB` or `B`.
///
/// # Errors
/// When the text is malformed, or a small number without a unit, with an example of a good one.
pub fn parse_size(text: &str) -> Result<u64> {
    let size = scaled(text, |unit| {
        let unit = unit.strip_suffix('b').unwrap_or(unit);
        let unit = unit
            .strip_suffix('i')
            .filter(|u| !u.is_empty())
            .unwrap_or(unit);
        find(&SIZES, unit)
    })
    .ok_or_else(|| Error::input(format!("{text:?} is not a size: write it as 20G or 1.5GiB")))?;
    let is_bare = text.trim_end().ends_with(|c: char| c.is_ascii_digit());
    if is_bare && (1..BARE_MIN).contains(&size) {
        return Err(Error::input(format!(
            "{text:?} has no unit: write it as 20G, or with B for bytes"
        )));
    }
    Ok(size)
}

/// An age or a span of time.
///
/// # Errors
/// When the text is no age, with an example of one.
pub fn parse_age(text: &str) -> Result<Duration> {
    scaled(text, |unit| find(&AGES, unit))
        .map(Duration::from_secs)
        .ok_or_else(|| {
            Error::input(format!(
                "{text:?} is not an age: write it as 60d, 36h or 10m"
            ))
        })
}

/// A size as people write it: `487 MiB`, `1.2 MiB`.
pub fn show_size(bytes: u64) -> String {
    let mut unit = 0;
    while unit + 1 < SIZES.len() && bytes >= SIZES[unit + 1].1 {
        unit += 1;
    }
    let (name, scale) = SIZES[unit];
    if unit == 0 {
        return format!("{bytes} B");
    }
    let name = name.to_ascii_uppercase();
    let (bytes, scale) = (u128::from(bytes), u128::from(scale));
    let tenths = (bytes * 10 + scale / 2) / scale;
    if tenths < 100 && tenths % 10 != 0 {
        format!("{}.{} {name}iB", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}iB", (bytes + scale / 2) / scale)
    }
}

/// A count with its thousands apart: `3,025`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number of things: `1 output`, `3,025 outputs`, `2 misses`.
pub fn count(number: u64, thing: &str) -> String {
    let plural = match number {
        1 => "",
        _ if thing.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {thing}{plural}", show_count(number))
}

/// An age as people write it: `12 d`, `3 h`.
pub fn show_age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (name, scale) = match seconds {
        0..=119 => ("s", 1),
        120..=7_199 => ("min", 60),
        7_200..=172_799 => ("h", 60 * 60),
        _ => ("d", 24 * 60 * 60),
    };
    format!("{} {name}", seconds / scale)
}

/// A duration in milliseconds as people write it: `0.2 s`, `42 s`, `3 min 5 s`, `2 h 11 min`.
pub fn show_duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 if ms > 0 => format!("0.{} s", (ms / 100).max(1)),
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn find(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
}

/// Reads a number, whole or with decimals, and multiplies it by its unit.
fn scaled(text: &str, scale_of: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = scale_of(unit.trim())?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    if decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let part: u128 = decimals.parse().ok()?;
    let part = part * u128::from(scale) / 10u128.pow(decimals.len() as u32);
    whole
        .checked_mul(scale)?
        .checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, size) in [
            ("0", 0),
            ("512B", 512),
            ("21474836480", 20 << 30),
            ("1k", 1024),
            ("20G", 20 << 30),
            ("20GB", 20 << 30),
            ("1.5GiB", 3 << 29),
            ("2 TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
    }

    #[test]
    fn ages_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("36h", 129_600),
            ("60d", 5_184_000),
            ("1.5m", 90),
        ] {
            assert_eq!(parse_age(text).unwrap().as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn sizes_and_ages_are_shown_as_people_write_them() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (487 << 20, "487 MiB"),
            (6 * (1 << 20) / 5 + 1, "1.2 MiB"),
            (20 << 30, "20 GiB"),
            (u64::MAX / 16, "1048576 TiB"),
        ] {
            assert_eq!(show_size(size), text);
        }
        for (seconds, text) in [
            (5, "5 s"),
            (600, "10 min"),
            (7_200, "2 h"),
            (200_000, "2 d"),
        ] {
            assert_eq!(show_age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_bad_size_or_age_is_refused_with_a_good_one() {
        for text in [
            "",
            "G",
            "-1G",
            "1e9",
            "20X",
            "1..5G",
            "1.G",
            ".5G",
            "99999999T",
            "iB",
            "20",
            "512 ",
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains("20G"), "{error}");
        }
        for text in ["", "60", "d", "60 years", "-1d"] {
            let error = parse_age(text).unwrap_err().to_string();
            assert!(error.contains("60d"), "{error}");
        }
    }

    #[test]
    fn thousands_are_kept_apart() {
        assert_eq!(count(1, "miss"), "1 miss");
        assert_eq!(count(3025, "miss"), "3,025 misses");
        assert_eq!(count(0, "output"), "0 outputs");
        for (count, shown) in [
            (0, "0"),
            (999, "999"),
            (3025, "3,025"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(show_count(count), shown);
        }
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        assert_eq!(show_duration(0), "0 s");
        assert_eq!(show_duration(3), "0.1 s");
        assert_eq!(show_duration(250), "0.2 s");
        assert_eq!(show_duration(112_000), "1 min 52 s");
        assert_eq!(show_duration(7_860_000), "2 h 11 min");
    }
}
