//! The host's firewall and what is bridged.
//!
//! With bridge netfilter on (Docker and Kubernetes switch it on), IP between two ports of one
//! bridge passes the FORWARD chain of iptables. Docker sets that chain to DROP: then ARP passes and
//! IP does not, silently. The answer is one rule that accepts what stays on our own bridge, in the
//! chain that Docker keeps for its administrator, or in FORWARD where there is none. The sysctl that
//! switches bridge netfilter off stays as it is: it would open what the firewall means to close on
//! other bridges.
//!
//! Where a drop is in a chain of nftables only, no rule of another table can lift it, and a rule in
//! somebody's own rule set is the administrator's to write: the line to type is told.
//!
//! All functions here start programs and wait for them, some milliseconds each: not on a thread
//! that has frames to carry.

use std::path::Path;

use crate::program::run;

/// Seconds to wait for another program that changes the rules.
const LOCK_SECONDS: &str = "2";

/// The chain that Docker leaves to its administrator, looked at before its own.
const DOCKER_CHAIN: &str = "DOCKER-USER";

/// Where bridge netfilter has its switches, for all bridges; only when its module is loaded.
const SWITCHES: &str = "/proc/sys/net/bridge";

/// What drops, and the answer to it, for one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// The line that lets the frames pass.
    pub command: String,
    /// Why it was not run with success; `None`: it was.
    pub not_done: Option<String>,
}

/// Lets IP pass between the ports of `bridge`, where the firewall drops it and no rule allows it
/// yet. Returns what was done or failed: nothing, if nothing is in the way.
#[must_use]
pub fn open(bridge: &str) -> Vec<Opening> {
    look(bridge, true)
}

/// What [`open`] would do for `bridge`, without doing it.
#[must_use]
pub fn needed(bridge: &str) -> Vec<Opening> {
    look(bridge, false)
}

/// Takes away what [`open`] added for `bridge`; what is gone already is no error.
pub fn close(bridge: &str) {
    // Without the module nothing was added. Its switch may be off by now.
    if !Path::new(SWITCHES).exists() {
        return;
    }
    for family in &FAMILIES {
        for chain in [DOCKER_CHAIN, "FORWARD"] {
            if family.has_rule(chain, bridge) {
                let _ = family.change("-D", chain, bridge);
            }
        }
    }
}

fn look(bridge: &str, act: bool) -> Vec<Opening> {
    let mut openings = Vec::new();
    for family in FAMILIES.iter().filter(|family| family.is_on(bridge)) {
        let forward = run(family.program, ["-w", LOCK_SECONDS, "-S", "FORWARD"]);
        match forward {
            Ok(rules) if drops(&rules, bridge) => {
                openings.extend(family.through_iptables(bridge, &rules, act));
            }
            Ok(_) => {}
            // No iptables at all, or one that may not be used: nftables knows what drops.
            Err(_) => openings.extend(family.through_nftables(bridge)),
        }
    }
    openings
}

struct Family {
    name: &'static str,
    program: &'static str,
    /// The sysctl, and the bridge's own setting.
    switches: [&'static str; 2],
    /// Families of nftables whose chains see it.
    tables: [&'static str; 2],
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "IPv4",
        program: "iptables",
        switches: ["bridge-nf-call-iptables", "nf_call_iptables"],
        tables: ["ip", "inet"],
    },
    Family {
        name: "IPv6",
        program: "ip6tables",
        switches: ["bridge-nf-call-ip6tables", "nf_call_ip6tables"],
        tables: ["ip6", "inet"],
    },
];

impl Family {
    /// Does what is bridged pass the firewall at all?
    fn is_on(&self, bridge: &str) -> bool {
        let [all, one] = self.switches;
        let all = Path::new(SWITCHES).join(all);
        let one = Path::new("/sys/class/net")
            .join(bridge)
            .join("bridge")
            .join(one);
        let is_set = |path: &Path| {
            std::fs::read_to_string(path).is_ok_and(|value| !matches!(value.trim(), "" | "0"))
        };
        is_set(&all) || is_set(&one)
    }

    fn through_iptables(&self, bridge: &str, forward: &str, act: bool) -> Option<Opening> {
        let through_docker = forward
            .lines()
            .any(|rule| rule == format!("-A FORWARD -j {DOCKER_CHAIN}"));
        let chain = if through_docker {
            DOCKER_CHAIN
        } else {
            "FORWARD"
        };
        if self.has_rule(chain, bridge) {
            return None;
        }
        let not_done = if act {
            self.change("-I", chain, bridge).err()
        } else {
            Some("not asked for".to_owned())
        };
        let program = self.program;
        Some(Opening {
            family: self.name,
            command: format!("{program} -I {chain} -i {bridge} -o {bridge} -j ACCEPT"),
            not_done,
        })
    }

