//! `farlan rename`: what this node calls itself.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::Globals;
use super::output::{print, print_json};
use crate::control_socket::api::{Request, Response};
use crate::control_socket::client::{self, ClientError};
use node_core::node::standing::own_name::signed_name_stays;

#[derive(Debug, Args)]
pub(super) struct RenameArgs {
    /// The name: 1 to 63 of A-Z, a-z, 0-9, - . and _ [default: back to the host's name]
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if (1..=63).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 63 of A-Z, a-z, 0-9, - . and _".to_owned())
    }
}

/// `farlan rename`.
pub(super) fn rename(globals: &Globals, args: &RenameArgs) -> Result<()> {
    let state = globals.state();
    let membership = state.require_membership()?;
    if let Some(signed) = membership.name() {
        bail!("{}", signed_name_stays(signed));
    }
    let request = Request::Rename {
        name: args.name.clone(),
    };
    match client::call(&state.socket(), &request) {
        Ok(Response::Done(_)) => {}
        Ok(_) => return Err(ClientError::Unexpected.into()),
        Err(ClientError::NotRunning(_)) => {
            let _edit = state.edit()?;
            state.save_name(args.name.as_deref())?;
        }
        Err(error) => return Err(error.into()),
    }
    let name = state.node_name(&membership)?;
    if globals.json {
        return print_json(&json!({ "name": name, "name_signed": false }));
    }
    print(&format!(
        "this node is called {name} now; the others see it as ~{name}, because the authority did \
         not sign it"
    ))
}
