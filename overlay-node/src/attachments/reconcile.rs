//! Keeps the interfaces as they are recorded: carries out what [`super::plan`] finds.
//!
//! A look costs one list of the host's links and one small file to read. Only when something differs
//! is the record locked and are the links read again, so that a command under way is never mistaken
//! for damage.

use std::collections::BTreeMap;
use std::path::Path;

use overlay_proto::ids::NetworkName;
use tap_bridge::host::{self, NewTap};
use tap_bridge::{Link, Links};

use super::making::{make_bridge, tell};
use super::plan::{Facts, Finding, Step};
use super::store::{AttachmentRecord, Book};
use super::{hold, moving, nic, passage};

/// Plans carried out at one look: what one makes, the next builds upon. A renamed bridge without a
/// tap needs three, the last one finds nothing to do.
const ROUNDS: usize = 5;

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub struct Memory {
    /// See [`Facts::refused`]. Bound: the attachments; removed with them.
    refused: BTreeMap<NetworkName, (u32, u32)>,
}

/// How things are after a look.
#[derive(Debug, Default)]
pub struct Kept {
    /// What was done, a line each.
    pub done: Vec<String>,
    /// What is wrong and stays so, by network.
    pub findings: Vec<(NetworkName, Finding)>,
    /// All that is recorded.
    pub recorded: Vec<NetworkName>,
    /// The MTUs of the taps that are there.
    pub mtus: Vec<(NetworkName, u32)>,
    /// The attachments whose own tap is there and could be opened.
    pub ready: Vec<AttachmentRecord>,
}

/// Looks once, and puts back what may be put back.
///
/// # Errors
/// The record cannot be read or written, or the kernel does not list its links.
pub async fn reconcile(links: &Links, dir: &Path, memory: &mut Memory) -> anyhow::Result<Kept> {
    let boot = moving::this_boot()?;
    let mut book = Book::load(dir)?;
    let names = |book: &Book, name: &NetworkName| book.find(name).is_some();
    memory.refused.retain(|name, _| names(&book, name));
    let all = links.all().await?;
    let mut kept = Kept::default();
    if !look(&mut book, &all, &boot, memory, &mut kept).is_idle() {
        // Waits for a command that is under way, which needs the runtime to end.
        let path = dir.to_owned();
        let _lock = tokio::task::spawn_blocking(move || hold(&path)).await??;
        book = Book::load(dir)?;
        let before = book.clone();
        let outcome = put_back(links, &mut book, &boot, memory, &mut kept).await;
        if book != before {
            book.save(dir)?;
        }
        outcome?;
    }
    Ok(kept)
}

/// What one look at the links finds to do.
#[derive(Debug, Default)]
struct Work {
    steps: Vec<(NetworkName, Step)>,
    /// The record of the bridges' ports has changed.
    remembers: bool,
}

impl Work {
    const fn is_idle(&self) -> bool {
        self.steps.is_empty() && !self.remembers
    }
}

fn look(book: &mut Book, all: &[Link], boot: &str, memory: &Memory, kept: &mut Kept) -> Work {
    let mut work = Work::default();
    kept.findings.clear();
    kept.ready.clear();
    kept.mtus.clear();
    let records = book.attachments.iter();
    kept.recorded = records.map(|record| record.network.clone()).collect();
    let mut ports = Vec::new();
    for record in &book.attachments {
        let facts = Facts {
            book,
            links: all,
            boot,
            refused: memory.refused.get(&record.network).copied(),
        };
        let plan = facts.plan(record);
        let name = || record.network.clone();
        work.steps
            .extend(plan.steps.into_iter().map(|step| (name(), step)));
        kept.findings
            .extend(plan.findings.into_iter().map(|one| (name(), one)));
        ports.extend(plan.ports);
        if let Some(tap) = all.iter().find(|link| link.name == record.tap) {
            kept.ready.push(record.clone());
            kept.mtus.push((name(), tap.mtu));
        }
    }
    for ports in ports {
        work.remembers |= book.remember(ports);
    }
    work
}

/// Looks and acts until nothing is left to do, or only what fails.
async fn put_back(
    links: &Links,
    book: &mut Book,
    boot: &str,
    memory: &mut Memory,
    kept: &mut Kept,
) -> anyhow::Result<()> {
    let mut failed: Vec<(NetworkName, Finding)> = Vec::new();
    for _ in 0..ROUNDS {
        let all = links.all().await?;
        let work = look(book, &all, boot, memory, kept);
        let mut acted = false;
        for (network, step) in work.steps {
            let interface = step.interface(book, &network);
            let same =
                |(of, one): &(NetworkName, Finding)| *of == network && one.interface == interface;
            if failed.iter().any(same) {
                continue;
            }
            acted = true;
            match carry_out(links, book, &network, step, memory).await {
                Ok(line) => kept.done.extend(
                    line.into_iter()
                        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()),
                ),
                Err(error) => {
                    let text = format!("network {network}: {error:#}");
                    failed.push((network, Finding { interface, text }));
                }
            }
        }
        if !acted {
            break;
        }
    }
    kept.findings.append(&mut failed);
    Ok(())
}

