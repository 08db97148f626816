//! How the node is started on this host: by its unit, where a package brought one.

use std::path::Path;

use crate::state::DEFAULT_STATE;

const UNITS: [&str; 3] = [
    "etc/systemd/system/farlan.service",
    "usr/lib/systemd/system/farlan.service",
    "lib/systemd/system/farlan.service",
];

/// What starts the node of `state`, as it can be typed.
pub(crate) fn start_command(state: &Path) -> &'static str {
    start_command_below(Path::new("/"), state)
}

/// What stops the node of `state`, as it can be typed or pressed.
pub(crate) fn stop_command(state: &Path) -> &'static str {
    match start_command(state) {
        "systemctl start farlan" => "systemctl stop farlan",
        _ => "Ctrl-C where `farlan up` runs",
    }
}

fn start_command_below(root: &Path, state: &Path) -> &'static str {
    // As sd_booted(3).
    let booted = root.join("run/systemd/system").is_dir();
    let installed = UNITS.iter().any(|unit| root.join(unit).is_file());
    if booted && installed && state == Path::new(DEFAULT_STATE) {
        "systemctl start farlan"
    } else {
        "farlan up"
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_unit_is_named_where_it_is_installed_and_would_start_this_node() {
        let root = tempfile::tempdir().unwrap();
        let said = |state: &str| start_command_below(root.path(), Path::new(state));
        assert_eq!(said(DEFAULT_STATE), "farlan up");
        let unit = root.path().join(UNITS[1]);
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::write(unit, "").unwrap();
        // A container has the package, but no systemd.
        assert_eq!(said(DEFAULT_STATE), "farlan up");
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        assert_eq!(said(DEFAULT_STATE), "systemctl start farlan");
        assert_eq!(said("/root/other"), "farlan up");
    }
}
