//! Who is measured: Farlan, the control, and the rivals.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farlan_tests::lab::Lab;
use farlan_tests::overlay::{self, Authority, Bootstrap, InviteSpec, Node};
use farlan_tests::proc::Proc;
use farlan_tests::vm::Vm;

use crate::rivals::{self, Rival};
use crate::scene::{self, Scene};
use crate::usage;

/// The kernel's own tunnel without encryption: what the others are compared with.
pub const CONTROL: &str = "vxlan";
/// This program's project.
pub const FARLAN: &str = "farlan";
/// The same with two workers: held against [`FARLAN`], no rival of it.
pub const FARLAN_2W: &str = "farlan-2w";

/// Another build of Farlan, of `--against`.
pub const BEFORE: &str = "before";

/// One that can be measured here.
#[derive(Debug, Clone)]
pub struct Contestant {
    /// Its name in tables and in `--only`.
    pub name: String,
    /// What it says about its version.
    pub version: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// With so many workers; none: as it comes.
    Farlan(Option<usize>),
    /// Farlan's programs of another build, in this directory.
    Before(PathBuf),
    Rival(&'static Rival),
    /// A program of `--rivals DIR` that keeps to the contract in `bench/README.md`.
    Recipe(PathBuf),
}

/// Those that can be measured here, and those that cannot with the reason.
#[must_use]
pub fn find(rivals_dir: Option<&Path>) -> (Vec<Contestant>, Vec<(String, String)>) {
    let mut here = vec![Contestant {
        name: FARLAN.to_owned(),
        version: farlan_version(),
        kind: Kind::Farlan(None),
    }];
    here.push(Contestant {
        name: FARLAN_2W.to_owned(),
        version: farlan_version(),
        kind: Kind::Farlan(Some(2)),
    });
    let mut absent = Vec::new();
    for rival in rivals::ALL {
        match rival.version() {
            Ok(version) => here.push(Contestant {
                name: rival.name.to_owned(),
                version,
                kind: Kind::Rival(rival),
            }),
            Err(why) => absent.push((rival.name.to_owned(), format!("{why:#}"))),
        }
    }
    let recipes = rivals_dir.map(recipes).unwrap_or_default();
    for (name, path) in recipes {
        let version = crate::measure::version(&format!("{} version", path.display()));
        here.push(Contestant {
            version: version.unwrap_or_else(|| "unknown".to_owned()),
            kind: Kind::Recipe(path),
            name,
        });
    }
    for (name, why) in rivals::NOT_PACKAGED {
        if !here.iter().any(|c| c.name == *name) {
            absent.push(((*name).to_owned(), (*why).to_owned()));
        }
    }
    (here, absent)
}

/// Farlan with the programs in `dir`.
#[must_use]
pub fn before(dir: &Path) -> Contestant {
    // The directory that `bench/run` makes bears the commit's name.
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    Contestant {
        name: BEFORE.to_owned(),
        version: format!("{}, {name}", version_of(&dir.join("farlan"))),
        kind: Kind::Before(dir.to_owned()),
    }
}

/// `NAME.sh` in the directory: a rival that this program has no recipe for.
fn recipes(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut out: Vec<(String, PathBuf)> = entries
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "sh"))
        .filter_map(|p| Some((p.file_stem()?.to_str()?.to_owned(), p)))
        .collect();
    out.sort();
    out
}

fn farlan_version() -> String {
    version_of(&overlay::program("farlan"))
}

fn version_of(program: &Path) -> String {
    let line = format!("{} version", program.display());
    crate::measure::version(&line).unwrap_or_else(|| "unknown".to_owned())
}

/// A contestant that runs, with a guest at each end. Dropped from top to bottom: programs end
/// before their namespaces go.
#[derive(Debug)]
pub struct Running {
    nodes: Vec<Node>,
    _procs: Vec<Proc>,
    _bootstrap: Option<Bootstrap>,
    _authority: Option<Authority>,
    /// Guests 1 and 2.
    pub guests: [Vm; 2],
    /// The topology.
    pub scene: Scene,
}