impl Step {
    /// Which interface it is about.
    fn interface(&self, book: &Book, network: &NetworkName) -> String {
        let record = book.find(network);
        let bridge = || record.map(|record| record.bridge.clone());
        let nic = || Some(record?.nic.as_ref()?.name.clone());
        match self {
            Self::MakeBridge => bridge().unwrap_or_default(),
            Self::MakeTap { name, .. } | Self::Rename { to: name, .. } => name.clone(),
            Self::Join { port, .. } | Self::PutBack { port, .. } => port.name.clone(),
            Self::Up(link) | Self::SetMtu { link, .. } => link.name.clone(),
            Self::TryMtu { bridge, .. } => bridge.name.clone(),
            Self::PlugNic { .. } => nic().unwrap_or_default(),
        }
    }
}

/// Carries out one step; what to tell of it.
async fn carry_out(
    links: &Links,
    book: &mut Book,
    network: &NetworkName,
    step: Step,
    memory: &mut Memory,
) -> anyhow::Result<Option<String>> {
    let mark = book.mark.clone();
    Ok(Some(match step {
        Step::MakeBridge => {
            let Some(record) = book.find_mut(network) else {
                return Ok(None);
            };
            let mut told = vec![format!(
                "bridge {} of network {network} was gone and is made again",
                record.bridge
            )];
            make_bridge(links, record, &mark, &mut told).await?;
            told.extend(passage::open(record).await);
            told.join("\n")
        }
        Step::MakeTap {
            name,
            kind,
            owner,
            mtu,
            bridge,
        } => {
            let tap = NewTap {
                name: &name,
                kind,
                owner,
                mtu,
                mark: &mark,
            };
            let mut told = vec![format!("tap {name} of network {network} is made again")];
            let (_, isolation) = host::make_tap(links, tap, &bridge).await?;
            tell(&mut told, &name, isolation);
            told.join("\n")
        }
        Step::Rename { link, to } => {
            links.rename(&link, &to).await?;
            format!("{} of network {network} is named {to} again", link.name)
        }
        Step::Join { port, bridge } => {
            links.set_master(&port, Some(bridge.index)).await?;
            let (port, bridge) = (port.name, bridge.name);
            format!("{port} of network {network} is on bridge {bridge} again")
        }
        Step::PutBack { port, bridge } => {
            book.settle_ports(network, bridge.index);
            links.set_master(&port, Some(bridge.index)).await?;
            format!("{} is back on bridge {}", port.name, bridge.name)
        }
        Step::Up(link) => {
            links.set_up(&link).await?;
            format!("{} of network {network} is up again", link.name)
        }
        Step::SetMtu { link, mtu } => {
            links.set_mtu(&link, mtu).await?;
            let (name, before) = (link.name, link.mtu);
            format!("the MTU of {name} of network {network} is {mtu} now; it was {before}")
        }
        Step::TryMtu { ports, bridge, mtu } => {
            return try_mtu(links, network, &ports, (&bridge, mtu), memory).await;
        }
        Step::PlugNic { bridge } => {
            return plug(links, book, network, &bridge).await;
        }
    }))
}

/// Makes our ports larger and looks whether the bridge follows; if not, they are as before.
async fn try_mtu(
    links: &Links,
    network: &NetworkName,
    ports: &[Link],
    (bridge, mtu): (&Link, u32),
    memory: &mut Memory,
) -> anyhow::Result<Option<String>> {
    // First, so that a port that refuses is not asked at every look.
    memory.refused.insert(network.clone(), (bridge.mtu, mtu));
    for port in ports {
        links.set_mtu(port, mtu).await?;
    }
    let now = links.get(&bridge.name).await?.mtu;
    if now > bridge.mtu {
        memory.refused.remove(network);
        return Ok(Some(format!(
            "the MTU of bridge {} of network {network} is {now} now; it was {}",
            bridge.name, bridge.mtu
        )));
    }
    for port in ports {
        links.set_mtu(port, bridge.mtu).await?;
    }
    Ok(None)
}

/// Plugs the recorded NIC in; what hinders it is an error.
async fn plug(
    links: &Links,
    book: &mut Book,
    network: &NetworkName,
    bridge: &Link,
) -> anyhow::Result<Option<String>> {
    let record = book.find_mut(network);
    let Some(nic) = record.and_then(|record| record.nic.as_mut()) else {
        return Ok(None);
    };
    let before = nic.clone();
    let mut told = Vec::new();
    nic::plug(links, nic, bridge, &mut told).await?;
    // It may be down and silent only because it was a port before.
    nic.was_up |= before.was_up;
    nic.had_ipv6 |= before.had_ipv6;
    let is_on = links.find(&nic.name).await?;
    if is_on.is_none_or(|link| link.master != Some(bridge.index)) {
        nic.clone_from(&before);
        let why = told.join("; ");
        anyhow::bail!("{}", why.strip_prefix("warning: ").unwrap_or(&why));
    }
    let name = &before.name;
    Ok(Some(format!(
        "the NIC {name} is on network {network} again"
    )))
}
