//! How fast files go to the client, and whether they are compressed on the way because of that.
//!
//! Compressing takes the server's time, and storing the network's; which of them is short cannot be seen from
//! here: a socket takes a block at once and sends it much later. What can be seen is how long a client takes from one
//! block to the next, and how much of a file that brings it. So both are tried, and the faster one is kept. The other
//! one is tried again when the pace changes, and from time to time, the rarer the more it costs.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::NetworkCompression;
use crate::filter::network::Link;

/// Bytes of files, uncompressed, after which the pace is looked at, and for the first time. A block has up to 1 MiB.
const WINDOW: u64 = 4 << 20;
const FIRST: u64 = 1 << 20;
/// A client that takes longer from one block to the next, once, had something else to do.
const PAUSE: Duration = Duration::from_secs(2);
/// How much more compressing has to bring, in hundredths, since it takes the time of both sides, and how little less
/// storing may.
const GAIN: u64 = 105;
/// By what factor the bytes that go over the network in a time change when it has become another, in hundredths.
const CHANGED: u64 = 160;
/// A try may cost the transfer one so small part of its time, or four when the network has changed.
const COST: u32 = 100;
/// Bytes of files between two tries, at least, or a quarter of that.
const BETWEEN: u64 = 128 << 20;
/// The longest time between two tries.
const LONGEST: Duration = Duration::from_secs(3600);

/// Bytes in a time.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    /// Of files.
    bytes: u64,
    /// What they became.
    sent: u64,
    time: Duration,
}

impl Flow {
    /// Bytes of files a second.
    fn rate(self) -> u64 {
        per_second(self.bytes, self.time)
    }

    /// Bytes that went over the network a second.
    fn load(self) -> u64 {
        per_second(self.sent, self.time)
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX).max(1)
}

/// What the pace is good for.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It shows how fast the way is that is kept.
    Keeping {
        /// What went since the last try, and how long the other way is not tried after that. Nothing was tried yet where
        /// there is none.
        since: Option<(Flow, Duration)>,
        /// What went over the network before.
        load: Option<u64>,
    },
    /// It shows whether the other way is faster than this.
    Trying { kept: u64 },
}

/// The pace of one client.
pub(super) struct Pace {
    link: Rc<Link>,
    /// `None` where nothing is tried.
    phase: Option<Phase>,
    /// When a block was answered last, and what had been taken and sent then.
    last: Option<(Instant, u64, u64)>,
    flow: Flow,
    /// The next block was on its way when the way changed.
    skips: bool,
    /// The block before came after a pause.
    paused: bool,
}

impl Pace {
    pub(super) fn new(setting: NetworkCompression) -> Self {
        let phase = match setting {
            NetworkCompression::Auto => Some(Phase::Keeping { since: None, load: None }),
            NetworkCompression::Always | NetworkCompression::Never => None,
        };
        let link = Rc::new(Link::new(setting == NetworkCompression::Always));
        Self { link, phase, last: None, flow: Flow::default(), skips: false, paused: false }
    }

    /// How the client's files go.
    pub(super) const fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// The client was sent a block of a file.
    pub(super) fn answered(&mut self, now: Instant) {
        let Some(phase) = self.phase else { return };
        let (taken, sent) = (self.link.taken(), self.link.sent());
        let Some((at, taken_before, sent_before)) = self.last else {
            self.last = (taken > 0).then_some((now, taken, sent));
            return;
        };
        let time = now.saturating_duration_since(at);
        // Nothing of it went into a frame, or it came in the same turn as the one before and counts with the next.
        if taken == taken_before || time.is_zero() {
            return;
        }
        self.last = Some((now, taken, sent));
        // One after the other is what a slow network looks like.
        let pauses = time > PAUSE && !std::mem::replace(&mut self.paused, time > PAUSE);
        if pauses || std::mem::take(&mut self.skips) {
            return;
        }
        self.paused = time > PAUSE;
        self.flow.bytes += taken - taken_before;
        self.flow.sent += sent - sent_before;
        self.flow.time += time;
        let flow = self.flow;
        let next = match phase {
            Phase::Keeping { load: None, .. } if flow.bytes < FIRST => return,
            Phase::Keeping { load: Some(_), .. } if flow.bytes < WINDOW => return,
            Phase::Keeping { since, load } => self.keep(flow, since, load),
            // What took longer than the other way would for more cannot win any more.
            Phase::Trying { kept } if flow.bytes < WINDOW && flow.time < time_of(WINDOW, kept) => return,
            Phase::Trying { kept } => self.judge(flow, kept),
        };
        self.flow = Flow::default();
        self.phase = Some(next);
    }

    /// Decides whether the other way is tried now.
    fn keep(&mut self, flow: Flow, since: Option<(Flow, Duration)>, before: Option<u64>) -> Phase {
        let load = flow.load();
        let Some((gone, due)) = since else { return self.try_other(flow) };
        let gone = Flow { bytes: gone.bytes + flow.bytes, sent: 0, time: gone.time + flow.time };
        let doubts = before.is_some_and(|before| self.doubts(before, load));
        let part = if doubts { 4 } else { 1 };
        if gone.bytes >= BETWEEN / u64::from(part) && gone.time >= due / part {
            return self.try_other(flow);
        }
        // Mostly what was before, since neither a disk nor a client is equally fast all the time.
        let load = before.map_or(load, |before| before / 4 * 3 + load / 4);
        Phase::Keeping { since: Some((gone, due)), load: Some(load) }
    }

    fn try_other(&mut self, flow: Flow) -> Phase {
        self.change();
        Phase::Trying { kept: flow.rate() }
    }

    /// Whether the network became such that the other way may be faster now: a slower one makes compressing worth
    /// while, and a faster one storing. How well a file compresses changes what it brings, not what goes over the network.
    fn doubts(&self, before: u64, now: u64) -> bool {
        let (slow, fast) = if self.link.compresses() { (before, now) } else { (now, before) };
        fast.saturating_mul(100) > slow.saturating_mul(CHANGED)
    }

    /// Keeps the faster way, the old one or the one that was tried.
    fn judge(&mut self, flow: Flow, kept: u64) -> Phase {
        let rate = flow.rate();
        let needed = if self.link.compresses() { GAIN } else { 200 - GAIN };
        let is_better = rate.saturating_mul(100) > kept.saturating_mul(needed);
        if !is_better {
            self.change();
        }
        // What the slower way took longer is to be so little of the time until the next try.
        let lost = if is_better { time_of(flow.bytes, kept) } else { flow.time };
        let lost = lost.saturating_sub(time_of(flow.bytes, rate.max(kept)));
        let due = lost.saturating_mul(COST).min(LONGEST);
        Phase::Keeping { since: Some((Flow::default(), due)), load: None }
    }

    fn change(&mut self) {
        self.link.set_compresses(!self.link.compresses());
        self.skips = true;
    }
}

/// How long so many bytes take at a rate.
fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1))
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
