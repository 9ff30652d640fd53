//! What the agent asks of the zygote: packets on a `SOCK_SEQPACKET` socket pair, an [`Order`] and a [`Reply`] at a time.
//!
//! A packet is JSON, with descriptors beside it (unix(7), `SCM_RIGHTS`): with an order come the container's listening
//! socket and its diagnostics file, with [`Reply::Forked`] a pidfd of the new process.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Process;

/// The longest packet in bytes: a path, and what is around it.
const LONGEST: usize = 16 << 10;

/// The most descriptors that one packet carries.
const MOST: usize = 2;

/// To run a container in a new process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The container's state folder.
    pub state: PathBuf,
}

/// What the zygote says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Reply {
    /// It is ready: once, before the first order.
    Ready {
        /// Its [`VERSION`](crate::VERSION).
        version: u32,
    },
    /// The process runs; its pidfd comes with this.
    Forked {
        /// Which it is.
        process: Process,
    },
    /// Nothing was started.
    Refused {
        /// Why.
        message: String,
    },
}

/// Sends one packet, whole.
pub fn send(
    socket: BorrowedFd<'_>,
    packet: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(packet)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one packet and its descriptors; none when the other side is gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let into = &mut [IoSliceMut::new(&mut bytes)];
        recvmsg(&socket, into, &mut beside, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet is too long"));
    }
    let Some(packet) = bytes.get(..received.bytes).filter(|packet| !packet.is_empty()) else {
        return Ok(None);
    };
    Ok(Some((serde_json::from_slice(packet)?, descriptors)))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_packet_arrives_with_its_descriptors() {
        let (here, there) = pair();
        let (one, other) = pair();
        let order = Order { state: "/state".into() };
        send(here.as_fd(), &order, &[one.as_fd(), other.as_fd()]).unwrap();
        let (heard, descriptors) = receive::<Order>(&there).unwrap().unwrap();
        assert_eq!((heard, descriptors.len()), (order, 2));
        drop((one, descriptors));
        let mut byte = [0];
        assert_eq!(rustix::io::read(&other, &mut byte).unwrap(), 0, "a copy is still open");
    }

    #[test]
    fn the_other_sides_end_is_no_error_and_nonsense_is() {
        let (here, there) = pair();
        send(here.as_fd(), &"nonsense", &[]).unwrap();
        assert_eq!(receive::<Order>(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(here);
        assert!(receive::<Order>(&there).unwrap().is_none());
    }
}
