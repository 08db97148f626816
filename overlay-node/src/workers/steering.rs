//! Decides which worker receives a datagram. All workers share one port, and each has its own socket. A
//! BPF program in the kernel chooses the socket by the lane, which is in the unencrypted header
//! (`docs/adr/0020-several-workers.md`).
//!
//! ```text
//!   lane 0, handshakes, relayed, anything else -> worker 0
//!   lane n, and the express lane of lane n     -> worker (n - 1) mod workers
//! ```
//!
//! The choice is only a hint: every worker can decrypt every lane. A good choice keeps the order within
//! a flow, and keeps two workers from waiting for the replay window of the same lane.
//!
//! *No other program can take the port.* The first socket is bound without `SO_REUSEPORT`, so that a
//! port in use is an error. Only then may further sockets join it. A program of the same user could join
//! as well, but would receive nothing: the BPF program chooses only our sockets.
//!
//! *All datagrams of a GRO batch have the same worker.* All workers of a sender use the same source
//! port, so the receiver's kernel could coalesce datagrams of two of them into one batch, which goes to
//! one worker as a whole. The kernel does not coalesce datagrams whose TTL differs. Therefore each
//! worker sends with a TTL of its own.

use std::io;
use std::net::UdpSocket;

use overlay_proto::wire::{DatagramKind, Lane};
use socket2::{SockRef, Socket};

use super::sys::{self, Instruction};
use super::udp::{self, UdpSockets};

/// Workers of a node at most: one for each lane but that of the slow path.
pub const MAX_WORKERS: usize = Lane::COUNT as usize - 1;

/// Where the lane is in a data datagram (`docs/WIRE.md`).
const LANE_AT: u32 = 8;

/// The number of workers unless the operator names one: half of the processors, for the guests want
/// the other half; at least one, and at most four.
#[must_use]
pub fn default_workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, 4)
}

impl UdpSockets {
    /// Sockets for `workers` workers on the same addresses: this socket pair for the first worker, and
    /// new ones that share its port.
    ///
    /// # Errors
    /// The kernel does not support it, or no descriptor is left. This socket pair stays as it was.
    pub fn share_among(&self, workers: usize) -> io::Result<Vec<Self>> {
        let mut all = vec![self.try_clone()?];
        all.resize_with(workers.clamp(1, MAX_WORKERS), Self::default);
        for first in self.both().into_iter().flatten() {
            if let Err(error) = share(first, &mut all) {
                // As long as nobody may join it, the socket is exclusive, as it was before.
                for socket in self.both().into_iter().flatten() {
                    SockRef::from(socket).set_reuse_port(false)?;
                }
                return Err(error);
            }
        }
        Ok(all)
    }
}

/// Adds sockets to the port of `first`, one for each of `all` but the first.
fn share(first: &UdpSocket, all: &mut [UdpSockets]) -> io::Result<()> {
    let workers = u32::try_from(all.len()).unwrap_or(1);
    if workers < 2 {
        return Ok(());
    }
    let addr = first.local_addr()?;
    let first = SockRef::from(first);
    first.set_reuse_port(true)?;
    // The kernel numbers the sockets of a group in the order in which they joined.
    for (number, sockets) in (0..).zip(all.iter_mut()).skip(1) {
        let socket = udp::unbound(addr)?;
        socket.set_reuse_port(true)?;
        lower_ttl(&socket, addr.is_ipv4(), number)?;
        socket.bind(&addr.into())?;
        *sockets.place(addr) = Some(socket.into());
    }
    if let Err(error) = sys::steer(&*first, &program(workers)) {
        // The kernel then chooses by a hash of the addresses: all lanes of a peer go to one worker, in
        // order.
        tracing::warn!(%error, "datagrams are not steered by their lane");
    }
    Ok(())
}

/// Lowers the TTL by the worker's `number`. Systems start with 64 hops or more, and the longest routes
/// have about 30, so this leaves enough.
fn lower_ttl(socket: &Socket, v4: bool, number: u32) -> io::Result<()> {
    let lower = |ttl: u32| ttl.saturating_sub(number).max(1);
    if v4 {
        socket.set_ttl_v4(lower(socket.ttl_v4()?))
    } else {
        socket.set_unicast_hops_v6(lower(socket.unicast_hops_v6()?))
    }
}

/// The program that the kernel runs for each datagram or GRO batch. It returns the number of the socket.
/// A load beyond the end of the datagram ends the program with 0.
fn program(workers: u32) -> [Instruction; 9] {
    let byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let if_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let alu = |operation| libc::BPF_ALU | operation | libc::BPF_K;
    let give = libc::BPF_RET;
    [
        Instruction::new(byte, 0),
        Instruction::new(if_equal, DatagramKind::Data.byte().into()).jumps(0, 6),
        Instruction::new(byte, LANE_AT),
        Instruction::new(alu(libc::BPF_AND), u32::from(Lane::COUNT) - 1),
        Instruction::new(if_equal, 0).jumps(3, 0),
        Instruction::new(alu(libc::BPF_SUB), 1),
        Instruction::new(alu(libc::BPF_MOD), workers),
        Instruction::new(give | libc::BPF_A, 0),
        Instruction::new(give | libc::BPF_K, 0),
    ]
}

#[cfg(test)]
mod tests;
