//! What the manual says beyond the options: examples, what the columns mean, why a path is as it is.
//! `--help` shows the examples, the man pages all of it (`farlan-manual`).

use node_core::reasons;

/// A command as it can be typed, and what it does.
pub type Example = (&'static str, &'static str);

/// A heading, and terms with their meanings.
pub type Section = (&'static str, Vec<(String, String)>);

/// The examples of a command of `farlan`; of the program itself for `""`.
#[must_use]
pub fn examples(command: &str) -> &'static [Example] {
    let found = EXAMPLES.iter().find(|(name, _)| *name == command);
    found.map_or(&[], |(_, examples)| examples)
}

const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("farlan join -", "join an overlay: asks for the invite"),
            (
                "farlan attach lab",
                "put the network lab on the bridge br-lab",
            ),
            (
                "systemctl start farlan",
                "run the node (packages); by hand: farlan up",
            ),
            (
                "farlan status",
                "see whether it works, and what to do if not",
            ),
        ],
    ),
    (
        "init",
        &[(
            "farlan init | tail -1",
            "make an overlay; its id for a script",
        )],
    ),
    (
        "overlay",
        &[("farlan overlay", "the id, networks, bootstraps and counts")],
    ),
    (
        "network",
        &[
            (
                "farlan network add lab",
                "a network for frames of 1,500 bytes",
            ),
            ("farlan network add home --mtu 9000", "one for jumbo frames"),
        ],
    ),
    (
        "bootstrap",
        &[(
            "farlan bootstrap add /ip4/192.0.2.1/udp/22612/quic-v1/p2p/12D3..",
            "from now on invites carry this address",
        )],
    ),
    (
        "invite",
        &[
            (
                "farlan invite --network lab --name site-a --output site-a.invite",
                "an invite for one host, in a file of its owner",
            ),
            (
                "farlan invite --network lab --nodes 10 --expires 7d",
                "for ten hosts, for a week",
            ),
            (
                "farlan invite --network lab --name site-a --again --output renewal",
                "a longer membership for the same host",
            ),
        ],
    ),
    (
        "invites",
        &[(
            "ssh HOST farlan members --json | farlan invites --seen -",
            "learn from a member who has used which invite",
        )],
    ),
    (
        "revoke",
        &[(
            "farlan revoke site-a > out",
            "then on any member: farlan apply - < out",
        )],
    ),
    ("apply", &[("farlan apply - < out", "take a revocation")]),
    (
        "join",
        &[
            ("farlan join", "asks for the invite, at a terminal"),
            ("farlan join - < site-a.invite", "reads it from a file"),
        ],
    ),
    (
        "rename",
        &[("farlan rename rack-7", "what this host calls itself")],
    ),
    (
        "up",
        &[(
            "farlan up --listen 0.0.0.0:22611",
            "fail if this port is in use, so that a firewall rule can name it",
        )],
    ),
    (
        "attach",
        &[
            ("farlan attach lab", "make the bridge br-lab"),
            ("farlan attach lab --bridge br0", "use an existing bridge"),
            ("farlan attach lab --vm web1", "make the tap web1 for QEMU"),
            (
                "farlan attach lab --nic eth0 --move-addresses",
                "attach a whole LAN; then, within 60 s: farlan confirm",
            ),
        ],
    ),
    (
        "detach",
        &[
            ("farlan detach lab", "take the network off this host"),
            ("farlan detach lab --vm web1", "remove one tap"),
        ],
    ),
    (
        "leave",
        &[(
            "farlan leave --yes",
            "leave the overlay and forget its keys",
        )],
    ),
    (
        "status",
        &[("farlan status --json | jq .warnings", "for a monitor")],
    ),
    ("peers", &[("farlan peers site-a", "the path to one node")]),
    (
        "members",
        &[("farlan members", "who is in the networks of this node")],
    ),
    (
        "macs",
        &[("farlan macs --node site-a", "what a node holds")],
    ),
    (
        "where",
        &[
            ("farlan where 10.9.0.2", "which node has this address"),
            ("farlan where site-a", "which addresses this node has"),
        ],
    ),
    (
        "ping",
        &[
            ("farlan ping site-b", "path, time and loss to a node"),
            (
                "farlan ping 10.9.0.2 --until-direct",
                "to the node of a guest, until the path is direct",
            ),
        ],
    ),
    (
        "doctor",
        &[
            ("farlan doctor", "check this host, after it has joined"),
            (
                "farlan doctor --bootstrap 192.0.2.1:22611",
                "before it has joined; also checks a bootstrap",
            ),
        ],
    ),
    (
        "pin",
        &[(
            "farlan pin lab 52:54:00:00:00:01",
            "a device here that never answers",
        )],
    ),
    (
        "unpin",
        &[("farlan unpin lab 52:54:00:00:00:01", "undo it")],
    ),
    (
        "announce",
        &[(
            "farlan announce lab 52:54:00:00:00:01",
            "in a migration hook: the guest is here now",
        )],
    ),
];

/// The examples for `--help`.
pub(super) fn help_text(command: &str) -> Option<String> {
    let examples = examples(command);
    if examples.is_empty() {
        return None;
    }
    let lines = examples
        .iter()
        .map(|(typed, does)| format!("  {typed}\n      {does}\n"));
    Some(format!("Examples:\n{}", lines.collect::<String>()))
}

