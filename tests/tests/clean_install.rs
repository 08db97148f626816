//! From the debs on a clean Debian, booted with its own systemd, to running units.
//!
//! The whole root is the initial file system of a QEMU machine. `./test --long packaging` runs it.

use std::path::PathBuf;
use std::process::Command;

use farlan_tests::lab::Lab;
use farlan_tests::proc::check;
use farlan_tests::require_lab;

/// $1: a directory to work in; $2: where the debs are.
const BUILD: &str = r#"
set -e
cd "$1"; . /etc/os-release
debootstrap --variant=minbase --include=systemd-sysv,kmod,iproute2 "$VERSION_CODENAME" root >build.log 2>&1
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -1)
apt-get download "$kernel" >>build.log 2>&1
dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --wildcards './boot/vmlinuz-*' \
    '*/drivers/net/tun.ko*' '*/net/bridge/bridge.ko*' '*/net/802/stp.ko*' '*/net/llc/llc.ko*' \
    '*/modules.order' '*/modules.builtin*'
cp -a lib/modules root/lib/
chroot root depmod "$(ls lib/modules)"
cp "$2"/*.deb root/root/
chroot root sh -c 'dpkg -i /root/*.deb' >>build.log 2>&1
rm -rf root/root/*.deb root/var/cache/apt root/var/lib/apt/lists root/dev/* root/proc/* root/sys/*
cp trial.sh root/root/; cp trial.service root/etc/systemd/system/
chroot root systemctl enable trial.service >>build.log 2>&1
ln -s /lib/systemd/systemd root/init
(cd root && find . | cpio -o -H newc --quiet) >initrd; rm -rf root
timeout 240 qemu-system-x86_64 -accel tcg -m 1500 -smp 2 -display none -nodefaults -no-reboot \
    -kernel boot/vmlinuz-* -initrd initrd -append 'console=ttyS0 quiet panic=-1' -serial file:serial.log
"#;

const UNIT: &str = "[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\nExecStart=/bin/bash /root/trial.sh\n\
    StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n[Install]\nWantedBy=multi-user.target\n";

/// What an operator does; each line of output that begins with `trial ` is checked.
const TRIAL: &str = r#"
export FARLAN_STATE=/root/authority
id=$(farlan init | tail -1); farlan network add lab
ip link add wan type bridge; ip address add 192.0.2.1/24 dev wan; ip link set wan up
echo "FARLAN_BOOTSTRAP_FLAGS=\"--overlay $id --listen 192.0.2.1:22611\"" >/etc/default/farlan-bootstrap
# First by hand as root, as in the other variant of the README, then the unit.
timeout 5 env -u FARLAN_STATE farlan-bootstrap --overlay "$id" --listen 192.0.2.1:22611 >/root/by-hand
echo "trial by hand $(grep -c /p2p/ /root/by-hand) $(stat -c %U /var/lib/farlan-bootstrap/identity)"
systemctl start farlan-bootstrap
echo "trial bootstrap $(systemctl is-active farlan-bootstrap)"
address=$(journalctl -u farlan-bootstrap -o cat --no-pager | grep -m1 /p2p/)
farlan invite --network lab --name one --bootstrap "$address" >/root/invite
unset FARLAN_STATE
echo "trial before joining $(systemctl is-active farlan)"
farlan join - </root/invite
systemctl start farlan
echo "trial node $(systemctl is-active farlan)"
farlan attach lab --vm web1
systemctl restart farlan
pid=$(systemctl show -P MainPID farlan)
echo "trial rights $(sed -n 's/^CapBnd:\t//p' /proc/$pid/status)"
echo "trial nice $(cut -d' ' -f19 /proc/$pid/stat)"
echo "trial socket $(stat -c '%G %a' /var/lib/farlan/farlan.sock)"
useradd -G farlan watcher
su -s /bin/sh watcher -c 'farlan status >/dev/null'; echo "trial watcher looks $?"
su -s /bin/sh watcher -c 'farlan detach lab'; echo "trial watcher changes $?"
systemctl stop farlan
echo "trial left $(ls -d /sys/class/net/br-lab /sys/class/net/fl-lab /sys/class/net/web1 | wc -l)"
journalctl -u farlan -u farlan-bootstrap -o cat --no-pager
systemctl poweroff -f
"#;

const EXPECTED: [&str; 10] = [
    "trial by hand 2 farlan-bootstrap",
    "trial bootstrap active",
    "trial before joining inactive",
    "trial node active",
    "trial rights 0000000000001400",
    "trial nice -10",
    "trial socket farlan 660",
    "trial watcher looks 0",
    "trial watcher changes 1",
    "trial left 3",
];

#[test]
fn the_debs_run_on_a_clean_debian_under_its_systemd() {
    let debs =
        std::env::var_os("FARLAN_DEBS").filter(|_| std::env::var_os("FARLAN_LONG").is_some());
    let Some(debs) = debs.map(PathBuf::from) else {
        println!("no clean install here; ./test --long packaging does one");
        return;
    };
    require_lab!();
    let lab = Lab::new().unwrap();
    std::fs::write(lab.dir().join("trial.sh"), TRIAL).unwrap();
    std::fs::write(lab.dir().join("trial.service"), UNIT).unwrap();
    let mut build = Command::new("sh");
    build.args(["-c", BUILD, "build"]).arg(lab.dir()).arg(debs);
    check(&mut build).unwrap();
    let serial = std::fs::read(lab.dir().join("serial.log")).unwrap();
    let serial = String::from_utf8_lossy(&serial);
    println!("{serial}");
    for line in EXPECTED {
        println!("sample clean-install: {line}");
        assert!(serial.lines().any(|l| l.trim_end() == line), "{line}");
    }
}
