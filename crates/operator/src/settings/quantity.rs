//! Quantities of Kubernetes: `2`, `500m`, `1.5Gi`, `1e3`.

/// The number that a quantity stands for, if it is one and not negative. Exact enough to compare.
pub(super) fn parse(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    if !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    // Refuses a second point.
    let number: f64 = digits.parse().ok()?;
    Some(number * factor(suffix)?)
}

fn factor(suffix: &str) -> Option<f64> {
    let power = |base: f64, names: [&str; 6]| {
        let place = names.iter().position(|name| *name == suffix)?;
        Some(base.powi(i32::try_from(place).ok()? + 1))
    };
    match suffix {
        "" => Some(1.0),
        "n" => Some(1e-9),
        "u" => Some(1e-6),
        "m" => Some(1e-3),
        _ => power(1024.0, ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
            .or_else(|| power(1000.0, ["k", "M", "G", "T", "P", "E"]))
            .or_else(|| {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                exponent.parse::<i16>().ok().map(|exponent| 10_f64.powi(exponent.into()))
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, number) in [
            ("2", 2.0),
            ("500m", 0.5),
            ("1.5Gi", 1.5 * 1024.0 * 1024.0 * 1024.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("12e6", 12e6),
            ("1E-3", 1e-3),
            ("2E", 2e18),
            ("3k", 3000.0),
        ] {
            let read = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert!((read - number).abs() <= number * 1e-9, "{text}: {read}");
        }
        for text in
            ["", "m", ".", "1.2.3", "64MB", "1 Gi", "1gi", "1K", "-1", "e3", "1e", "0x1", "1Kib"]
        {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
