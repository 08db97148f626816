//! The bridge's forwarding database: which MAC is behind which port, and what changes.
//!
//! The kernel tells of each MAC that a bridge learns, moves or forgets, also of those that only
//! talk to neighbours on this host. [`FdbWatch`] reads that from a socket of its own: what waits is
//! bounded by the socket's buffer, and a guest that makes up MACs by the thousand costs a
//! [`FdbNews::Overrun`], never memory.
//!
//! ```text
//! nlmsghdr: | length u32 | type u16 | flags u16 | sequence u32 | port id u32 |
//! ndmsg:    | family u8 | 0 u8 | 0 u16 | ifindex i32 | state u16 | flags u8 | type u8 |
//! rtattr:   | length u16 | type u16 | value, padded to 4 bytes |  ...
//! ```
//! (rtnetlink(7); native byte order.)

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};

use overlay_proto::ethernet::bridge::{FdbEntry, FdbNews};
use overlay_proto::ethernet::{MacAddr, VlanId};
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::sys;

/// Larger than any one read of the kernel's notifications.
const READ_BYTES: usize = 16 * 1024;

/// What the kernel puts into one piece of a long answer at most.
const ANSWER_BYTES: usize = 32 * 1024;

const HEADER_LEN: usize = 16;
const NDMSG_LEN: usize = 12;
const ATTRIBUTE_LEN: usize = 4;

/// Reads the news of all bridges in the network namespace of the thread that started it.
#[derive(Debug)]
pub struct FdbWatch {
    socket: AsyncFd<File>,
    buffer: Box<[u8]>,
    /// News of one read, at most [`READ_BYTES`] worth of them.
    news: VecDeque<FdbNews>,
}

impl FdbWatch {
    /// Starts. Must be called within a tokio runtime. Start before reading the whole database, so
    /// that nothing falls between.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn start() -> Result<Self, Error> {
        let socket = sys::neighbour_socket()
            .map_err(|error| Error::from_io("cannot watch the bridges", error))?;
        Ok(Self {
            socket,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            news: VecDeque::new(),
        })
    }

    /// The next piece of news. Can be cancelled without losing any.
    ///
    /// # Errors
    /// The socket is broken; start again.
    pub async fn next(&mut self) -> io::Result<FdbNews> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            match ready.try_io(|socket| socket.get_ref().read(buffer)) {
                Ok(Ok(read)) => {
                    let bytes = self.buffer.get(..read).unwrap_or_default();
                    parse_all(bytes, &mut self.news);
                }
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(FdbNews::Overrun);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// The forwarding database of the bridge with number `bridge`, without the bridge's and its ports' own
/// addresses, `most` entries of it at most. `true`: there are more. Must be called within a tokio runtime.
///
/// The kernel makes the answer piece by piece as it is read, and a guest decides how long it is. So it is
/// read from a socket of its own, which is closed when there is enough: what is not read costs nothing.
///
/// # Errors
/// The kernel refuses.
pub async fn read_fdb(bridge: u32, most: usize) -> Result<(Vec<FdbEntry>, bool), Error> {
    let failed = |error| Error::from_io("cannot read the bridge's addresses", error);
    read_all(bridge, most).await.map_err(failed)
}

async fn read_all(bridge: u32, most: usize) -> io::Result<(Vec<FdbEntry>, bool)> {
    let socket = sys::asking_socket()?;
    // The kernel takes a question whole or not at all.
    let _ = socket.get_ref().write(&question(bridge)?)?;
    let mut buffer = vec![0; ANSWER_BYTES].into_boxed_slice();
    let mut entries = Vec::new();
    loop {
        let mut ready = socket.readable().await?;
        let read = match ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
            Ok(read) => read?,
            Err(_would_block) => continue,
        };
        for message in messages(buffer.get(..read).unwrap_or_default()) {
            match u16_at(message, 4).map(libc::c_int::from) {
                Some(libc::NLMSG_DONE) => return Ok((entries, false)),
                Some(libc::NLMSG_ERROR) => return Err(refusal(message)),
                _ => {}
            }
            let Some(FdbNews::Learned(entry)) = parse_one(message) else {
                continue;
            };
            // Where the kernel does not know how to answer for one bridge, it answers for all.
            if entry.bridge != bridge {
                continue;
            }
            if entries.len() >= most {
                return Ok((entries, true));
            }
            entries.push(entry);
        }
    }
}

