//! A virtual machine's kernel and its initial file system: Debian's or Ubuntu's small kernel, a static
//! busybox, the modules and programs that a test asks for. Nothing is installed: the packages are
//! downloaded and unpacked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::proc::{check, finish};

/// What a distribution calls its small kernel for virtual machines.
const KERNELS: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];

/// The trees of the packages that modules are taken from.
const TREES: &str = "./boot/vmlinuz-* */kernel/drivers/virtio/* */kernel/drivers/net/* \
     */kernel/net/* */kernel/lib/* */kernel/crypto/* *bin/busybox";

/// Kernel and initial file system of a machine.
#[derive(Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
}

/// What goes into the initial file system.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// Modules. Those that they need come along; one that the kernel has built in is left out.
    pub modules: &'a [&'a str],
    /// Programs, which come to `/rig` with the libraries they need.
    pub programs: &'a [PathBuf],
    /// The script that the kernel starts. `INSMOD` in it becomes the commands that load the modules.
    pub init: &'a str,
}

/// The package that the distribution's kernel package stands for, and the one with its modules
/// where they are apart.
fn kernel_packages() -> Result<Vec<String>> {
    for name in KERNELS {
        let out = finish(Command::new("apt-cache").args(["depends", name]))?;
        let image = out.stdout.lines().find_map(|line| {
            let package = line.trim().strip_prefix("Depends: ")?;
            package
                .starts_with("linux-image-")
                .then(|| package.to_owned())
        });
        if let Some(image) = image {
            let modules = image.replacen("linux-image-", "linux-modules-", 1);
            let known =
                finish(Command::new("apt-cache").args(["show", "--no-all-versions", &modules]))?;
            let apart = known.code == 0 && !known.stdout.is_empty();
            return Ok([Some(image), apart.then_some(modules)]
                .into_iter()
                .flatten()
                .collect());
        }
    }
    anyhow::bail!("apt knows none of {KERNELS:?}")
}

/// Downloads a kernel and a busybox into `dir` and unpacks what may be needed of them.
fn unpack_packages(dir: &Path) -> Result<()> {
    // A machine whose lists are missing or old gets new ones.
    let mut packages = kernel_packages().or_else(|_| {
        check(Command::new("apt-get").arg("update"))?;
        kernel_packages()
    })?;
    packages.push("busybox-static".to_owned());
    let mut download = Command::new("apt-get");
    download.arg("download").args(&packages).current_dir(dir);
    if finish(&mut download)?.code != 0 {
        check(Command::new("apt-get").arg("update"))?;
        check(&mut download)?;
    }
    let trees: Vec<String> = TREES
        .split_whitespace()
        .map(|tree| format!("'{tree}'"))
        .collect();
    let unpack = format!(
        "for deb in *.deb; do dpkg-deb --fsys-tarfile $deb | tar -x --wildcards {} 2>/dev/null; done; true",
        trees.join(" ")
    );
    check(Command::new("sh").args(["-c", &unpack]).current_dir(dir))?;
    Ok(())
}

impl Image {
    /// Packs an image below `dir`.
    ///
    /// # Errors
    /// When a package or a program is missing.
    pub fn pack(dir: &Path, contents: &Contents<'_>) -> Result<Self> {
        let dir = dir.join("image");
        let root = dir.join("root");
        for path in ["bin", "proc", "dev", "sys", "tmp", "run", "rig", "modules"] {
            fs::create_dir_all(root.join(path))?;
        }
        unpack_packages(&dir)?;
        let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| dir.join(path));
        let busybox = busybox.iter().find(|path| path.exists());
        fs::copy(busybox.context("no busybox")?, root.join("bin/busybox"))?;
        let modules = pack_modules(&dir, &root, contents.modules)?;
        for program in contents.programs {
            pack_program(program, &root)?;
        }
        let insmod: String = modules
            .iter()
            .map(|name| format!("insmod /modules/{name}.ko\n"))
            .collect();
        fs::write(root.join("init"), contents.init.replace("INSMOD", &insmod))?;
        // Not compressed: an emulated processor would take longer to unpack it than a disk to read it.
        let pack = "chmod 755 root/init && cd root && find . | cpio -o -H newc --quiet >../initrd";
        check(Command::new("sh").args(["-c", pack]).current_dir(&dir))?;
        let boot = fs::read_dir(dir.join("boot"))?.next();
        Ok(Self {
            kernel: boot.context("no kernel in the package")??.path(),
            initrd: dir.join("initrd"),
        })
    }

    /// QEMU with this image and `memory` MiB, its serial line in the file `serial`; without a card.
    #[must_use]
    pub fn qemu(&self, mut qemu: Command, memory: u32, serial: &Path, words: &str) -> Command {
        qemu.args(["-accel", "tcg", "-display", "none"]);
        qemu.args(["-nodefaults", "-no-reboot", "-m", &memory.to_string()]);
        qemu.arg("-kernel").arg(&self.kernel);
        qemu.arg("-initrd").arg(&self.initrd);
        let words = format!("console=ttyS0 quiet panic=-1 {words}");
        qemu.args(["-append", &words]);
        qemu.arg("-serial")
            .arg(format!("file:{}", serial.display()));
        qemu
    }
}

