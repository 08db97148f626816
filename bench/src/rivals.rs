//! How each rival is set up between the two hosts: as its own documentation says, with encryption.
//!
//! Every `start` makes a device `ov0` on both hosts and returns once the programs run. Guests of a
//! tunnel that adds its headers to whole frames get an MTU that leaves room for them, so that no
//! outer packet is fragmented: the rivals' best case.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use farlan_tests::proc::{self, Proc, wait_for};

use crate::scene::{HOST_IPS, Scene, TAP, WIRE};

/// The guests' MTU behind a rival in user space: each of them adds less than 100 bytes.
pub const GUEST_MTU: u16 = 1400;

/// A rival with a recipe.
#[derive(Debug)]
pub struct Rival {
    /// Its name.
    pub name: &'static str,
    /// Programs it needs.
    programs: &'static [&'static str],
    /// A shell line that prints its version.
    version_line: &'static str,
    /// MTU of its guests.
    pub guest_mtu: u16,
    /// Starts it on both hosts.
    pub start: fn(&Scene) -> Result<Vec<Proc>>,
}

/// All recipes.
pub const ALL: &[Rival] = &[
    Rival {
        name: crate::contestants::CONTROL,
        programs: &["ip"],
        version_line: "echo Linux $(uname -r)",
        // 50 bytes of headers.
        guest_mtu: 1450,
        start: vxlan,
    },
    Rival {
        name: "fastd",
        programs: &["fastd"],
        version_line: "fastd --version",
        guest_mtu: GUEST_MTU,
        start: fastd,
    },
    Rival {
        name: "vpncloud",
        programs: &["vpncloud"],
        version_line: "vpncloud --version",
        guest_mtu: GUEST_MTU,
        start: vpncloud,
    },
    Rival {
        name: "tinc",
        programs: &["tincd"],
        version_line: "tincd --version",
        guest_mtu: GUEST_MTU,
        start: tinc,
    },
    Rival {
        name: "openvpn",
        programs: &["openvpn", "openssl"],
        version_line: "openvpn --version",
        guest_mtu: GUEST_MTU,
        start: openvpn,
    },
    Rival {
        name: "n2n",
        programs: &["edge", "supernode"],
        version_line: "edge -h",
        guest_mtu: GUEST_MTU,
        start: n2n,
    },
    Rival {
        name: "wireguard-vxlan",
        programs: &["wireguard-go", "wg"],
        version_line: "wireguard-go --version",
        // 1,420 bytes of WireGuard's device, less 50 of VXLAN.
        guest_mtu: 1370,
        start: wireguard_vxlan,
    },
];

/// Rivals that the distribution has no package of and this program no recipe: with a script
/// `NAME.sh` in `--rivals DIR` they take part.
pub const NOT_PACKAGED: &[(&str, &str)] = &[
    ("tincr", "no package; give tincr.sh in --rivals DIR"),
    ("n2n3", "no package; give n2n3.sh in --rivals DIR"),
    ("softether", "no package; give softether.sh in --rivals DIR"),
];

impl Rival {
    /// What it says about its version.
    ///
    /// # Errors
    /// When one of its programs is not on `PATH`.
    pub fn version(&self) -> Result<String> {
        for program in self.programs {
            let found = proc::finish(Command::new("which").arg(program))?;
            if found.code != 0 {
                bail!("no {program} on PATH or in --rivals DIR");
            }
        }
        let version = crate::measure::version(self.version_line);
        Ok(version.unwrap_or_else(|| "unknown".to_owned()))
    }
}

/// Each host's namespace, own address, the peer's address, and a directory of its own.
fn sides(scene: &Scene) -> Result<Vec<Side<'_>>> {
    let [one, two] = HOST_IPS;
    let ends = [("a", one, two), ("b", two, one)];
    let mut sides = Vec::new();
    for (host, (name, own, peer)) in scene.hosts.iter().zip(ends) {
        let dir = scene.lab.dir().join(format!("rival-{name}"));
        std::fs::create_dir_all(&dir)?;
        let dir = dir.to_str().context("a path in UTF-8")?.to_owned();
        sides.push(Side {
            ns: &host.ns,
            name,
            own,
            peer,
            dir,
        });
    }
    Ok(sides)
}

