//! One end of the socket between supervisor and worker. It never waits: what the other end does not take yet
//! is kept, in order.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::LONGEST;
use crate::process::link;

#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    /// What the other end has not taken yet.
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum Received<T> {
    /// This message, perhaps with descriptors.
    Message(T, Vec<OwnedFd>),
    /// Nothing more for now.
    Nothing,
    /// Nothing ever again: the other end is closed, or has sent what cannot be decoded.
    Ended,
}

impl Link {
    /// The end that is this socket, which must not wait.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new(), buffer: vec![0; LONGEST] }
    }

    /// Sends a message, now or when there is room. To an end that is closed nothing is sent, which
    /// [`Link::recv`] tells.
    pub(crate) fn send(&mut self, message: &impl Serialize, descriptors: Vec<OwnedFd>) {
        // Serializing to memory does not fail.
        if let Ok(bytes) = postcard::to_allocvec(message) {
            self.waiting.push_back((bytes, descriptors));
            self.flush();
        }
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let Some((bytes, descriptors)) = self.waiting.front() {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match link::send(self.socket.as_fd(), bytes, &descriptors) {
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS) => return,
                // Sent, or the other end is gone, or it can never be sent.
                _ => _ = self.waiting.pop_front(),
            }
        }
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn recv<T: DeserializeOwned>(&mut self) -> Received<T> {
        let mut descriptors = Vec::new();
        loop {
            match link::receive(self.socket.as_fd(), &mut self.buffer, &mut descriptors) {
                Ok(Some(bytes)) => {
                    return match postcard::from_bytes(bytes) {
                        Ok(message) => Received::Message(message, descriptors),
                        Err(_) => Received::Ended,
                    };
                }
                // One that is too long is of no use, but no reason to give all the others' sessions up.
                Err(Errno::MSGSIZE) => descriptors.clear(),
                Err(Errno::AGAIN | Errno::NOMEM) => return Received::Nothing,
                Ok(None) | Err(_) => return Received::Ended,
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_end_does_not_take_yet_arrives_later_and_in_order() {
        let (ours, theirs) = link::pair().unwrap();
        rustix::io::ioctl_fionbio(&theirs, true).unwrap();
        let (mut ours, mut theirs) = (Link::new(ours), Link::new(theirs));
        let text = "x".repeat(1000);
        for number in 0..5000_u32 {
            let null = || std::fs::File::open("/dev/null").unwrap().into();
            ours.send(&(number, &text), if number == 4999 { vec![null(), null()] } else { vec![] });
        }
        assert!(ours.is_behind());
        let mut expected = 0;
        loop {
            match theirs.recv::<(u32, String)>() {
                Received::Message((number, _), descriptors) => {
                    assert_eq!(number, expected);
                    assert_eq!(descriptors.len(), if number == 4999 { 2 } else { 0 });
                    expected += 1;
                }
                Received::Nothing if ours.is_behind() => ours.flush(),
                Received::Nothing => break,
                Received::Ended => panic!("it is open"),
            }
        }
        assert_eq!(expected, 5000);
        drop(ours);
        // A program that another test starts has it open until it is executed.
        loop {
            match theirs.recv::<(u32, String)>() {
                Received::Ended => break,
                Received::Nothing => std::thread::yield_now(),
                Received::Message(..) => panic!("there are no more"),
            }
        }
    }

    #[test]
    fn what_was_said_last_is_heard_though_the_other_end_has_not_heard_everything() {
        let (ours, theirs) = link::pair().unwrap();
        let (mut ours, mut theirs) = (Link::new(ours), Link::new(theirs));
        ours.send(&1, vec![]);
        theirs.send(&2, vec![]);
        drop(theirs);
        assert!(matches!(ours.recv(), Received::Message(2, _)));
        assert!(matches!(ours.recv::<i32>(), Received::Ended));
    }

    #[test]
    fn a_message_that_is_too_long_is_passed_over() {
        let (ours, theirs) = link::pair().unwrap();
        let (mut ours, mut theirs) = (Link::new(ours), Link::new(theirs));
        ours.send(&"x".repeat(LONGEST), vec![std::fs::File::open("/dev/null").unwrap().into()]);
        ours.send(&"short", vec![]);
        match theirs.recv::<String>() {
            Received::Message(text, descriptors) => assert_eq!((text.as_str(), descriptors.len()), ("short", 0)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_that_makes_no_sense_ends_it() {
        let (ours, theirs) = link::pair().unwrap();
        link::send(ours.as_fd(), &[0xff; 20], &[]).unwrap();
        assert!(matches!(Link::new(theirs).recv::<super::super::message::ToWorker>(), Received::Ended));
    }
}
