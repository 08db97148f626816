//! The operator's file, `/etc/farlan/farlan.toml`: read, never written.
//!
//! ```toml
//! listen = ["0.0.0.0:22611", "[::]:22611"]   # data path; default: port 22611 or a free one, kept
//! log = "info"                               # a tracing filter; FARLAN_LOG wins
//! workers = 2                                # threads of the data path, 1 to 7; default: half of the
//!                                            # processors, at least 1, at most 4
//!
//! [[attach]]                                 # as `farlan attach lab --bridge br0`
//! network = "lab"
//! bridge = "br0"                             # or: vm = "web1"; or neither: make br-lab
//! offload = false                            # as --no-offload; true as --offload
//! clamp = false                              # as --no-clamp; true as --clamp
//! bpdu = true                                # as --bpdu pass; false as --bpdu drop
//!
//! [control]
//! users = ["ops"]                            # may change things over the control socket, as root may;
//!                                            # to open it they must be in the group farlan
//!
//! [underlay]
//! dscp = true                                # datagrams get the DSCP of the frames in them
//! ecn = true                                 # and their ECN; congestion that routers mark is told to the guests
//!
//! [directory]
//! ttl_s = 600                                # a claim to a MAC lives so long without a refresh; the same on
//!                                            # all nodes, 6 to 86400
//! replication = true                         # test switch: false leaves look-ups to the DHT alone
//! ```
//! A key that is not known is an error: a typo must not pass as a default.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use overlay_proto::directory::CLAIM_TTL;
use overlay_proto::ids::NetworkName;
use serde::Deserialize;
use tap_bridge::offload::Marks;

use crate::workers::MAX_WORKERS;

/// Where the file is if nobody says otherwise; it need not exist there.
pub const DEFAULT_CONFIG: &str = "/etc/farlan/farlan.toml";

/// UDP and TCP port of a node and of a bootstrap.
pub const DEFAULT_PORT: u16 = 22_611;

/// The largest file that is read, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// What the operator configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of the data path, at most one per address family; none: see the module.
    pub listen: Vec<ListenAddr>,
    /// The log filter.
    pub log: Option<String>,
    /// Threads of the data path, 1 to [`MAX_WORKERS`]; none: [`default_workers`].
    ///
    /// [`default_workers`]: crate::workers::default_workers
    pub workers: Option<usize>,
    /// Attachments beside those of the state directory.
    pub attach: Vec<ConfigAttachment>,
    /// The control socket.
    pub control: ControlConfig,
    /// The directory.
    pub directory: DirectoryConfig,
    /// The network between the hosts.
    pub underlay: UnderlayConfig,
}

/// `[underlay]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnderlayConfig {
    /// Copy DSCP from frames to their datagrams.
    pub dscp: bool,
    /// Copy ECN likewise, and congestion back (RFC 6040).
    pub ecn: bool,
}

impl UnderlayConfig {
    /// As the data path takes it.
    #[must_use]
    pub const fn marks(self) -> Marks {
        Marks {
            dscp: self.dscp,
            ecn: self.ecn,
        }
    }
}

impl Default for UnderlayConfig {
    fn default() -> Self {
        Self {
            dscp: true,
            ecn: true,
        }
    }
}

/// `[control]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlConfig {
    /// Names of users who may change things.
    pub users: Vec<String>,
}

/// One `[[attach]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigAttachment {
    /// The network.
    pub network: NetworkName,
    /// An existing bridge.
    pub bridge: Option<String>,
    /// A tap for a VM.
    pub vm: Option<String>,
    /// Offload on or off; left out: as `farlan attach` said last.
    pub offload: Option<bool>,
    /// Clamping of the MSS on or off; left out: as `farlan attach` said last.
    pub clamp: Option<bool>,
    /// BPDUs are carried, or dropped; left out: as `farlan attach` said last.
    pub bpdu: Option<bool>,
}

/// `[directory]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectoryConfig {
    /// Replicate claims among members. Off only to test that the DHT resolves alone.
    pub replication: bool,
    /// The life of a claim without a refresh, in seconds; none: 600.
    pub ttl_s: Option<u64>,
}

impl DirectoryConfig {
    /// What a claim's life may be, in seconds: time for three refreshes over a slow path, and a day.
    const TTL: std::ops::RangeInclusive<u64> = 6..=86_400;

    /// The life of a claim without a refresh.
    #[must_use]
    pub fn claim_ttl(&self) -> Duration {
        self.ttl_s.map_or(CLAIM_TTL, Duration::from_secs)
    }
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            replication: true,
            ttl_s: None,
        }
    }
}

