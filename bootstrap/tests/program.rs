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
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}");
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
