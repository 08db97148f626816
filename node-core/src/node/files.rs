//! What the files are called that the slow path has written, for the disk and for people.

use overlay_proto::ids::NetworkId;

/// The name of the blob with the addresses of the peers.
pub const PEERS: &str = "peers";

/// The name of the blob with the ports that are shut.
pub const LOOPED_PORTS: &str = "looped-ports";

/// The blob of one network's directory: own generations and the roster.
pub fn blob_name(network: &NetworkId) -> String {
    let NetworkId([a, b, c, d, ..]) = network;
    format!("directory-{a:02x}{b:02x}{c:02x}{d:02x}")
}
