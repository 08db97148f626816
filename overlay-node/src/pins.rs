//! Pinned MACs on disk: what the operator says is on this host.

use anyhow::{Context, Result, bail};
pub use node_core::pin::Pin;

use crate::state::StateDir;

/// The name of the blob.
const BLOB: &str = "pins";

/// Pins of one host: each is a claim that is never given up for silence.
const MAX_PINS: usize = 256;

/// The pins of this host.
///
/// # Errors
/// The file is damaged, of a later version, or unreadable.
pub fn load(state: &StateDir) -> Result<Vec<Pin>> {
    let Some(bytes) = state.load_blob(BLOB)? else {
        return Ok(Vec::new());
    };
    serde_json::from_slice(&bytes).context(
        "the list of pins (blob-pins in the state directory) is damaged; remove it, then pin anew",
    )
}

/// Adds all of `more`, or none; again is no error.
///
/// # Errors
/// As [`load`]; there are too many; the disk refuses; nobody can hold an address.
pub fn add(state: &StateDir, more: &[Pin]) -> Result<()> {
    if let Some(pin) = more.iter().find(|pin| !pin.mac.is_claimable()) {
        bail!("{} is a group or zero address; nobody can hold it", pin.mac);
    }
    let mut pins = load(state)?;
    let before = pins.len();
    for pin in more {
        if !pins.contains(pin) {
            pins.push(pin.clone());
        }
    }
    if pins.len() == before {
        return Ok(());
    }
    if pins.len() > MAX_PINS {
        bail!(
            "{MAX_PINS} MACs can be pinned here, and {before} are; undo one with `farlan unpin NETWORK \
             MAC` first"
        );
    }
    save(state, &pins)
}

/// Removes `pin`.
///
/// # Errors
/// As [`load`]; it is not pinned; the disk refuses.
pub fn remove(state: &StateDir, pin: &Pin) -> Result<()> {
    let mut pins = load(state)?;
    let before = pins.len();
    pins.retain(|one| one != pin);
    if pins.len() == before {
        bail!("{} is not pinned in {}", pin.shown(), pin.network);
    }
    save(state, &pins)
}

fn save(state: &StateDir, pins: &[Pin]) -> Result<()> {
    Ok(state.save_blob(BLOB, &serde_json::to_vec(pins)?)?)
}

#[cfg(test)]
mod tests {
    use overlay_proto::ethernet::{MacAddr, VlanId};

    use super::*;

    fn pin(last: u8, vlan: u16) -> Pin {
        Pin {
            network: "lab".parse().unwrap(),
            vlan: VlanId::new(vlan).unwrap(),
            mac: MacAddr([0x52, 0x54, 0, 0, 0, last]),
        }
    }

    #[test]
    fn pins_stay_until_they_are_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        state.create().unwrap();
        assert!(load(&state).unwrap().is_empty());
        add(&state, &[pin(1, 0)]).unwrap();
        add(&state, &[pin(1, 0), pin(1, 100)]).unwrap();
        assert_eq!(load(&state).unwrap(), [pin(1, 0), pin(1, 100)]);
        remove(&state, &pin(1, 0)).unwrap();
        assert_eq!(load(&state).unwrap(), [pin(1, 100)]);
        let error = remove(&state, &pin(1, 0)).unwrap_err();
        assert!(error.to_string().contains("not pinned"), "{error}");
        let group = Pin {
            mac: MacAddr::BROADCAST,
            ..pin(1, 0)
        };
        assert!(add(&state, &[pin(2, 0), group]).is_err());
        assert_eq!(load(&state).unwrap(), [pin(1, 100)], "all or none");
    }

    #[test]
    fn the_list_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        state.create().unwrap();
        let many: Vec<Pin> = (0..=255).map(|last| pin(last, 7)).collect();
        save(&state, &many).unwrap();
        assert!(add(&state, &[pin(1, 8)]).is_err());
        assert!(add(&state, &[pin(1, 7)]).is_ok(), "there already");
    }
}
