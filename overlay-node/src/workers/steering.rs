//! Which worker gets a datagram: one port, a socket for each worker, and a program in the kernel
//! that chooses among them by the lane in the clear header (`docs/adr/0020-several-workers.md`).
//!
//! ```text
//!   lane 0, handshakes, relayed, anything else -> worker 0
//!   lane n, and the express lane of lane n     -> worker (n - 1) mod workers
//! ```
//!
//! The choice is a hint: every worker opens every lane. What hangs on it is the order within a flow,
//! and that no two workers want the replay window of one lane.
//!
//! *The port is exclusive.* The first socket is bound without `SO_REUSEPORT`, so that a port in use
//! is an error; only then it lets the others join. Whoever has the user's rights and joins as well
//! gets nothing: the program names none but our own.
//!
//! *A train has one lane.* All workers of a sender have one source port, so a receiver's kernel could
//! merge datagrams of two of them into one train, which goes to one worker as a whole. It does not
//! merge what differs in its TTL; so each worker has its own.

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
    /// Sockets for `workers` workers on the same addresses: these, and others that join them.
    ///
    /// # Errors
    /// The kernel has no such thing, or no descriptor is left; these sockets stay as they were.
    pub fn share_among(&self, workers: usize) -> io::Result<Vec<Self>> {
        let mut all = vec![self.try_clone()?];
        all.resize_with(workers.clamp(1, MAX_WORKERS), Self::default);
        for first in self.both().into_iter().flatten() {
            if let Err(error) = share(first, &mut all) {
                // A socket that nobody may join is the exclusive one that it was.
                for socket in self.both().into_iter().flatten() {
                    SockRef::from(socket).set_reuse_port(false)?;
                }
                return Err(error);
            }
        }
        Ok(all)
    }
}

/// Lets sockets join `first`, one for each of `all` but the first.
fn share(first: &UdpSocket, all: &mut [UdpSockets]) -> io::Result<()> {
    let workers = u32::try_from(all.len()).unwrap_or(1);
    if workers < 2 {
        return Ok(());
    }
    let addr = first.local_addr()?;
    let first = SockRef::from(first);
    first.set_reuse_port(true)?;
    // The number of a socket in the group is the order in which it joined.
    for (number, sockets) in (0..).zip(all.iter_mut()).skip(1) {
        let socket = udp::unbound(addr)?;
        socket.set_reuse_port(true)?;
        lower_ttl(&socket, addr.is_ipv4(), number)?;
        socket.bind(&addr.into())?;
        *sockets.place(addr) = Some(socket.into());
    }
    if let Err(error) = sys::steer(&*first, &program(workers)) {
        // The kernel then goes by the addresses: all lanes of a peer to one worker, in order.
        tracing::warn!(%error, "datagrams are not steered by their lane");
    }
    Ok(())
}

/// The TTL of worker `number`. It costs a worker so many of the 64 hops or more that systems have
/// for the 30 of the longest ways.
fn lower_ttl(socket: &Socket, v4: bool, number: u32) -> io::Result<()> {
    let lower = |ttl: u32| ttl.saturating_sub(number).max(1);
    if v4 {
        socket.set_ttl_v4(lower(socket.ttl_v4()?))
    } else {
        socket.set_unicast_hops_v6(lower(socket.unicast_hops_v6()?))
    }
}

/// What the kernel runs for each datagram or train. What it returns is the socket's number; a load
/// beyond the end of the datagram returns 0.
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
