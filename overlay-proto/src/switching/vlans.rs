//! A set of VLANs that is asked for each frame.

use crate::ethernet::VlanId;

const WORDS: usize = 64;

/// Some of the 4,096 VLAN ids, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanSet([u64; WORDS]);

impl VlanSet {
    /// None of them.
    #[must_use]
    pub const fn none() -> Self {
        Self([0; WORDS])
    }

    /// All of them.
    #[must_use]
    pub const fn all() -> Self {
        Self([u64::MAX; WORDS])
    }

    /// Puts `vlan` in or takes it out.
    pub fn set(&mut self, vlan: VlanId, member: bool) {
        let (word, bit) = place(vlan);
        if let Some(word) = self.0.get_mut(word) {
            *word = if member { *word | bit } else { *word & !bit };
        }
    }

    /// Is `vlan` one of them?
    #[must_use]
    pub fn contains(&self, vlan: VlanId) -> bool {
        let (word, bit) = place(vlan);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn place(vlan: VlanId) -> (usize, u64) {
    let id = usize::from(vlan.get());
    (id / 64, 1 << (id % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vlan_has_its_own_bit() {
        let (mut none, mut all) = (VlanSet::none(), VlanSet::all());
        for id in 0..4095 {
            let vlan = VlanId::new(id).unwrap();
            assert!(!none.contains(vlan) && all.contains(vlan));
            none.set(vlan, true);
            all.set(vlan, false);
            assert!(none.contains(vlan) && !all.contains(vlan));
            none.set(vlan, false);
            all.set(vlan, true);
        }
        assert_eq!((none, all), (VlanSet::none(), VlanSet::all()));
    }
}