struct Side<'a> {
    ns: &'a farlan_tests::lab::Ns,
    name: &'static str,
    own: &'static str,
    peer: &'static str,
    dir: String,
}

impl Side<'_> {
    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = Path::new(&self.dir).join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text)?)
    }

    fn check(&self, line: &str) -> Result<String> {
        proc::check(self.ns.command("sh").args(["-c", line]))
    }
}

fn vxlan(scene: &Scene) -> Result<Vec<Proc>> {
    for side in sides(scene)? {
        let (own, peer) = (side.own, side.peer);
        side.ns.ip(&format!(
            "link add {TAP} type vxlan id 7 local {own} remote {peer} dstport 4789 dev {WIRE}"
        ))?;
    }
    Ok(Vec::new())
}

fn fastd(scene: &Scene) -> Result<Vec<Proc>> {
    let sides = sides(scene)?;
    let mut keys = Vec::new();
    for _ in &sides {
        let out = proc::check(Command::new("fastd").arg("--generate-key"))?;
        let key = |label: &str| -> Result<String> {
            let line = out.lines().find_map(|l| l.strip_prefix(label));
            Ok(line.context("fastd's key")?.trim().to_owned())
        };
        keys.push((key("Secret:")?, key("Public:")?));
    }
    let publics: Vec<String> = keys.iter().map(|k| k.1.clone()).rev().collect();
    let mut procs = Vec::new();
    for ((side, (secret, _)), public) in sides.iter().zip(&keys).zip(&publics) {
        let (own, peer) = (side.own, side.peer);
        side.write(
            "fastd.conf",
            &format!(
                "mode tap;\ninterface \"{TAP}\";\nmtu {GUEST_MTU};\nbind {own}:10000;\n\
                 method \"salsa2012+umac\";\nsecret \"{secret}\";\n\
                 peer \"peer\" {{ key \"{public}\"; remote {peer} port 10000; }}\n"
            ),
        )?;
        let line = format!("fastd -c {}/fastd.conf", side.dir);
        procs.push(side.ns.spawn("fastd", &line)?);
    }
    Ok(procs)
}

fn tinc(scene: &Scene) -> Result<Vec<Proc>> {
    let sides = sides(scene)?;
    let mut publics = Vec::new();
    for side in &sides {
        let name = side.name;
        let connect = if name == "b" { "ConnectTo = a\n" } else { "" };
        side.write(
            "tinc.conf",
            &format!(
                "Name = {name}\nMode = switch\nDeviceType = tap\nInterface = {TAP}\n\
                 AddressFamily = ipv4\n{connect}"
            ),
        )?;
        side.write(
            &format!("hosts/{name}"),
            &format!("Address = {}\n", side.own),
        )?;
        side.check(&format!("tincd -c {} -K 2048 </dev/null", side.dir))?;
        let host = Path::new(&side.dir).join("hosts").join(name);
        publics.push((name, std::fs::read_to_string(host)?));
    }
    let mut procs = Vec::new();
    for side in &sides {
        for (name, text) in &publics {
            side.write(&format!("hosts/{name}"), text)?;
        }
        let dir = &side.dir;
        let line = format!("tincd -c {dir} -D --pidfile={dir}/pid");
        procs.push(side.ns.spawn("tinc", &line)?);
    }
    Ok(procs)
}

fn vpncloud(scene: &Scene) -> Result<Vec<Proc>> {
    let mut procs = Vec::new();
    for side in sides(scene)? {
        let (own, peer, dir) = (side.own, side.peer, &side.dir);
        let line = format!(
            "vpncloud --type tap --mode switch --device {TAP} --listen {own}:3210 \
             --peer {peer}:3210 --password wire-speed --no-port-forwarding --pid-file {dir}/pid"
        );
        procs.push(side.ns.spawn("vpncloud", &line)?);
    }
    Ok(procs)
}

