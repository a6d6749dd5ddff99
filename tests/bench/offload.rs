//! What a small file costs the server's disk back end.
//!
//! `cargo bench --bench offload -- [FILES]`, see `README.md` beside this.

use std::error::Error;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use repohostd::disk::helpers::{COMMAND, start_process, worker};
use repohostd::disk::inline::Options;
use repohostd::disk::offload::Offload;
use repohostd::disk::{Disk, File, Location, Operation, Outcome, Over, RelativePath, Root, Ticket};

const ROUNDS: usize = 9;
const SIZE: usize = 4096;
/// Milliseconds of a tick in which the kernel gives times.
const TICK: u64 = 10;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A back end and what it says.
struct Bench {
    disk: Offload,
    poll: Poll,
    events: Events,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let argument = arguments.next();
    // The helpers that the back end starts are this program.
    if argument.as_deref() == Some(COMMAND) {
        std::process::exit(worker::run().into());
    }
    let files = argument.map_or(Ok(2000), |text| text.parse())?;
    let base = std::env::var("REPOHOSTD_TEST_DIR").unwrap_or_else(|_| "/dev/shm".into());
    let directory = tempfile::tempdir_in(&base)?;
    println!("{files} files of {SIZE} bytes in {base}: create, write, sync, rename, sync the directory\n");
    println!("| wall time of a file | processor time of a file |\n|---|---|");
    let times = (0..ROUNDS).map(|_| measure(directory.path(), files)).collect::<Result<Vec<_>>>()?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(files);
    let [wall, busy] = [0, 1].map(|which| each(median(times.iter().map(|times| times[which]).collect())));
    println!("| {wall:.1} us | {busy:.1} us |");
    Ok(())
}

/// Writes the files; wall time and processor time of all of them, that of the helpers included.
fn measure(directory: &Path, files: u32) -> Result<[Duration; 2]> {
    let mut bench = Bench::new()?;
    let root = Root::new(directory);
    let (begun, busy) = (Instant::now(), processor_time()?);
    for number in 0..files {
        bench.write(&root, number)?;
    }
    let wall = begun.elapsed();
    // Helpers end with their server, and count when they are waited for.
    drop(bench);
    let _ = rustix::process::wait(rustix::process::WaitOptions::empty());
    Ok([wall, processor_time()?.saturating_sub(busy)])
}

impl Bench {
    fn new() -> Result<Self> {
        let poll = Poll::new()?;
        let mut disk = Offload::new(Options::default(), start_process, None);
        disk.watch(poll.registry().try_clone()?, 0);
        Ok(Self { disk, poll, events: Events::with_capacity(8) })
    }

    fn write(&mut self, root: &Rc<Root>, number: u32) -> Result<()> {
        let at = |name: &str| Ok::<_, Box<dyn Error>>(place(root, name).ok_or("no name")?);
        let (temporary, target) = (at("file.tmp")?, at(&format!("file{number}"))?);
        let open = Operation::OpenWrite { at: temporary.clone(), mode: 0o640, fresh: true };
        let Outcome::File(file) = self.run(open)? else { return Err("no file".into()) };
        self.run(Operation::Write { file: file.clone(), data: vec![7; SIZE], offset: 0 })?;
        self.run(Operation::Sync { file: file.clone() })?;
        self.run(rename(file, temporary, target))?;
        self.run(Operation::SyncDirectory { at: Location::new(Rc::clone(root), RelativePath::default()) })?;
        Ok(())
    }

    fn run(&mut self, operation: Operation) -> Result<Outcome> {
        self.disk.submit(Ticket { session: 1, operation: 1 }, operation);
        loop {
            if let Some((_, completion)) = self.disk.complete() {
                return completion.map_err(|failure| format!("{failure:?}").into());
            }
            match self.poll.poll(&mut self.events, Some(Duration::from_secs(30))) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => result?,
            }
            for event in &self.events {
                self.disk.ready(event.token().0);
            }
        }
    }
}

fn place(root: &Rc<Root>, name: &str) -> Option<Location> {
    Some(Location::new(Rc::clone(root), RelativePath::new(name)?))
}

fn rename(file: File, from: Location, to: Location) -> Operation {
    Operation::Rename { over: Over::Anything, file: Some(file), from, to }
}

/// Of this process and of those that it has waited for.
fn processor_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.get(11..15).ok_or("no times")?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * TICK))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
