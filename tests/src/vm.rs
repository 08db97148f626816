//! A guest: a namespace whose `eth0` is a veth pair with its other end on a host's bridge.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::lab::{Lab, Ns};
use crate::proc::wait_for;
use crate::site::Host;

/// A guest on one virtual network.
#[derive(Debug)]
pub struct Vm {
    /// Its namespace; the interface is `eth0`.
    pub ns: Ns,
    /// MAC address of `eth0`.
    pub mac: String,
    /// Its IPv4 address without prefix, `10.9.0.N`.
    pub ip: String,
    /// Its IPv6 address without prefix, `fd00:9::N`.
    pub ip6: String,
    /// Name of the host's end of the veth pair.
    port: String,
}

impl Lab {
    /// Makes guest `n` (1 to 250) on bridge `bridge` of `host`: MAC `52:54:00:00:00:NN`,
    /// addresses 10.9.0.N/24 and `fd00:9::N/64`.
    ///
    /// # Errors
    /// When the bridge is missing or a device cannot be made.
    pub fn vm(self: &Arc<Self>, n: u8, host: &Host, bridge: &str) -> Result<Vm> {
        let vm = self.vm_without_address(n, host, bridge)?;
        vm.ns.ip(&format!("addr add {}/24 dev eth0", vm.ip))?;
        vm.ns
            .ip(&format!("addr add {}/64 dev eth0 nodad", vm.ip6))?;
        Ok(vm)
    }

    /// As [`Lab::vm`], without IP addresses.
    ///
    /// # Errors
    /// As [`Lab::vm`].
    pub fn vm_without_address(self: &Arc<Self>, n: u8, host: &Host, bridge: &str) -> Result<Vm> {
        let ns = self.namespace(&format!("vm{n}"))?;
        let (full, port) = (ns.full_name(), format!("vm{n}"));
        let mac = format!("52:54:00:00:00:{n:02x}");
        let h = &host.ns;
        h.ip(&format!(
            "link add {port} type veth peer name eth0 address {mac} netns {full}"
        ))?;
        plug(h, &port, bridge)?;
        ns.ip("link set eth0 up")?;
        Ok(Vm {
            mac,
            ip: format!("10.9.0.{n}"),
            ip6: format!("fd00:9::{n:x}"),
            port,
            ns,
        })
    }
}

/// Puts one end of a veth pair on a bridge. The host gets no address and sends nothing there.
fn plug(host: &Ns, port: &str, bridge: &str) -> Result<()> {
    // Otherwise the host's own router solicitations and MLD reports would show up in captures.
    host.sysctl(&format!("net/ipv6/conf/{port}/disable_ipv6"), "1")?;
    host.ip(&format!("link set {port} master {bridge} up"))?;
    Ok(())
}

impl Vm {
    /// Unplugs the guest from `from` and plugs it in at `to`, without telling anybody. As in a live
    /// migration the guest's own interface, addresses and neighbours stay. Returns once the guest's
    /// kernel sends again: it takes up to a second to believe a carrier, a hypervisor takes none.
    ///
    /// # Errors
    /// When a device cannot be moved.
    pub fn unplug_and_move(&self, from: &Host, to: &Host, bridge: &str) -> Result<()> {
        let port = &self.port;
        from.ns.ip(&format!("link set {port} nomaster down"))?;
        self.wait_carrier(false)?;
        from.ns
            .ip(&format!("link set {port} netns {}", to.ns.full_name()))?;
        plug(&to.ns, port, bridge)?;
        self.wait_carrier(true)
    }

    fn wait_carrier(&self, up: bool) -> Result<()> {
        wait_for("carrier of the moved guest", Duration::from_secs(5), || {
            let link = self.ns.ip("link show eth0").ok()?;
            (link.contains("state UP") == up).then_some(())
        })?;
        Ok(())
    }
}
