//! A socket between two processes of this program: messages that carry descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Descriptors that one message may carry.
pub const DESCRIPTORS: usize = 4;

/// The two ends: ours, which never waits, and that of the process to come.
///
/// # Errors
///
/// That of socketpair(2), such as too many open files, or of making ours non-blocking.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Sends one message.
///
/// # Errors
///
/// That of sendmsg(2), with which nothing was sent: `AGAIN` when the socket is full, `PIPE` when the other end is
/// closed; `TOOBIG` for more than [`DESCRIPTORS`], `MSGSIZE` for a message that was cut.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let sent = retry_on_intr(|| sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL))?;
    if sent == message.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Receives one message; `None` when the other end is closed.
///
/// # Errors
///
/// `EMSGSIZE` for a message that is longer than the buffer, which is gone then; else what `recvmsg` fails with.
pub fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Option<&'a [u8]>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut receive =
        || retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC));
    let received = match receive() {
        // The other end was closed with messages unread. That is told once, before what it said last.
        Err(Errno::CONNRESET) => receive()?,
        received => received?,
    };
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((received.bytes > 0).then(|| &buffer[..received.bytes]))
}