/// Asks for all entries of `bridge`.
fn question(bridge: u32) -> io::Result<Vec<u8>> {
    let length = HEADER_LEN + NDMSG_LEN + ATTRIBUTE_LEN + size_of::<u32>();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(
        u32::try_from(length)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    bytes.extend(libc::RTM_GETNEIGH.to_ne_bytes());
    bytes.extend(
        u16::try_from(flags)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    // Sequence number and port id: the only question of this socket.
    bytes.extend([0; 8]);
    bytes.push(u8::try_from(libc::AF_BRIDGE).map_err(io::Error::other)?);
    bytes.extend([0; NDMSG_LEN - 1]);
    let attribute = ATTRIBUTE_LEN + size_of::<u32>();
    bytes.extend(
        u16::try_from(attribute)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    bytes.extend(libc::NDA_MASTER.to_ne_bytes());
    bytes.extend(bridge.to_ne_bytes());
    Ok(bytes)
}

/// What a message of type `NLMSG_ERROR` says.
fn refusal(message: &[u8]) -> io::Error {
    let number = u32_at(message, HEADER_LEN).map_or(0, u32::cast_signed);
    io::Error::from_raw_os_error(number.saturating_neg())
}

/// All messages of one read. What is none of ours, or cut off, is skipped.
fn parse_all(bytes: &[u8], news: &mut VecDeque<FdbNews>) {
    news.extend(messages(bytes).filter_map(parse_one));
}

/// The messages of one read; one that is cut off ends it.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER_LEN)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn parse_one(message: &[u8]) -> Option<FdbNews> {
    let kind = u16_at(message, 4)?;
    let header = message.get(HEADER_LEN..)?;
    let family = libc::c_int::from(*header.first()?);
    let state = u16_at(header, 8)?;
    // A bridge's and a port's own address is a permanent entry: nobody to claim.
    if family != libc::AF_BRIDGE || state & libc::NUD_PERMANENT != 0 {
        return None;
    }
    let port = u32_at(header, 4)?;
    let (mut mac, mut bridge, mut vlan) = (None, None, VlanId::UNTAGGED);
    let mut attributes = header.get(NDMSG_LEN..)?;
    while let Some(length) = u16_at(attributes, 0).map(usize::from) {
        let Some(value) = attributes.get(ATTRIBUTE_LEN..length) else {
            break;
        };
        match u16_at(attributes, 2)? {
            libc::NDA_LLADDR => mac = value.try_into().ok().map(MacAddr),
            libc::NDA_MASTER => bridge = u32_at(value, 0),
            libc::NDA_VLAN => vlan = u16_at(value, 0).and_then(VlanId::new)?,
            _ => {}
        }
        let next = length.next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    let entry = FdbEntry {
        bridge: bridge?,
        port,
        mac: mac?,
        vlan,
    };
    match kind {
        libc::RTM_NEWNEIGH => Some(FdbNews::Learned(entry)),
        libc::RTM_DELNEIGH => Some(FdbNews::Gone(entry)),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, state: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(56_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([u8::try_from(libc::AF_BRIDGE).unwrap(), 0, 0, 0]);
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0; 2]);
        for (number, value) in [
            (libc::NDA_LLADDR, &[0x52, 0x54, 0, 0, 0, 1][..]),
            (libc::NDA_MASTER, &3_u32.to_ne_bytes()[..]),
            (libc::NDA_VLAN, &20_u16.to_ne_bytes()[..]),
        ] {
            bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            bytes.extend(number.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Vec<FdbNews> {
        let mut news = VecDeque::new();
        parse_all(bytes, &mut news);
        news.into()
    }

    #[test]
    fn messages_of_the_kernel() {
        let entry = FdbEntry {
            bridge: 3,
            port: 7,
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            vlan: VlanId::new(20).unwrap(),
        };
        let mut two = message(libc::RTM_NEWNEIGH, libc::NUD_REACHABLE);
        assert_eq!(two.len(), 56);
        let second = message(libc::RTM_DELNEIGH, libc::NUD_STALE);
        two.extend(second);
        let wanted = [FdbNews::Learned(entry), FdbNews::Gone(entry)];
        assert_eq!(parse(&two), wanted);
        let own = message(libc::RTM_NEWNEIGH, libc::NUD_PERMANENT);
        assert_eq!(parse(&own), []);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(at in 0_usize..56, value: u8, cut in 0_usize..=56) {
            let mut bytes = message(libc::RTM_NEWNEIGH, libc::NUD_REACHABLE);
            bytes[at] = value;
            parse(&bytes[..cut]);
        }
    }
}
