//! Making taps that outlive the process.
//!
//! Whether a tap has many queues is fixed when it is made: the overlay's own tap has, because each
//! worker opens one; a VM's tap has not, or QEMU gets `EINVAL` when it opens it.

use crate::error::Error;
use crate::sys;

/// Who will open the tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapKind {
    /// This program: many queues.
    Overlay,
    /// A hypervisor: one queue.
    Vm,
}

/// Makes the persistent tap `name`, down and without a bridge. Without `CAP_NET_ADMIN` only the
/// user `owner` may open it; `None` is the user of this process.
///
/// # Errors
/// [`Error::NameTaken`], [`Error::NotPermitted`], [`Error::NoTunDevice`], [`Error::BadName`].
pub fn create(name: &str, kind: TapKind, owner: Option<u32>) -> Result<(), Error> {
    check_name(name)?;
    let owner = owner.unwrap_or_else(current_user);
    sys::create_tap(name, kind == TapKind::Overlay, owner)
}

/// The user this process acts as, for whom a tap is made unless told otherwise.
#[must_use]
pub fn current_user() -> u32 {
    sys::effective_uid()
}

/// Can `name` be the name of an interface? Stricter than the kernel: no character that a shell, a
/// path under `/proc/sys` or a name pattern (`%d`) would take for something else.
///
/// # Errors
/// [`Error::BadName`].
pub fn check_name(name: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = (1..=15).contains(&name.len())
        && name.bytes().all(legal)
        && !name.starts_with(['-', '.'])
        && !matches!(name, "all" | "default");
    if good {
        Ok(())
    } else {
        Err(Error::BadName {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for right in ["fl-lab", "br-twelve-chars", "vm0", "eth0.7"] {
            assert!(check_name(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "sixteen-letters-",
            "a/b",
            "..",
            ".x",
            "-x",
            "t%d",
            "all",
            "a b",
        ] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
