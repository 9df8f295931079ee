//! Line charts as SVG: axes, lines, a point with its value for whoever hovers over it.
//!
//! As much of it as a report of a run needs, in one file that any browser or README shows; no script, no font.

use std::fmt::{self, Write as _};

/// Width of the picture, and of what lies between the axes.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 40.0;
/// Height between the axes, and of all that belongs to a panel.
const HEIGHT: f64 = 190.0;
const PANEL: f64 = 290.0;
const HEAD: f64 = 84.0;
const ABOVE: f64 = 44.0;

/// One axis: from where to where, and what is written at it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    low: f64,
    high: f64,
    log: bool,
    marks: Vec<(f64, String)>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// A colour of SVG.
    pub(crate) colour: &'static str,
    /// x, y, and what is said of the point; without a y there is a gap.
    pub(crate) points: Vec<(f64, Option<f64>, String)>,
}

/// One chart of several that stand below each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

impl Axis {
    /// From nothing up, with marks at round numbers.
    pub(crate) fn linear(title: &'static str, high: f64) -> Self {
        let step = round_up(high / 5.0);
        let high = (high / step).ceil().max(1.0) * step;
        let count = (high / step).round() as u32;
        let marks = (0..=count).map(|mark| f64::from(mark) * step);
        let marks = marks.map(|mark| (mark, number(mark))).collect();
        Self { title, low: 0.0, high, log: false, marks }
    }

    /// Around all of `values`, each mark ten times the last; between them as well if there are few.
    pub(crate) fn log(title: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (0.1, 1.0) } else { (low, high) };
        let between: &[f64] = if high / low > 100.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = (-7..=12).flat_map(|power| between.iter().map(move |b| b * 10f64.powi(power)));
        let all: Vec<f64> = all.collect();
        let first = all.iter().rposition(|mark| *mark <= low).unwrap_or(0);
        let last =
            all.iter().position(|mark| *mark >= high).unwrap_or(all.len() - 1).max(first + 1);
        let marks: Vec<_> = all[first..=last].iter().map(|mark| (*mark, number(*mark))).collect();
        Self { title, low: all[first], high: all[last], log: true, marks }
    }

    /// Shares of one, each mark ten times as near to all: 0, 90, 99, 99.9 %.
    pub(crate) fn percentiles(title: &'static str, nines: u32) -> Self {
        let mark = |nines: u32| {
            let text = match nines {
                0 => "0 %".to_owned(),
                1 => "90 %".to_owned(),
                2 => "99 %".to_owned(),
                more => format!("99.{} %", "9".repeat(more as usize - 2)),
            };
            (10f64.powi(nines as i32), text)
        };
        let nines = nines.max(1);
        let high = 10f64.powi(nines as i32);
        Self { title, low: 1.0, high, log: true, marks: (0..=nines).map(mark).collect() }
    }

    /// Where on the axis a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        place.clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5 and their tenfolds.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(10.0 * power)
}

/// A number as short as it can be told: 0.05, 20, 1.5 k, 3 M.
pub(crate) fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let digits = match value {
        0.0 => 0,
        value => (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize,
    };
    let text = format!("{value:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// The text as it stands in SVG.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            letter if letter.is_control() => f.write_char('\u{fffd}'),
            letter => f.write_char(letter),
        })
    }
}

const STYLE: &str = "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#374151}\
.h{font-size:16px;font-weight:600;fill:#111827}.t{font-size:13px;font-weight:600;fill:#111827}\
.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#e5e7eb}.a{stroke:#9ca3af}\
polyline{fill:none;stroke-width:1.75;stroke-linejoin:round}circle:hover{r:5px}";

/// The whole picture.
pub(crate) fn svg(title: &str, subtitle: &[String], panels: &[Panel]) -> String {
    let height = HEAD + PANEL * panels.len() as f64;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = draw(&mut out, height, title, subtitle, panels);
    out
}

