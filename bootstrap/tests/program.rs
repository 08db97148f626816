//! The program as an operator meets it: exit codes, one-line errors, addresses, a clean stop.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use overlay_proto::ids::OverlayId;

fn program(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farlan-bootstrap"));
    command.arg("--state").arg(state);
    command.env_remove("NOTIFY_SOCKET");
    command
}

/// Exit code 1 and one line that contains `text`.
fn fails_with(output: &Output, text: &str) {
    ends_with(output, 1, text);
}

/// Exit code `code` and one line that contains `text`.
fn ends_with(output: &Output, code: i32, text: &str) {
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(text), "{line}");
    assert!(output.stdout.is_empty());
}

fn overlay(n: u8) -> String {
    OverlayId([n; 32]).to_string()
}

#[test]
fn mistakes_have_one_line_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let usage = program(dir.path()).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let said = String::from_utf8_lossy(&usage.stderr).into_owned();
    assert!(said.contains("/etc/default/farlan-bootstrap"), "{said}");

    let bad_id = program(dir.path()).args(["--overlay", "nonsense"]).output();
    let bad_id = bad_id.unwrap();
    assert_eq!(bad_id.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad_id.stderr).contains("is no overlay id"));

    let bad_addr = program(dir.path())
        .args(["--overlay", &overlay(1), "--listen", "127.0.0.1"])
        .output();
    fails_with(&bad_addr.unwrap(), "HOST:PORT");

    let data = UdpSocket::bind("127.0.0.1:0").unwrap();
    let busy = format!("127.0.0.1:{}", data.local_addr().unwrap().port());
    let busy = program(dir.path())
        .args(["--overlay", &overlay(1), "--listen", &busy])
        .output();
    fails_with(&busy.unwrap(), "choose another port");

    let control = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = control.local_addr().unwrap().port();
    let busy = program(dir.path())
        .args(["--overlay", &overlay(1)])
        .args(["--listen", "/ip4/127.0.0.1/udp/0"])
        .args(["--listen", &format!("/ip4/127.0.0.1/tcp/{port}")])
        .output();
    fails_with(&busy.unwrap(), "is in use");

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let no_dir = program(&file).args(["--overlay", &overlay(1)]).output();
    fails_with(&no_dir.unwrap(), "cannot");
}

#[test]
fn prints_its_addresses_serves_two_overlays_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program(dir.path())
        .args(["--overlay", &overlay(1), &overlay(2)])
        .args(["--listen", "/ip4/127.0.0.1/udp/0", "/ip4/127.0.0.1/tcp/0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<_> = lines.take(4).map(Result::unwrap).collect();
    for (place, n) in [(0, 1), (2, 2)] {
        assert_eq!(lines[place], format!("overlay {}", overlay(n)));
        let address = &lines[place + 1];
        assert!(address.starts_with("/ip4/127.0.0.1/tcp/"), "{address}");
        assert!(address.contains("/p2p/12D3KooW"), "{address}");
    }
    let stop = Command::new("kill").arg(child.id().to_string()).status();
    assert!(stop.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Run by hand as root on the service's directory, as a user does who follows the steps in order.
#[test]
fn as_root_it_becomes_the_owner_of_its_directory() {
    use std::os::unix::fs::{MetadataExt, chown};

    const NOBODY: u32 = 65_534;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    std::fs::create_dir(&dir).unwrap();
    if std::fs::metadata(&dir).unwrap().uid() != 0
        || chown(&dir, Some(NOBODY), Some(NOBODY)).is_err()
    {
        println!("SKIPPED as_root_it_becomes_the_owner_of_its_directory: not root");
        return;
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(parent.path(), open).unwrap();
    let start = || {
        let mut command = program(&dir);
        command.args(["--overlay", &overlay(1), "--listen", "/ip4/127.0.0.1/udp/0"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    for _ in 0..2 {
        let mut child = start();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("it serves").unwrap();
        assert!(first.starts_with("overlay "), "{first}");
        let process = std::fs::metadata(format!("/proc/{}/status", child.id())).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = |name: &str| {
            status
                .lines()
                .find(|l| l.starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            line("Uid:"),
            format!("Uid:{}", format!("\t{NOBODY}").repeat(4)),
            "{process:?}"
        );
        assert_eq!(line("Groups:").trim(), "Groups:");
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().uid(), NOBODY, "{entry:?}");
        }
    }
    // What an older version left as root: the cure, and it works as typed.
    let identity = dir.join("identity");
    chown(&identity, Some(0), Some(0)).unwrap();
    let output = program(&dir)
        .args(["--overlay", &overlay(1)])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    // The code after which the unit does not start again.
    ends_with(&output, 2, "belongs to root");
    let cure = error.trim().split("type: ").nth(1).unwrap();
    assert!(cure.starts_with("chown -R "), "{error}");
    let done = Command::new("sh").args(["-c", cure]).status().unwrap();
    assert!(done.success());
    let mut child = start();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().expect("it serves").is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
}
