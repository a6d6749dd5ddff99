//! A worker: serves the connections that the supervisor gives it, as a server of one process would.
//!
//! Its configuration is what the supervisor read, whatever the files say now.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::io::Errno;

use crate::config::Environment;
use crate::config::snapshot::{Origin, Snapshot};
use crate::disk::exclusion::Exclusion;
use crate::observe::log;
use crate::process;
use crate::process::budget::{Bound, Budget};
use crate::protocol::error::{Code, Result};
use crate::server::client::held::Held;
use crate::server::event_loop::reports::Report;
use crate::server::life::configuration::Configuration;
use crate::server::life::front::Backend as _;
use crate::server::life::limits;
use crate::server::life::serving::{Phase, Serving};
use crate::server::life::signals::{Meaning, Signals};
use crate::server::life::{system, umask};
use crate::server::service::Service;
use crate::server::status::document;
use crate::server::workers::link::{Link, Received};
use crate::server::workers::message::{LONGEST, ToSupervisor, ToWorker};
use crate::server::workers::snapshot_file::recall;
use crate::session::Host;

const SIGNAL: Token = Token(usize::MAX);
const CONTROL: Token = Token(usize::MAX - 1);
/// What it is called.
const NAME: &str = "repohostd-work";
/// Connections of each kind in one report, so that the names of their clients have room in a message.
const CONNECTIONS: usize = 200;

/// What the process is that a supervisor starts with the socket as its standard input. Returns its exit
/// status.
pub(crate) fn run(arguments: &[String], environment: &Environment) -> u8 {
    process::call_itself(NAME);
    log::connect();
    let Some(begun) = begin() else {
        eprintln!("ERROR: this command is what repohostd starts for itself");
        return Code::CommandInvalid.number();
    };
    log::number(begun.number);
    Worker::start(begun, arguments, environment).map_or_else(|code| code, |mut worker| worker.run())
}

/// What a worker begins with.
struct Begun {
    link: Link,
    number: u32,
    names: OwnedFd,
    snapshot: Snapshot,
}

/// Takes the socket over, and the first message.
fn begin() -> Option<Begun> {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let mut buffer = vec![0; LONGEST];
    let mut descriptors = Vec::new();
    let message = process::link::receive(socket.as_fd(), &mut buffer, &mut descriptors).ok()??;
    let ToWorker::Begin { number, umask } = postcard::from_bytes(message).ok()? else { return None };
    umask::clear(Some(umask));
    // So that what this process starts cannot read from it.
    let null = std::fs::File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(null).ok()?;
    rustix::io::ioctl_fionbio(&socket, true).ok()?;
    let mut descriptors = descriptors.into_iter();
    let (names, snapshot) = (descriptors.next()?, recall(descriptors.next()?).ok()?);
    Some(Begun { link: Link::new(socket), number, names, snapshot })
}

struct Worker {
    arguments: Vec<String>,
    environment: Environment,
    serving: Serving,
    signals: Signals,
    link: Link,
    /// Transfers as they were reported last.
    transfers: usize,
    /// What the supervisor has told up to now of the configuration files that it was asked for.
    files: Option<Vec<u8>>,
}

impl Worker {
    fn start(begun: Begun, arguments: &[String], environment: &Environment) -> std::result::Result<Self, u8> {
        let Begun { mut link, names, snapshot, .. } = begun;
        let loaded = load(arguments, environment, snapshot);
        match loaded.and_then(|loaded| prepare(&link, loaded, &names)) {
            Ok((serving, signals)) => {
                link.send(&ToSupervisor::Ready, vec![]);
                let (arguments, environment) = (arguments.to_vec(), environment.clone());
                Ok(Self { arguments, environment, serving, signals, link, transfers: 0, files: None })
            }
            Err(error) => {
                link.send(&ToSupervisor::Failed(error.to_string()), vec![]);
                Err(error.code.number())
            }
        }
    }

