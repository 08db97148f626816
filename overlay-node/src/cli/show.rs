//! The commands that show facts.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::{Membership, NetworkSecret};
use serde_json::json;

use super::output::{print, print_json};
use super::who::{self, Unclear};
use super::{Globals, WrongUsage, tables};
use crate::attachments::{self, Attachment, AttachmentRecord};
use crate::control_socket::api::{MacOrIp, MacReport, NetworkReport, Request, Response, ShownName};
use crate::control_socket::client::{self, ClientError};

pub(super) fn call(globals: &Globals, request: &Request) -> Result<Response> {
    let state = globals.state();
    match client::call(&state.socket(), request) {
        Err(error @ ClientError::NotRunning(_)) => {
            // Where nothing has joined, or it has left, `farlan up` is no advice.
            state.require_membership()?;
            Err(error.into())
        }
        outcome => Ok(outcome?),
    }
}

/// `farlan status`.
pub(super) fn status(globals: &Globals) -> Result<()> {
    let Response::Status(report) = call(globals, &Request::Status)? else {
        return Err(ClientError::Unexpected.into());
    };
    if globals.json {
        print_json(&report)
    } else {
        print(&tables::status(&report))
    }
}

/// `farlan peers`.
pub(super) fn peers(globals: &Globals, nodes: &[String]) -> Result<()> {
    let Response::Peers(mut peers) = call(globals, &Request::Peers)? else {
        return Err(ClientError::Unexpected.into());
    };
    if !nodes.is_empty() {
        let known = peers.iter().map(|peer| (peer.node, peer.name.clone()));
        let known = known.collect();
        let asked = nodes.iter().map(|word| who::find(word, &known));
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        peers.retain(|peer| asked.contains(&peer.node));
    }
    if globals.json {
        print_json(&peers)
    } else {
        print(&tables::peers(&peers))
    }
}

/// `farlan networks`: of the running node, or what the membership says.
pub(super) fn networks(globals: &Globals) -> Result<()> {
    let networks = match client::call(&globals.state().socket(), &Request::Networks) {
        Ok(Response::Networks(networks)) => networks,
        Ok(_) => return Err(ClientError::Unexpected.into()),
        Err(ClientError::NotRunning(_)) => {
            let state = globals.state();
            networks_on_disk(
                &state.require_membership()?,
                &attachments::load(state.path())?,
            )
        }
        Err(error) => return Err(error.into()),
    };
    if globals.json {
        print_json(&networks)
    } else {
        print(&tables::networks(&networks))
    }
}

/// What `networks` says of a stopped node; a running one may use it, too.
#[must_use]
pub fn networks_on_disk(
    membership: &Membership,
    attached: &[AttachmentRecord],
) -> Vec<NetworkReport> {
    let report = |network: &NetworkSecret| {
        let mut attached = attached.iter();
        let record = attached.find(|record| record.network == network.name);
        let attached = record.map(Attachment::from);
        let attached = attached
            .as_ref()
            .map(|attached| (attached, attachments::port(&attached.tap)));
        NetworkReport::of(network, attached)
    };
    membership.networks().iter().map(report).collect()
}

/// `farlan macs`.
pub(super) fn macs(
    globals: &Globals,
    network: Option<NetworkName>,
    node: Option<&str>,
) -> Result<()> {
    let mut macs = ask_macs(globals, &Request::Macs { network })?;
    if let Some(word) = node {
        let node = who::find(word, &named(globals, &macs)?)?;
        macs.retain(|mac| mac.node == node);
    }
    print_macs(globals, &macs)
}

