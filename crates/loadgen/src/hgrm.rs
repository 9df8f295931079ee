//! The latencies as text in the usual `.hgrm` form, which the plotters of HdrHistogram read: one line for each percentile.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Lines for each halving of the distance to 100 %, as HdrHistogram's own tools have it.
const TICKS: u32 = 5;

/// A histogram of nanoseconds as text; values in milliseconds.
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let ms = |ns: f64| ns / 1e6;
    for step in histogram.iter_quantiles(TICKS) {
        let (value, quantile) = (ms(step.value_iterated_to() as f64), step.quantile_iterated_to());
        let count = histogram.count_between(0, step.value_iterated_to());
        // Writing to a string does not fail.
        let _ = write!(text, "{value:>12.3} {quantile:>14.12} {count:>10}");
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let (mean, deviation) = (ms(histogram.mean()), ms(histogram.stdev()));
    let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let (max, count) = (ms(histogram.max() as f64), histogram.len());
    let _ = writeln!(text, "#[Max     = {max:>12.3}, Total count    = {count:>12}]");
    let buckets = histogram.buckets();
    let sub_buckets = histogram.distinct_values() / (usize::from(buckets) + 1) * 2;
    let _ = writeln!(text, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_steps_of_a_millisecond() {
        let mut histogram = crate::tally::histogram();
        for step in 1..=1_000 {
            histogram.record(step * 1_000_000).unwrap();
        }
        let text = hgrm(&histogram);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        let half = lines.iter().find(|line| line.get(1) == Some(&"0.500000000000")).unwrap();
        assert_eq!((half[2], half[3]), ("500", "2.00"));
        assert!((half[0].parse::<f64>().unwrap() - 500.0).abs() < 0.5);
        let last = lines.iter().find(|line| line.get(1) == Some(&"1.000000000000")).unwrap();
        assert_eq!((last.len(), last[2]), (3, "1000"));
        assert!(text.contains("Total count    =         1000]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    }
}
