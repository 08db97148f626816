//! Rules that no compiler keeps: sizes of files, rows of documents, arrows between rooms.

use std::path::{Path, PathBuf};

const ROOMS: [&str; 14] = [
    "nat-traversal",
    "overlay-proto",
    "control-proto",
    "node-core",
    "overlay-sim",
    "host-services",
    "tap-bridge",
    "control-plane",
    "overlay-node",
    "bootstrap",
    "packaging",
    "tests",
    "bench",
    "fuzz",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The lines of the table `[name]` of a manifest.
fn table(manifest: &str, name: &str) -> Vec<String> {
    let header = format!("[{name}]");
    let mut lines = manifest.lines().skip_while(|l| *l != header).skip(1);
    let mut out = Vec::new();
    for line in lines.by_ref().take_while(|l| !l.starts_with('[')) {
        let key: String = line
            .chars()
            .take_while(|c| c.is_alphanumeric() || "-_".contains(*c))
            .collect();
        if !key.is_empty() {
            out.push(key);
        }
    }
    out
}

#[test]
fn no_source_file_is_over_600_lines() {
    let mut todo: Vec<PathBuf> = ROOMS.iter().map(|r| root().join(r)).collect();
    let mut count = 0;
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= 600, "{} has {lines} lines", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} files found");
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = read("docs/DEPENDENCIES.md");
    for name in table(&read("Cargo.toml"), "workspace.dependencies") {
        if !ROOMS.contains(&name.as_str()) {
            assert!(reasons.contains(&format!("`{name}`")), "no row for {name}");
        }
    }
}

#[test]
fn the_pure_rooms_depend_on_no_runtime_and_no_socket() {
    let pure = [
        "nat-traversal",
        "overlay-proto",
        "control-proto",
        "node-core",
        "overlay-sim",
    ];
    for room in pure {
        let names = table(&read(&format!("{room}/Cargo.toml")), "dependencies");
        assert!(!names.is_empty(), "{room}: {names:?}");
        for impure in [
            "tokio",
            "libp2p",
            "futures",
            "socket2",
            "libc",
            "getrandom",
            "rand",
            "host-services",
            "tap-bridge",
            "control-plane",
        ] {
            assert!(
                !names.iter().any(|n| n == impure),
                "{room} depends on {impure}"
            );
        }
    }
}

/// Its keys come from a generator that anybody can run.
#[test]
fn no_program_is_built_with_the_test_authority() {
    let feature = "test-authority";
    for room in ROOMS {
        let manifest = read(&format!("{room}/Cargo.toml"));
        let (shipped, tests) = manifest
            .split_once("[dev-dependencies]")
            .unwrap_or((&manifest, ""));
        let may = ["overlay-proto", "overlay-sim", "fuzz"].contains(&room);
        assert!(may || !shipped.contains(feature), "{room} ships it");
        if ["overlay-node", "bootstrap"].contains(&room) {
            assert!(tests.contains(feature), "{room}: has it another name?");
        }
    }
}

/// Name and text of each source file in a room, its sub-rooms included.
fn files_in(room: &str, least: usize) -> Vec<(String, String)> {
    let room = root().join(room);
    let (mut todo, mut files) = (vec![room.clone()], Vec::new());
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(&room).unwrap().to_str().unwrap();
        if !name.ends_with(".rs") {
            continue;
        }
        files.push((name.to_owned(), std::fs::read_to_string(&path).unwrap()));
    }
    assert!(files.len() >= least, "only {} files found", files.len());
    files
}

/// The owners of the slow path's machines (ADR 43).
const OWNERS: [&str; 5] = [
    "candidates",
    "introductions",
    "networks",
    "peers",
    "standing",
];

/// An owner of the node neither calls another one nor reads its fields: the switchboard does (ADR 43).
#[test]
fn no_owner_names_another_one() {
    for owner in OWNERS {
        for (name, text) in files_in(&format!("node-core/src/node/{owner}"), 2) {
            let others = OWNERS.iter().filter(|other| **other != owner);
            for other in others.chain(&["switchboard", "users"]) {
                for path in [format!("node::{other}::"), format!("node::{other};")] {
                    assert!(!text.contains(&path), "{owner}/{name} names {path}");
                }
            }
            for way in ["impl Node ", "node::{", "super::super::super"] {
                assert!(!text.contains(way), "{owner}/{name} has {way}");
            }
        }
    }
}

/// What has more fields is several things (ADR 43).
const MAX_FIELDS: usize = 15;

