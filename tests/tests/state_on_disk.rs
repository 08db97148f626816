//! What a node keeps survives a full disk, a kill at any moment and a damaged file: the old state or
//! the new one, never a mixture, and one line that says what is wrong.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use farlan_tests::lab::Lab;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Node, farlan, program};
use farlan_tests::probe::{Ping, parse_ping};
use farlan_tests::proc::{self, Finished};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::{Chance, LinkModel};
use farlan_tests::world::{NETWORK, World};

fn world() -> World {
    World::build(&[NatKind::PortRewriting], Family::V4, LinkModel::default()).unwrap()
}

/// What is in `dir`, by name; without what only locks or listens.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .filter(|(name, _)| !name.ends_with("lock"))
        .collect();
    all.sort();
    all
}

fn one_line(out: &Finished, words: &[&str]) {
    assert_eq!(out.code, 1, "{out:?}");
    assert_eq!(out.stderr.trim().lines().count(), 1, "one line: {out:?}");
    for word in words {
        assert!(out.stderr.contains(word), "no {word:?} in {}", out.stderr);
    }
}

/// A line run in a mount namespace of its own, where the state directory is a disk of 64 KiB: the
/// disk is gone with the line, whatever happens.
fn on_a_small_disk(node: &Node, line: &str) -> Finished {
    let dir = node.state.display();
    let line = format!(
        "set -e; mkdir -p {dir} {dir}.kept; mount -t tmpfs -o size=64k disk {dir}; \
         cp -a {dir}.kept/. {dir}/; {line}"
    );
    let mut cmd = node.host.ns.command("sh");
    cmd.args(["-c", &line]).env("FARLAN_STATE", &node.state);
    cmd.env("FARLAN", program("farlan"));
    proc::finish(&mut cmd).unwrap()
}

const FILL: &str = "dd if=/dev/zero of=$FARLAN_STATE/ballast bs=1k 2>/dev/null || true";

#[test]
fn a_full_disk_is_said_and_changes_nothing() {
    require_lab!();
    let world = world();
    let invite = world.invite("late").unwrap();
    let node = Node::new(&world.sites[0].hosts[0], "late");
    let invite_file = world.lab.dir().join("late.invite");
    std::fs::write(&invite_file, format!("{invite}\n")).unwrap();
    let join = format!("\"$FARLAN\" join - < {}", invite_file.display());

    let full = on_a_small_disk(&node, &format!("{FILL}; {join}"));
    println!("join: {}", full.stderr.trim());
    one_line(&full, &["cannot write", "No space left"]);

    // The join that failed is no hindrance to the next, and an attachment that cannot be kept is not
    // half made.
    let interfaces = "ip -o link | cut -d: -f2 | cut -d@ -f1";
    let line = format!(
        "{FILL}; {join} 2>/dev/null && exit 9; rm $FARLAN_STATE/ballast; {join}; {FILL}; \
         {interfaces} > {dir}.before; \
         \"$FARLAN\" attach {NETWORK} --vm late0 2>{dir}.error && exit 8; {interfaces} > {dir}.after; \
         cmp {dir}.before {dir}.after; rm $FARLAN_STATE/ballast; \"$FARLAN\" networks --json",
        dir = node.state.display()
    );
    let out = on_a_small_disk(&node, &line);
    assert_eq!(out.code, 0, "{out:?}");
    let told = std::fs::read_to_string(format!("{}.error", node.state.display())).unwrap();
    println!("attach: {}", told.trim());
    assert!(told.contains("No space left"), "{told}");
    assert!(
        out.stdout.contains("\"lab\"") && !out.stdout.contains("br-lab"),
        "{out:?}"
    );
}

#[test]
fn a_node_runs_on_while_its_disk_is_full() {
    require_lab!();
    let world = world();
    let node = &world.nodes[0];
    let kept = format!("{}.kept", node.state.display());
    let copied = proc::finish(
        std::process::Command::new("cp")
            .args(["-a"])
            .arg(&node.state)
            .arg(&kept),
    );
    assert_eq!(copied.unwrap().code, 0);
    let line = format!(
        "(cd $FARLAN_STATE && \"$FARLAN\" up >{kept}.log 2>&1 & echo $! >{kept}.pid); \
         for i in $(seq 100); do \"$FARLAN\" status >/dev/null 2>&1 && break; sleep 0.1; done; \
         {FILL}; sleep 12; \"$FARLAN\" status --json; kill $(cat {kept}.pid); \
         for i in $(seq 50); do kill -0 $(cat {kept}.pid) 2>/dev/null || break; sleep 0.1; done; \
         rm $FARLAN_STATE/ballast; \"$FARLAN\" networks --json"
    );
    let out = on_a_small_disk(node, &line);
    let log = std::fs::read_to_string(format!("{kept}.log")).unwrap();
    assert_eq!(out.code, 0, "{out:?}\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        out.stdout.contains("\"overlay\"") && out.stdout.contains("\"lab\""),
        "{out:?}"
    );
}

/// The state directory of a node as a disk of its own, of 256 KiB.
struct SmallDisk {
    dir: PathBuf,
    /// Its directory is removed after this disk.
    _lab: Arc<Lab>,
}

