//! What the measured server costs: CPU time and memory of its processes, from Linux's `/proc`.
//!
//! CPU is user + system time of all threads. Memory is resident (RSS) and proportional (PSS, which
//! divides shared pages among those who share them). Reading them costs the server nothing but the
//! walk over its page tables for the memory, so that is done between phases only.

use std::{fs, io};

use serde::Serialize;
use thiserror::Error;

/// A process that cannot be looked at.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// No such process, or not ours to look at.
    #[error("cannot read {path} ({source}): is process {pid} running, and yours?")]
    Read {
        /// The process.
        pid: u32,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },

    /// The file does not look as the kernel's manual says.
    #[error("{path} does not hold what was expected")]
    Format {
        /// The file.
        path: String,
    },
}

/// CPU time, summed over the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Seconds in the program.
    pub user_s: f64,

    /// Seconds in the kernel on its behalf.
    pub system_s: f64,
}

impl Cpu {
    /// User and system together, in seconds.
    pub fn total_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// What was spent since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s }
    }
}

/// Memory, summed over the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident bytes.
    pub rss: u64,

    /// Proportional bytes.
    pub pss: u64,
}

/// The CPU time that `pids` have used so far.
///
/// # Errors
/// When one of them is not running or may not be looked at.
pub fn cpu(pids: &[u32]) -> Result<Cpu, ProcessError> {
    let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
    let mut sum = Cpu::default();
    for &pid in pids {
        let (path, text) = read(pid, "stat")?;
        let (user, system) = parse_stat(&text).ok_or(ProcessError::Format { path })?;
        sum.user_s += user as f64 / ticks_per_s;
        sum.system_s += system as f64 / ticks_per_s;
    }
    Ok(sum)
}

/// The memory that `pids` hold now.
///
/// # Errors
/// When one of them is not running or may not be looked at.
pub fn memory(pids: &[u32]) -> Result<Memory, ProcessError> {
    let mut sum = Memory::default();
    for &pid in pids {
        let (path, text) = read(pid, "smaps_rollup")?;
        let one = parse_smaps_rollup(&text).ok_or(ProcessError::Format { path })?;
        sum.rss += one.rss;
        sum.pss += one.pss;
    }
    Ok(sum)
}

fn read(pid: u32, file: &str) -> Result<(String, String), ProcessError> {
    let path = format!("/proc/{pid}/{file}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(ProcessError::Read { pid, path, source }),
    }
}

/// User and system ticks: fields 14 and 15 of `stat` (proc(5)). The second field, the name in
/// parentheses, may hold blanks and parentheses itself, hence the search from the right.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn parse_smaps_rollup(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Memory { rss: field("Rss:")?, pss: field("Pss:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks() {
        let text =
            "4242 (a ) R 1 (b) S 1 4242 4242 0 -1 4194304 500 0 0 0 1234 567 8 9 20 0 4 0 99\n";
        assert_eq!(parse_stat(text), Some((1234, 567)));
        assert_eq!(parse_stat("4242 (x) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "00400000-7fff ---p 00000000 00:00 0  [rollup]\n\
                    Rss:                2048 kB\nPss:                1024 kB\nPss_Dirty:  5 kB\n";
        assert_eq!(parse_smaps_rollup(text), Some(Memory { rss: 2 << 20, pss: 1 << 20 }));
        assert_eq!(parse_smaps_rollup("Rss: many kB"), None);
    }

    #[test]
    fn this_very_process() {
        let pid = std::process::id();
        let before = cpu(&[pid]).unwrap();
        assert!(memory(&[pid]).unwrap().rss > 100_000);
        assert!(cpu(&[pid]).unwrap().since(&before).total_s() >= 0.0);
        assert!(
            cpu(&[u32::MAX]).unwrap_err().to_string().contains("is process 4294967295 running")
        );
    }
}
