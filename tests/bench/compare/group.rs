//! What a server costs with all its processes: processor time and memory.
//!
//! The original forks a process for each connection and lets go of it, so that nothing in `/proc` knows
//! what it took once it has ended. A cgroup does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the processes of ended sessions may take to end.
const END_OF_SESSIONS: Duration = Duration::from_secs(10);
/// How long a server may take to start its next process.
const START_OF_PROCESSES: Duration = Duration::from_millis(300);

/// The processes of one server.
pub(crate) enum Group {
    /// In a cgroup of the first version, whose file counts nanoseconds.
    First(PathBuf),
    /// In a cgroup of the second version, whose file counts microseconds.
    Second(PathBuf),
    /// Where no cgroup can be made: the processes that look like this one.
    Processes(u32),
}

impl Group {
    /// Takes a server in that was just started, before it has children.
    pub(crate) fn of(name: &str, server: u32) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = format!("repohostd-bench-{}-{name}", std::process::id());
        for line in own.lines() {
            let Some((controllers, place)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) else {
                continue;
            };
            let below = |root: &str| Path::new(root).join(place.trim_start_matches('/')).join(&name);
            if controllers.split(',').any(|controller| controller == "cpuacct") {
                let directory = below("/sys/fs/cgroup/cpuacct");
                if takes(&directory, "cpuacct.usage", server) {
                    return Self::First(directory);
                }
            } else if controllers.is_empty() {
                for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
                    let directory = below(root);
                    if takes(&directory, "cpu.stat", server) {
                        return Self::Second(directory);
                    }
                }
            }
        }
        Self::Processes(server)
    }

    /// How the processor time is counted.
    pub(crate) const fn text(&self) -> &'static str {
        match self {
            Self::First(_) => "by a cgroup of version 1 (cpuacct)",
            Self::Second(_) => "by a cgroup of version 2",
            Self::Processes(_) => {
                "by /proc, since no cgroup can be made here: what ended sessions of the original took is missing"
            }
        }
    }

    /// Seconds of processor time since the server was taken in.
    pub(crate) fn processor_time(&self) -> f64 {
        match self {
            Self::First(directory) => read(&directory.join("cpuacct.usage")).trim().parse().map_or(0.0, nano),
            Self::Second(directory) => {
                let text = read(&directory.join("cpu.stat"));
                let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
                usage.and_then(|number| number.parse().ok()).map_or(0.0, |number: f64| number / 1e6)
            }
            Self::Processes(_) => self.members().into_iter().map(ticks).sum::<f64>() / 100.0,
        }
    }

    /// Bytes of memory of all processes; what several share is divided among them.
    pub(crate) fn memory(&self) -> f64 {
        self.sum("Pss:")
    }

    /// Bytes of memory of all processes; what several share is counted for each.
    pub(crate) fn resident(&self) -> f64 {
        self.sum("Rss:")
    }

    /// The most bytes of memory that all processes have at once while some work is done. The text of a
    /// program and other parts of files count once, as large as the process has them that has most of
    /// them; what else several share is divided among them. Processes of others make no difference, so
    /// that a client does not take its share of the original's text.
    pub(crate) fn most_memory(&self, work: impl FnOnce()) -> f64 {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0.0_f64;
                while !done.load(Ordering::Relaxed) {
                    most = most.max(self.footprint());
                    thread::sleep(Duration::from_millis(50));
                }
                most
            });
            work();
            done.store(true, Ordering::Relaxed);
            watch.join().expect("the memory can be read")
        })
    }

    fn footprint(&self) -> f64 {
        let (mut own, mut files) = (0.0, 0.0_f64);
        for process in self.members() {
            let text = read(&of_process(process, "smaps_rollup"));
            let of = |key| bytes(&text, key).unwrap_or_default();
            own += of("Pss_Anon:");
            files = files.max(of("Rss:") - of("Anonymous:"));
        }
        own + files
    }

    fn sum(&self, key: &str) -> f64 {
        let of = |process| bytes(&read(&of_process(process, "smaps_rollup")), key);
        self.members().into_iter().filter_map(of).sum()
    }

    /// Takes in what the server started before it was taken in itself.
    pub(crate) fn take_children(&self, server: u32) {
        let (Self::First(directory) | Self::Second(directory)) = self else { return };
        let children = read(&of_process(server, &format!("task/{server}/children")));
        for child in children.split_whitespace() {
            // One that has ended meanwhile needs not be taken in.
            let _ = fs::write(directory.join("cgroup.procs"), child);
        }
    }

    /// How many processes there are, once their number no longer changes.
    pub(crate) fn processes(&self) -> usize {
        let mut before = 0;
        loop {
            let now = self.members().len();
            if now == before {
                return now;
            }
            before = now;
            thread::sleep(START_OF_PROCESSES);
        }
    }

    /// Waits until the processes of ended sessions have ended too, and no more than `most` are left.
    pub(crate) fn settle(&self, most: usize) {
        let deadline = Instant::now() + END_OF_SESSIONS;
        while self.members().len() > most && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        // a server without such processes may still be closing the last connection
        thread::sleep(Duration::from_millis(5));
    }

    fn members(&self) -> Vec<u32> {
        match self {
            Self::First(directory) | Self::Second(directory) => {
                read(&directory.join("cgroup.procs")).lines().filter_map(|line| line.parse().ok()).collect()
            }
            Self::Processes(first) => {
                // a forked process has the command line and the environment of the first
                let identity = |process| ["cmdline", "environ"].map(|name| read(&of_process(process, name)));
                let all = fs::read_dir("/proc").into_iter().flatten().flatten();
                let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
                let first = identity(*first);
                numbers.filter(|process| identity(*process) == first).collect()
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Self::First(directory) | Self::Second(directory) = &*self {
            self.settle(0);
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Makes a cgroup that has a file and moves a process there.
fn takes(directory: &Path, file: &str, process: u32) -> bool {
    if fs::create_dir(directory).is_err() {
        return false;
    }
    let taken = directory.join(file).exists() && fs::write(directory.join("cgroup.procs"), process.to_string()).is_ok();
    if !taken {
        let _ = fs::remove_dir(directory);
    }
    taken
}

/// A number of kilobytes in a file of `/proc`, in bytes.
fn bytes(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn nano(number: f64) -> f64 {
    number / 1e9
}

/// Hundredths of a second that a process and its children that it waited for have run.
fn ticks(process: u32) -> f64 {
    let hundredths: u64 = (13..17).filter_map(|number| field(process, number)).sum();
    f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX))
}

/// A field of `/proc/PID/stat`, counted from 0.
fn field(process: u32, number: usize) -> Option<u64> {
    let text = read(&of_process(process, "stat"));
    // the name before may have blanks
    text.rsplit_once(") ")?.1.split(' ').nth(number - 2)?.parse().ok()
}

fn of_process(process: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{name}"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
