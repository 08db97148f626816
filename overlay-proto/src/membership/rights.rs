//! What a certificate allows (TRUST.md 5).

use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A set of rights. Bits of later versions are kept and mean nothing here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rights(u16);

/// Name, set, and whether it belongs to a network (or to the overlay).
const NAMES: [(&str, Rights, bool); 8] = [
    ("send", Rights::SEND, true),
    ("dhcp-server", Rights::DHCP_SERVER, true),
    ("router", Rights::ROUTER, true),
    ("bridge-nic", Rights::BRIDGE_NIC, true),
    ("migrate-in", Rights::MIGRATE_IN, true),
    ("migrate-out", Rights::MIGRATE_OUT, true),
    ("relay", Rights::RELAY, false),
    ("witness", Rights::WITNESS, false),
];

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);
    /// Send frames and claim MACs in a network.
    pub const SEND: Self = Self(1);
    /// Answer DHCP, where the network guards it.
    pub const DHCP_SERVER: Self = Self(1 << 1);
    /// Send router advertisements, where the network guards them.
    pub const ROUTER: Self = Self(1 << 2);
    /// Attach a physical NIC.
    pub const BRIDGE_NIC: Self = Self(1 << 3);
    /// Take over migrating VMs.
    pub const MIGRATE_IN: Self = Self(1 << 4);
    /// Hand over migrating VMs.
    pub const MIGRATE_OUT: Self = Self(1 << 5);
    /// Use relays, and be one.
    pub const RELAY: Self = Self(1 << 8);
    /// Sign receipts.
    pub const WITNESS: Self = Self(1 << 9);
    /// What an invite gives that names no rights.
    pub const DEFAULT: Self = Self(Self::SEND.0 | Self::RELAY.0);

    /// What no member is kept from, with or without the right: no invite gives these until something enforces them.
    pub const DECIDING_NOTHING: Self =
        Self(Self::DHCP_SERVER.0 | Self::ROUTER.0 | Self::MIGRATE_IN.0 | Self::MIGRATE_OUT.0);

    /// Are all rights of `other` in this set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The part that counts per network.
    #[must_use]
    pub const fn of_networks(self) -> Self {
        Self(self.0 & 0x00ff)
    }

    /// The part that counts for the whole overlay.
    #[must_use]
    pub const fn of_overlay(self) -> Self {
        Self(self.0 & 0xff00)
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Rights {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The names, with commas between.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = NAMES.iter().filter(|(_, right, _)| self.contains(*right));
        for (index, (name, ..)) in held.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

/// The text names no right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no right; there are send, dhcp-server, router, bridge-nic, migrate-in, migrate-out, \
     relay and witness"
)]
pub struct RightParseError(String);

/// One right by its name.
impl FromStr for Rights {
    type Err = RightParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        NAMES
            .iter()
            .find(|(name, ..)| *name == text)
            .map(|&(_, right, _)| right)
            .ok_or_else(|| RightParseError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_halves() {
        for (name, right, of_network) in NAMES {
            assert_eq!(name.parse::<Rights>().unwrap(), right);
            assert_eq!(right.of_networks() == right, of_network, "{name}");
            assert_eq!(right.of_overlay() == right, !of_network, "{name}");
        }
        assert_eq!(Rights::DEFAULT.to_string(), "send,relay");
        assert!("fly".parse::<Rights>().is_err());
    }
}