    /// Serves until the supervisor wants no more of it, or is gone.
    fn run(&mut self) -> u8 {
        loop {
            let longest = self.link.is_behind().then_some(Duration::from_millis(10));
            let (mut is_signalled, mut is_told) = (false, false);
            let turn = self.serving.turn(longest, &mut |token| match token {
                SIGNAL => is_signalled = true,
                _ => is_told = true,
            });
            if let Err(error) = turn {
                log::error(&error);
                return error.code.number();
            }
            self.link.flush();
            if is_told && !self.obey() {
                // There is nobody to work for, as after a SIGINT.
                return Code::Term.number();
            }
            let signals = if is_signalled { self.signals.pending() } else { Vec::new() };
            for signal in signals {
                if let Meaning::Terminate { certain } = signal {
                    self.terminate(certain);
                }
            }
            let over = self.serving.is_over();
            self.report();
            if over {
                return 0;
            }
        }
    }

    /// Somebody wants this process to end, or sessions that it has. Other signals are for the supervisor, which
    /// gets them too from whoever signals every process of the server.
    fn terminate(&mut self, certain: bool) {
        if !certain && self.serving.stop_sessions() {
            return;
        }
        match self.serving.phase {
            // What the supervisor has given it until it hears of that is served, too.
            Phase::Serving => self.link.send(&ToSupervisor::Leaving, vec![]),
            Phase::Retiring => _ = self.serving.drain(),
            Phase::Draining(_) | Phase::Leaving(_) => {}
        }
    }

    /// Does what the supervisor says. False when it is gone.
    fn obey(&mut self) -> bool {
        loop {
            match self.link.recv() {
                Received::Message(message, descriptors) => self.take(message, descriptors.into_iter().next()),
                Received::Nothing => return true,
                Received::Ended => return false,
            }
        }
    }

    fn take(&mut self, message: ToWorker, descriptor: Option<OwnedFd>) {
        let event_loop = &mut self.serving.event_loop;
        match message {
            ToWorker::Connection { number, peer } => match descriptor {
                Some(descriptor) => {
                    let socket = mio::net::TcpStream::from_std(descriptor.into());
                    event_loop.admit(socket, peer, Some(number));
                }
                // The kernel has closed it: no more files can be opened here.
                None => event_loop.reports().closes(Some(number)),
            },
            ToWorker::Evict(number) => event_loop.evict(number),
            ToWorker::Known(known) => {
                let policy = Rc::clone(&event_loop.service().policy);
                event_loop.learner().restore(known.into_iter().filter_map(|known| known.known(policy.table())));
            }
            ToWorker::Installed(version) => {
                let release = event_loop.service().policy.table().find(&version);
                if let Some(release) = release {
                    event_loop.learner().note_installed(release);
                }
            }
            ToWorker::Lesson(lesson) => {
                let policy = Rc::clone(&event_loop.service().policy);
                event_loop.learner().hear(&lesson, policy.table());
            }
            ToWorker::Finished(directory) => event_loop.host().repository.finished.note_of_another(directory),
            ToWorker::Reload => {
                let error = self.reload(descriptor).err().map(|error| error.to_string());
                self.link.send(&ToSupervisor::Reloaded(error), vec![]);
            }
            ToWorker::Leave if self.serving.phase == Phase::Serving => self.serving.phase = Phase::Retiring,
            ToWorker::Drain if matches!(self.serving.phase, Phase::Serving | Phase::Retiring) => {
                self.serving.drain();
            }
            ToWorker::Files(part) => self.files.get_or_insert_default().extend(part),
            ToWorker::AllFiles => {
                let told = self.files.take().unwrap_or_default();
                if let Err(error) = self.serving.configuration.authority.with_held(|held| held.take(&told)) {
                    log::error(&error);
                }
                event_loop.resume_authorization();
            }
            ToWorker::Sessions => self.tell_sessions(),
            ToWorker::Ping => self.link.send(&ToSupervisor::Alive, vec![]),
            ToWorker::Leave | ToWorker::Drain | ToWorker::Begin { .. } => {}
        }
    }

    fn reload(&mut self, snapshot: Option<OwnedFd>) -> Result<()> {
        // The kernel closes it where no more files can be opened.
        let snapshot = snapshot.ok_or_else(|| Errno::MFILE.into()).and_then(recall);
        let snapshot = snapshot.map_err(system("unable to take over the configuration"))?;
        let (configuration, service) = load(&self.arguments, &self.environment, snapshot)?;
        self.serving.replace(configuration, service, ());
        Ok(())
    }

