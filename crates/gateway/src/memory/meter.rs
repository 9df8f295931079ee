//! Where it stands how much memory this process may use, and uses: in the files of its control group, of either version.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const MOUNT: &str = "/sys/fs/cgroup";

/// What version 1 says where there is no limit: the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 60;

/// The files of a version of control groups.
#[derive(Debug, Clone, Copy)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// The lines of `memory.stat` with the files that the kernel has cached, this program's own among them. They are not counted,
    /// because it drops them before it kills anybody.
    cached: [&'static str; 2],
}

const UNIFIED: Files = Files {
    limit: "memory.max",
    usage: "memory.current",
    cached: ["inactive_file", "active_file"],
};
const FIRST: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

#[derive(Debug)]
enum Source {
    Group { directory: PathBuf, files: Files },
    Process,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    limit: u64,
    source: Source,
}

impl Meter {
    /// Of what this process itself has in memory, whatever its group may.
    pub(super) fn of_process(limit: u64) -> Self {
        Self { limit, source: Source::Process }
    }

    /// Of this process's control group, or of that one above it that has the lowest limit; none if none has any.
    pub(super) fn of_control_group() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::find(&own, Path::new(MOUNT))
    }

    /// `own` is what `/proc/self/cgroup` says.
    fn find(own: &str, mount: &Path) -> Option<Self> {
        // A line is `number:controllers:path`.
        let path = |controllers: &str| {
            own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (named, path) = rest.split_once(':')?;
                named.split(',').any(|name| name == controllers).then_some(path)
            })
        };
        let (root, path, files) = match path("memory") {
            Some(path) => (mount.join("memory"), path, FIRST),
            None => (mount.to_owned(), path("")?, UNIFIED),
        };
        // In a container the path may be one of the host's, and what is mounted is the own one already.
        let own = root.join(path.trim_start_matches('/'));
        let own = if own.is_dir() { own } else { root.clone() };
        let groups = own.ancestors().take_while(|group| group.starts_with(&root));
        let limited = groups.filter_map(|group| Some((limit(&group.join(files.limit))?, group)));
        let (limit, group) = limited.min_by_key(|(limit, _)| *limit)?;
        Some(Self { limit, source: Source::Group { directory: group.to_owned(), files } })
    }

    /// Bytes that may be used.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are in use and cannot be had back by dropping what is cached.
    ///
    /// # Errors
    ///
    /// When the kernel's files cannot be read.
    pub(super) fn used(&self) -> io::Result<u64> {
        match &self.source {
            Source::Group { directory, files } => {
                let usage = number(&fs::read_to_string(directory.join(files.usage))?)?;
                let stat = fs::read_to_string(directory.join("memory.stat"))?;
                let mut used = usage;
                for cached in files.cached.iter().filter_map(|name| line(&stat, name)) {
                    used = used.saturating_sub(number(cached)?);
                }
                Ok(used)
            }
            Source::Process => {
                let status = fs::read_to_string("/proc/self/status")?;
                let resident = line(&status, "VmRSS:").and_then(|line| line.strip_suffix("kB"));
                number(resident.unwrap_or_default()).map(|kilobytes| kilobytes * 1024)
            }
        }
    }
}

/// The limit in this file, if there is one.
fn limit(file: &Path) -> Option<u64> {
    let limit = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < NO_LIMIT).then_some(limit)
}

/// What follows that name at the beginning of a line.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(char::is_whitespace).then(|| rest.trim())
    })
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_holds() {
        let mount = tempfile::tempdir().unwrap();
        let stat = "anon 700\ninactive_file 100\nactive_file 50\n";
        write(
            mount.path(),
            &[
                ("pod/memory.max", "1000\n"),
                ("pod/memory.current", "900\n"),
                ("pod/memory.stat", stat),
                ("pod/container/memory.max", "max\n"),
                ("pod/container/memory.current", "300\n"),
                ("pod/container/memory.stat", "inactive_file 1\n"),
            ],
        );
        let meter = Meter::find("0::/pod/container\n", mount.path()).unwrap();
        assert_eq!(meter.limit(), 1000);
        assert_eq!(meter.used().unwrap(), 750);
        write(mount.path(), &[("pod/container/memory.max", "400")]);
        let meter = Meter::find("0::/pod/container\n", mount.path()).unwrap();
        assert_eq!((meter.limit(), meter.used().unwrap()), (400, 299));
    }

    #[test]
    fn the_first_version_is_read_too() {
        let mount = tempfile::tempdir().unwrap();
        write(
            mount.path(),
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/a/memory.limit_in_bytes", "2000\n"),
                ("memory/a/memory.usage_in_bytes", "900\n"),
                (
                    "memory/a/memory.stat",
                    "inactive_file 7\ntotal_inactive_file 150\ntotal_active_file 50\n",
                ),
            ],
        );
        let own = "12:cpu,cpuacct:/x\n5:memory:/a\n0::/y\n";
        let meter = Meter::find(own, mount.path()).unwrap();
        assert_eq!((meter.limit(), meter.used().unwrap()), (2000, 700));
        // As it looks in a container whose own group is mounted as the root.
        assert!(Meter::find("5:memory:/docker/b\n", mount.path()).is_none());
        write(mount.path(), &[("memory/memory.limit_in_bytes", "3000\n")]);
        assert_eq!(Meter::find("5:memory:/docker/b\n", mount.path()).unwrap().limit(), 3000);
    }

    #[test]
    fn without_a_limit_there_is_nothing_to_watch() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), &[("a/memory.max", "max\n"), ("a/memory.current", "5\n")]);
        assert!(Meter::find("0::/a\n", mount.path()).is_none());
        assert!(Meter::find("", mount.path()).is_none());
    }

    #[test]
    fn a_process_has_something_in_memory() {
        let used = Meter::of_process(1).used().unwrap();
        assert!((1 << 20..1 << 40).contains(&used), "{used} bytes");
    }
}
