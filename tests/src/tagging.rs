//! A switch that puts a guest into a VLAN, in user space: many kernels have neither VLAN devices nor
//! VLAN filtering in bridges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::frames::{Frame, RawPort};
use crate::lab::Lab;
use crate::site::Host;
use crate::traffic::no_offloads;
use crate::vm::Vm;

/// A guest whose frames bear a tag on the bridge. Neither it nor the bridge's port has offloads.
#[derive(Debug)]
pub struct TaggedGuest {
    /// The guest.
    pub vm: Vm,
    stop: Arc<AtomicBool>,
    switch: Option<JoinHandle<()>>,
}

impl TaggedGuest {
    /// Makes guest `n` as [`Lab::vm`] does, in VLAN `vid` of `bridge`.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn new(lab: &Arc<Lab>, n: u8, host: &Host, bridge: &str, vid: u16) -> Result<Self> {
        let ns = &host.ns;
        let (trunk, uplink) = (format!("trunk{n}"), format!("uplink{n}"));
        ns.ip(&format!("link add {trunk} type veth peer name {uplink}"))?;
        for dev in [&trunk, &uplink] {
            ns.sysctl(&format!("net/ipv6/conf/{dev}/disable_ipv6"), "1")?;
            ns.ip(&format!("link set {dev} up"))?;
        }
        ns.ip(&format!("link set {uplink} master {bridge}"))?;
        // A bridge of its own, for nothing but the guest's port.
        let alone = format!("alone{n}");
        ns.ip(&format!("link add {alone} type bridge"))?;
        let vm = lab.vm(n, host, &alone)?;
        ns.ip(&format!("link set vm{n} nomaster"))?;
        no_offloads(ns, &uplink)?;
        no_offloads(&vm.ns, "eth0")?;
        let (guest, line) = (
            RawPort::open(ns, &format!("vm{n}"))?,
            RawPort::open(ns, &trunk)?,
        );
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let switch = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                // A frame that a full queue refuses is lost, as in any switch.
                for frame in guest.drain(|_| true) {
                    let _ = line.send(&frame.tagged(vid));
                }
                let mine = |frame: &Frame| frame.0.len() > 18 && frame.ethertype() == 0x8100;
                for mut frame in line.drain(mine) {
                    if frame.0[14..16] == vid.to_be_bytes() {
                        frame.0.drain(12..16);
                        let _ = guest.send(&frame);
                    }
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Ok(Self {
            vm,
            stop,
            switch: Some(switch),
        })
    }
}

impl Drop for TaggedGuest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(switch) = self.switch.take() {
            let _ = switch.join();
        }
    }
}
