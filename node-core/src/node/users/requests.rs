//! Requests from the control socket.

use overlay_proto::ethernet::VlanId;
use overlay_proto::ids::NetworkName;
use overlay_proto::switching::MacKey;

use crate::api::{MacOrIp, Request, Response};
use crate::node::effects::{CallId, response};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::users::operations::Operation;

impl Node {
    /// Answers one request. A `where` for a MAC that is not known here is answered once the look-up is done, a
    /// change of the host once it is made, one of the membership once it is on disk; everything else at once.
    pub fn handle_call(&mut self, tick: Tick, call: CallId, request: Request) {
        if self.users.leaving.is_some() || self.users.operations.is_leaving() {
            let text = "this node is leaving the overlay; wait a moment, then `farlan join INVITE`";
            return self
                .outside
                .effects
                .reply(call, Response::Error(text.to_owned()));
        }
        let response = match request {
            Request::Status => Response::Status(Box::new(self.status(tick))),
            Request::Peers => Response::Peers(self.peer_reports(tick.now)),
            Request::Networks => Response::Networks(self.network_reports()),
            Request::Members { network } => match self.check_network(network.as_ref()) {
                Ok(()) => Response::Members(self.member_reports(network.as_ref())),
                Err(error) => Response::Error(error),
            },
            Request::Macs { network } => match self.check_network(network.as_ref()) {
                Ok(()) => Response::Macs(self.mac_reports(tick, network.as_ref())),
                Err(error) => Response::Error(error),
            },
            Request::Where { what, network } => match self.check_network(network.as_ref()) {
                Ok(()) => return self.answer_where(tick, what, network, call),
                Err(error) => Response::Error(error),
            },
            Request::Announce { pin, keep: false } => response(self.networks.announce(tick, &pin)),
            Request::Announce { pin, keep: true } | Request::Pin(pin) => {
                return self.networks.pin(&mut self.outside, &pin, true, call);
            }
            Request::Unpin(pin) => {
                return self.networks.pin(&mut self.outside, &pin, false, call);
            }
            Request::Ping { to, network } => match self.check_network(network.as_ref()) {
                Ok(()) => return self.ping(tick, &to, network.as_ref(), call),
                Err(error) => Response::Error(error),
            },
            Request::Attach(request) => {
                return self.operate(tick, Operation::Attach(request), call);
            }
            Request::Detach(request) => {
                return self.operate(tick, Operation::Detach(request), call);
            }
            Request::Confirm => return self.confirm(call),
            Request::Leave => return self.operate(tick, Operation::Leave, call),
            Request::Reload => return self.reload(call),
            Request::Rename { name } => return self.rename(name, call),
            Request::Apply { line } => {
                return self.standing.apply(&mut self.outside, &line.0, call);
            }
        };
        self.outside.effects.reply(call, response);
    }

    fn check_network(&self, name: Option<&NetworkName>) -> Result<(), String> {
        match name {
            Some(name) if !self.networks.all.iter().any(|n| n.secret.name == *name) => {
                Err(self.networks.no_such_network(name))
            }
            _ => Ok(()),
        }
    }

    fn answer_where(
        &mut self,
        tick: Tick,
        what: MacOrIp,
        network: Option<NetworkName>,
        call: CallId,
    ) {
        let known = self.where_is(tick, &what, network.as_ref());
        let mac = match what {
            MacOrIp::Mac(mac) => mac,
            MacOrIp::Ip(ip) if known.is_empty() => {
                // A guest that only spoke to its neighbours on the bridge told nobody its address.
                let own = self.own();
                self.networks
                    .ask_guests(&mut self.outside, own, network.as_ref(), ip);
                return self.wait_for_look_up(tick, what, network, call);
            }
            MacOrIp::Ip(_) => {
                return self.outside.effects.reply(call, Response::Macs(known));
            }
        };
        if !known.is_empty() || !mac.is_claimable() {
            return self.outside.effects.reply(call, Response::Macs(known));
        }
        let key = MacKey {
            vlan: VlanId::UNTAGGED,
            mac,
        };
        let mut asked = Vec::new();
        for net in &mut self.networks.all {
            if network.as_ref().is_none_or(|name| *name == net.secret.name) {
                let _ = net.directory.resolve(tick.now, key);
                asked.push(net.index);
            }
        }
        for net in asked {
            self.touch_network(net);
        }
        self.wait_for_look_up(tick, what, network, call);
    }
}
