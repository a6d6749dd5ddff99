//! Drives the state machine over sockets that block.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};
use std::{fs, io};

use repohostd::postgres::{Action, Address, Client, Event, Finished, Plan, Settings, SmallFile, System};

use super::cluster::Cluster;

trait Socket: Read + Write {
    fn patience(&self, time: Duration) -> io::Result<()>;
}

impl Socket for UnixStream {
    fn patience(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Socket for TcpStream {
    fn patience(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

fn connect(address: &Address) -> io::Result<Box<dyn Socket>> {
    Ok(match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path)?),
        Address::Abstract(name) => {
            Box::new(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?)
        }
        Address::Tcp { address, .. } => Box::new(TcpStream::connect(address)?),
    })
}

/// The real system but for its variables.
struct Variables<'a>(&'a [(&'a str, &'a str)]);

impl System for Variables<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn user(&self) -> (u32, Option<String>) {
        (0, Some("postgres".into()))
    }

    fn home(&self) -> Option<String> {
        None
    }

    fn file(&self, path: &str) -> SmallFile {
        let Ok(metadata) = fs::metadata(path) else { return SmallFile::Missing };
        let text = fs::read_to_string(path).unwrap_or_default();
        SmallFile::Found { text, mode: metadata.permissions().mode() }
    }

    fn exists(&self, path: &str) -> bool {
        fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket() || metadata.is_dir())
    }

    fn addresses(&self, _name: &str) -> Vec<IpAddr> {
        vec![]
    }
}

pub(crate) struct Connection {
    client: Client,
    socket: Option<Box<dyn Socket>>,
    pub(crate) timeout: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.client.fmt(f)
    }
}

impl Connection {
    /// Connects; the error is what a client would be told.
    pub(crate) fn open(cluster: &Cluster, variables: &[(&str, &str)], bound: Duration) -> Result<Self, String> {
        let database = variables.iter().find(|(name, _)| *name == "PGDATABASE").map_or("postgres", |(_, value)| value);
        let settings = Settings { host: None, port: cluster.port, database: database.to_owned(), user: None };
        let plan = Plan::new(&settings, &Variables(variables))?;
        let client = Client::new(plan, bound, Instant::now());
        let mut connection = Self { client, socket: None, timeout: Duration::from_secs(60) };
        match connection.run() {
            Event::Connected => Ok(connection),
            Event::Refused(text) => Err(text),
            event @ (Event::Finished(_) | Event::Lost(_)) => panic!("{event:?}"),
        }
    }

    pub(crate) fn ask(&mut self, statement: &str) -> Finished {
        self.begin(statement);
        self.wait()
    }

    /// Sends a statement without waiting for anything.
    pub(crate) fn begin(&mut self, statement: &str) {
        self.client.query(Instant::now(), statement.to_owned(), self.timeout);
        self.send();
    }

    pub(crate) fn wait(&mut self) -> Finished {
        match self.run() {
            Event::Finished(finished) => finished,
            event => panic!("{event:?}"),
        }
    }

    pub(crate) fn leave(&mut self) {
        self.client.leave(Instant::now());
        while !self.client.is_over() {
            self.act();
        }
        self.act();
        assert!(self.socket.is_none());
    }

    fn send(&mut self) {
        let output = self.client.poll_output().to_vec();
        // What cannot be sent is found out by reading.
        let _ = self.socket.as_mut().map(|socket| socket.write_all(&output));
        self.client.consume_output(output.len());
    }

    fn act(&mut self) {
        while let Some(action) = self.client.poll_action() {
            match action {
                Action::Connect(address) => match connect(&address) {
                    Ok(socket) => {
                        self.socket = Some(socket);
                        self.client.handle_connected();
                    }
                    Err(error) => self.client.handle_connect_failure(Instant::now(), error.raw_os_error().unwrap()),
                },
                Action::Cancel(address, request) => {
                    let mut socket = connect(&address).unwrap();
                    socket.write_all(&request).unwrap();
                    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
                    self.client.handle_cancelled(Instant::now(), Ok(()));
                }
                Action::Close => {
                    self.send();
                    self.socket = None;
                }
            }
        }
    }

    fn run(&mut self) -> Event {
        loop {
            self.act();
            if let Some(event) = self.client.poll_event() {
                self.act();
                return event;
            }
            self.send();
            let now = Instant::now();
            let left = self.client.poll_timeout().expect("nothing is waited for without end") - now;
            let mut buffer = [0; 4096];
            let socket = self.socket.as_mut().unwrap();
            socket.patience(left.max(Duration::from_millis(1))).unwrap();
            match socket.read(&mut buffer) {
                Ok(0) => self.client.handle_end(None),
                Ok(count) => self.client.handle_input(Instant::now(), &buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.client.handle_timeout(Instant::now()),
                Err(error) => self.client.handle_end(error.raw_os_error()),
            }
        }
    }
}
