//! The server's own back end, with helper processes that are lost now and then.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mio::{Events, Poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use repohostd::disk::inline::Options;
use repohostd::disk::offload::Offload;
use repohostd::disk::{Completion, Disk, Operation, Ticket};

use crate::power::place;
use crate::random::Random;

thread_local! {
    /// The helpers of this thread's test.
    static HELPERS: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// The back end, and who kills its helpers.
pub(crate) struct Helped {
    disk: Offload,
    poll: Poll,
    random: Random,
    /// How many operations it took on since a helper was killed. What is lost twice fails, and may leave what it made.
    sound: u32,
    /// Where temporary files are being removed, and where that failed: what its helper was lost over is not done again,
    /// since the file would have to stay open for that.
    removing: HashMap<Ticket, PathBuf>,
    pub(crate) unremoved: HashSet<PathBuf>,
    /// Calls in a row that had nothing to hand back.
    in_vain: u32,
    /// How many helpers were killed.
    pub(crate) killed: usize,
}

impl Helped {
    pub(crate) fn new(seed: u64) -> Self {
        HELPERS.take();
        let poll = Poll::new().expect("a poll can be made");
        let mut disk = Offload::new(Options::default(), start, None);
        disk.watch(poll.registry().try_clone().expect("it can be cloned"), 0);
        Self {
            disk,
            poll,
            random: Random(seed),
            sound: 0,
            removing: HashMap::new(),
            unremoved: HashSet::new(),
            in_vain: 0,
            killed: 0,
        }
    }

    fn kill_one(&mut self) {
        HELPERS.with_borrow_mut(|helpers| {
            if !helpers.is_empty() {
                let helper = helpers.swap_remove(self.random.below(helpers.len()));
                self.killed += usize::from(pidfd_send_signal(helper, Signal::KILL).is_ok());
            }
        });
    }
}

/// Starts the built program as a helper.
fn start(socket: OwnedFd) -> std::io::Result<Option<Child>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repohostd"));
    let child = command.arg("disk-helper").stdin(Stdio::from(socket)).spawn()?;
    let helper = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    HELPERS.with_borrow_mut(|helpers| helpers.push(helper));
    Ok(Some(child))
}

impl Disk for Helped {
    fn submit(&mut self, ticket: Ticket, operation: Operation) {
        if let Operation::RemoveOwn { at, .. } = &operation {
            self.removing.insert(ticket, place(at));
        }
        self.disk.submit(ticket, operation);
        self.sound += 1;
        if self.sound > 50 && self.random.one_in(30) {
            self.sound = 0;
            self.kill_one();
        }
    }

    fn complete(&mut self) -> Option<(Ticket, Completion)> {
        // Once nothing else seems to happen, it waits instead of spinning.
        let longest = Duration::from_millis(if self.in_vain < 16 { 0 } else { 2 });
        let mut events = Events::with_capacity(16);
        self.poll.poll(&mut events, Some(longest)).expect("the poll works");
        events.iter().for_each(|event| self.disk.ready(event.token().0));
        let completed = self.disk.complete();
        if let Some((ticket, completion)) = &completed
            && let Some(place) = self.removing.remove(ticket)
            && completion.is_err()
        {
            self.unremoved.insert(place);
        }
        self.in_vain = if completed.is_some() { 0 } else { self.in_vain + 1 };
        completed
    }

    fn outstanding(&self) -> usize {
        self.disk.outstanding()
    }
}
