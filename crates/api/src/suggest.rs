//! "Did you mean": the known word nearest to an unknown one.

/// The candidate that is nearest to `word`, if it is near enough to be a slip of the finger rather than another word.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    // An unknown word of any length comes from a file; what is far longer than a field's name is no slip.
    let word = fold(word.get(..64).unwrap_or(word));
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The edit distance of Levenshtein, over characters.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, to) in b.iter().enumerate() {
            let above = row[j + 1];
            let cell = (diagonal + usize::from(from != to)).min(above + 1).min(left + 1);
            diagonal = above;
            row[j] = left;
            left = cell;
        }
        row[b.len()] = left;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        let d = |a: &str, b: &str| {
            distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        for (a, b, want) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(d(a, b), want, "{a} to {b}");
            assert_eq!(d(b, a), want, "it is symmetric");
        }
    }

    #[test]
    fn suggests_slips_and_nothing_else() {
        let fields = ["maxConnections", "maxMessageBytes", "sendQueue", "burst"];
        assert_eq!(nearest("maxConections", fields), Some("maxConnections"));
        assert_eq!(nearest("max_connections", fields), Some("maxConnections"));
        assert_eq!(nearest("MAXMESSAGEBYTE", fields), Some("maxMessageBytes"));
        assert_eq!(nearest("colour", fields), None);
    }
}
