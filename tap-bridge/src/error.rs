//! What can go wrong, told so that the reader knows what to do next.

use std::io;

/// An operation on a tap, a bridge or another interface failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/net/tun` is missing.
    #[error(
        "/dev/net/tun is missing; load the module (`modprobe tun`) or, in a container, start it \
         with `--device /dev/net/tun`"
    )]
    NoTunDevice,
    /// The process may not do this.
    #[error(
        "{what}: not permitted; run as root or give the program CAP_NET_ADMIN (in a container: \
         `--cap-add NET_ADMIN`)"
    )]
    NotPermitted {
        /// What was tried.
        what: String,
    },
    /// An interface of that name exists and is not ours.
    #[error("interface {name} exists already and was not made by this node; choose another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// No interface of that name.
    #[error("there is no interface {name}; `ip link` lists those that exist")]
    NoSuchInterface {
        /// The name.
        name: String,
    },
    /// The interface is no Linux bridge.
    #[error(
        "{name} is not a Linux bridge; name one (`ip link show type bridge`) or make it: `ip link \
         add {name} type bridge`"
    )]
    NotABridge {
        /// The name.
        name: String,
    },
    /// Another process has the tap open.
    #[error("tap {name} is in use by another program; stop it, or choose another name")]
    TapBusy {
        /// The name.
        name: String,
    },
    /// The interface is no tap, or one made with or without queues against what is asked.
    #[error(
        "{name} is not a tap of the needed kind (single or multi queue is fixed when it is made); \
         remove it (`ip link del {name}`) and attach again"
    )]
    WrongKind {
        /// The name.
        name: String,
    },
    /// A route that could not be put back as it was.
    #[error(
        "the route {route} by {name} has several next hops, a tunnel or the like, which cannot be \
         moved; move addresses and routes to a bridge of your own, then attach that with --bridge"
    )]
    RouteNotMovable {
        /// The route.
        route: String,
        /// The interface.
        name: String,
    },
    /// The text can be no interface name.
    #[error(
        "`{name}` can be no interface name: 1 to 15 characters of a-z, A-Z, 0-9, `-`, `_`, `.`"
    )]
    BadName {
        /// The text.
        name: String,
    },
    /// Anything else the kernel says.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// Sorts the kernel's answer to `what`.
    pub(crate) fn from_io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { what },
            _ => Self::System { what, source },
        }
    }
}
