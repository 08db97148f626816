//! What can be wrong with a state directory: which file, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use overlay_proto::membership::MembershipError;

/// A file of the state directory cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("cannot {action} {}: {cause}{}", .path.display(), hint(.cause))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Not what this program wrote.
    #[error("{} is damaged; restore it from a backup or move it away; it was left as it is", .0.display())]
    Damaged(PathBuf),
    /// Written by a later version of this program.
    #[error("{} is of a later version; update this program; it was left as it is", .0.display())]
    LaterVersion(PathBuf),
    /// A node runs on this directory.
    #[error("a node runs on {} already; stop it first ({}), or use another directory with --state", .0.display(), crate::cli::stop_command(.0))]
    InUse(PathBuf),
    /// More than the file may hold.
    #[error("{} would become too large; it was left as it is", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// No name for a blob.
    #[error("`{0}` is no name for a blob; use 1 to 32 of a-z, 0-9 and -")]
    BlobName(String),
    /// `init` ran here before.
    #[error("{} holds the authority of an overlay already; `farlan overlay` shows it; make another with --state DIR", .0.display())]
    AuthorityExists(PathBuf),
    /// `init` never ran here.
    #[error("{} holds no authority; type this at the authority, or name its directory with --state; `farlan init` makes a new overlay", .0.display())]
    NoAuthority(PathBuf),
    /// `join` never ran here.
    #[error("{} holds no membership; run `farlan join -` and paste an invite, or name another directory with --state", .0.display())]
    NoMembership(PathBuf),
}

impl StateError {
    pub(super) fn io(action: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            cause,
        }
    }

    /// Content that does not parse, as a fault of the file.
    pub(super) fn of_content(path: &Path, error: &MembershipError) -> Self {
        match error {
            MembershipError::LaterVersion(_) => Self::LaterVersion(path.to_owned()),
            _ => Self::Damaged(path.to_owned()),
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; run this as root (sudo), or choose another directory with --state"
    } else {
        ""
    }
}