/// A flat list of facts by its nature: the JSON that scripts read.
const FLAT: [&str; 1] = ["StatusReport"];

/// Name and number of fields of each struct in a file.
fn structs_in(text: &str) -> Vec<(String, usize)> {
    let (mut structs, mut open) = (Vec::new(), None);
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let place = words.iter().position(|word| *word == "struct");
        if let Some(name) = place.and_then(|at| words.get(at + 1))
            && line.starts_with(['s', 'p'])
            && line.ends_with('{')
        {
            let end = name.find(|c: char| !c.is_alphanumeric());
            open = Some((name[..end.unwrap_or(name.len())].to_owned(), 0));
        } else if line == "}" {
            structs.extend(open.take());
        } else if let Some((_, fields)) = &mut open {
            let field = line.starts_with("    ") && !line.starts_with("     ");
            let is_text = line.trim_start().starts_with(['/', '#']);
            *fields += usize::from(field && !is_text && line.contains(':'));
        }
    }
    structs
}

#[test]
fn no_struct_has_more_than_15_fields() {
    let mut count = 0;
    for room in ROOMS {
        for (name, text) in files_in(room, 1) {
            for (of, fields) in structs_in(&text) {
                let fine = fields <= MAX_FIELDS || FLAT.contains(&of.as_str());
                assert!(fine, "{room}/{name}: {of} has {fields} fields");
                count += 1;
            }
        }
    }
    assert!(count > 400, "only {count} structs found");
}

/// What the slow path asks of the control plane is data (ADR 40): only one file of the shell calls it.
#[test]
fn no_closure_crosses_into_the_control_plane() {
    let calls = [
        ".register(",
        ".allocate(",
        ".forward(",
        ".get_record(",
        ".put_record(",
    ];
    for (name, text) in files_in("overlay-node/src/shell", 18) {
        for call in calls {
            let may = name == "asking.rs" || !text.contains(call);
            assert!(may, "{name} calls the control plane: {call}");
        }
    }
}

/// What is to be on disk is data, too (ADR 43): only the store's thread writes, so that a slow disk holds up nobody.
#[test]
fn the_shell_writes_by_its_store_alone() {
    // Before the loop; and what tests find there.
    let may_write = ["storing.rs", "startup.rs", "house.rs"];
    let calls = [
        ".edit()",
        ".save_blob(",
        ".save_handshake_time(",
        ".save_membership(",
        ".save_name(",
        ".save_ports(",
        ".save_revocations(",
        ".save_sequences(",
        ".next_static_key(",
        ".forget_membership(",
        ".remove_membership(",
        ".take_revocations(",
        "pins::add(",
        "pins::remove(",
        "fs::write(",
        "fs::rename(",
        "fs::remove_",
        "fs::create_",
        "OpenOptions",
    ];
    for (name, text) in files_in("overlay-node/src/shell", 18) {
        for call in calls {
            let may = may_write.contains(&name.as_str()) || !text.contains(call);
            assert!(may, "{name} writes by itself: {call}");
        }
    }
}

/// What both programs ask of the system stands once, in a crate that says why it is as it is.
#[test]
fn only_the_host_services_ask_the_system() {
    let asks = [
        "getrandom",
        "SystemTime",
        "clock_gettime",
        "/proc/uptime",
        "fs::rename(",
        ".sync_all(",
        ".sync_data(",
        "flock",
        "TryLockError",
        "NOTIFY_SOCKET",
        "sockaddr_",
        "setsockopt",
        "recvmmsg",
        "sendmmsg",
        "libc::sendmsg",
        "libc::poll",
    ];
    // An invite's file is new or not written at all; a program for the kernel is no number.
    let exceptions = [
        ("overlay-node/src/cli/authority.rs", ".sync_all("),
        ("overlay-node/src/workers/sys.rs", "setsockopt"),
    ];
    let mut used = 0;
    for room in ["tap-bridge", "control-plane", "overlay-node", "bootstrap"] {
        for (name, text) in files_in(&format!("{room}/src"), 8) {
            let name = format!("{room}/src/{name}");
            for ask in asks.into_iter().filter(|ask| text.contains(ask)) {
                assert!(
                    exceptions.contains(&(name.as_str(), ask)),
                    "{name} asks the system by itself: {ask}"
                );
                used += 1;
            }
        }
    }
    assert_eq!(used, exceptions.len(), "an exception that nobody needs");
}
