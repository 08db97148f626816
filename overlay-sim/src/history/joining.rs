//! Joining a network of many: how long from the start of a node until its guest reaches that of a given member.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::failure::{Failure, Found};
use super::frames::{question, unicast};
use super::generate::{Shape, generate};
use super::plan::{GuestPlan, Plan, draw, mac_of};
use super::run::Run;
use crate::world::GuestId;

/// How long the members have before the first newcomer, ms.
const SETTLED_MS: u64 = 60_000;

/// How often a newcomer's guest asks.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A newcomer that reaches nobody for so long is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between a newcomer that goes and the next.
const PAUSE: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Debug, Clone)]
pub struct Joined {
    /// How long each newcomer took, the shortest first.
    pub times: Vec<Duration>,
    /// The digest of all that happened.
    pub digest: u64,
}

/// Newcomers to a network of so many members, one after the other, each gone before the next. `base` is any instant.
///
/// # Errors
/// A newcomer reached nobody, or something was found that must not be.
pub fn measure(seed: u64, members: u16, newcomers: u16, base: Instant) -> Result<Joined, Found> {
    let shape = Shape {
        networks: 1,
        calm: true,
        time_ms: SETTLED_MS,
        ..Shape::new(members + newcomers, 0)
    };
    // Those that come later are not there at first.
    let whole = generate(seed, &shape);
    let plan = whole.without(|host| host <= members);
    let unbuilt = |error: anyhow::Error| Found {
        at: Duration::ZERO,
        what: Failure::Unbuilt(format!("{error:#}")),
    };
    let mut run = Run::new(&plan, base).map_err(unbuilt)?;
    run.live()?;
    let mut times = Vec::new();
    for number in members + 1..=members + newcomers {
        let to = draw(seed, "member", number.into()) % u64::from(members);
        let to = 1 + u16::try_from(to).unwrap_or(0);
        match join(&mut run, &whole, (number, to)) {
            Ok(time) => times.push(time),
            Err(error) => return Err(run.found(Failure::Unbuilt(format!("{error:#}")))),
        }
    }
    times.sort_unstable();
    Ok(Joined {
        times,
        digest: run.world.digest(),
    })
}

/// One newcomer, by its number, and the guest that it asks for.
fn join(run: &mut Run<'_>, whole: &Plan, (number, to): (u16, u16)) -> Result<Duration> {
    let plan = whole.host(number).context("no such host")?;
    run.place(plan)?;
    let id = run.hosts.get(&number).context("no such host")?.id;
    let own = GuestPlan {
        guest: number,
        host: number,
        network: 0,
    };
    let guest = run
        .world
        .add_guest(id, super::run::NETWORKS[0], own.mac())?;
    let asked = run.guests.get(&to).context("no such guest")?.id;
    let began = run.world.now();
    run.world.start(id)?;
    let mut answered = false;
    loop {
        let unique = run.next_number();
        run.world.send(guest, &question(number, to, unique));
        let until = run.world.now() + ASK_EVERY;
        run.world.run_until(until)?;
        if !answered && hears(run, asked, mac_of(number).0) {
            answered = true;
            let unique = run.next_number();
            let answer = unicast(mac_of(to), mac_of(number), unique);
            run.world.send(asked, &answer);
        }
        if answered && hears(run, guest, mac_of(to).0) {
            break;
        }
        ensure!(until < began + PATIENCE, "host {number} reaches nobody");
    }
    let took = run.world.now() - began;
    run.world.kill(id);
    let until = run.world.now() + PAUSE;
    run.go_on(until)?;
    Ok(took)
}

/// Has the guest got a frame of this MAC since it was looked at last?
fn hears(run: &mut Run<'_>, guest: GuestId, from: [u8; 6]) -> bool {
    let inbox = run.world.take_inbox(guest);
    inbox.iter().any(|got| got.frame.get(6..12) == Some(&from))
}
