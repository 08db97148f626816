//! What all cases of the rig share: a bootstrap and two running nodes, each directly on the WAN. Every
//! case takes a network of its own, with its own bridges and guests, and leaves the others alone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{Lab, Ns};
use crate::overlay::{Authority, Bootstrap, InviteSpec, Node};
use crate::proc::wait_for;
use crate::site::Family;
use crate::wan::model::LinkModel;

/// A bootstrap and two nodes that know each other. Dropped from top to bottom.
#[derive(Debug)]
pub struct Scene {
    /// Nodes `a` and `b`.
    pub nodes: Vec<Node>,
    /// The bootstrap, running.
    pub boot: Bootstrap,
    /// The authority.
    pub authority: Authority,
    /// The lab.
    pub lab: Arc<Lab>,
}

impl Scene {
    /// Makes the lab, the overlay with the networks of all cases, and starts the nodes.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn make() -> Result<Self> {
        let lab = Lab::new()?;
        let model = LinkModel::default();
        let host = lab.bootstrap_host("boot", 1, Family::V4, model)?;
        let mut networks: Vec<&str> = super::cases::ALL.iter().map(|case| case.network).collect();
        networks.dedup();
        let authority = Authority::init(&lab, "main", &networks)?;
        let boot = Bootstrap::start(&host, &authority.id)?;
        let mut nodes = Vec::new();
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let address = Ipv4Addr::new(192, 0, 2, 101 + u8::try_from(index)?);
            let host = lab.public_host(name, &[IpAddr::V4(address)], model)?;
            let invite = authority.invite(&InviteSpec {
                networks: &networks,
                name,
                bootstraps: &boot.addresses,
                expires: "24h",
            })?;
            let mut node = Node::new(&host, name);
            let joined = node.join(&invite)?;
            ensure!(joined.code == 0, "join failed: {joined:?}");
            node.up(&[])?;
            nodes.push(node);
        }
        for node in &nodes {
            answers(node)?;
        }
        Ok(Self {
            nodes,
            boot,
            authority,
            lab,
        })
    }

    /// The namespace of node `index`.
    #[must_use]
    pub fn host(&self, index: usize) -> &Ns {
        &self.nodes[index].host.ns
    }

    /// Makes a guest: a namespace `name` whose `eth0` is plugged into `bridge` on the host of node
    /// `index` as the port `name`. It has no address yet, and the host says nothing there.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn guest(&self, index: usize, name: &str, bridge: &str) -> Result<Ns> {
        let ns = self.lab.namespace(name)?;
        let host = self.host(index);
        let full = ns.full_name();
        host.ip(&format!(
            "link add {name} type veth peer name eth0 netns {full}"
        ))?;
        host.sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        host.ip(&format!("link set {name} master {bridge} up"))?;
        ns.ip("link set eth0 up")?;
        Ok(ns)
    }
}

/// Waits until a node that was started answers. On an emulated processor, on a machine that does other
/// things, a command may take seconds.
///
/// # Errors
/// After a minute.
pub fn answers(node: &Node) -> Result<()> {
    let what = format!("{} answers", node.name);
    let (_, took) = wait_for(&what, Duration::from_secs(60), || node.status().ok())?;
    println!("{what} after {took:?}");
    Ok(())
}

/// Pings `to` until it answers; the time that took.
///
/// # Errors
/// After `limit`.
pub fn reaches(from: &Ns, to: &str, limit: Duration) -> Result<Duration> {
    let ping = format!("ping -n -q -c 1 -W 1 {to}");
    let what = format!("{} reaches {to}", from.name());
    let (_, took) = wait_for(&what, limit, || {
        (from.sh(&ping).ok()?.code == 0).then_some(())
    })?;
    println!("{what} after {took:?}");
    Ok(took)
}

/// `to` must not answer three pings.
///
/// # Errors
/// When it does.
pub fn does_not_reach(from: &Ns, to: &str) -> Result<()> {
    let out = from.sh(&format!("ping -n -q -c 3 -i 0.2 -W 1 {to}"))?;
    ensure!(
        out.code != 0,
        "{} reaches {to}: {}",
        from.name(),
        out.stdout
    );
    Ok(())
}

/// A line of the output of `command` in `ns` that `good` accepts, waited for.
///
/// # Errors
/// After `limit`.
pub fn wait_line(
    ns: &Ns,
    command: &str,
    limit: Duration,
    good: impl Fn(&str) -> bool,
) -> Result<String> {
    let line = wait_for(command, limit, || {
        let out = ns.sh(command).ok()?.stdout;
        out.lines().find(|line| good(line)).map(str::to_owned)
    });
    let last = || ns.sh(command).map(|out| out.stdout).unwrap_or_default();
    Ok(line.with_context(last)?.0)
}