impl Contestant {
    /// Brings it up on `scene` and waits until the guests reach each other.
    ///
    /// # Errors
    /// When it does not carry a ping within 30 s.
    pub fn start(&self, scene: Scene) -> Result<Running> {
        let (mut nodes, mut procs) = (Vec::new(), Vec::new());
        let (mut bootstrap, mut authority) = (None, None);
        let guests = match &self.kind {
            Kind::Farlan(_) | Kind::Before(_) => {
                let mut workers = None;
                match &self.kind {
                    Kind::Before(dir) => scene.lab.use_programs(dir),
                    Kind::Farlan(number) => workers = *number,
                    Kind::Rival(_) | Kind::Recipe(_) => {}
                }
                let a = Authority::init(&scene.lab, "main", &["lab"])?;
                let b = Bootstrap::start(&scene.boot, &a.id)?;
                nodes = farlan_nodes(&scene, &a, &b, workers)?;
                (bootstrap, authority) = (Some(b), Some(a));
                scene.guests("br-lab", 1500)?
            }
            Kind::Rival(rival) => {
                procs = (rival.start)(&scene)?;
                scene.bridge_taps(rival.guest_mtu)?;
                scene.guests(scene::BRIDGE, rival.guest_mtu)?
            }
            Kind::Recipe(path) => {
                for index in 0..2 {
                    procs.push(start_recipe(path, &scene, index)?);
                }
                scene.bridge_taps(rivals::GUEST_MTU)?;
                scene.guests(scene::BRIDGE, rivals::GUEST_MTU)?
            }
        };
        let running = Running {
            nodes,
            _procs: procs,
            _bootstrap: bootstrap,
            _authority: authority,
            guests,
            scene,
        };
        if let Err(error) = running.wait_for_traffic() {
            running.scene.lab.print_logs();
            return Err(error.context(format!("{} does not carry frames", self.name)));
        }
        Ok(running)
    }

    /// Whether its processes can be told from the rest of the machine.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        self.name != CONTROL
    }
}

fn farlan_nodes(
    scene: &Scene,
    authority: &Authority,
    boot: &Bootstrap,
    workers: Option<usize>,
) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    let flag = workers.map(|n| format!("--workers={n}"));
    let flags: Vec<&str> = flag.as_deref().into_iter().collect();
    for host in &scene.hosts {
        let name = host.ns.name();
        let mut node = Node::new(host, name);
        let joined = node.join(&authority.invite(&InviteSpec {
            networks: &["lab"],
            name,
            bootstraps: &boot.addresses,
            expires: "1h",
        })?)?;
        ensure!(joined.code == 0, "join: {joined:?}");
        node.farlan(&["attach", "lab"])?;
        node.up(&flags)?;
        nodes.push(node);
    }
    for node in &mut nodes {
        node.ready()?;
    }
    Ok(nodes)
}

/// Starts a recipe on host `index`; its arguments are the contract of `bench/README.md`.
fn start_recipe(path: &Path, scene: &Scene, index: usize) -> Result<Proc> {
    let host = scene.hosts.get(index).context("two hosts")?;
    let [one, two] = scene::HOST_IPS;
    let (own, peer) = if index == 0 { (one, two) } else { (two, one) };
    let dir = scene.lab.dir();
    let state = dir.join(format!("recipe-{index}"));
    std::fs::create_dir_all(&state)?;
    let mut cmd = host.ns.command(path);
    cmd.args(["run", &(index + 1).to_string(), own, peer, scene::TAP]);
    cmd.current_dir(&state);
    Proc::spawn(&mut cmd, &dir.join(format!("recipe-{index}.log")))
}

impl Running {
    /// Pings in both directions until both work; with Farlan, until the path is the wire itself.
    fn wait_for_traffic(&self) -> Result<()> {
        let [one, two] = &self.guests;
        let start = std::time::Instant::now();
        for (from, to) in [(one, two), (two, one)] {
            let limit = Duration::from_secs(30);
            farlan_tests::probe::first_ping(&from.ns, &to.ip, start, limit)?;
        }
        for (node, peer) in self.nodes.iter().zip(["b", "a"]) {
            let limit = Duration::from_secs(15);
            node.wait_kind(peer, "direct", limit)?;
        }
        Ok(())
    }

    /// The contestant's processes: all that run in the hosts, for each host.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn pids(&self) -> Result<[Vec<u32>; 2]> {
        let [a, b] = &self.scene.hosts;
        Ok([usage::pids(&a.ns)?, usage::pids(&b.ns)?])
    }

    /// The lab of the scene.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.scene.lab
    }
}
