//! The node's side: a few short connections, each judged by who is at the other end.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use overlay_proto::membership::MAX_REVOCATION_TEXT;

use super::api::{Request, Response};
use super::{MAX_LINE, TIMEOUT, client};

/// A request, and where its answer goes. A dropped sender tells the user that the node is busy.
pub type ControlCall = (Request, oneshot::Sender<Response>);

/// Connections at once; more are closed unheard. Each holds one line of at most [`MAX_REQUEST`].
const MAX_CONNECTIONS: usize = 32;

/// The longest request, in bytes: a revocation; all others are names and addresses. In all 12 MiB.
const MAX_REQUEST: usize = MAX_REVOCATION_TEXT + 4_096;

/// The group that may read.
const GROUP: &str = "farlan";

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another node serves it.
    #[error("a node runs on {} already; stop it first, or use another directory with --state", .0.display())]
    AlreadyRunning(PathBuf),
    /// The configuration lists a user who is not there.
    #[error("there is no user `{0}` on this host; correct `users` under [control]")]
    NoSuchUser(String),
    /// The system refused.
    #[error("cannot make the control socket {}: {cause}; its path may have 107 bytes, its directory must be writable", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The bound socket; removed when this is dropped.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    /// Beside root: the socket's owner and the listed users.
    masters: Arc<[u32]>,
}

impl ControlServer {
    /// Binds the socket: mode 0660, group `farlan` where it exists. The file of a node that is gone
    /// is replaced. `users`, by name, may change things as root may. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn bind(path: &Path, users: &[String]) -> Result<Self, ServerError> {
        if client::is_live(path) {
            return Err(ServerError::AlreadyRunning(
                path.parent().unwrap_or(path).to_owned(),
            ));
        }
        let mut masters = Vec::with_capacity(users.len() + 1);
        for user in users {
            let id = id_in("/etc/passwd", user);
            masters.push(id.ok_or_else(|| ServerError::NoSuchUser(user.clone()))?);
        }
        let (listener, owner) = bind_file(path).map_err(|cause| ServerError::Io {
            path: path.to_owned(),
            cause,
        })?;
        masters.push(owner);
        Ok(Self {
            listener,
            path: path.to_owned(),
            masters: masters.into(),
        })
    }

    /// Serves until it is dropped: each request goes to `calls`, its answer back to the user.
    pub async fn serve(self, calls: mpsc::Sender<ControlCall>) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: do not spin until some are free.
                    tracing::warn!(%error, "control socket: accept failed");
                    tokio::time::sleep(TIMEOUT / 50).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                continue;
            };
            let (calls, masters) = (calls.clone(), Arc::clone(&self.masters));
            tokio::spawn(async move {
                // A client that is gone or too slow is nobody's loss.
                let _ = timeout(TIMEOUT * 4, answer(stream, &masters, calls)).await;
                drop(permit);
            });
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // Best effort: the next start replaces a dead socket file.
        let _ = fs::remove_file(&self.path);
    }
}

/// The listener, and the number of the user who owns it.
fn bind_file(path: &Path) -> io::Result<(UnixListener, u32)> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let owner = fs::symlink_metadata(path)?.uid();
    if let Some(group) = id_in("/etc/group", GROUP)
        && let Err(error) = chown(path, None, Some(group))
    {
        tracing::debug!(%error, "the control socket stays with the own group");
    }
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok((listener, owner))
}

/// The number of a user or group: the third field in `/etc/passwd` and `/etc/group` alike.
fn id_in(file: &str, name: &str) -> Option<u32> {
    let lines = fs::read_to_string(file).ok()?;
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        fields.nth(1).filter(|_| found)?.parse().ok()
    })
}

fn permitted(request: &Request, uid: u32, masters: &[u32]) -> bool {
    request.only_reads() || uid == 0 || masters.contains(&uid)
}

