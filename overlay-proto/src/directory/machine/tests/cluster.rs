//! Directories over a virtual network: 25 ms each way, seeded loss and repetition, a fake DHT.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::directory::claim::Claim;
use crate::directory::claims::CLAIM_TTL;
use crate::directory::machine::{Directory, DirectoryAction, DirectoryConfig, LocalVerdict};
use crate::directory::messages::{DirectoryMessage, pack_claims};
use crate::directory::record::StoredRecord;
use crate::directory::signed::Signed;
use crate::directory::tests::support::{EPOCH_KEY, NETWORK, OVERLAY, test_node};
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass;
use crate::ids::PeerId;
use crate::switching::MacKey;
use crate::time::UnixTime;
use crate::{Entropy, SeededEntropy};

const LATENCY: Duration = Duration::from_millis(25);
const STEP: Duration = Duration::from_millis(5);
const BIRTH: UnixTime = UnixTime(1_700_000_000);

pub(super) struct Cluster {
    pub(super) nodes: Vec<Directory>,
    pub(super) now: Instant,
    /// Percent of messages that get lost, and that come twice.
    pub(super) loss: u32,
    pub(super) repeat: u32,
    /// The MACs that are really attached to each node: what a local probe finds.
    pub(super) attached: Vec<BTreeSet<MacKey>>,
    /// All that nodes said but for what is carried out here.
    pub(super) said: Vec<(usize, DirectoryAction)>,
    pub(super) dht: BTreeMap<[u8; 32], StoredRecord>,
    pub(super) dht_gets: usize,
    /// Bytes of messages that came to each node.
    pub(super) received: Vec<usize>,
    /// Nodes that nothing comes from or to any more.
    dead: BTreeSet<usize>,
    chance: SeededEntropy,
    flying: Vec<(Instant, usize, usize, Vec<u8>)>,
    start: Instant,
    replication: bool,
}

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

pub(super) fn peer(node: usize) -> PeerId {
    test_node(u8::try_from(node + 1).unwrap()).peer_id()
}

impl Cluster {
    pub(super) fn new(count: usize, replication: bool) -> Self {
        let now = start();
        let mut cluster = Self {
            nodes: Vec::new(),
            now,
            loss: 0,
            repeat: 0,
            attached: vec![BTreeSet::new(); count],
            said: Vec::new(),
            dht: BTreeMap::new(),
            dht_gets: 0,
            received: vec![0; count],
            dead: BTreeSet::new(),
            chance: SeededEntropy::new(7),
            flying: Vec::new(),
            start: now,
            replication,
        };
        for node in 0..count {
            let directory = cluster.fresh(node);
            cluster.nodes.push(directory);
        }
        for node in 0..count {
            cluster.connect(node);
        }
        cluster.run_ms(500);
        cluster
    }

    /// Node `node` dies, as far as the others see.
    pub(super) fn cut_off(&mut self, node: usize) {
        self.dead.insert(node);
    }

    /// A directory as after a start.
    pub(super) fn fresh(&self, node: usize) -> Directory {
        let number = u8::try_from(node + 1).unwrap();
        let config = DirectoryConfig {
            claim_ttl: CLAIM_TTL,
            overlay: OVERLAY,
            network: NETWORK,
            epoch_key: EPOCH_KEY,
            old_epoch_key: None,
            birth: BIRTH,
            may_send: true,
            chain: vec![number],
            replication: self.replication,
        };
        let mut entropy = SeededEntropy::new(u64::from(number));
        let key = test_node(number);
        Directory::new(self.now, self.wall(), config, key, &mut entropy)
    }

    /// Sessions with all others, and the DHT.
    pub(super) fn connect(&mut self, node: usize) {
        let now = self.now;
        self.nodes[node]
            .set_own_entry(now, [0; 32], [0; 32], Vec::new())
            .unwrap();
        self.nodes[node].handle_dht_ready(now);
        for other in 0..self.nodes.len() {
            if other != node {
                self.meet(node, other);
            }
        }
    }

    /// A session of these two.
    pub(super) fn meet(&mut self, node: usize, other: usize) {
        let now = self.now;
        let chain = |node: usize| vec![u8::try_from(node + 1).unwrap()];
        self.nodes[node].handle_member(now, peer(other), true, &chain(other));
        self.nodes[node].handle_neighbour_up(now, peer(other));
        self.nodes[other].handle_member(now, peer(node), true, &chain(node));
        self.nodes[other].handle_neighbour_up(now, peer(node));
    }

    pub(super) fn wall(&self) -> UnixTime {
        BIRTH.plus(Duration::from_secs(86_400) + self.now.saturating_duration_since(self.start))
    }

