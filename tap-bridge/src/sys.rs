//! The only `unsafe` of the crate: the ioctls of `/dev/net/tun`, and netlink sockets in the runtime.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use host_services::netlink;
use host_services::socket::set_option;
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::queue::Offload;
use crate::vnet::VNET_HDR_LEN;

/// `RTMGRP_NEIGH` (rtnetlink(7)).
const NEIGHBOUR_GROUP: u32 = 4;

/// `RTMGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR` and `_IPV6_ROUTE`.
const HOST_GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// `TUN_F_*` of linux/if_tun.h.
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// Makes the tap `name` and lets it outlive this process. Only `owner` may open it without
/// `CAP_NET_ADMIN`.
pub(crate) fn create_tap(name: &str, multi_queue: bool, owner: u32) -> Result<(), Error> {
    let file = open_tun()?;
    let queues = if multi_queue {
        libc::IFF_MULTI_QUEUE
    } else {
        0
    };
    let what = || format!("cannot make tap {name}");
    // Refusing to attach to what exists makes the creation atomic.
    set_interface(
        &file,
        name,
        libc::IFF_TUN_EXCL | libc::IFF_VNET_HDR | queues,
    )
    .map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => Error::NameTaken {
            name: name.to_owned(),
        },
        _ => Error::from_io(what(), error),
    })?;
    let owner = libc::c_ulong::from(owner);
    ioctl_value(&file, libc::TUNSETOWNER, owner).map_err(|error| Error::from_io(what(), error))?;
    ioctl_value(&file, libc::TUNSETPERSIST, 1).map_err(|error| Error::from_io(what(), error))
}

/// Opens one more queue of the existing multi-queue tap `name`, non-blocking.
pub(crate) fn open_queue(name: &str, offload: bool) -> Result<(File, Offload), Error> {
    // The kernel would make a tap that does not exist; it would vanish with this process.
    if !interface_exists(name) {
        return Err(Error::NoSuchInterface {
            name: name.to_owned(),
        });
    }
    let file = open_tun()?;
    let what = || format!("cannot open tap {name}");
    set_interface(&file, name, libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE).map_err(|error| {
        let name = name.to_owned();
        match error.raw_os_error() {
            Some(libc::EINVAL) => Error::WrongKind { name },
            Some(libc::EBUSY | libc::E2BIG) => Error::TapBusy { name },
            _ => Error::from_io(what(), error),
        }
    })?;
    let size = i32::try_from(VNET_HDR_LEN).unwrap_or(i32::MAX);
    ioctl_int(&file, libc::TUNSETVNETHDRSZ, size).map_err(|error| Error::from_io(what(), error))?;
    ioctl_int(&file, libc::TUNSETVNETLE, 1).map_err(|error| Error::from_io(what(), error))?;
    let offload = set_offload(&file, offload).map_err(|error| Error::from_io(what(), error))?;
    Ok((file, offload))
}

/// `TUNSETOFFLOAD` with the most that the kernel has.
pub(crate) fn set_offload(file: &File, wanted: bool) -> io::Result<Offload> {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let masks = [
        (tcp | TUN_F_USO4 | TUN_F_USO6, Offload::TcpUdp),
        (tcp, Offload::Tcp),
    ];
    for (mask, offload) in masks.into_iter().filter(|_| wanted) {
        match ioctl_value(file, libc::TUNSETOFFLOAD, mask) {
            Ok(()) => return Ok(offload),
            // A bit that this kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    ioctl_value(file, libc::TUNSETOFFLOAD, 0)?;
    Ok(Offload::Off)
}

/// From now on the kernel puts no frames into the queue and learns nothing from what is written to
/// it.
pub(crate) fn detach_queue(file: &File) -> io::Result<()> {
    let mut request = request(libc::IFF_DETACH_QUEUE)?;
    // SAFETY: TUNSETQUEUE reads one `ifreq`; the pointer is to a live, exclusively borrowed one.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETQUEUE, &raw mut request) })
}

/// The user this process acts as.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

fn open_tun() -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::NoTunDevice,
            _ => Error::from_io("cannot open /dev/net/tun", error),
        })
}

fn interface_exists(name: &str) -> bool {
    let Ok(name) = std::ffi::CString::new(name) else {
        return false;
    };
    // SAFETY: `name` is a NUL-terminated string that lives during the call, which only reads it.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// `TUNSETIFF` on a freshly opened `/dev/net/tun`.
fn set_interface(file: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    let mut request = request(flags | libc::IFF_TAP | libc::IFF_NO_PI)?;
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    // SAFETY: TUNSETIFF reads and writes one `ifreq`; the pointer is to a live, exclusively
    // borrowed one, whose name is NUL-terminated by the length check above.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    done(result)
}

/// The name of the interface that an opened queue belongs to; an error once it was deleted.
pub(crate) fn interface_of(file: &File) -> io::Result<String> {
    let mut request = request(0)?;
    // SAFETY: TUNGETIFF writes one `ifreq`; the pointer is to a live, exclusively borrowed one.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().map(|byte| byte.cast_unsigned());
    let name: Vec<u8> = name.take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).map_err(io::Error::other)
}

/// A request with `flags` and no name.
fn request(flags: libc::c_int) -> io::Result<libc::ifreq> {
    let too_many = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let flags = u16::try_from(flags).map_err(too_many)?;
    Ok(libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags.cast_signed(),
        },
    })
}

/// An ioctl whose argument is a number.
fn ioctl_value(file: &File, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the callers pass TUNSETOWNER, TUNSETPERSIST and TUNSETOFFLOAD only, which take the
    // argument by value and touch no memory of ours.
    done(unsafe { libc::ioctl(file.as_raw_fd(), request, value) })
}

/// An ioctl whose argument is a pointer to an `int` that the kernel reads.
fn ioctl_int(file: &File, request: libc::Ioctl, value: i32) -> io::Result<()> {
    // SAFETY: the callers pass TUNSETVNETHDRSZ and TUNSETVNETLE only, which read one int through
    // the pointer; `value` lives during the call.
    done(unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const value) })
}

/// A non-blocking netlink socket that gets the news of neighbours, which bridges' forwarding entries
/// are for the kernel.
/// Within a tokio runtime only.
pub(crate) fn neighbour_socket() -> io::Result<AsyncFd<File>> {
    routing_socket(NEIGHBOUR_GROUP)
}

/// A non-blocking netlink socket that gets the news of links, addresses and routes.
/// Within a tokio runtime only.
pub(crate) fn host_socket() -> io::Result<AsyncFd<File>> {
    routing_socket(HOST_GROUPS)
}

/// A non-blocking netlink socket for questions, which lets the kernel answer no more than was asked for, where
/// the kernel can (Linux 4.20). Within a tokio runtime only.
pub(crate) fn asking_socket() -> io::Result<AsyncFd<File>> {
    let socket = routing_socket(0)?;
    let (level, name) = (libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK);
    match set_option(&socket, level, name, 1) {
        Err(error) if error.raw_os_error() != Some(libc::ENOPROTOOPT) => Err(error),
        _ => Ok(socket),
    }
}

fn routing_socket(groups: u32) -> io::Result<AsyncFd<File>> {
    let socket = OwnedFd::from(netlink::socket(libc::NETLINK_ROUTE, groups)?);
    // SAFETY: the `File` owns the open descriptor; it stays in the `AsyncFd`, which lends it out
    // shared only, so nobody replaces or closes it there.
    let registered = unsafe { AsyncFd::register(File::from(socket)) };
    registered.map_err(Into::into)
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