async fn answer(
    stream: UnixStream,
    masters: &[u32],
    calls: mpsc::Sender<ControlCall>,
) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let most = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(most));
    timeout(TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    let response = match serde_json::from_slice::<Request>(&line) {
        Err(error) => Response::Error(format!(
            "the request does not parse: {error}; node and command are of different versions"
        )),
        Ok(request) if !permitted(&request, uid, masters) => Response::Error(
            "only root, the node's own user and those listed under [control] may change things; \
             run this with sudo"
                .to_owned(),
        ),
        Ok(request) => ask(request, &calls).await,
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    if text.len() > MAX_LINE {
        let error = "the answer is larger than 1 MiB; ask for one network with --network";
        text = serde_json::to_vec(&Response::Error(error.to_owned()))?;
        text.push(b'\n');
    }
    timeout(TIMEOUT, write.write_all(&text)).await?
}

async fn ask(request: Request, calls: &mpsc::Sender<ControlCall>) -> Response {
    let (reply, answer) = oneshot::channel();
    let changes = !request.only_reads();
    let outcome = timeout(request.patience(), async {
        calls.send((request, reply)).await.ok()?;
        answer.await.ok()
    });
    match outcome.await {
        Ok(Some(response)) => response,
        Err(_) if changes => Response::Error(
            "it takes long, and goes on; `farlan status` and the node's log show what came of it"
                .to_owned(),
        ),
        _ => Response::Error("the node is stopping or too busy; try again".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, Write};
    use std::os::unix::net::UnixStream as StdStream;

    /// A server whose node answers every request with its own words.
    fn start(path: &Path) -> tokio::task::JoinHandle<()> {
        let server = ControlServer::bind(path, &[]).unwrap();
        let (calls, mut requests) = mpsc::channel::<ControlCall>(4);
        tokio::spawn(async move {
            while let Some((request, reply)) = requests.recv().await {
                let _ = reply.send(Response::Done(format!("{request:?}")));
            }
        });
        tokio::spawn(server.serve(calls))
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    #[tokio::test]
    async fn a_call_and_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("farlan.sock");
        // What a crashed node leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let serving = start(&path);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o660);
        let second = ControlServer::bind(&path, &[]);
        assert!(matches!(second, Err(ServerError::AlreadyRunning(_))));

        let socket = path.clone();
        let response = blocking(move || client::call(&socket, &Request::Reload)).await;
        assert_eq!(response.unwrap(), Response::Done("Reload".to_owned()));

        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
        let response = blocking(move || client::call(&path, &Request::Status)).await;
        assert!(matches!(response, Err(client::ClientError::NotRunning(_))));
    }

    #[tokio::test]
    async fn garbage_gets_an_error_and_the_node_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("farlan.sock");
        let _serving = start(&path);
        for garbage in [
            b"{}\n".to_vec(),
            b"\xff\xfe\n".to_vec(),
            vec![b'x'; 2 * MAX_REQUEST],
        ] {
            let socket = path.clone();
            let line = blocking(move || {
                let mut stream = StdStream::connect(socket).unwrap();
                // The server may close before it has read all of the too long one.
                let _ = stream.write_all(&garbage);
                let mut line = String::new();
                let _ = std::io::BufReader::new(stream).read_line(&mut line);
                line
            })
            .await;
            assert!(line.is_empty() || line.contains("does not parse"), "{line}");
        }
        let response = blocking(move || client::call(&path, &Request::Peers)).await;
        assert!(response.is_ok());
    }

    #[tokio::test]
    async fn listed_users_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("farlan.sock");
        let users = ["no-such-user-here".to_owned()];
        let outcome = ControlServer::bind(&path, &users);
        assert!(matches!(outcome, Err(ServerError::NoSuchUser(_))));
        assert!(ControlServer::bind(&path, &["root".to_owned()]).is_ok());
    }

    #[test]
    fn who_may_do_what() {
        let (owner, listed, other) = (1_000, 1_001, 1_002);
        let masters = [owner, listed];
        for uid in [0, owner, listed, other] {
            assert!(permitted(&Request::Status, uid, &masters));
            assert_eq!(permitted(&Request::Reload, uid, &masters), uid != other);
        }
        assert_eq!(id_in("/etc/group", "root"), Some(0));
        assert_eq!(id_in("/etc/group", "no-such-group-here"), None);
    }
}
