//! The name that a node has when nobody gives it one: the host's.

use std::fs;

/// As long as a name in a certificate may be.
const MAX_NAME: usize = 63;

/// The host's name as the kernel has it, in the letters that a node's name may have.
#[must_use]
pub fn host_name() -> Option<String> {
    as_node_name(&fs::read_to_string("/proc/sys/kernel/hostname").ok()?)
}

/// `None` for what every host is called.
fn as_node_name(text: &str) -> Option<String> {
    let text = text.trim();
    if matches!(text, "" | "(none)" | "localhost" | "localhost.localdomain") {
        return None;
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name = text.chars().map(|c| if legal(c) { c } else { '-' });
    Some(name.take(MAX_NAME).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_becomes_a_nodes_name() {
        for (host, node) in [
            ("ash\n", Some("ash")),
            ("ash.example.org", Some("ash.example.org")),
            ("my host", Some("my-host")),
            ("(none)", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(as_node_name(host).as_deref(), node, "{host}");
        }
        assert_eq!(as_node_name(&"x".repeat(99)).unwrap().len(), MAX_NAME);
    }
}
