//! Telling systemd how far the service is (`Type=notify`, `sd_notify(3)`).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells `message`, such as `READY=1` or `STOPPING=1`, to whoever started this program and wants to know;
/// to nobody if none does. That it was not heard is a line in the log: the program works all the same.
pub fn notify(message: &str) {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&name, message)
    {
        tracing::warn!(%error, "systemd was not told {message}");
    }
}

/// `name` is a path, or that of an abstract socket behind an `@`.
fn send(name: &OsStr, message: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(hidden) => SocketAddr::from_abstract_name(hidden),
        None => SocketAddr::from_pathname(name),
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 100];
        let length = at.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn by_its_path_and_by_its_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(told(&socket), b"READY=1");

        let name = format!("host-services-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(told(&socket), b"STOPPING=1");

        assert!(send(dir.path().join("nobody").as_os_str(), "READY=1").is_err());
    }
}
