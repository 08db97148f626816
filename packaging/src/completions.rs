//! Shell completions: what clap generates, and the networks and interfaces of this host at the
//! moment when the user presses the key.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

/// Prints the networks of this node and of this authority, one a line.
const NETWORKS: &str = "{ farlan networks; farlan network list; } 2>/dev/null | \
    sed -n '/^[a-z0-9-]/s/ .*//p' | sort -u";

const BRIDGES: &str =
    "for at in /sys/class/net/*/bridge; do at=${at%/bridge}; echo ${at##*/}; done";

const INTERFACES: &str = "ls /sys/class/net";

pub(crate) fn write(command: &mut Command, dir: &Path) -> Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let path = clap_complete::generate_to(shell, command, &name, dir)?;
        if name == "farlan" {
            let text = fs::read_to_string(&path)?;
            let text = match shell {
                Shell::Bash => bash(&text),
                Shell::Fish => fish(&text),
                _ => zsh(&text),
            };
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The generated function is asked for all but the words that only this host knows.
fn bash(generated: &str) -> String {
    format!(
        r#"{generated}
_farlan_of_this_host() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=
    case "$before" in
        attach|detach|announce|--network) words="$({NETWORKS})" ;;
        --bridge) words="$({BRIDGES})" ;;
        --nic) words="$({INTERFACES})" ;;
    esac
    if [[ -n $words && $cur != -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        return 0
    fi
    _farlan "$@"
}}
complete -F _farlan_of_this_host -o nosort -o bashdefault -o default farlan
"#
    )
}

fn fish(generated: &str) -> String {
    format!(
        r#"{generated}
function __farlan_networks
    sh -c "{NETWORKS}"
end
complete -c farlan -n "__fish_seen_subcommand_from attach detach announce" -f -a "(__farlan_networks)"
complete -c farlan -n "__fish_seen_subcommand_from invite macs where members revoke" -l network -x -a "(__farlan_networks)"
complete -c farlan -n "__fish_seen_subcommand_from attach detach" -l nic -x -a "(ls /sys/class/net)"
complete -c farlan -n "__fish_seen_subcommand_from attach detach" -l bridge -x -a "(sh -c '{BRIDGES}')"
"#
    )
}

fn zsh(generated: &str) -> String {
    // The generated file calls its function in its last lines; helpers go before the first one.
    let helpers = format!(
        "_farlan_networks() {{ compadd -- ${{(f)\"$({NETWORKS})\"}} }}\n\
         _farlan_bridges() {{ compadd -- ${{(f)\"$({BRIDGES})\"}} }}\n\
         _farlan_interfaces() {{ compadd -- $({INTERFACES}) }}\n\n"
    );
    let own = generated
        .replace(":NETWORK:_default", ":NETWORK:_farlan_networks")
        .replace(
            ":network -- The network:_default",
            ":network -- The network:_farlan_networks",
        )
        .replace(":BR:_default", ":BR:_farlan_bridges")
        .replace(":IF:_default", ":IF:_farlan_interfaces");
    match own.split_once("\n_farlan() {") {
        Some((head, tail)) => format!("{head}\n{helpers}_farlan() {{{tail}"),
        None => own,
    }
}
