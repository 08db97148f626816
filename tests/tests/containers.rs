//! `docker/`: the image packed from ready programs, and the compose file's two sites.
//!
//! Where a Docker engine runs this must pass. The base image is made with debootstrap, so that no
//! registry is needed. Everything is named after the test, and what an interrupted run left under
//! these names is removed first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use farlan_tests::overlay::program;
use farlan_tests::proc::{Finished, check, finish, wait_for};
use farlan_tests::require_lab;

const PROJECT: &str = "farlan-test";
const BASE: &str = "farlan-test-base";
const IMAGE: &str = "farlan-test-image";

fn docker(words: &str) -> Finished {
    finish(Command::new("docker").args(words.split_whitespace())).unwrap()
}

/// The compose project; gone with its images when this is dropped.
struct Project {
    dir: PathBuf,
    compose: Vec<&'static str>,
}

impl Project {
    fn new() -> Self {
        let compose = match docker("compose version").code {
            0 => vec!["docker", "compose"],
            _ => vec!["docker-compose"],
        };
        let found = finish(Command::new(compose[0]).args(&compose[1..]).arg("version"));
        let hint = "there is a Docker engine but no compose; apt-get install docker-compose";
        assert!(found.is_ok_and(|out| out.code == 0), "{hint}");
        let tmp = std::env::temp_dir();
        for entry in fs::read_dir(&tmp).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PROJECT).and_then(|n| n.strip_prefix('-'));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let dir = tmp.join(format!("{PROJECT}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let project = Self { dir, compose };
        project.remove();
        project
    }

    fn compose(&self, words: &str) -> Finished {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/compose.yaml");
        let mut cmd = Command::new(self.compose[0]);
        cmd.args(&self.compose[1..]).args(["-p", PROJECT, "-f"]);
        cmd.arg(file).args(words.split_whitespace());
        finish(cmd.env("FARLAN_IMAGE", IMAGE)).unwrap()
    }

    /// Runs a command in the container of a service.
    fn exec(&self, words: &str) -> Finished {
        self.compose(&format!("exec -T {words}"))
    }

    fn remove(&self) {
        self.compose("down -v --remove-orphans -t 2");
        docker(&format!("rmi -f {IMAGE} {BASE}"));
    }

    /// The image, from the programs under test on a base of this machine's own release: they suit
    /// its C library.
    fn build_image(&self) {
        let release = fs::read_to_string("/etc/os-release").unwrap();
        let codename = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .expect("Debian or Ubuntu");
        let root = self.dir.join("root");
        check(
            Command::new("debootstrap")
                .arg("--variant=minbase")
                .arg("--include=iproute2,iputils-ping,nftables")
                .arg(codename)
                .arg(&root),
        )
        .unwrap();
        let import = format!("tar -C {} -c . | docker import - {BASE}", root.display());
        check(Command::new("sh").args(["-c", &import])).unwrap();
        let context = self.dir.join("context");
        fs::create_dir_all(&context).unwrap();
        for name in ["farlan", "farlan-bootstrap"] {
            fs::copy(program(name), context.join(name)).unwrap();
        }
        let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/Dockerfile");
        let mut build = Command::new("docker");
        build.args(["build", "--target", "ready", "-t", IMAGE]);
        build.args(["--build-arg", &format!("BASE={BASE}")]);
        build.args(["--build-arg", "BIN_DIR=.", "-f"]);
        build.arg(dockerfile).arg(&context);
        // Not every engine has BuildKit.
        check(build.env("DOCKER_BUILDKIT", "0")).unwrap();
    }

    fn first_ping(&self, what: &str) {
        let (_, took) = wait_for(what, Duration::from_secs(60), || {
            let ping = self.exec("guest-a ping -n -c 1 -W 1 10.9.0.2");
            (ping.code == 0).then_some(())
        })
        .unwrap();
        println!("{what}: first ping after {took:?}");
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose("logs --no-color");
            println!("{}{}", logs.stdout, logs.stderr);
        }
        self.remove();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn the_compose_file_joins_two_guests_through_two_nats() {
    require_lab!();
    let engine = finish(Command::new("docker").arg("info"));
    if engine.is_err() || engine.is_ok_and(|out| out.code != 0) {
        println!("SKIPPED the_compose_file_joins_two_guests_through_two_nats: no Docker engine");
        return;
    }
    let project = Project::new();
    project.build_image();
    for name in ["farlan", "farlan-bootstrap"] {
        let out = docker(&format!("run --rm --network none {IMAGE} {name} --version"));
        assert!(out.code == 0 && out.stdout.starts_with(name), "{out:?}");
    }
    let up = project.compose("up -d --no-build");
    assert_eq!(up.code, 0, "{up:?}");
    project.first_ping("both sites up");
    let full = project.exec("guest-b ping -n -c 5 -i 0.2 -M do -s 1472 10.9.0.1");
    assert!(full.stdout.contains(" 0% packet loss"), "{full:?}");
    wait_for("a direct path", Duration::from_secs(15), || {
        let status = project.exec("site-a farlan status --json").stdout;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        (status["peers"][0]["path"]["kind"] == "direct").then_some(())
    })
    .unwrap();
    let restart = project.compose("restart -t 5 site-a");
    assert_eq!(restart.code, 0, "{restart:?}");
    project.first_ping("site a restarted");
}
