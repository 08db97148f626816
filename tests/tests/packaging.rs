//! What a package installs: the units, users and directories, man pages and completions, the debs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use farlan_tests::overlay::program;
use farlan_tests::proc::{check, finish};

const PROGRAMS: [&str; 2] = ["farlan", "farlan-bootstrap"];

/// A directory that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("farlan-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(path)
}

fn unit(program: &str) -> String {
    fs::read_to_string(packaging(&format!("systemd/{program}.service"))).unwrap()
}

fn has(tool: &str) -> bool {
    let found = finish(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
    found.unwrap().code == 0
}

/// The settings of a unit; what is set twice has both values.
fn settings(unit: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in unit.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            all.entry(key).or_default().push(value);
        }
    }
    all
}

#[test]
fn the_units_hold_no_more_rights_than_they_need() {
    let node = unit("farlan");
    let node = settings(&node);
    for (key, value) in [
        ("Type", "notify"),
        (
            "CapabilityBoundingSet",
            "CAP_NET_ADMIN CAP_NET_BIND_SERVICE",
        ),
        ("Nice", "-10"),
        ("Restart", "on-failure"),
        ("StateDirectory", "farlan"),
        ("NoNewPrivileges", "yes"),
        ("DeviceAllow", "/dev/net/tun rw"),
    ] {
        assert_eq!(node.get(key), Some(&vec![value]), "{key}");
    }
    // Tap and bridge outlive the process: nothing of the unit may take them away.
    for key in [
        "ExecStop",
        "ExecStopPost",
        "PrivateNetwork",
        "PrivateDevices",
    ] {
        assert!(!node.contains_key(key), "{key}");
    }
    let boot = unit("farlan-bootstrap");
    let boot = settings(&boot);
    assert_eq!(boot["CapabilityBoundingSet"], ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(boot["User"], ["farlan-bootstrap"]);
    assert_eq!(boot["EnvironmentFile"], ["/etc/default/farlan-bootstrap"]);
}

#[test]
fn systemd_accepts_the_units() {
    if !has("systemd-analyze") {
        println!("SKIPPED systemd_accepts_the_units: no systemd-analyze");
        return;
    }
    let dir = Scratch::new("units");
    let mut paths = Vec::new();
    for name in PROGRAMS {
        // It looks for the program, which need not be installed here.
        let text = unit(name).replace("/usr/bin/", "/bin/true ");
        let path = dir.0.join(format!("{name}.service"));
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let out = finish(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(&paths),
    );
    let out = out.unwrap();
    println!("{}", out.stderr);
    assert_eq!(out.code, 0, "{out:?}");
    // Other units of this machine may have flaws of their own.
    assert!(!out.stderr.contains("farlan"), "{out:?}");
    // 10 is no protection at all; root with two capabilities cannot come below 2.
    for (path, most) in paths.iter().zip(["30", "20"]) {
        let mut cmd = Command::new("systemd-analyze");
        cmd.args([
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold",
            most,
        ]);
        let out = finish(cmd.arg(path)).unwrap();
        println!("{}", out.stdout.lines().last().unwrap_or_default());
        assert_eq!(out.code, 0, "{out:?}");
    }
}

#[test]
fn every_command_has_a_page_and_a_completion() {
    let dir = Scratch::new("manual");
    check(Command::new(program("farlan-manual")).arg(&dir.0)).unwrap();
    let help = check(Command::new(program("farlan")).arg("--help")).unwrap();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 10, "{help}");
    let read = |path: &str| fs::read_to_string(dir.0.join(path)).expect(path);
    // The page `farlan-bootstrap` is that of the other program: two packages cannot both bring it.
    assert!(!dir.0.join("farlan/farlan-bootstrap.1").exists());
    assert!(read("farlan/farlan.1").contains("farlan\\-bootstrap\\-add(1)"));
    assert!(read("farlan/farlan-bootstrap-add.1").contains(".SH EXAMPLES"));
    for command in commands.iter().filter(|command| **command != "bootstrap") {
        let page = read(&format!("farlan/farlan-{command}.1"));
        assert!(page.contains(".SH SYNOPSIS"), "{command}: {page}");
        let plain = ["networks", "confirm", "version"].contains(command);
        assert_eq!(page.contains(".SH EXAMPLES"), !plain, "{command}: {page}");
    }
    let peers = read("farlan/farlan-peers.1");
    for word in [
        "COLUMNS",
        "REASONS",
        "both\\-nats\\-dependent",
        "peer\\-offline",
    ] {
        assert!(peers.contains(word), "{word}: {peers}");
    }
    let file = read("farlan/farlan.toml.5");
    assert!(
        file.contains("listen") && file.contains(".SH DESCRIPTION"),
        "{file}"
    );
    // A command for this program itself is no command for people.
    for file in ["farlan.bash", "farlan.fish", "_farlan"] {
        let completion = read(&format!("farlan/{file}"));
        assert!(!completion.contains("watch-move"), "{file}");
        assert!(completion.contains("farlan networks"), "{file}");
        assert!(completion.contains("/sys/class/net"), "{file}");
    }
    for program in PROGRAMS {
        assert!(read(&format!("{program}/{program}.1")).contains(".SH OPTIONS"));
        for file in [
            format!("{program}.bash"),
            format!("{program}.fish"),
            format!("_{program}"),
        ] {
            let completion = read(&format!("{program}/{file}"));
            let words: &[&str] = if program == "farlan" {
                &commands
            } else {
                &["overlay"]
            };
            for word in words {
                assert!(completion.contains(word), "{file} lacks {word}");
            }
        }
    }
    // Wrong usage, as everywhere.
    assert_eq!(
        finish(&mut Command::new(program("farlan-manual")))
            .unwrap()
            .code,
        2
    );
}

/// The words that only this host knows, in the shell that everybody has.
#[test]
fn bash_completes_networks_and_interfaces() {
    let dir = Scratch::new("completion");
    check(Command::new(program("farlan-manual")).arg(&dir.0)).unwrap();
    let state = dir.0.join("state");
    let farlan = |args: &[&str]| {
        let mut cmd = Command::new(program("farlan"));
        check(cmd.args(args).env("FARLAN_STATE", &state)).unwrap()
    };
    farlan(&["init"]);
    farlan(&["network", "add", "attic"]);
    let complete = |line: &str| {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let script = format!(
            ". {}/farlan/farlan.bash; COMP_WORDS=({}); COMP_CWORD={}; \
             _farlan_of_this_host farlan {} {}; echo \"${{COMPREPLY[@]}}\"",
            dir.0.display(),
            words.join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2]
        );
        let bin = program("farlan");
        let path = format!("{}:/usr/bin:/bin", bin.parent().unwrap().display());
        let mut cmd = Command::new("bash");
        cmd.args(["-c", &script]).env("PATH", path);
        check(cmd.env("FARLAN_STATE", &state)).unwrap()
    };
    assert_eq!(complete("farlan attach ").trim(), "attic");
    assert_eq!(complete("farlan invite --network at").trim(), "attic");
    assert!(complete("farlan attach attic --nic ").contains("lo"));
    assert!(complete("farlan at").contains("attach"));
    assert!(!complete("farlan ").contains("watch-move"));
}