impl SmallDisk {
    /// What is in the directory goes with it. The node is not running.
    fn under(node: &Node) -> Self {
        let dir = node.state.clone();
        let line = format!(
            "cp -a {0} {0}.kept && mount -t tmpfs -o size=256k,mode=755 disk {0} && cp -a {0}.kept/. {0}/",
            dir.display()
        );
        proc::check(std::process::Command::new("sh").args(["-c", &line])).unwrap();
        Self {
            dir,
            _lab: Arc::clone(node.host.ns.lab()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    fn fill(&self) {
        let written = std::fs::write(self.ballast(), vec![0; 1 << 20]);
        assert!(written.is_err(), "the disk is not full");
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = proc::finish(umount.arg("-l").arg(&self.dir));
    }
}

/// What `status` warns of that a restart will not know.
fn unkept(node: &Node) -> Option<String> {
    let status = node.status().ok()?;
    let warnings = status["warnings"].as_array()?.iter();
    let mut texts = warnings.filter_map(|warning| warning.as_str());
    let found = texts.find(|text| text.contains("a restart will not know"));
    found.map(str::to_owned)
}

#[test]
fn on_a_full_disk_guests_stay_connected_and_apply_says_that_it_does_not_count() {
    require_lab!();
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let world = World::build(&nats, Family::V4, LinkModel::default()).unwrap();
    world.invite("late").unwrap();
    let line = world.authority.revoke("late").unwrap();
    // Dropped after the node.
    let disk = SmallDisk::under(&world.nodes[0]);
    let world = world.start().unwrap();
    let node = &world.nodes[0];
    let epoch = |node: &Node| node.status().unwrap()["networks"][0]["epoch"].as_u64();
    disk.fill();
    let ping = Ping::new(&world.vms[0].ip)
        .count(1500)
        .interval(Duration::from_millis(20))
        .spawn(&world.vms[1].ns)
        .unwrap();
    let out = node.try_apply(&line).unwrap();
    one_line(&out, &["No space left"]);
    assert_eq!(epoch(node), Some(1), "it does not count");
    let (told, _) = proc::wait_for("a warning", Duration::from_secs(20), || unkept(node)).unwrap();
    println!("status: {told}");
    assert!(told.contains("No space left"), "{told}");
    std::thread::sleep(Duration::from_secs(15));
    disk.free();
    let said = node.apply(&line).unwrap();
    assert!(said.contains("new keys for: lab"), "{said}");
    assert_eq!(epoch(node), Some(2));
    // What was refused is tried again.
    let gone = || unkept(node).is_none().then_some(());
    proc::wait_for("no warning", Duration::from_secs(20), gone).unwrap();
    proc::wait_for("the new epoch", Duration::from_secs(20), || {
        (epoch(&world.nodes[1]) == Some(2)).then_some(())
    })
    .unwrap();
    let summary = || parse_ping(&ping.log()).ok();
    let (result, _) = proc::wait_for("the end of ping", Duration::from_secs(60), summary).unwrap();
    println!("{result:?}");
    assert!(result.sent - result.received <= 2, "{result:?}");
    drop(world);
    drop(disk);
}

/// 60 kills, at moments drawn from the time that the command takes.
#[test]
fn killed_at_any_moment_a_command_leaves_the_old_state_or_the_new() {
    require_lab!();
    let world = world();
    let invite = world.invite("often").unwrap();
    let invite_file = world.lab.dir().join("often.invite");
    std::fs::write(&invite_file, format!("{invite}\n")).unwrap();
    let node = Node::new(&world.sites[0].hosts[0], "often");
    let ns = &node.host.ns;
    let mut chance = Chance::new(7);
    let mut joined = 0;
    for round in 0..60 {
        let whole = round % 3 != 0;
        if !whole {
            let _ = std::fs::remove_dir_all(&node.state);
        }
        let mut cmd = farlan(ns, &node.state);
        // A host that was asked for and forgotten would use the invite up.
        cmd.args(["join", "--offline", &format!("@{}", invite_file.display())]);
        let cmd = cmd.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = cmd.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(chance.next_u64() % 12_000));
        let _ = child.kill();
        let _ = child.wait();
        let out = node.run(&["networks", "--json"]).unwrap();
        match out.code {
            0 => joined += 1,
            _ => one_line(&out, &["farlan join"]),
        }
    }
    println!("{joined} of 60 had joined when they were killed");
    assert!(
        (1..60).contains(&joined),
        "the moments were not in the midst of it"
    );
    let out = node.join(&invite).unwrap();
    assert_eq!(out.code, 0, "{out:?}");
    let names = || content(&node.state).into_iter().map(|(name, _)| name);
    // What a killed writer left behind goes with the next command that writes.
    let hidden: Vec<_> = names().filter(|name| name.starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
    assert!(names().any(|name| name == "membership"));
}

#[test]
fn a_damaged_file_is_named_and_left_as_it_is() {
    require_lab!();
    let mut world = world();
    let node = &mut world.nodes[0];
    node.up_and_ready().unwrap();
    std::thread::sleep(Duration::from_secs(6));
    node.stop().unwrap();
    let before = content(&node.state);
    assert!(
        before.len() >= 5,
        "{:?}",
        before.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    for (name, bytes) in &before {
        let path = node.state.join(name);
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let out = node.run(&["up"]).unwrap();
        println!(
            "{name}: {} {}",
            out.code,
            out.stderr.lines().last().unwrap_or_default()
        );
        assert_eq!(out.code, 1, "{name}: {out:?}");
        let last = out.stderr.trim().lines().last().unwrap_or_default();
        assert!(last.contains(name.as_str()), "{name} is not named: {last}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "{name} was touched");
        std::fs::write(&path, bytes).unwrap();
    }
    node.up_and_ready().unwrap();
}
