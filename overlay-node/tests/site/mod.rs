//! The built program, run on state directories of a test's own.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

// Nothing listens there: `join` does not wait for it.
pub(crate) const BOOTSTRAP: &str = "/ip4/127.0.0.1/tcp/1/p2p/\
    12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

pub(crate) fn farlan(state: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_farlan"))
        .args(args)
        .env("FARLAN_STATE", state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read all of it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Its stdout, after success.
pub(crate) fn ok(state: &Path, args: &[&str]) -> String {
    ok_with(state, args, "")
}

pub(crate) fn ok_with(state: &Path, args: &[&str], stdin: &str) -> String {
    let output = farlan(state, args, stdin);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its one line on stderr, after failure with `code`.
pub(crate) fn fails(state: &Path, args: &[&str], stdin: &str, code: i32) -> String {
    let output = farlan(state, args, stdin);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert!(output.stdout.is_empty(), "{args:?}");
    if code == 1 {
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    error
}

/// An authority with the networks `lab` and `home`, and a place for nodes.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        ok(&site.authority(), &["init"]);
        ok(&site.authority(), &["network", "add", "lab"]);
        ok(
            &site.authority(),
            &["network", "add", "home", "--mtu", "9000"],
        );
        site
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority")
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    pub(crate) fn invite(&self, args: &[&str]) -> String {
        let base = ["invite", "--bootstrap", BOOTSTRAP];
        ok(&self.authority(), &[&base[..], args].concat())
    }
}
