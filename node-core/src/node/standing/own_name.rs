//! What people call this node: as the authority signed it, else as its user or its host says.

use crate::store::Write;
use anyhow::{Result, bail};

use super::Standing;
use crate::api::Response;
use crate::node::effects::CallId;
use crate::node::outside::Outside;
use crate::node::storing::Awaited;
use crate::peer_name::PeerName;

impl Standing {
    /// The name in our certificate, and the one that our cards say.
    pub(crate) fn own_name(&self) -> PeerName {
        let mut own = PeerName {
            signed: self.identity.membership.name().map(str::to_owned),
            said: None,
        };
        own.say(&self.identity.name);
        own
    }

    /// A new membership may bring a name.
    pub(crate) fn take_signed_name(&mut self) {
        if let Some(name) = self.identity.membership.name() {
            name.clone_into(&mut self.identity.name);
        }
    }

    /// `farlan rename`: the name that this node's card says; `None`: the host's.
    pub(crate) fn rename(&self, out: &mut Outside, name: Option<String>, call: CallId) {
        match self.identity.membership.name() {
            Some(signed) => {
                let refused = Response::Error(signed_name_stays(signed));
                out.effects.reply(call, refused);
            }
            None => out.store.put_for(Write::Name(name), Awaited::Renamed(call)),
        }
    }

    /// The name is on disk, and counts.
    ///
    /// # Errors
    /// An invite has brought one meanwhile.
    pub(crate) fn take_name(&mut self, out: &Outside, name: Option<&str>) -> Result<String> {
        if let Some(signed) = self.identity.membership.name() {
            bail!("{}", signed_name_stays(signed));
        }
        let name = name.map(str::to_owned);
        self.identity.name = name.or_else(|| out.sight.host_name()).unwrap_or_default();
        Ok(format!("this node is called {} now", self.identity.name))
    }
}

/// Why `rename` changes nothing.
pub fn signed_name_stays(signed: &str) -> String {
    format!(
        "the authority named this node `{signed}`, and that name counts; for another one type \
         `farlan invite --network NETWORK --name NAME` at the authority and `farlan join -` here"
    )
}