    /// Tells the supervisor what has become of connections, and asks for configuration files that have changed.
    fn report(&mut self) {
        if self.files.is_none() && self.serving.configuration.authority.with_held(Held::takes_question) {
            self.files = Some(Vec::new());
            self.link.send(&ToSupervisor::AsksFiles, vec![]);
        }
        let event_loop = &mut self.serving.event_loop;
        for lesson in event_loop.learner().take_lessons() {
            self.link.send(&ToSupervisor::Lesson(lesson), vec![]);
        }
        for directory in event_loop.host().repository.finished.take_news() {
            self.link.send(&ToSupervisor::Finished(directory), vec![]);
        }
        let now = event_loop.now();
        let report = event_loop.reports().take(self.transfers, now);
        let Some(Report { mut proven, mut closed, transfers }) = report else { return };
        self.transfers = transfers;
        loop {
            let report = Report { proven: last(&mut proven), closed: last(&mut closed), transfers };
            self.link.send(&ToSupervisor::Report(report), vec![]);
            if proven.is_empty() && closed.is_empty() {
                return;
            }
        }
    }

    fn tell_sessions(&mut self) {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for session in self.serving.event_loop.sessions() {
            let length = document::length(&session);
            // No message takes that; what is in it is bounded, but by far more than names have.
            if length > LONGEST / 2 {
                continue;
            }
            if bytes + length > LONGEST / 4 {
                self.link.send(&ToSupervisor::Sessions(std::mem::take(&mut part)), vec![]);
                bytes = 0;
            }
            part.push(session);
            bytes += length;
        }
        self.link.send(&ToSupervisor::Sessions(part), vec![]);
        self.link.send(&ToSupervisor::AllSessions(self.serving.event_loop.file_systems()), vec![]);
    }
}

fn prepare(
    link: &Link,
    (configuration, service): (Configuration, Service),
    names: &OwnedFd,
) -> Result<(Serving, Signals)> {
    let signals = Signals::install().map_err(system("unable to install signal handlers"))?;
    let exclusion = Exclusion::join(names.as_fd()).map_err(system("unable to exclude other workers"))?;
    let host = Rc::new(Host::new(std::process::id()));
    share_bounds(&host, names).map_err(system("unable to share memory with other workers"))?;
    host.repository.finished.collect_news();
    log::apply(&configuration.log);
    let mut serving = Serving::new(configuration, service, host, Some(exclusion))?;
    let registry = serving.event_loop.registry();
    let watch = |source: &dyn AsFd, token, interest| {
        registry.register(&mut SourceFd(&source.as_fd().as_raw_fd()), token, interest)
    };
    watch(&signals, SIGNAL, Interest::READABLE)
        .and_then(|()| watch(link, CONTROL, Interest::READABLE | Interest::WRITABLE))
        .map_err(system("unable to start the event loop"))?;
    serving.event_loop.learner().collect_lessons();
    Ok((serving, signals))
}

/// Has all workers together take as much memory as the configuration says.
fn share_bounds(host: &Host, names: &OwnedFd) -> io::Result<()> {
    let [mut files, mut lists] =
        [Budget::join(names.as_fd(), Bound::Files)?, Budget::join(names.as_fd(), Bound::Lists)?];
    host.share_memory(Box::new(move |bytes, maximum| files.hold(bytes, maximum)));
    let hold = move |bytes, maximum, oldest| lists.hold_more_than_half(bytes, maximum, oldest);
    host.repository.listings.share(Box::new(hold));
    Ok(())
}

/// The configuration and what it comes to. The supervisor has told of its warnings.
fn load(arguments: &[String], environment: &Environment, snapshot: Snapshot) -> Result<(Configuration, Service)> {
    let origin = Origin::Replaying(snapshot);
    let mut configuration = Configuration::load(arguments, environment, &origin)?;
    let service = configuration.service(limits::raise_descriptors(), &origin)?;
    configuration.warnings.clear();
    configuration.authority.with_held(Held::follow);
    Ok((configuration, service))
}

/// Takes off as many as go into one report.
fn last<T>(all: &mut Vec<T>) -> Vec<T> {
    all.split_off(all.len().saturating_sub(CONNECTIONS))
}
