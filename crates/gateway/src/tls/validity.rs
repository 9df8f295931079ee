//! From when until when a certificate holds, and what it is called: the few fields of it that are told to people and to metrics.
//!
//! Whether the certificate is in order as such, the TLS library has looked at when it took its key; what this does not
//! understand is refused. The structure is that of RFC 5280, section 4.1, in DER (ITU-T X.690).

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use time::{Date, Month, OffsetDateTime, format_description::well_known::Rfc3339};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// The version, which stands before the serial number unless it is the first.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validity {
    /// Its serial number, in hexadecimal with colons.
    pub(crate) serial: String,
    /// When it begins to hold, in seconds of Unix time.
    pub(crate) not_before: i64,
    /// When it ends, in seconds of Unix time.
    pub(crate) not_after: i64,
    /// The first of these times for people.
    pub(crate) begins: String,
    /// The second.
    pub(crate) ends: String,
}

/// How a certificate stands to this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    /// Its time has not come.
    Early,
    /// It is valid.
    Valid,
    /// Its time is over.
    Ended,
}

impl Validity {
    /// That of a certificate in DER; none if it is not one.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (outer, _) = element(certificate, SEQUENCE)?;
        let (signed, _) = element(outer, SEQUENCE)?;
        let rest = element(signed, VERSION).map_or(signed, |(_, rest)| rest);
        let (serial, rest) = element(rest, INTEGER)?;
        let (_, rest) = element(rest, SEQUENCE)?; // with which algorithm it is signed
        let (_, rest) = element(rest, SEQUENCE)?; // by whom
        let (times, _) = element(rest, SEQUENCE)?;
        let (not_before, after) = time(times)?;
        let (not_after, _) = time(after)?;
        let mut text = String::new();
        for (n, byte) in serial.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{byte:02x}", if n == 0 { "" } else { ":" });
        }
        Some(Self {
            serial: text,
            not_before: not_before.unix_timestamp(),
            not_after: not_after.unix_timestamp(),
            begins: not_before.format(&Rfc3339).ok()?,
            ends: not_after.format(&Rfc3339).ok()?,
        })
    }

    pub(crate) fn now(&self) -> Now {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now < self.not_before {
            Now::Early
        } else if now > self.not_after {
            Now::Ended
        } else {
            Now::Valid
        }
    }
}

/// The content of the element with this tag that the bytes begin with, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            // A certificate of more than 4 GiB is none.
            if digits.is_empty() || digits.len() > 4 {
                return None;
            }
            let number = digits.iter().fold(0, |number, digit| (number << 8) | usize::from(*digit));
            (number, rest)
        }
    };
    rest.split_at_checked(length)
}

/// The time that the bytes begin with, in one of its two forms, and what follows it.
fn time(bytes: &[u8]) -> Option<(OffsetDateTime, &[u8])> {
    if let Some((text, rest)) = element(bytes, GENERALIZED_TIME) {
        let (year, text) = text.split_at_checked(4)?;
        return Some((moment(number(year)?, text)?, rest));
    }
    let (text, rest) = element(bytes, UTC_TIME)?;
    let (year, text) = text.split_at_checked(2)?;
    let year = number(year)?;
    let century = if year < 50 { 2000 } else { 1900 };
    Some((moment(century + year, text)?, rest))
}

/// What follows the year: month, day, hour, minute and second, two digits each, and a `Z`.
fn moment(year: u16, text: &[u8]) -> Option<OffsetDateTime> {
    let text = text.strip_suffix(b"Z").filter(|text| text.len() == 10)?;
    let mut parts = [0; 5];
    for (part, digits) in parts.iter_mut().zip(text.chunks(2)) {
        *part = u8::try_from(number(digits)?).ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    let date = Date::from_calendar_date(i32::from(year), Month::try_from(month).ok()?, day).ok()?;
    Some(date.with_hms(hour, minute, second).ok()?.assume_utc())
}

fn number(digits: &[u8]) -> Option<u16> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    digits.iter().try_fold(0_u16, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

#[cfg(test)]
mod tests {
    use hubbub_testkit::Certificates;
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    fn certificate() -> Vec<u8> {
        let made = Certificates::make();
        CertificateDer::from_pem_file(made.server()).unwrap().to_vec()
    }

    #[test]
    fn a_real_certificate_tells_its_serial_number_and_its_end() {
        let (one, other) = (certificate(), certificate());
        let (one, other) = (Validity::of(&one).unwrap(), Validity::of(&other).unwrap());
        assert_eq!(one.not_after, other.not_after);
        assert!(one.now() == Now::Valid && one.ends.ends_with('Z'), "{one:?}");
        assert_ne!(one.serial, other.serial);
        let bytes: Vec<_> = one.serial.split(':').collect();
        assert!(bytes.iter().all(|byte| u8::from_str_radix(byte, 16).is_ok()), "{one:?}");
        assert_eq!(Validity { not_after: 1, ..one.clone() }.now(), Now::Ended);
        assert_eq!(Validity { not_before: i64::MAX, ..one }.now(), Now::Early);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_certificate_and_no_fault() {
        let whole = certificate();
        for end in 0..whole.len() {
            assert_eq!(Validity::of(&whole[..end]), None, "cut at {end}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = Validity::of(&changed);
            }
        }
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        let read = |tag: u8, text: &str| {
            let mut bytes = vec![tag, u8::try_from(text.len()).unwrap()];
            bytes.extend_from_slice(text.as_bytes());
            time(&bytes).map(|(time, rest)| {
                assert!(rest.is_empty());
                time.unix_timestamp()
            })
        };
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(read(UTC_TIME, "500101000000Z"), Some(-631_152_000));
        assert_eq!(read(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(read(GENERALIZED_TIME, "20240229120000Z"), Some(1_709_208_000));
        for wrong in
            ["", "Z", "20240230120000Z", "20241301000000Z", "20240101000000", "2024010100000xZ"]
        {
            assert_eq!(read(GENERALIZED_TIME, wrong), None, "{wrong}");
        }
        assert_eq!(read(INTEGER, "20500101000000Z"), None);
    }
}