/// `./test` sets `FARLAN_DEBS` to the directory where it built them: where cargo-deb is installed,
/// and in `./test --long packaging`, which installs it.
#[test]
fn the_debs_hold_what_they_should() {
    let Some(debs) = std::env::var_os("FARLAN_DEBS").map(PathBuf::from) else {
        println!("debs not built here; ./test --long packaging builds and checks them");
        return;
    };
    for name in PROGRAMS {
        let mut found: Vec<PathBuf> = fs::read_dir(&debs)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with(&format!("{name}_")))
            })
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        let deb = found.remove(0);
        let dir = Scratch::new(name);
        check(Command::new("dpkg-deb").arg("-R").args([&deb, &dir.0])).unwrap();
        let mut files = vec![
            format!("usr/bin/{name}"),
            format!("usr/lib/systemd/system/{name}.service"),
            format!("usr/lib/sysusers.d/{name}.conf"),
            format!("usr/lib/tmpfiles.d/{name}.conf"),
            format!("usr/share/man/man1/{name}.1"),
            format!("usr/share/bash-completion/completions/{name}"),
            format!("usr/share/fish/vendor_completions.d/{name}.fish"),
            format!("usr/share/zsh/vendor-completions/_{name}"),
            format!("usr/share/doc/{name}/copyright"),
        ];
        if name == "farlan" {
            files.push("usr/share/man/man1/farlan-up.1".to_owned());
            files.push("usr/share/man/man5/farlan.toml.5".to_owned());
            files.push("usr/share/doc/farlan/README.md".to_owned());
            files.push("usr/share/doc/farlan/docs/NAT.md".to_owned());
        } else {
            files.push("etc/default/farlan-bootstrap".to_owned());
        }
        for file in files {
            assert!(dir.0.join(&file).is_file(), "{name} lacks {file}");
        }
        let version = check(Command::new(dir.0.join("usr/bin").join(name)).arg("--version"));
        assert!(version.unwrap().starts_with(name));
        let script = fs::read_to_string(dir.0.join("DEBIAN/postinst")).unwrap();
        for word in ["systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper"] {
            assert!(script.contains(word), "{name}: {script}");
        }
        users_are_made(&dir.0, name);
    }
}

/// systemd-sysusers, on the unpacked package, makes the user or group that the unit names.
fn users_are_made(root: &Path, name: &str) {
    if !has("systemd-sysusers") {
        return;
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    let root_arg = format!("--root={}", root.display());
    check(Command::new("systemd-sysusers").args([root_arg, format!("{name}.conf")])).unwrap();
    let groups = fs::read_to_string(root.join("etc/group")).unwrap();
    assert!(
        groups
            .lines()
            .any(|line| line.starts_with(&format!("{name}:"))),
        "{groups}"
    );
}
