//! What the operator says is on this host: `announce`, `pin`, `unpin`, `attach --mac`.

use crate::store::Write;
use anyhow::{Result, anyhow, bail};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::NetworkName;
use overlay_proto::switching::{MacKey, NetIndex};

use super::Networks;
use crate::api::AttachRequest;
use crate::node::effects::{CallId, response};
use crate::node::outside::Outside;
use crate::node::storing::{Awaited, Outcome};
use crate::node::tick::Tick;
use crate::pin::Pin;

impl Networks {
    /// `farlan announce`: the MAC is here now.
    pub(crate) fn announce(&mut self, tick: Tick, pin: &Pin) -> Result<String> {
        let net = self.network_named(&pin.network)?;
        let shown = pin.shown();
        if !pin.mac.is_claimable() {
            bail!("{shown} is a group or zero address; nobody can hold it");
        }
        if self.stands_by(net, pin.key().vlan) {
            return Ok(format!(
                "this node stands by: another one carries the LAN of {} and claims {shown} as soon as it \
                 hears it there; `farlan status` names it",
                pin.network
            ));
        }
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            network
                .directory
                .handle_announce(tick.now, pin.key())
                .map_err(|reason| anyhow!("{shown} cannot be announced: {}", reason.meaning()))?;
            self.touch(net);
        }
        Ok(format!("{shown} is announced in {}", pin.network))
    }

    /// `farlan pin`: the MAC is here and stays; `farlan unpin`: not any more.
    pub(crate) fn pin(&self, out: &mut Outside, pin: &Pin, stay: bool, call: CallId) {
        if let Err(error) = self.network_named(&pin.network) {
            return out.effects.reply(call, response(Err(error)));
        }
        let write = Write::Pins {
            network: pin.network.clone(),
            keys: vec![pin.key()],
            stay,
        };
        out.store.put_for(write, Awaited::Pinned(call));
    }

    /// The pins are on disk: they count.
    pub(crate) fn handle_pinned(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        (name, keys, stay): (&NetworkName, &[MacKey], bool),
        who: Option<Awaited>,
        result: Outcome,
    ) {
        let mut lines = Vec::new();
        let mut done = result.map(drop).map_err(anyhow::Error::from);
        for key in keys {
            let pin = Pin::new(name.clone(), *key);
            done = done.and_then(|()| {
                lines.push(if stay {
                    self.take_pin(tick, &pin)?
                } else {
                    self.drop_pin(tick, &pin)?
                });
                Ok(())
            });
        }
        let (call, done) = match who {
            Some(Awaited::Pinned(call)) => (call, done),
            Some(Awaited::Attached(call, network, line)) => {
                lines.insert(0, line);
                (call, done.and_then(|()| self.check_open(&network)))
            }
            _ => return,
        };
        out.effects
            .reply(call, response(done.map(|()| lines.join("\n"))));
    }

    fn take_pin(&mut self, tick: Tick, pin: &Pin) -> Result<String> {
        let net = self.network_named(&pin.network)?;
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            bail!("network {} is gone", pin.network);
        };
        let shown = pin.shown();
        let cannot = |reason: DropReason| {
            anyhow!(
                "{shown} is pinned, but not claimed now: {}",
                reason.meaning()
            )
        };
        if network.attached.is_none() {
            network.directory.restore_pin(pin.key()).map_err(cannot)?;
            return Ok(pinned_later(pin));
        }
        network.directory.pin(tick.now, pin.key()).map_err(cannot)?;
        self.touch(net);
        Ok(format!(
            "{shown} is pinned to this host in {}; `farlan unpin {} {}{}` takes that back",
            pin.network,
            pin.network,
            pin.mac,
            vlan_option(pin)
        ))
    }

    fn drop_pin(&mut self, tick: Tick, pin: &Pin) -> Result<String> {
        let net = self.network_named(&pin.network)?;
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            network.directory.unpin(tick.now, pin.key());
            self.touch(net);
        }
        Ok(unpinned(pin))
    }

    fn network_named(&self, name: &NetworkName) -> Result<NetIndex> {
        let network = self.all.iter().find(|n| n.secret.name == *name);
        network
            .map(|network| network.index)
            .ok_or_else(|| anyhow!("{}", self.no_such_network(name)))
    }

    /// What a user is told who names a network that this node is not in.
    pub(crate) fn no_such_network(&self, name: &NetworkName) -> String {
        let mine: Vec<&str> = self.all.iter().map(|n| n.secret.name.as_str()).collect();
        format!(
            "this node is not in a network `{name}`; it is in: {}",
            mine.join(", ")
        )
    }
}

/// `farlan attach --mac`: the MACs are here and stay. `line` is told before.
pub(crate) fn pin_attached(out: &mut Outside, request: &AttachRequest, line: String, call: CallId) {
    let name = &request.network;
    let write = Write::Pins {
        network: name.clone(),
        keys: request.pins().map(|pin| pin.key()).collect(),
        stay: true,
    };
    let who = Awaited::Attached(call, name.clone(), line);
    out.store.put_for(write, who);
}

/// What `pin` says where the network has no tap yet.
pub fn pinned_later(pin: &Pin) -> String {
    let (shown, name) = (pin.shown(), &pin.network);
    format!("{shown} is pinned to this host; it counts once {name} is attached and the node runs")
}

/// What `unpin` says.
pub fn unpinned(pin: &Pin) -> String {
    let shown = pin.shown();
    format!("{shown} is not pinned in {} any more", pin.network)
}

fn vlan_option(pin: &Pin) -> String {
    match pin.vlan.get() {
        0 => String::new(),
        vlan => format!(" --vlan {vlan}"),
    }
}
