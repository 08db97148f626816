//! System calls that only the workers need: `eventfd(2)`, the scheduler's time slice, and the choice
//! among sockets of one port. All others are in [`host_services`].

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A counter that `poll(2)` can wait for. Writing 8 bytes adds to it; reading 8 bytes resets it.
pub(super) fn eventfd() -> io::Result<File> {
    // SAFETY: takes two numbers; the result is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and is owned by nobody else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The calling thread's attributes as `sched_setattr(2)` has them, version 0.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks the scheduler for time slices of `slice_ns` for the calling thread. In exchange for a shorter
/// slice the thread gets the core earlier after a wake-up. Its share of the core, its policy and its
/// nice value stay the same. No privilege is needed. Linux before 6.12 accepts the call and ignores it.
/// A thread with a real-time policy has no slice and is left alone.
///
/// # Errors
/// The system call was refused; a sandbox may do that.
pub(super) fn ask_for_slice(slice_ns: u64) -> io::Result<()> {
    const SIZE: u32 = 48;
    const _: () = assert!(size_of::<SchedAttr>() == SIZE as usize);
    let mut attr = SchedAttr::default();
    // SAFETY: thread 0 is the calling one; the kernel writes at most SIZE bytes, which is the size
    // of the structure it gets.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    let policy = libc::c_int::try_from(attr.policy).unwrap_or(-1);
    if !matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH) {
        return Ok(());
    }
    attr.size = SIZE;
    attr.runtime = slice_ns;
    // SAFETY: thread 0 is the calling one; the kernel reads the bytes that `size` says, all of them
    // of the structure.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One instruction of a classic BPF program.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Instruction(libc::sock_filter);

impl Instruction {
    /// `code` is composed of `BPF_` constants, which are all below 256.
    pub(super) fn new(code: u32, k: u32) -> Self {
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        let (jt, jf) = (0, 0);
        Self(libc::sock_filter { code, jt, jf, k })
    }

    /// How many instructions to skip if the comparison holds, and if it does not.
    pub(super) const fn jumps(mut self, holds: u8, else_: u8) -> Self {
        (self.0.jt, self.0.jf) = (holds, else_);
        self
    }

    #[cfg(test)]
    pub(super) const fn parts(self) -> libc::sock_filter {
        self.0
    }
}

/// Makes `program` choose among the sockets that share the port of `socket`
/// (`SO_ATTACH_REUSEPORT_CBPF`). The program sees the UDP payload.
pub(super) fn steer(socket: &impl AsRawFd, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let len = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0);
    // SAFETY: the pointer is to a live `sock_fprog` of that length, which points to as many
    // instructions as it says; `Instruction` is a `sock_filter`. The kernel copies and only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
