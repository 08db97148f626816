//! Waiting for descriptors.

use std::os::fd::RawFd;
use std::time::Duration;

/// A descriptor to wait for, and what the last [`poll`] found.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Wait(libc::pollfd);

impl Wait {
    /// Until `fd` has something to read. A negative one is passed over: it is never ready.
    #[must_use]
    pub const fn readable(fd: RawFd) -> Self {
        Self(libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
    }

    /// Was there anything to read, or an error, which reading tells?
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until one of `waits` is ready, at most `timeout`, `None` for ever; with none it only looks. A
/// signal counts as a wake-up.
///
/// Whole milliseconds, which is all that workers wait, go by `poll(2)`: it is 0.1 to 0.3 us cheaper than
/// `ppoll(2)`, by which a relay waits for what it releases in less than a millisecond.
pub fn poll(waits: &mut [Wait], timeout: Option<Duration>) {
    let count = libc::nfds_t::try_from(waits.len()).unwrap_or(0);
    let waits = waits.as_mut_ptr().cast();
    if let Some(milliseconds) = timeout.map_or(Some(-1), whole_milliseconds) {
        // SAFETY: the pointer and the count describe one exclusively borrowed slice, and a `Wait` is a
        // `pollfd`.
        unsafe { libc::poll(waits, count, milliseconds) };
        return;
    }
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: as above; the timeout, if there is one, lives until after the call; the signal mask stays.
    unsafe { libc::ppoll(waits, count, timeout, std::ptr::null()) };
}

/// As `poll(2)` takes them; `None` for what is more exact, or longer than 24 days.
fn whole_milliseconds(timeout: Duration) -> Option<libc::c_int> {
    let whole = timeout.subsec_nanos().is_multiple_of(1_000_000);
    let milliseconds = libc::c_int::try_from(timeout.as_millis()).ok();
    milliseconds.filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    #[test]
    fn only_what_is_whole_is_whole() {
        let whole = |nanos| whole_milliseconds(Duration::from_nanos(nanos));
        assert_eq!([0, 250_000_000].map(whole), [Some(0), Some(250)]);
        assert_eq!([1, 1_500_000, u64::MAX].map(whole), [None; 3]);
    }

    #[test]
    fn it_finds_what_is_readable_and_waits_no_longer_than_told() {
        let (mut from, to) = UnixStream::pair().unwrap();
        let (_quiet, silent) = UnixStream::pair().unwrap();
        let fds = [silent.as_raw_fd(), to.as_raw_fd(), -1];
        let mut waits = fds.map(Wait::readable);
        let found = |waits: &[Wait]| waits.iter().map(Wait::is_ready).collect::<Vec<_>>();
        poll(&mut waits, Some(Duration::ZERO));
        assert_eq!(found(&waits), [false; 3]);
        for wait in [1_500, 2_000].map(Duration::from_micros) {
            let start = Instant::now();
            poll(&mut waits, Some(wait));
            assert!(start.elapsed() >= wait);
        }
        from.write_all(b"x").unwrap();
        poll(&mut waits, None);
        assert_eq!(found(&waits), [false, true, false]);
        // What was found is found out anew each time.
        to.set_nonblocking(true).unwrap();
        std::io::Read::read(&mut &to, &mut [0; 4]).unwrap();
        poll(&mut waits, Some(Duration::ZERO));
        assert_eq!(found(&waits), [false; 3]);
        // The other end is gone: reading tells.
        drop(from);
        poll(&mut waits, None);
        assert_eq!(found(&waits), [false, true, false]);
    }
}