    fn has_rule(&self, chain: &str, bridge: &str) -> bool {
        self.change("-C", chain, bridge).is_ok()
    }

    fn change(&self, what: &str, chain: &str, bridge: &str) -> Result<(), String> {
        let rule = ["-i", bridge, "-o", bridge, "-j", "ACCEPT"];
        let words = ["-w", LOCK_SECONDS, what, chain].into_iter().chain(rule);
        run(self.program, words).map(|_| ())
    }

    fn through_nftables(&self, bridge: &str) -> Vec<Opening> {
        let Ok(chains) = run("nft", ["list", "chains"]) else {
            return Vec::new();
        };
        dropping_chains(&chains)
            .into_iter()
            .filter(|(family, ..)| self.tables.contains(&family.as_str()))
            .filter(|(family, table, chain)| {
                let listed = run("nft", ["list", "chain", family, table, chain]);
                !listed.is_ok_and(|rules| {
                    let (from, to) = (format!("iifname \"{bridge}\""), format!("oifname \"{bridge}\""));
                    let mut rules = rules.lines();
                    rules.any(|r| r.contains(&from) && r.contains(&to) && r.contains("accept"))
                })
            })
            .map(|(family, table, chain)| Opening {
                family: self.name,
                command: format!(
                    "nft insert rule {family} {table} {chain} iifname {bridge} oifname {bridge} accept"
                ),
                not_done: Some("the rule set is the administrator's".to_owned()),
            })
            .collect()
    }
}

/// Does the FORWARD chain, as `iptables -S` lists it, drop what goes from `bridge` to itself? By its
/// policy, or by a rule that asks for nothing but interfaces.
fn drops(forward: &str, bridge: &str) -> bool {
    forward.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("-P"), Some("FORWARD")) => words.next() != Some("ACCEPT"),
            (Some("-A"), Some("FORWARD")) => loop {
                match words.next() {
                    Some("-i" | "-o") if words.next() == Some(bridge) => {}
                    Some("-j") => break matches!(words.next(), Some("DROP" | "REJECT")),
                    _ => break false,
                }
            },
            _ => false,
        }
    })
}

/// Chains on the forward hook with policy drop, as `nft list chains` tells: family, table, chain.
fn dropping_chains(listed: &str) -> Vec<(String, String, String)> {
    let (mut table, mut chain) = (None, None);
    let mut found = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, "{"] => table = Some((*family, *name)),
            ["chain", name, "{"] => chain = Some(*name),
            ["type", "filter", "hook", "forward", .., "policy", "drop;"] => {
                if let (Some((family, table)), Some(chain)) = (table, chain) {
                    found.push((family.to_owned(), table.to_owned(), chain.to_owned()));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_plain_rules_drop() {
        assert!(drops(
            "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n",
            "br-lab"
        ));
        assert!(!drops("-P FORWARD ACCEPT\n", "br-lab"));
        assert!(!drops("", "br-lab"));
        let accept = "-P FORWARD ACCEPT\n-A FORWARD";
        let drop = |rule: &str| drops(&format!("{accept} {rule}\n"), "br-lab");
        assert!(drop("-j REJECT --reject-with icmp-host-prohibited"));
        assert!(drop("-i br-lab -o br-lab -j DROP"));
        assert!(!drop("-i docker0 -o br-lab -j DROP"));
        assert!(!drop("! -i docker0 -o docker0 -j DROP"));
        assert!(!drop("-s 192.0.2.0/24 -j DROP"));
        assert!(!drop("-m conntrack --ctstate INVALID -j DROP"));
        assert!(!drop("-j DOCKER-USER"));
    }

    #[test]
    fn chains_of_nftables() {
        let listed = "table inet site {\n\tchain in {\n\t\ttype filter hook input priority filter; \
                      policy drop;\n\t}\n\tchain through {\n\t\ttype filter hook forward priority \
                      filter; policy drop;\n\t}\n}\ntable ip other {\n\tchain f {\n\t\ttype filter \
                      hook forward priority 10; policy accept;\n\t}\n}\n";
        let wanted = ("inet", "site", "through");
        let wanted = (
            wanted.0.to_owned(),
            wanted.1.to_owned(),
            wanted.2.to_owned(),
        );
        assert_eq!(dropping_chains(listed), [wanted]);
    }
}
