//! What a program that a test has started writes to its standard error.

use std::{
    io::{BufRead as _, BufReader},
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

/// All lines so far.
pub(crate) type LogLines = Arc<Mutex<Vec<String>>>;

/// Collects the lines of a program whose standard error is a pipe, until it ends; so does the thread.
pub(crate) fn log_lines(child: &mut Child) -> (LogLines, JoinHandle<()>) {
    let stderr = child.stderr.take().expect("a pipe was asked for");
    let log = LogLines::default();
    let lines = Arc::clone(&log);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    (log, reader)
}