impl Config {
    /// Reads `named`, or the default file if nobody named one; that one may be missing.
    ///
    /// # Errors
    /// One line: which file, which line, what is wrong.
    pub fn load(named: Option<&Path>) -> Result<Self> {
        let path = named.unwrap_or(Path::new(DEFAULT_CONFIG));
        let too_large = |file: &fs::Metadata| file.len() > MAX_CONFIG;
        if fs::metadata(path).is_ok_and(|file| too_large(&file)) {
            return Err(anyhow!("{} is larger than 1 MiB", path.display()));
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Self::parse(&text).with_context(|| format!("{} is wrong", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|&c| c == b'\n').count() + 1;
            anyhow!("line {line}: {}", error.message().replace('\n', " "))
        })?;
        for attach in &config.attach {
            if attach.bridge.is_some() && attach.vm.is_some() {
                return Err(anyhow!(
                    "the attachment to `{}` names a bridge and a vm; name one",
                    attach.network
                ));
            }
        }
        let ttl = config.directory.ttl_s;
        if ttl.is_some_and(|ttl| !DirectoryConfig::TTL.contains(&ttl)) {
            return Err(anyhow!("`ttl_s` under [directory] may be 6 to 86400"));
        }
        if config
            .workers
            .is_some_and(|n| !(1..=MAX_WORKERS).contains(&n))
        {
            return Err(anyhow!("`workers` may be 1 to {MAX_WORKERS}"));
        }
        check_listen(&config.listen)?;
        Ok(config)
    }
}

/// One data socket per family is what a node has.
///
/// # Errors
/// Two addresses of one family.
pub fn check_listen(listen: &[ListenAddr]) -> Result<()> {
    for family in [true, false] {
        if listen
            .iter()
            .filter(|addr| addr.0.is_ipv4() == family)
            .count()
            > 1
        {
            let name = if family { "IPv4" } else { "IPv6" };
            return Err(anyhow!("name at most one {name} address to listen at"));
        }
    }
    Ok(())
}

/// An address to listen at: `IP:PORT`, `IP`, or a multiaddr `/ip4/../udp/..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddr(pub SocketAddr);

/// The text is no address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen at; write IP:PORT, [IPV6]:PORT or /ip4/IP/udp/PORT")]
pub struct ListenParseError(String);

impl FromStr for ListenAddr {
    type Err = ListenParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = || {
            text.parse::<SocketAddr>()
                .or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, DEFAULT_PORT).into()))
                .ok()
        };
        plain()
            .or_else(|| from_multiaddr(text))
            .map(Self)
            .ok_or_else(|| ListenParseError(text.to_owned()))
    }
}

fn from_multiaddr(text: &str) -> Option<SocketAddr> {
    let parts: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
    let [family, ip, "udp", port] = parts.as_slice() else {
        return None;
    };
    let ip: IpAddr = match *family {
        "ip4" => IpAddr::V4(ip.parse().ok()?),
        "ip6" => IpAddr::V6(ip.parse().ok()?),
        _ => return None,
    };
    Some((ip, port.parse::<u16>().ok()?).into())
}

impl TryFrom<String> for ListenAddr {
    type Error = ListenParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file() {
        let text = "listen = ['192.0.2.1', '[::]:7']\nlog = 'debug'\nworkers = 7\n\
            [[attach]]\nnetwork = 'lab'\nbridge = 'br0'\noffload = false\n[directory]\nreplication = false\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.listen[0].to_string(), "192.0.2.1:22611");
        assert!(!config.directory.replication);
        assert_eq!(config.workers, Some(7));
        assert_eq!(config.attach[0].network.as_str(), "lab");
        assert_eq!(config.attach[0].offload, Some(false));
        assert_eq!(config.attach[0].clamp, None);
        assert!(Config::parse("").unwrap().directory.replication);
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        for (text, word) in [
            ("\nlisen = []", "line 2: unknown field `lisen`"),
            ("[directory]\nreplicate = true", "unknown field `replicate`"),
            ("listen = ['nowhere']", "`nowhere` is no address"),
            ("listen = ['0.0.0.0:1', '0.0.0.0:2']", "at most one IPv4"),
            ("[[attach]]\nnetwork = 'Big'", "no network name"),
            (
                "[[attach]]\nnetwork = 'a'\nvm = 'x'\nbridge = 'y'",
                "name one",
            ),
            ("listen = [", "line 1"),
            ("[directory]\nttl_s = 5", "6 to 86400"),
            ("workers = 0", "1 to 7"),
            ("workers = 8", "1 to 7"),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn addresses() {
        for (text, addr) in [
            ("/ip4/192.0.2.1/udp/5", "192.0.2.1:5"),
            ("/ip6/2001:db8::1/udp/5", "[2001:db8::1]:5"),
            ("2001:db8::1", "[2001:db8::1]:22611"),
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), addr);
        }
        for wrong in [
            "",
            "host:1",
            "/ip4/192.0.2.1/tcp/5",
            "/ip4/2001:db8::1/udp/5",
            "1.2.3.4:x",
        ] {
            assert!(wrong.parse::<ListenAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let error = Config::load(Some(&dir.path().join("none.toml"))).unwrap_err();
        assert!(format!("{error:#}").contains("cannot read"));
    }
}