fn draw(
    out: &mut String,
    height: f64,
    title: &str,
    subtitle: &[String],
    panels: &[Panel],
) -> fmt::Result {
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#
    )?;
    writeln!(out, "<title>{}</title>", Escaped(title))?;
    writeln!(out, "<style>{STYLE}</style>")?;
    writeln!(out, r##"<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>"##)?;
    writeln!(out, r#"<text class="h" x="20" y="30">{}</text>"#, Escaped(title))?;
    for (line, y) in subtitle.iter().zip([50, 67]) {
        writeln!(out, r#"<text x="20" y="{y}">{}</text>"#, Escaped(line))?;
    }
    for (index, panel) in panels.iter().enumerate() {
        panel.draw(out, HEAD + PANEL * index as f64)?;
    }
    writeln!(out, "</svg>")
}

impl Panel {
    fn draw(&self, out: &mut String, top: f64) -> fmt::Result {
        let wide = WIDTH - LEFT - RIGHT;
        let top = top + ABOVE;
        let bottom = top + HEIGHT;
        let x = |value| LEFT + wide * self.x.place(value);
        let y = |value| bottom - HEIGHT * self.y.place(value);
        writeln!(out, r#"<text class="t" x="20" y="{}">{}</text>"#, top - 22.0, self.title)?;
        for (at, text) in &self.y.marks {
            let at = y(*at);
            writeln!(
                out,
                r#"<path class="g" d="M{LEFT} {at:.1}h{wide}"/><text class="e" x="{}" y="{:.1}">{text}</text>"#,
                LEFT - 8.0,
                at + 4.0,
            )?;
        }
        for (at, text) in &self.x.marks {
            let at = x(*at);
            writeln!(
                out,
                r#"<path class="a" d="M{at:.1} {bottom}v5"/><text class="m" x="{at:.1}" y="{}">{text}</text>"#,
                bottom + 19.0,
            )?;
        }
        writeln!(out, r#"<path class="a" d="M{LEFT} {bottom}h{wide}"/>"#)?;
        let middle = LEFT + wide / 2.0;
        writeln!(
            out,
            r#"<text class="m" x="{middle}" y="{}">{}</text>"#,
            bottom + 37.0,
            self.x.title
        )?;
        writeln!(out, r#"<text x="{LEFT}" y="{}">{}</text>"#, top - 6.0, self.y.title)?;
        let mut right = WIDTH - RIGHT;
        for line in self.lines.iter().rev() {
            let (name, colour) = (line.name, line.colour);
            if self.lines.len() > 1 {
                writeln!(
                    out,
                    r#"<text class="e" x="{right}" y="{}" style="fill:{colour};font-weight:600">{name}</text>"#,
                    top - 22.0,
                )?;
                right -= 14.0 + 8.0 * name.len() as f64;
            }
            writeln!(out, r#"<g stroke="{colour}" fill="{colour}"><desc>{name}</desc>"#)?;
            for run in line.points.split(|(_, value, _)| value.is_none()) {
                let points: Vec<String> = run
                    .iter()
                    .filter_map(|(at, value, _)| Some(format!("{:.1},{:.1}", x(*at), y((*value)?))))
                    .collect();
                if points.len() > 1 {
                    writeln!(out, r#"<polyline points="{}"/>"#, points.join(" "))?;
                }
            }
            // Few points are shown, many would hide the line; all can be hovered over.
            let radius = if line.points.len() <= 60 { 2.5 } else { 1.0 };
            for (at, value, text) in &line.points {
                let Some(value) = value else { continue };
                writeln!(
                    out,
                    r#"<circle cx="{:.1}" cy="{:.1}" r="{radius}"><title>{}</title></circle>"#,
                    x(*at),
                    y(*value),
                    Escaped(text),
                )?;
            }
            writeln!(out, "</g>")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn marks_are_round_and_hold_all() {
        assert_eq!(
            marks(&Axis::linear("", 49_990.0)),
            ["0", "10 k", "20 k", "30 k", "40 k", "50 k"]
        );
        assert_eq!(marks(&Axis::linear("", 0.0)).first(), Some(&"0"));
        assert_eq!(
            marks(&Axis::log("", [0.4, 17.0].into_iter())),
            ["0.2", "0.5", "1", "2", "5", "10", "20"]
        );
        assert_eq!(
            marks(&Axis::log("", [0.4, 1_700.0].into_iter())),
            ["0.1", "1", "10", "100", "1000", "10 k"]
        );
        assert_eq!(marks(&Axis::log("", [5.0, 5.0].into_iter())), ["5", "10"]);
        assert_eq!(marks(&Axis::percentiles("", 3)), ["0 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn numbers_are_short() {
        let short = [0.0, 0.05, 0.123, 1.5, 20.0, 999.4, 12_345.0, 3_200_000.0].map(number);
        assert_eq!(short, ["0", "0.05", "0.123", "1.5", "20", "999", "12.3 k", "3.2 M"]);
    }

    #[test]
    fn a_gap_parts_a_line_and_what_is_written_is_escaped() {
        let point = |at, value| (f64::from(at), value, "a<b>&\"c\"\u{7}".to_owned());
        let points = vec![
            point(0, Some(1.0)),
            point(1, Some(2.0)),
            point(2, None),
            point(3, Some(1.0)),
            point(4, Some(2.0)),
        ];
        let panel = Panel {
            title: "t",
            x: Axis::linear("s", 4.0),
            y: Axis::linear("ms", 2.0),
            lines: vec![Line { name: "p50", colour: "#2563eb", points }],
        };
        let picture = svg("<&>", &["second".to_owned()], &[panel]);
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert_eq!(picture.matches("<circle").count(), 4);
        assert!(picture.contains("<title>&lt;&amp;&gt;</title>"), "{picture}");
        assert!(picture.contains("a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}"), "{picture}");
    }
}