    pub(super) fn run_ms(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.now += STEP;
            self.deliver();
            for node in 0..self.nodes.len() {
                let due = self.nodes[node].poll_timeout();
                if due.is_some_and(|due| due <= self.now) {
                    self.nodes[node].handle_timeout(self.now);
                }
                self.drain(node);
            }
        }
    }

    pub(super) fn frame(&mut self, node: usize, key: MacKey, class: EvidenceClass) -> LocalVerdict {
        let verdict = self.nodes[node].handle_local_frame(self.now, key, class, &[]);
        self.drain(node);
        verdict
    }

    pub(super) fn frame_from(&mut self, node: usize, key: MacKey, ip: IpAddr) -> LocalVerdict {
        let ordinary = EvidenceClass::Ordinary;
        let verdict = self.nodes[node].handle_local_frame(self.now, key, ordinary, &[ip]);
        self.drain(node);
        verdict
    }

    /// The VM moves to `node`, says so, and can be probed there only.
    pub(super) fn move_to(&mut self, node: usize, key: MacKey) -> LocalVerdict {
        for attached in &mut self.attached {
            attached.remove(&key);
        }
        self.attached[node].insert(key);
        self.frame(node, key, EvidenceClass::Strong)
    }

    /// A message from node `from`, delivered at once.
    pub(super) fn tell(
        &mut self,
        from: usize,
        to: usize,
        message: DirectoryMessage,
    ) -> Result<(), DropReason> {
        let wall = self.wall();
        let outcome = self.nodes[to].handle_message(self.now, wall, peer(from), message);
        self.drain(to);
        outcome
    }

    /// A claim that `node` signs whatever its machine thinks.
    pub(super) fn forge(
        &mut self,
        node: usize,
        to: usize,
        claim: &Claim,
    ) -> Result<(), DropReason> {
        let key = test_node(u8::try_from(node + 1).unwrap());
        let signed = Signed::seal(claim, &key, &OVERLAY).unwrap();
        let message = pack_claims([signed]).remove(0);
        self.tell(node, to, message)
    }

    /// The owner of `key`, by number, as each node sees it.
    pub(super) fn owners(&self, key: MacKey) -> Vec<Option<usize>> {
        self.nodes
            .iter()
            .map(|node| {
                let owner = node.owner(self.now, &key)?;
                (0..self.nodes.len()).find(|number| peer(*number) == owner)
            })
            .collect()
    }

    pub(super) fn all_see(&self, key: MacKey, owner: Option<usize>) -> bool {
        self.owners(key).iter().all(|seen| *seen == owner)
    }

    pub(super) fn contested(&self, node: usize, key: MacKey) -> u8 {
        self.nodes[node]
            .claims
            .get(&key)
            .map_or(0, |stored| stored.claim.claim.contested)
    }

    pub(super) fn heard_action(&self, node: usize, is: impl Fn(&DirectoryAction) -> bool) -> bool {
        self.said
            .iter()
            .any(|(who, action)| *who == node && is(action))
    }

    pub(super) fn drain(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].poll_action() {
            self.carry_out(node, action);
        }
    }

    fn carry_out(&mut self, node: usize, action: DirectoryAction) {
        let (now, wall) = (self.now, self.wall());
        match action {
            DirectoryAction::Send { to, message } => {
                let to = (0..self.nodes.len())
                    .find(|number| peer(*number) == to)
                    .unwrap();
                self.fly(node, to, &message);
            }
            DirectoryAction::Broadcast { message } => {
                for to in (0..self.nodes.len()).filter(|to| *to != node) {
                    self.fly(node, to, &message);
                }
            }
            DirectoryAction::AskAll { key } => {
                for to in (0..self.nodes.len()).filter(|to| *to != node) {
                    self.fly(node, to, &DirectoryMessage::who_has(key));
                }
                self.said.push((node, action));
            }
            DirectoryAction::DhtGet { key, dht_key } => {
                self.dht_gets += 1;
                if let Some(record) = self.dht.get(&dht_key) {
                    let bytes = Some(record.bytes());
                    self.nodes[node]
                        .handle_dht_result(now, wall, key, bytes)
                        .unwrap();
                }
                self.nodes[node]
                    .handle_dht_result(now, wall, key, None)
                    .unwrap();
            }
            DirectoryAction::DhtPut { dht_key, record } => {
                let stored = StoredRecord::verify(&OVERLAY, &dht_key, &record).unwrap();
                let old = self.dht.get(&dht_key);
                if old.is_none_or(|old| stored.supersedes(old)) {
                    self.dht.insert(dht_key, stored);
                }
            }
            DirectoryAction::ProbeLocal { key, .. } => {
                let alive = self.attached[node].contains(&key);
                self.nodes[node].handle_local_probe_result(now, key, alive);
            }
            DirectoryAction::VerifyChain { node: whose, chain } => {
                let number = usize::from(chain[0]) - 1;
                assert_eq!(peer(number), whose);
                self.nodes[node].handle_member(now, whose, true, &chain);
            }
            other => self.said.push((node, other)),
        }
    }

    fn fly(&mut self, from: usize, to: usize, message: &DirectoryMessage) {
        if self.dead.contains(&from) || self.dead.contains(&to) {
            return;
        }
        let bytes = message.encode().unwrap();
        let copies = 1 + usize::from(self.chance.next_u32() % 100 < self.repeat);
        for copy in 0..copies {
            if self.chance.next_u32() % 100 >= self.loss {
                let late = Duration::from_millis(u64::from(self.chance.next_u32() % 10))
                    * u32::try_from(copy).unwrap();
                self.flying
                    .push((self.now + LATENCY + late, from, to, bytes.clone()));
            }
        }
    }

    fn deliver(&mut self) {
        let (due, later) = std::mem::take(&mut self.flying)
            .into_iter()
            .partition(|(at, ..)| *at <= self.now);
        self.flying = later;
        let due: Vec<(Instant, usize, usize, Vec<u8>)> = due;
        for (_, from, to, bytes) in due {
            let message = DirectoryMessage::decode(&bytes).unwrap();
            self.received[to] += bytes.len();
            // What a node refuses is its own affair; the outcome is what counts here.
            let _ = self.tell(from, to, message);
        }
    }
}
