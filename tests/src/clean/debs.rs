//! The packages to install: those that `packaging/build-deb` made, else the same files without cargo-deb.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::overlay::program;
use crate::proc::check;

/// What the scripts that cargo-deb writes do at the first installation.
const POSTINST: &str = "#!/bin/sh\nset -e\nsystemd-sysusers NAME.conf\nsystemd-tmpfiles --create NAME.conf\n\
    systemctl daemon-reload\n";

/// Puts the packages into `to`: those of `FARLAN_DEBS` where it is set.
///
/// # Errors
/// When a file of a package is missing.
pub fn put(to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    if let Some(built) = std::env::var_os("FARLAN_DEBS").map(PathBuf::from) {
        let copy = "cp -- \"$1\"/farlan_*.deb \"$1\"/farlan-bootstrap_*.deb \"$2\"";
        check(
            Command::new("sh")
                .args(["-c", copy, "copy"])
                .arg(built)
                .arg(to),
        )?;
        return Ok(());
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args([
        "metadata",
        "--offline",
        "--no-deps",
        "--format-version",
        "1",
    ]);
    let metadata = check(metadata.arg("--manifest-path").arg(manifest))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let manual = to.join("manual");
    check(Command::new(program("farlan-manual")).arg(&manual))?;
    for package in metadata["packages"].as_array().context("packages")? {
        if package["metadata"]["deb"].is_object() {
            pack(package, &manual, to)?;
        }
    }
    fs::remove_dir_all(manual)?;
    Ok(())
}

/// One package, with all that its manifest lists.
fn pack(package: &Value, manual: &Path, to: &Path) -> Result<()> {
    let deb = &package["metadata"]["deb"];
    let name = deb["name"].as_str().context("name")?;
    let manifest = package["manifest_path"].as_str().context("manifest")?;
    let crate_dir = Path::new(manifest).parent().context("directory")?;
    let root = to.join("root");
    for asset in deb["assets"].as_array().context("assets")? {
        let [from, into, mode] = [0, 1, 2].map(|n| asset[n].as_str().unwrap_or_default());
        let built = from.strip_prefix("target/release/");
        let from = match built.map(|file| (file, file.strip_prefix("manual/"))) {
            Some((_, Some(page))) => manual.join(page),
            Some((file, None)) => program(file),
            None => crate_dir.join(from),
        };
        install(&from, &root.join(into), into.ends_with('/'), mode)?;
    }
    for unit in deb["systemd-units"].as_array().context("units")? {
        let scripts = unit["unit-scripts"].as_str().context("unit-scripts")?;
        let file = crate_dir.join(scripts).join(format!("{name}.service"));
        install(&file, &root.join("usr/lib/systemd/system/"), true, "644")?;
    }
    // As cargo-deb does; debug symbols are most of the programs.
    let strip = "strip \"$0\"/usr/bin/*";
    check(Command::new("sh").args(["-c", strip]).arg(&root))?;
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control)?;
    let version = package["version"].as_str().context("version")?;
    let depends = deb["depends"].as_str().unwrap_or("$auto");
    let machine = check(Command::new("dpkg").arg("--print-architecture"))?;
    let facts = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {}\nMaintainer: -\nDepends: {}\n\
         Description: {name}\n",
        machine.trim(),
        depends.replace("$auto", "libc6"),
    );
    fs::write(control.join("control"), facts)?;
    fs::write(control.join("postinst"), POSTINST.replace("NAME", name))?;
    check(
        Command::new("chmod")
            .arg("755")
            .arg(control.join("postinst")),
    )?;
    let mut build = Command::new("dpkg-deb");
    build
        .args(["--root-owner-group", "-Znone", "-b"])
        .arg(&root);
    check(build.arg(to.join(format!("{name}_{version}_{}.deb", machine.trim()))))?;
    fs::remove_dir_all(root)?;
    Ok(())
}

/// `from` may be a pattern of the shell.
fn install(from: &Path, to: &Path, into: bool, mode: &str) -> Result<()> {
    let line = if into {
        format!(
            "mkdir -p \"$1\" && install -m \"$2\" -t \"$1\" {}",
            from.display()
        )
    } else {
        format!("install -D -m \"$2\" {} \"$1\"", from.display())
    };
    let mut cmd = Command::new("sh");
    cmd.args(["-c", &line, "install"]).arg(to).arg(mode);
    check(&mut cmd)?;
    Ok(())
}