/// Copies the modules of `names` and those that they need; returns all in the order to load them.
fn pack_modules(dir: &Path, root: &Path, names: &[&str]) -> Result<Vec<String>> {
    let find = "find lib usr -name '*.ko*' 2>/dev/null; true";
    let found = check(Command::new("sh").args(["-c", find]).current_dir(dir))?;
    let mut files = BTreeMap::new();
    for line in found.lines() {
        let file = line.rsplit('/').next().unwrap_or_default();
        if let Some((name, _)) = file.split_once(".ko") {
            files.insert(name.replace('-', "_"), dir.join(line));
        }
    }
    let mut order = Vec::new();
    for name in names {
        add_module(name, &files, root, &mut order)?;
    }
    Ok(order)
}

fn add_module(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    root: &Path,
    order: &mut Vec<String>,
) -> Result<()> {
    let name = name.replace('-', "_");
    let Some(file) = files.get(&name) else {
        return Ok(()); // Built in.
    };
    if order.contains(&name) {
        return Ok(());
    }
    let to = root.join(format!("modules/{name}.ko"));
    let unpacked = match file.extension().and_then(|end| end.to_str()) {
        Some("zst") => check(
            Command::new("zstd")
                .arg("-dqf")
                .arg(file)
                .arg("-o")
                .arg(&to),
        ),
        Some("xz") => check(
            Command::new("sh")
                .args(["-c", "xz -dc \"$0\" >\"$1\""])
                .arg(file)
                .arg(&to),
        ),
        _ => fs::copy(file, &to)
            .map(|_| String::new())
            .map_err(Into::into),
    };
    unpacked.with_context(|| format!("module {name}"))?;
    for needed in needed_by(&fs::read(&to)?) {
        add_module(&needed, files, root, order)?;
    }
    order.push(name);
    Ok(())
}

/// The modules that a module names as those it needs: `depends=a,b` in its section `.modinfo`.
fn needed_by(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let at = module.windows(key.len()).position(|bytes| bytes == key);
    let value = at.map_or(&[][..], |at| &module[at + key.len()..]);
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    let value = String::from_utf8_lossy(&value[..end]);
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Copies a program to `/rig` and its libraries to where it looks for them.
fn pack_program(program: &Path, root: &Path) -> Result<()> {
    let name = program.file_name().context("a program's name")?;
    let to = root.join("rig").join(name);
    // Debug symbols are most of what the machine would have to read. Some programs are scripts.
    let stripped = finish(Command::new("strip").arg("-o").arg(&to).arg(program));
    if !stripped.is_ok_and(|out| out.code == 0) {
        fs::copy(program, &to).with_context(|| format!("{}", program.display()))?;
    }
    let libraries = finish(Command::new("ldd").arg(program))?.stdout;
    let paths = libraries.split_whitespace();
    for library in paths.filter(|word| word.starts_with('/')) {
        let to = root.join(&library[1..]);
        fs::create_dir_all(to.parent().context("a library's directory")?)?;
        fs::copy(library, &to).with_context(|| format!("library {library}"))?;
    }
    Ok(())
}

/// The program `name` of this machine, by its full path.
///
/// # Errors
/// When it is not installed.
pub fn installed(name: &str) -> Result<PathBuf> {
    let path = check(Command::new("sh").args(["-c", "command -v \"$0\"", name]))?;
    Ok(PathBuf::from(path.trim()))
}

#[cfg(test)]
mod tests {
    use super::needed_by;

    #[test]
    fn what_a_module_needs() {
        let module = b"\x7fELF..\0license=GPL\0depends=stp,llc\0name=bridge\0";
        assert_eq!(needed_by(module), ["stp", "llc"]);
        assert!(needed_by(b"\0depends=\0name=llc\0").is_empty());
        assert!(needed_by(b"nothing").is_empty());
    }
}
