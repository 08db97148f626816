//! Reading a secret at a terminal: nothing is shown, and what is pasted may be longer than the
//! 4,095 letters of a line that the terminal edits.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use zeroize::Zeroizing;

const INTERRUPT: u8 = 3;
const END: u8 = 4;

/// What to do after some input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is whole.
    Done,
    /// Read on.
    More,
}

/// The terminal without echo, line editing and signals; as it was before once this is dropped.
struct Quiet {
    terminal: RawFd,
    before: libc::termios,
}

impl Quiet {
    fn new(terminal: RawFd) -> io::Result<Self> {
        // SAFETY: a termios is plain data, for which zeros are a value; tcgetattr writes one.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `before` lives through the call; a bad descriptor is an error.
        if unsafe { libc::tcgetattr(terminal, &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut quiet = before;
        quiet.c_lflag &= !(libc::ECHO | libc::ICANON | libc::ISIG);
        set(terminal, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Best effort: there is nobody to tell.
        let _ = set(self.terminal, &self.before);
    }
}

fn set(terminal: RawFd, attributes: &libc::termios) -> io::Result<()> {
    // SAFETY: `attributes` is a whole termios that lives through the call.
    match unsafe { libc::tcsetattr(terminal, libc::TCSANOW, attributes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks with `prompt` on stderr and reads stdin until `judge` says that it is whole, or until
/// Ctrl-D; at most `most` bytes. Ctrl-C is an error of the kind `Interrupted`.
pub(super) fn read_secret(
    prompt: &str,
    most: usize,
    mut judge: impl FnMut(&str) -> Next,
) -> io::Result<Zeroizing<String>> {
    let mut stdin = io::stdin().lock();
    let quiet = Quiet::new(stdin.as_raw_fd())?;
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}").and_then(|()| stderr.flush())?;
    let mut text = Zeroizing::new(String::with_capacity(most));
    let mut chunk = Zeroizing::new([0; 1024]);
    let outcome = 'reading: loop {
        let count = match stdin.read(&mut *chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Err(error),
        };
        if count == 0 {
            break Ok(());
        }
        for &byte in chunk.iter().take(count) {
            match byte {
                INTERRUPT => break 'reading Err(io::ErrorKind::Interrupted.into()),
                END => break 'reading Ok(()),
                _ if text.len() >= most => break 'reading Ok(()),
                _ => text.push(char::from(byte)),
            }
        }
        if judge(&text) == Next::Done {
            break Ok(());
        }
    };
    drop(quiet);
    // The prompt's line is not ended by an echo.
    writeln!(stderr)?;
    outcome.map(|()| text)
}
