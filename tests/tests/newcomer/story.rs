//! The hosts of the story, and what its chapters share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use farlan_tests::clean::readme::Readme;
use farlan_tests::clean::transcript::Transcript;
use farlan_tests::clean::{CleanHost, Said, debs};
use farlan_tests::lab::Lab;
use farlan_tests::nat::NatKind;
use farlan_tests::site::{Family, Site};
use farlan_tests::vm::Vm;
use farlan_tests::wan::model::LinkModel;

/// Commands of the README's steps that are not typed here, and where else they are tried.
const ELSEWHERE: [&str; 3] = [
    // `./test --long packaging`.
    "packaging/build-deb --install",
    // tests/moving_addresses.rs.
    "farlan attach lab --nic eth0 --move-addresses",
    "farlan confirm",
];

/// One machine for authority and bootstrap, two hosts behind NATs.
pub(crate) struct Story {
    pub(crate) hub: CleanHost,
    pub(crate) a: CleanHost,
    pub(crate) b: CleanHost,
    pub(crate) sites: Vec<Site>,
    pub(crate) vms: Vec<Vm>,
    pub(crate) readme: Readme,
    pub(crate) transcript: Transcript,
    /// What `farlan init` printed.
    pub(crate) overlay: String,
    /// What `farlan-bootstrap` printed, one address of QUIC and one of TCP.
    pub(crate) addresses: Vec<String>,
    pub(crate) lab: Arc<Lab>,
}

impl Story {
    pub(crate) fn begin() -> Result<Self> {
        let lab = Lab::new()?;
        let transcript = Transcript::new("newcomer");
        let model = LinkModel::default();
        let boot = lab.bootstrap_host("hub", 1, Family::V4, model)?;
        let mut sites = Vec::new();
        for (index, name) in ["site-a", "site-b"].into_iter().enumerate() {
            let index = u8::try_from(index)? + 1;
            sites.push(lab.site(name, index, NatKind::PortRewriting, Family::V4, 1, model)?);
        }
        let start = std::time::Instant::now();
        let story = Self {
            hub: CleanHost::boot(&boot.ns, "hub", &transcript)?,
            a: CleanHost::boot(&sites[0].hosts[0].ns, "site-a", &transcript)?,
            b: CleanHost::boot(&sites[1].hosts[0].ns, "site-b", &transcript)?,
            sites,
            vms: Vec::new(),
            readme: Readme::read()?,
            transcript,
            overlay: String::new(),
            addresses: Vec::new(),
            lab,
        };
        println!("three clean hosts up after {:?}", start.elapsed());
        let dir = story.lab.dir().join("debs");
        debs::put(&dir)?;
        for host in [&story.hub, &story.a, &story.b] {
            for entry in std::fs::read_dir(&dir)? {
                host.bring(&entry?.path())?;
            }
        }
        Ok(story)
    }

    pub(crate) fn tell(&self, what: &str) {
        self.transcript.tell(what);
    }

    /// The command of the README's step `step` that contains `word`, with what it stands for.
    pub(crate) fn readme(&self, step: usize, word: &str) -> String {
        self.fill(&self.readme.command(step, word).unwrap())
    }

    /// Words in capitals stand for something.
    pub(crate) fn fill(&self, line: &str) -> String {
        line.replace("OVERLAY-ID", &self.overlay)
            .replace("BOOTSTRAP-ADDRESS..", &self.addresses.join(" "))
            .replace("ADDR", &self.addresses.join(" "))
    }

    /// Types `line` until what it prints is `good`.
    #[track_caller]
    pub(crate) fn until(
        &self,
        host: &CleanHost,
        line: &str,
        seconds: u64,
        good: impl Fn(&str) -> bool,
    ) -> Said {
        host.types_until(line, Duration::from_secs(seconds), good)
            .unwrap()
    }

    /// An invite in the file `file` of the hub, carried to `host`.
    pub(crate) fn carry(&self, file: &str, host: &CleanHost) {
        let text = self.hub.read(&format!("/root/{file}")).unwrap();
        let kept = self.lab.dir().join(file);
        std::fs::write(&kept, text).unwrap();
        host.bring(&kept).unwrap();
    }

    /// No warning is left in `farlan status`, and the other host is reached directly.
    pub(crate) fn is_well(&self, host: &CleanHost) {
        let is_direct = |line: &str| line.starts_with("12D3") && line.contains("  direct  ");
        self.until(host, "farlan status", 20, |text| {
            !text.contains("warning") && text.lines().any(is_direct)
        });
    }

    /// Everything that the README says to type was typed.
    pub(crate) fn every_command_was_typed(&self) {
        let left = self.readme.left();
        let left: Vec<&String> = left
            .iter()
            .filter(|line| !ELSEWHERE.contains(&line.as_str()))
            .collect();
        assert!(
            left.is_empty(),
            "the README says to type, and nobody did: {left:#?}"
        );
    }
}