/// Further sections of the page of a command.
#[must_use]
pub fn sections(command: &str) -> Vec<Section> {
    let section = |name: &'static str, terms: &[(&str, &str)]| -> Section {
        let terms = terms.iter();
        (
            name,
            terms
                .map(|(term, text)| ((*term).to_owned(), (*text).to_owned()))
                .collect(),
        )
    };
    let reasons = || -> Section {
        let all = reasons::path_reasons().into_iter();
        (
            "REASONS",
            all.map(|(code, text)| (code.to_owned(), text.to_owned()))
                .collect(),
        )
    };
    match command {
        "peers" => vec![section("COLUMNS", PEERS), reasons()],
        "status" => vec![
            section("COLUMNS", NETWORKS),
            section("COLUMNS OF THE PEERS", PEERS),
            reasons(),
        ],
        "networks" => vec![section("COLUMNS", NETWORKS)],
        "macs" | "where" => vec![section("COLUMNS", MACS)],
        "members" => vec![section("COLUMNS", MEMBERS)],
        "invites" => vec![section("COLUMNS", INVITES)],
        "" => vec![section("EXIT STATUS", EXIT)],
        _ => Vec::new(),
    }
}

const EXIT: &[(&str, &str)] = &[
    ("0", "Done."),
    (
        "1",
        "Failed. One line on stderr says what, why and what to do; under --json it is an object with error and code.",
    ),
    ("2", "Wrong usage."),
];

const NETWORKS: &[(&str, &str)] = &[
    ("NETWORK", "The network."),
    (
        "TAP, BRIDGE",
        "The interfaces on this host, if something is attached.",
    ),
    (
        "NIC",
        "The NIC that is a port of the bridge (attach --nic).",
    ),
    ("VMS", "The taps that were made for VMs (attach --vm)."),
    ("MTU", "The largest IP packet of the guests, in bytes."),
    (
        "OFFLOAD, CLAMP",
        "The switches of the attachment: --no-offload, --no-clamp.",
    ),
];

const PEERS: &[(&str, &str)] = &[
    (
        "PEER",
        "The node's id, shortened but unique. Commands accept the short form; --json shows the whole id.",
    ),
    (
        "NAME",
        "The name that the authority signed. With ~ in front: what the node calls itself, which proves nothing.",
    ),
    (
        "PATH",
        "direct: UDP from host to host. relayed: UDP through a relay. stream: TLS over TCP. none: no session.",
    ),
    ("REMOTE", "Where the datagrams go: the peer, or the relay."),
    (
        "RTT, MTU",
        "The round trip, and the largest UDP payload that is proven, in bytes.",
    ),
    (
        "TX, RX",
        "Bytes of guest frames since the node started: k, M, G are powers of 1,000.",
    ),
    ("WHY", "Why no better path is in use; see REASONS."),
];

const MACS: &[(&str, &str)] = &[
    ("NETWORK, VLAN, MAC", "The address. VLAN 0 is untagged."),
    (
        "NODE",
        "The node that has it, by name or shortened id; here: this node.",
    ),
    (
        "GEN",
        "The claim's sequence number; it grows with each move of the address.",
    ),
    ("AGE", "Since the claim was last refreshed."),
    (
        "IPS",
        "Its IP addresses, learned from ARP and neighbour discovery.",
    ),
];

const MEMBERS: &[(&str, &str)] = &[
    ("NODE, NAME", "As in farlan-peers(1)."),
    ("NETWORKS", "The networks of this node that it is in."),
    (
        "INVITE",
        "The invite it joined with, as farlan-invites(1) shows it.",
    ),
    ("JOINED", "When its bootstrap gave the receipt."),
    ("MEMBER UNTIL", "The end of its membership."),
];

const INVITES: &[(&str, &str)] = &[
    ("ID, NAME", "What farlan revoke takes."),
    ("NODES", "How many nodes may use it."),
    ("JOIN UNTIL", "The last minute in which it can be used."),
    ("MEMBER UNTIL", "The end of the memberships from it."),
    ("REVOKED", "Is it revoked?"),
    (
        "USED BY",
        "The nodes that have used it, and when, as far as members have reported it (--seen). ?: not known here.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_command_that_parses() {
        let program = super::super::command();
        let names = program
            .get_subcommands()
            .map(|command| command.get_name().to_owned());
        for name in names.chain([String::new()]) {
            for (typed, _) in examples(&name) {
                let part = typed
                    .split('|')
                    .find(|part| part.trim().starts_with("farlan"));
                let Some(part) = part else {
                    continue;
                };
                let words = part.split(['<', '>']).next().unwrap().split_whitespace();
                let words: Vec<&str> = words.collect();
                let parsed = super::super::command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{typed}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn detach_has_texts_of_its_own() {
        let mut program = super::super::command();
        let detach = program.find_subcommand_mut("detach").unwrap();
        let help = detach.render_long_help().to_string();
        assert!(help.contains("Remove this tap of a VM"), "{help}");
        assert!(!help.contains("made if it is missing"), "{help}");
    }
}
