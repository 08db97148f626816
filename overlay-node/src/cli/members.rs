//! `farlan members`: who is in the networks of this node, with the certificates that prove it.

use anyhow::Result;
use overlay_proto::ids::NetworkName;
use overlay_proto::membership::Utc;

use super::Globals;
use super::output::{print, print_json};
use super::show::call;
use super::table::{Table, list, or_dash, telling};
use super::tables::{LEAST_ID, name, short};
use crate::control_socket::api::{MemberReport, Request, Response};
use crate::control_socket::client::ClientError;

/// `farlan members`.
pub(super) fn members(globals: &Globals, network: Option<NetworkName>) -> Result<()> {
    let Response::Members(members) = call(globals, &Request::Members { network })? else {
        return Err(ClientError::Unexpected.into());
    };
    if globals.json {
        print_json(&members)
    } else {
        print(&table(&members))
    }
}

fn table(members: &[MemberReport]) -> String {
    let heading = [
        "NODE",
        "NAME",
        "NETWORKS",
        "INVITE",
        "JOINED",
        "MEMBER UNTIL",
    ];
    let mut table = Table::new(&heading).cut(&["NAME"]).wrap(&["NETWORKS"]);
    let ids: Vec<String> = members.iter().map(|one| one.node.to_string()).collect();
    let letters = telling(&ids, LEAST_ID);
    for (member, id) in members.iter().zip(&ids) {
        table.row(vec![
            short(id, letters),
            name(&member.name),
            list(&member.networks, ", "),
            short(&member.invite, super::invites::LEAST_ID),
            or_dash(member.joined.map(Utc)),
            Utc(member.member_until).to_string(),
        ]);
    }
    table.text()
}
