//! A report as a picture: latency and throughput over time, and the curve of percentiles.

use crate::{
    chart::{Axis, Line, Panel, number, svg},
    report::Report,
    timeline::Slice,
};

const BLUE: &str = "#2563eb";
const RED: &str = "#dc2626";
const GREEN: &str = "#059669";

/// Points of the curve for each halving of the distance to 100 %.
const TICKS: u32 = 4;

/// The picture, as SVG.
pub fn plot(report: &Report) -> String {
    let asked = &report.asked;
    let times = &report.load.latency_ms;
    let title = format!(
        "{} room(s) of {} members, {} messages of {} bytes a second in each",
        asked.rooms,
        asked.members_per_room,
        number(asked.messages_per_second_and_room),
        asked.message_bytes,
    );
    let verdict = if report.verification.passed { "verified" } else { "FAILED" };
    let subtitle = [
        asked.addresses.join(", "),
        format!(
            "{} deliveries, {verdict}; p50 {} ms, p99 {} ms, p99.9 {} ms, max {} ms",
            report.verification.deliveries,
            number(times.p50),
            number(times.p99),
            number(times.p999),
            number(times.max),
        ),
    ];
    svg(&title, &subtitle, &[latency(report), throughput(report), percentiles(report)])
}

/// Seconds of the window; a slice stands at its middle.
fn seconds(report: &Report) -> Axis {
    let end = report.load.over_time.last().map_or(1.0, |last| last.at_s + last.length_s);
    Axis::linear("seconds of the measured window", end)
}

fn over_time(
    report: &Report,
    name: &'static str,
    colour: &'static str,
    unit: &str,
    value: impl Fn(&Slice) -> Option<f64>,
) -> Line {
    let point = |slice: &Slice| {
        let value = value(slice);
        let end = number(slice.at_s + slice.length_s);
        let text = format!(
            "{} to {end} s: {} {unit}",
            number(slice.at_s),
            value.map_or_else(String::new, number)
        );
        (slice.at_s + slice.length_s / 2.0, value, text)
    };
    Line { name, colour, points: report.load.over_time.iter().map(point).collect() }
}

fn latency(report: &Report) -> Panel {
    let slices = &report.load.over_time;
    let all = slices.iter().flat_map(|slice| [slice.p50_ms, slice.p99_ms]).flatten();
    Panel {
        title: "Latency over time",
        x: seconds(report),
        y: Axis::log("ms, from when a message was due to its arrival", all),
        lines: vec![
            over_time(report, "p50", BLUE, "ms (p50)", |slice| slice.p50_ms),
            over_time(report, "p99", RED, "ms (p99)", |slice| slice.p99_ms),
        ],
    }
}

fn throughput(report: &Report) -> Panel {
    let rates = report.load.over_time.iter().map(|slice| slice.deliveries_per_second);
    let line = over_time(report, "deliveries", GREEN, "deliveries/s", |slice| {
        Some(slice.deliveries_per_second)
    });
    Panel {
        title: "Throughput",
        x: seconds(report),
        y: Axis::linear(
            "deliveries a second, all members together",
            rates.fold(0.0, f64::max) * 1.05,
        ),
        lines: vec![line],
    }
}

fn percentiles(report: &Report) -> Panel {
    let histogram = &report.histogram;
    // As far as there are measurements to tell of: of 1,000 the slowest is p99.9.
    let nines = (histogram.len().max(10) as f64).log10().floor().min(6.0) as u32;
    let end = 10f64.powi(nines as i32);
    let curve: Vec<(f64, f64)> = histogram
        .iter_quantiles(TICKS)
        .map(|step| {
            (1.0 / (1.0 - step.quantile_iterated_to()), step.value_iterated_to() as f64 / 1e6)
        })
        .take_while(|(nearness, _)| *nearness <= end)
        .collect();
    let values = curve.iter().map(|(_, ms)| *ms);
    let point = |(nearness, ms): &(f64, f64)| {
        let percent = (1.0 - 1.0 / nearness) * 100.0;
        (*nearness, Some(*ms), format!("{percent:.4} %: {} ms", number(*ms)))
    };
    Panel {
        title: "Latency by percentile",
        x: Axis::percentiles("share of all deliveries that took at most so long", nines),
        y: Axis::log("ms", values),
        lines: vec![Line { name: "all", colour: BLUE, points: curve.iter().map(point).collect() }],
    }
}
