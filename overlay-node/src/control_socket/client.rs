//! The command's side: connect, one line out, one line in.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::api::{Request, Response};
use super::{MAX_LINE, TIMEOUT};
use crate::cli::start_command;

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no node runs on {}; start it with `{}`, or name its directory with --state", .0.display(), start_command(.0))]
    NotRunning(PathBuf),
    /// The socket refuses this user.
    #[error("you may not use {}; run this as root (sudo) or join the group `farlan`", .0.display())]
    NotPermitted(PathBuf),
    /// The connection broke or took too long.
    #[error("the node did not answer: {0}; see its log, or try again")]
    Broken(io::Error),
    /// The answer does not parse.
    #[error("the node's answer does not parse: {0}; node and command are of different versions")]
    Unreadable(serde_json::Error),
    /// The answer is of another kind.
    #[error("the node answered something else; node and command are of different versions")]
    Unexpected,
    /// The node says no.
    #[error("{0}")]
    Refused(String),
}

/// Is a node serving this socket?
#[must_use]
pub fn is_live(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Asks the node that serves `socket`; waits for the answer as long as [`Request::patience`] says.
///
/// # Errors
/// [`ClientError`]; [`Response::Error`] comes as [`ClientError::Refused`].
pub fn call(socket: &Path, request: &Request) -> Result<Response, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted(directory(socket)),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning(directory(socket))
        }
        _ => ClientError::Broken(error),
    })?;
    let line = exchange(&mut stream, request).map_err(ClientError::Broken)?;
    match serde_json::from_slice(&line).map_err(ClientError::Unreadable)? {
        Response::Error(why) => Err(ClientError::Refused(why)),
        response => Ok(response),
    }
}

fn directory(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(socket).to_owned()
}

fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    // The server may need its whole time for the work, so the client waits longer.
    stream.set_read_timeout(Some(request.patience() + TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    BufReader::new(stream)
        .take(most)
        .read_until(b'\n', &mut answer)?;
    if answer.last() == Some(&b'\n') {
        Ok(answer)
    } else {
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the answer broke off",
        ))
    }
}
