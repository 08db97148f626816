//! The usual scene: one bootstrap, some sites behind NATs, a node and a guest at each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::Lab;
use crate::nat::NatKind;
use crate::overlay::{Authority, Bootstrap, InviteSpec, Node};
use crate::site::{Family, Site};
use crate::vm::Vm;
use crate::wan::model::LinkModel;

/// The virtual network of every scene.
pub const NETWORK: &str = "lab";
/// The bridge that `farlan attach lab` makes.
pub const BRIDGE: &str = "br-lab";
/// The tap that `farlan attach lab` makes.
pub const TAP: &str = "fl-lab";

/// Sites `a`, `b`, `c`, .. with node and guest of the same index. Dropped from top to bottom: the
/// programs end before the lab does.
#[derive(Debug)]
pub struct World {
    /// The nodes, joined and attached.
    pub nodes: Vec<Node>,
    /// The bootstrap, running.
    pub boot: Bootstrap,
    /// Guest `n + 1` behind node `n`.
    pub vms: Vec<Vm>,
    /// The sites.
    pub sites: Vec<Site>,
    /// The authority.
    pub authority: Authority,
    /// The lab.
    pub lab: Arc<Lab>,
}

impl World {
    /// Makes a site for each NAT, joins and attaches a node at each, starts none but the bootstrap.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn build(nats: &[NatKind], family: Family, model: LinkModel) -> Result<Self> {
        Self::build_with_mtu(nats, family, model, 1500)
    }

    fn build_with_mtu(
        nats: &[NatKind],
        family: Family,
        model: LinkModel,
        mtu: u16,
    ) -> Result<Self> {
        let lab = Lab::new()?;
        let host = lab.bootstrap_host("boot", 1, family, model)?;
        let authority = Authority::init(&lab, "main", &[])?;
        authority.add_network(NETWORK, mtu)?;
        let boot = Bootstrap::start(&host, &authority.id)?;
        let mut world = Self {
            nodes: Vec::new(),
            boot,
            vms: Vec::new(),
            sites: Vec::new(),
            authority,
            lab,
        };
        for nat in nats {
            world.add_site(*nat, family, model)?;
        }
        Ok(world)
    }

    /// Adds a site with a joined and attached node and a guest.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn add_site(&mut self, nat: NatKind, family: Family, model: LinkModel) -> Result<()> {
        let invite = self.invite(&self.next_name()?)?;
        self.add_site_with(&invite, nat, family, model)
    }

    /// As [`World::add_site`], with an invite of the caller's; [`World::next_name`] is the name.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn add_site_with(
        &mut self,
        invite: &str,
        nat: NatKind,
        family: Family,
        model: LinkModel,
    ) -> Result<()> {
        let index = u8::try_from(self.sites.len())?;
        let name = self.next_name()?;
        let site = self.lab.site(&name, index + 1, nat, family, 1, model)?;
        let node = Node::new(&site.hosts[0], &name);
        let joined = node.join(invite)?;
        ensure!(joined.code == 0, "join failed: {joined:?}");
        node.farlan(&["attach", NETWORK])?;
        self.vms
            .push(self.lab.vm(index + 1, &site.hosts[0], BRIDGE)?);
        self.sites.push(site);
        self.nodes.push(node);
        Ok(())
    }

    /// The name of the site that is added next, and of its node.
    ///
    /// # Errors
    /// After 256 sites.
    pub fn next_name(&self) -> Result<String> {
        let index = u8::try_from(self.sites.len())?;
        Ok(char::from(b'a' + index).to_string())
    }

    /// An invite for a host of the given name, good for a day.
    ///
    /// # Errors
    /// When the authority gives none.
    pub fn invite(&self, name: &str) -> Result<String> {
        self.authority.invite(&InviteSpec {
            networks: &[NETWORK],
            name,
            bootstraps: &self.boot.addresses,
            expires: "24h",
        })
    }

    /// Builds two sites or more and starts all nodes; returns when each guest has reached the first.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub fn running(nats: &[NatKind], family: Family, model: LinkModel) -> Result<Self> {
        Self::build(nats, family, model)?.start()
    }

    /// As [`World::running`] over IPv4, with a network of another MTU.
    ///
    /// # Errors
    /// As [`World::running`].
    pub fn running_with_mtu(nats: &[NatKind], mtu: u16) -> Result<Self> {
        Self::build_with_mtu(nats, Family::V4, LinkModel::default(), mtu)?.start()
    }

    /// Starts all nodes; returns when each guest has reached the first.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub fn start(mut self) -> Result<Self> {
        let world = &mut self;
        for node in &mut world.nodes {
            node.up(&[])?;
        }
        for node in &mut world.nodes {
            node.ready()?;
        }
        let start = std::time::Instant::now();
        for vm in world.vms.iter().skip(1) {
            let to = &world.vms[0].ip;
            let took = crate::probe::first_ping(&vm.ns, to, start, Duration::from_secs(30))?;
            println!("{} reached {to} after {took:?}", vm.ns.name());
        }
        Ok(self)
    }
}
