//! A length of time as people and Kubernetes write it: a GEP-2257 string such as `60s`, `1m30s` or `500ms`.
//!
//! One to four pairs of a whole number (at most five digits) and a unit (`h`, `m`, `s`, `ms`), summed. Never negative,
//! never finer than a millisecond. It is written back in one canonical spelling, largest unit first.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a duration: whole numbers with the units h, m, s or ms, such as 60s, 1m30s or 500ms"
)]
pub struct DurationError;

/// A [`Duration`] that reads and writes GEP-2257 strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WireDuration(Duration);

impl WireDuration {
    /// The pattern of its text, as GEP-2257 of the Gateway API gives it.
    pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The duration itself.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Deref for WireDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<WireDuration> for Duration {
    fn from(wire: WireDuration) -> Self {
        wire.0
    }
}

/// What is finer than a millisecond is cut off, because the string could not carry it.
impl From<Duration> for WireDuration {
    fn from(duration: Duration) -> Self {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(Duration::from_millis(milliseconds))
    }
}

impl FromStr for WireDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let mut rest = text;
        let mut milliseconds = 0;
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=5).contains(&digits) {
                return Err(DurationError);
            }
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at(letters);
            let (_, factor) = UNITS.iter().find(|(u, _)| *u == unit).ok_or(DurationError)?;
            milliseconds += number.parse::<u64>().map_err(|_| DurationError)? * factor;
            rest = tail;
            if rest.is_empty() {
                return Ok(Self::from_millis(milliseconds));
            }
        }
        Err(DurationError)
    }
}

impl fmt::Display for WireDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        for (unit, factor) in UNITS {
            let count = rest / factor;
            rest %= factor;
            if count > 0 {
                text.push_str(&format!("{count}{unit}"));
            }
        }
        f.pad(&text)
    }
}

impl Serialize for WireDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WireDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_gateway_api_reads_and_writes_it_canonically() {
        for (text, milliseconds, canonical) in [
            ("60s", 60_000, "1m"),
            ("54s", 54_000, "54s"),
            ("1m30s", 90_000, "1m30s"),
            ("500ms", 500, "500ms"),
            ("1h0m10s", 3_610_000, "1h10s"),
            ("0s", 0, "0s"),
            ("0h", 0, "0s"),
            ("10s30s", 40_000, "40s"),
            ("99999h", 99_999 * 3_600_000, "99999h"),
            ("1500ms", 1_500, "1s500ms"),
            ("5ms1s", 1_005, "1s5ms"),
        ] {
            let read: WireDuration = text.parse().unwrap();
            assert_eq!(read.as_millis(), milliseconds, "{text}");
            assert_eq!(read.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(read), "canonical text reads back");
        }
    }

    #[test]
    fn refuses_what_the_gateway_api_refuses() {
        for text in [
            "",
            "60",
            "s",
            "60 s",
            " 60s",
            "60s ",
            "-1s",
            "+1s",
            "1.5s",
            "1d",
            "1us",
            "1S",
            "100000s",
            "1h1m1s1ms1s",
            "1s-",
            "٦s",
            "1µs",
            "1sm",
        ] {
            assert_eq!(text.parse::<WireDuration>(), Err(DurationError), "{text:?}");
        }
    }
}
