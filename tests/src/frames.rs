//! Ethernet frames by hand: send and receive on a device of a namespace (AF_PACKET).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::Ns;

/// A raw socket on one device.
#[derive(Debug)]
pub struct RawPort {
    fd: OwnedFd,
}

/// A received frame, with the VLAN tag that the kernel keeps aside put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    /// Builds an untagged frame, padded to 60 bytes.
    #[must_use]
    pub fn build(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Self {
        let mut b = Vec::with_capacity(60);
        b.extend_from_slice(&dst);
        b.extend_from_slice(&src);
        b.extend_from_slice(&ethertype.to_be_bytes());
        b.extend_from_slice(payload);
        b.resize(b.len().max(60), 0);
        Self(b)
    }

    /// Adds an 802.1Q tag with VLAN id `vid`, priority 0.
    #[must_use]
    pub fn tagged(mut self, vid: u16) -> Self {
        let [hi, lo] = vid.to_be_bytes();
        self.0.splice(12..12, [0x81, 0x00, hi, lo]);
        self
    }

    /// The ethertype field at its usual place: 0x8100 for a tagged frame.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }

    /// Destination MAC.
    #[must_use]
    pub fn dst(&self) -> &[u8] {
        &self.0[..6]
    }

    /// Source MAC.
    #[must_use]
    pub fn src(&self) -> &[u8] {
        &self.0[6..12]
    }
}

/// Parses `aa:bb:cc:dd:ee:ff`.
#[must_use]
pub fn mac(text: &str) -> [u8; 6] {
    let mut out = [0; 6];
    for (to, part) in out.iter_mut().zip(text.split(':')) {
        *to = u8::from_str_radix(part, 16).unwrap();
    }
    out
}

/// A gratuitous ARP request of `mac` for the IPv4 address `ip`, broadcast.
#[must_use]
pub fn gratuitous_arp(mac: [u8; 6], ip: [u8; 4]) -> Frame {
    let mut p = vec![0, 1, 8, 0, 6, 4, 0, 1];
    p.extend_from_slice(&mac);
    p.extend_from_slice(&ip);
    p.extend_from_slice(&[0; 6]);
    p.extend_from_slice(&ip);
    Frame::build([0xff; 6], mac, 0x0806, &p)
}

impl RawPort {
    /// Opens device `dev` of `ns`: all frames in and out, promiscuous.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn open(ns: &Ns, dev: &str) -> Result<Self> {
        let name = std::ffi::CString::new(dev)?;
        let what = format!("raw socket on {dev} of {}", ns.name());
        ns.within(move || Self::open_here(&name)).context(what)
    }

    fn open_here(name: &std::ffi::CStr) -> Result<Self> {
        // SAFETY: `name` is a live C string.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error()).context("no such device");
        }
        let index = i32::try_from(index)?;
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes three integers, returns a new descriptor or -1.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                0,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let member = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&fd, libc::PACKET_ADD_MEMBERSHIP, &member)?;
        set(&fd, libc::PACKET_AUXDATA, &1i32)?;
        // Room for a transfer that nobody reads while it lasts.
        set_at(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(32 << 20))?;
        // SAFETY: sockaddr_ll is plain data for which all zeroes is valid.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = all;
        addr.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `addr` lives through the call and `len` is its size.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) } != 0 {
            return Err(io::Error::last_os_error()).context("bind");
        }
        Ok(Self { fd })
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        let (p, n) = (frame.0.as_ptr(), frame.0.len());
        // SAFETY: `p` points to `n` bytes that live through the call.
        if unsafe { libc::send(self.fd.as_raw_fd(), p.cast(), n, 0) } < 0 {
            return Err(io::Error::last_os_error()).context("send");
        }
        Ok(())
    }

    /// The next frame that `wanted` accepts, or `None` after `timeout`.
    pub fn recv(&self, timeout: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        let end = Instant::now() + timeout;
        loop {
            while let Some(frame) = self.recv_now() {
                if wanted(&frame) {
                    return Some(frame);
                }
            }
            let left = end.checked_duration_since(Instant::now())?;
            let mut fd = libc::pollfd {
                fd: self.fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
            // SAFETY: one live pollfd.
            unsafe { libc::poll(&mut fd, 1, ms) };
        }
    }

    /// All frames waiting now that `wanted` accepts.
    pub fn drain(&self, mut wanted: impl FnMut(&Frame) -> bool) -> Vec<Frame> {
        let mut out = Vec::new();
        while let Some(frame) = self.recv_now() {
            if wanted(&frame) {
                out.push(frame);
            }
        }
        out
    }

    fn recv_now(&self) -> Option<Frame> {
        let mut buffer = vec![0u8; 66_000];
        let mut control = [0u64; 16];
        let mut iov = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: msghdr is plain data for which all zeroes is valid.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_iov = &raw mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = size_of_val(&control);
        // SAFETY: `msg` points to buffers that live through the call.
        let n = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &mut msg, 0) };
        buffer.truncate(usize::try_from(n).ok()?);
        // SAFETY: the kernel filled `msg`; the macros walk only what msg_controllen covers.
        let aux = unsafe {
            let c = libc::CMSG_FIRSTHDR(&msg);
            if !c.is_null() && (*c).cmsg_type == libc::PACKET_AUXDATA {
                Some(std::ptr::read_unaligned(
                    libc::CMSG_DATA(c).cast::<libc::tpacket_auxdata>(),
                ))
            } else {
                None
            }
        };
        if let Some(aux) = aux
            && aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0
            && buffer.len() >= 12
        {
            let tpid = if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                aux.tp_vlan_tpid
            } else {
                0x8100
            };
            let [a, b] = tpid.to_be_bytes();
            let [c, d] = aux.tp_vlan_tci.to_be_bytes();
            buffer.splice(12..12, [a, b, c, d]);
        }
        Some(Frame(buffer))
    }
}

fn set<T>(fd: &OwnedFd, option: i32, value: &T) -> Result<()> {
    set_at(fd, libc::SOL_PACKET, option, value)
}

fn set_at<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` lives through the call and `len` is its size.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if r != 0 {
        return Err(io::Error::last_os_error()).context("setsockopt");
    }
    Ok(())
}