/// `farlan where`.
pub(super) fn locate(globals: &Globals, what: &str, network: Option<NetworkName>) -> Result<()> {
    let Ok(what) = what.parse::<MacOrIp>() else {
        return locate_node(globals, what, network);
    };
    let macs = ask_macs(globals, &Request::Where { what, network })?;
    let mut networks: Vec<_> = macs.iter().map(|mac| &mac.network).collect();
    networks.dedup();
    match networks.as_slice() {
        [] => bail!(
            "no node holds {what}{}; is the VM running, and has it sent a frame?",
            asked_in_vain(globals, what)
        ),
        [_] => print_macs(globals, &macs),
        [one, another, ..] => {
            bail!("{what} is in several networks ({one}, {another}); name one with --network")
        }
    }
}

/// How often frames for it made the node ask all others.
fn asked_in_vain(globals: &Globals, what: MacOrIp) -> String {
    let MacOrIp::Mac(mac) = what else {
        return String::new();
    };
    // What is not known besides is no reason to fail twice.
    let Ok(Response::Status(report)) = call(globals, &Request::Status) else {
        return String::new();
    };
    let unknown = report.unknown.iter().filter(|one| one.mac == mac);
    let told: Vec<String> = unknown
        .map(|one| {
            format!(
                " (asked {} times in {} s in {}, nobody answers; {} frames for it dropped)",
                one.asked, one.since_s, one.network, one.dropped
            )
        })
        .collect();
    told.concat()
}

/// `farlan where NODE`: what it holds.
fn locate_node(globals: &Globals, word: &str, network: Option<NetworkName>) -> Result<()> {
    let no_address =
        format!("`{word}` is no MAC and no IP address; write 52:54:00:00:00:01 or 10.0.0.5");
    let Ok(mut macs) = ask_macs(globals, &Request::Macs { network }) else {
        let why = format!("{no_address}. No node runs here that could know it as a name");
        return Err(WrongUsage(why).into());
    };
    let node = who::find(word, &named(globals, &macs)?).map_err(|unclear| match unclear {
        Unclear::Nobody(_) => WrongUsage(format!(
            "{no_address}, or the name or id of a node as `farlan peers` shows it"
        ))
        .into(),
        several @ Unclear::Several { .. } => anyhow::Error::from(several),
    })?;
    macs.retain(|mac| mac.node == node);
    print_macs(globals, &macs)
}

/// All nodes that are known by name: the peers, this node and whoever holds one of `macs`.
fn named(globals: &Globals, macs: &[MacReport]) -> Result<BTreeMap<PeerId, ShownName>> {
    let Response::Status(status) = call(globals, &Request::Status)? else {
        return Err(ClientError::Unexpected.into());
    };
    let own = ShownName {
        name: status.name,
        signed: status.name_signed,
    };
    let holders = macs.iter().map(|mac| (mac.node, mac.name.clone()));
    let peers = status.peers.into_iter().map(|peer| (peer.node, peer.name));
    Ok(holders.chain(peers).chain([(status.node, own)]).collect())
}

pub(super) fn ask_macs(globals: &Globals, request: &Request) -> Result<Vec<MacReport>> {
    match call(globals, request)? {
        Response::Macs(mut macs) => {
            macs.sort_by(|a, b| (&a.network, a.vlan, a.mac).cmp(&(&b.network, b.vlan, b.mac)));
            Ok(macs)
        }
        _ => Err(ClientError::Unexpected.into()),
    }
}

fn print_macs(globals: &Globals, macs: &[MacReport]) -> Result<()> {
    if globals.json {
        print_json(macs)
    } else {
        print(&tables::macs(macs))
    }
}

/// Lets the running node do `request`, and prints what it says.
pub(super) fn done(globals: &Globals, request: &Request) -> Result<()> {
    match call(globals, request)? {
        Response::Done(line) if globals.json => print_json(&json!({ "done": line })),
        Response::Done(line) if line.is_empty() => Ok(()),
        Response::Done(line) => print(&line),
        _ => Err(ClientError::Unexpected.into()),
    }
}

/// `farlan version`.
pub(super) fn version(globals: &Globals) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if globals.json {
        print_json(&json!({ "version": version }))
    } else {
        print(&format!("farlan {version}"))
    }
}
