//! Which of the proven paths to use: a pure function. Tiers first, then the round-trip time with
//! hysteresis, so that two like paths do not take turns.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::path::Path;

/// A better RTT counts only when it is better by a fifth of the current one ..
const HYSTERESIS_SHARE: u32 = 5;
/// .. and by so much: below that a user feels nothing, and queues vary more.
const HYSTERESIS_FLOOR: Duration = Duration::from_millis(5);

/// How good a path is before its RTT is looked at; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Same LAN or site, or IPv6: no NAT in between.
    Near,
    /// Direct through NATs.
    Direct,
    /// Through a relay.
    Relayed,
}

/// A path that has answered and is not known to be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathOption {
    /// The path.
    pub path: Path,
    /// Its tier.
    pub tier: Tier,
    /// Its smoothed RTT; none before it was measured.
    pub rtt: Option<Duration>,
}

/// The path to use. `current` stays unless another is of a better tier, or clearly faster in the
/// same one. `preferred` (what the controlling side uses) wins within its tier over anything that
/// is not clearly faster, so that both directions meet on one path.
#[must_use]
pub fn choose(
    current: Option<Path>,
    preferred: Option<Path>,
    options: &[PathOption],
) -> Option<Path> {
    let best_tier = options.iter().map(|option| option.tier).min()?;
    let in_tier = || {
        options
            .iter()
            .filter(move |option| option.tier == best_tier)
    };
    let find = |path: Option<Path>| in_tier().find(|option| Some(option.path) == path);
    let fastest = in_tier().min_by_key(|option| (option.rtt.unwrap_or(Duration::MAX), option.path));
    let holder = find(preferred).or_else(|| find(current));
    match (holder, fastest) {
        (Some(holder), Some(fastest)) if !clearly_faster(fastest, holder) => Some(holder.path),
        (_, Some(fastest)) => Some(fastest.path),
        (_, None) => None,
    }
}

fn clearly_faster(new: &PathOption, old: &PathOption) -> bool {
    match (new.rtt, old.rtt) {
        (Some(new), Some(old)) => {
            let gain = old.saturating_sub(new);
            gain > HYSTERESIS_FLOOR && gain > old / HYSTERESIS_SHARE
        }
        // An unmeasured path is being measured: the answer comes, or it dies.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(port: u16, tier: Tier, rtt_ms: u64) -> PathOption {
        PathOption {
            path: Path::direct(std::net::SocketAddr::from(([192, 0, 2, 1], port))),
            tier,
            rtt: Some(Duration::from_millis(rtt_ms)),
        }
    }

    #[test]
    fn a_better_tier_wins_whatever_its_rtt() {
        let (relayed, direct) = (option(1, Tier::Relayed, 10), option(2, Tier::Direct, 90));
        let chosen = choose(Some(relayed.path), None, &[relayed, direct]);
        assert_eq!(chosen, Some(direct.path));
    }

    #[test]
    fn small_gains_do_not_move_a_path() {
        let old = option(1, Tier::Direct, 50);
        for (rtt, moves) in [(49, false), (44, false), (40, false), (39, true)] {
            let new = option(2, Tier::Direct, rtt);
            let chosen = choose(Some(old.path), None, &[old, new]);
            assert_eq!(chosen == Some(new.path), moves, "{rtt} ms against 50 ms");
        }
        let (old, new) = (option(1, Tier::Near, 6), option(2, Tier::Near, 2));
        assert_eq!(
            choose(Some(old.path), None, &[old, new]),
            Some(old.path),
            "under 5 ms"
        );
    }

    #[test]
    fn both_sides_meet_on_what_the_controlling_one_uses() {
        let (a, b) = (option(1, Tier::Direct, 50), option(2, Tier::Direct, 52));
        assert_eq!(choose(Some(a.path), Some(b.path), &[a, b]), Some(b.path));
        let far = option(3, Tier::Relayed, 1);
        assert_eq!(
            choose(Some(a.path), Some(far.path), &[a, far]),
            Some(a.path)
        );
    }

    #[test]
    fn nothing_proven_nothing_chosen() {
        let gone = option(1, Tier::Direct, 5);
        assert_eq!(choose(Some(gone.path), None, &[]), None);
    }
}
