//! What is seen while a run is under way: a bar on a terminal, else a plain line a second.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::control::Snapshot;

/// What the run is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// In a word.
    pub name: &'static str,

    /// How far it is, from 0 to 1.
    pub done: f64,
}

/// Shows a run's progress on standard error.
#[derive(Debug)]
pub struct Progress(Shown);

#[derive(Debug)]
enum Shown {
    Nothing,
    Lines { last: Option<(Instant, Step, Snapshot)> },
    Bar { bar: ProgressBar, last: (Instant, Snapshot), text: String },
}

/// Steps of the bar.
const BAR_LENGTH: u64 = 1000;

impl Progress {
    /// None at all.
    pub fn quiet() -> Self {
        Self(Shown::Nothing)
    }

    /// A bar when standard error is a terminal, else lines.
    pub fn for_standard_error() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(Shown::Lines { last: None });
        }
        let bar = ProgressBar::new(BAR_LENGTH);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        let last = (Instant::now(), Snapshot::default());
        Self(Shown::Bar { bar, last, text: String::new() })
    }

    /// Shows where the run is; may be called as often as one likes.
    pub fn show(&mut self, step: Step, snapshot: &Snapshot) {
        let now = Instant::now();
        match &mut self.0 {
            Shown::Nothing => {}
            Shown::Lines { last } => {
                let earlier = last.map_or(Snapshot::default(), |(_, _, earlier)| earlier);
                let elapsed = last.map_or(Duration::ZERO, |(at, _, _)| now - at);
                let same_step = last.is_some_and(|(_, last, _)| last.name == step.name);
                if same_step && elapsed < Duration::from_secs(1) {
                    return;
                }
                let text = line(snapshot, &earlier, elapsed);
                // Progress is a courtesy: a closed standard error must not end the run.
                let _ = writeln!(std::io::stderr(), "{:<8} {text}", step.name);
                *last = Some((now, step, *snapshot));
            }
            Shown::Bar { bar, last, text } => {
                let elapsed = now - last.0;
                if elapsed >= Duration::from_millis(500) || text.is_empty() {
                    *text = line(snapshot, &last.1, elapsed);
                    *last = (now, *snapshot);
                }
                bar.set_prefix(step.name);
                bar.set_message(text.clone());
                bar.set_position((step.done.clamp(0.0, 1.0) * BAR_LENGTH as f64) as u64);
            }
        }
    }

    /// Takes the bar away, to make room for the summary.
    pub fn finish(self) {
        if let Shown::Bar { bar, .. } = self.0 {
            bar.finish_and_clear();
        }
    }
}

fn line(now: &Snapshot, earlier: &Snapshot, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-3);
    let rate = |now: u64, earlier: u64| now.saturating_sub(earlier) as f64 / seconds;
    format!(
        "{} members, {:.0} sent/s, {:.0} delivered/s, {} closed",
        now.open,
        rate(now.sent, earlier.sent),
        rate(now.delivered, earlier.delivered),
        now.closed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second() {
        let earlier = Snapshot { sent: 100, delivered: 1_000, ..Snapshot::default() };
        let now = Snapshot { open: 10, sent: 200, delivered: 2_000, closed: 1, ..earlier };
        let text = line(&now, &earlier, Duration::from_secs(2));
        assert_eq!(text, "10 members, 50 sent/s, 500 delivered/s, 1 closed");
    }
}