fn openvpn(scene: &Scene) -> Result<Vec<Proc>> {
    let sides = sides(scene)?;
    let mut prints = Vec::new();
    for side in &sides {
        let dir = &side.dir;
        side.check(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -sha256 \
             -days 2 -subj /CN={} -keyout {dir}/key -out {dir}/cert 2>&1",
            side.name
        ))?;
        let out = side.check(&format!(
            "openssl x509 -fingerprint -sha256 -in {dir}/cert -noout"
        ))?;
        let print = out.trim().split_once('=').context("a fingerprint")?.1;
        prints.push(print.to_owned());
    }
    prints.reverse();
    let mut procs = Vec::new();
    for (side, print) in sides.iter().zip(&prints) {
        let role = match side.name {
            "a" => "--tls-server --dh none",
            _ => "--tls-client",
        };
        let (own, peer, dir) = (side.own, side.peer, &side.dir);
        let line = format!(
            "openvpn --dev {TAP} --dev-type tap --proto udp4 --local {own} --port 1194 \
             --remote {peer} 1194 {role} --cert {dir}/cert --key {dir}/key \
             --peer-fingerprint {print} --data-ciphers AES-256-GCM --cipher AES-256-GCM \
             --disable-dco --fast-io --txqueuelen 1000 --tun-mtu {GUEST_MTU} --mssfix 0"
        );
        procs.push(side.ns.spawn("openvpn", &line)?);
    }
    Ok(procs)
}

fn n2n(scene: &Scene) -> Result<Vec<Proc>> {
    let mut procs = Vec::new();
    // The supernode introduces edges by the addresses it sees, so it has to be on the wire. Frames
    // go past it once they have met.
    let [a, _] = &scene.hosts;
    let [supernode, _] = HOST_IPS;
    procs.push(a.ns.spawn("supernode", "supernode -l 7654")?);
    for (index, side) in sides(scene)?.iter().enumerate() {
        // n2n finds a host by the MAC of its edge and drops frames for others: so the edge bears
        // the guest's MAC, and the device gets another one before it goes onto the bridge.
        let mac = format!("52:54:00:00:00:{:02x}", index + 1);
        let line = format!(
            "edge -d {TAP} -a 10.254.0.{} -s 255.255.255.0 -c bench -k wire-speed -m {mac} \
             -l {supernode}:7654 -M {GUEST_MTU} -r",
            index + 1
        );
        procs.push(side.ns.spawn("edge", &line)?);
        wait_for("n2n's device", Duration::from_secs(10), || {
            side.ns.ip(&format!("link show dev {TAP} up")).ok()
        })?;
        side.ns.ip(&format!("addr flush dev {TAP}"))?;
        side.ns.ip(&format!(
            "link set {TAP} address 02:00:00:00:01:{:02x}",
            index + 1
        ))?;
    }
    Ok(procs)
}

fn wireguard_vxlan(scene: &Scene) -> Result<Vec<Proc>> {
    let sides = sides(scene)?;
    let mut keys = Vec::new();
    for side in &sides {
        let private = side.check("wg genkey")?;
        side.write("private", &private)?;
        keys.push(side.check(&format!("wg pubkey <{}/private", side.dir))?);
    }
    keys.reverse();
    let mut procs = Vec::new();
    for (index, (side, public)) in sides.iter().zip(&keys).enumerate() {
        let (own, other, dir) = (index + 1, 2 - index, &side.dir);
        // Its control socket has a fixed place: each end sees a /run of its own.
        side.write(
            "start",
            &format!(
                "mount -t tmpfs tmpfs /run && mkdir /run/wireguard || exit\n\
                 wireguard-go -f wg0 &\n\
                 until wg show wg0 >{dir}/show 2>&1; do sleep 0.05; done\n\
                 wg set wg0 listen-port 51820 private-key {dir}/private peer {} \
                 endpoint {}:51820 allowed-ips 10.253.0.{other}/32\n\
                 ip addr add 10.253.0.{own}/24 dev wg0\n\
                 ip link set wg0 mtu 1420 up\n\
                 ip link add {TAP} type vxlan id 7 local 10.253.0.{own} remote 10.253.0.{other} \
                 dstport 4789 dev wg0\n\
                 wait\n",
                public.trim(),
                side.peer
            ),
        )?;
        let line = format!("unshare -m sh {dir}/start");
        procs.push(side.ns.spawn("wireguard", &line)?);
    }
    Ok(procs)
}
