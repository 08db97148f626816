//! What goes round in a loop of the host's own bridge is held (`docs/adr/0032-a-port-that-loops-is-shut.md`).
//!
//! The kernel forwards round a loop hundreds of thousands of times a second until the node has shut a
//! port. A table of nftables, one for each bridge, drops the copies:
//!
//! - A frame for all goes to the overlay's tap as well, so that is where copies of one are counted. More
//!   than [`MOST`] of them at once, and its source is one that loops, for ten seconds.
//! - Of every frame from or to a source that loops at most [`MOST_LOOPING`] copies pass at each port. Those
//!   *to* it as well: the loop has taught all switches that it is somewhere else, and what is sent to it goes
//!   round, too. Whoever sends such a frame loops as well.
//!
//! Frames that differ all pass, however many they are. A frame is known by a keyed hash of its addresses,
//! its VLAN and its front. Where a set is full what is new passes unseen. Frames of other bridges meet two
//! comparisons, which let them pass: no frame is counted before a copy of it went to the tap.
//!
//! All functions here start `nft` and wait for it, some milliseconds each: not on a thread that has frames
//! to carry.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};

use crate::program::{run, run_with};

/// Copies of one frame for all that pass at once; [`RATE`] more each second. The overlay takes as many.
const MOST: u32 = 32;
/// Nothing that repeats itself by intent comes near: VRRP at its fastest is 100 a second.
const RATE: u32 = 320;
/// The same for one frame from or to a source that loops, at each port.
const MOST_LOOPING: u32 = 4;
/// Frames that are remembered, for a second each: three seconds of a LAN of 250 machines and a video, and
/// 4 MB of the kernel's memory at most.
const FRAMES: u32 = 16_384;
const FRAMES_FOR: &str = "1s";
/// Sources that loop, and how long after the last copy one still does: until they have sent something, the
/// switches send what is for them round.
const SOURCES: u32 = 1_024;
const SOURCES_FOR: &str = "10s";

/// The chain that names the tap. Its number changes with the rules, so that those that an older version of
/// this program has made are replaced.
const CHAIN: &str = "group1";

/// So many bytes behind the Ethernet header are looked at, of frames that have at least as many. Nothing
/// can be read beyond a frame's end.
const FRONTS: [usize; 4] = [88, 56, 28, 4];

/// Bytes that one expression reads, and that one hash takes besides the Ethernet header.
const WORD: usize = 16;
const FIRST_HASH: usize = 36;

/// Holds what goes round on `bridge`, whose port `tap` is the overlay's, if that is not done yet. `true`: it
/// was not.
///
/// # Errors
/// One line: why loops are not held. All works as it does without.
pub fn hold(bridge: &str, tap: &str) -> Result<bool, String> {
    if is_held(bridge, tap)? {
        return Ok(false);
    }
    let seed = RandomState::new().hash_one(bridge);
    let [_, _, _, _, seed @ ..] = seed.to_be_bytes();
    run_with(
        "nft",
        ["-f", "-"],
        &rules(bridge, tap, u32::from_be_bytes(seed))?,
    )?;
    Ok(true)
}

/// Are the rules for `bridge` and its port `tap` there?
///
/// # Errors
/// One line: `nft` does not start, or may not look.
pub fn is_held(bridge: &str, tap: &str) -> Result<bool, String> {
    let table = table(bridge)?;
    match run("nft", ["list", "chain", "bridge", &table, CHAIN]) {
        Ok(chain) => Ok(chain.contains(&format!("oifname \"{tap}\""))),
        // So it says if there is no such table or chain.
        Err(error) if error.contains("No such file or directory") && !error.starts_with("nice") => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes away what [`hold`] made for `bridge`; what is gone already is no error.
pub fn release(bridge: &str) {
    let Ok(table) = table(bridge) else {
        return;
    };
    // Without a table, or without nft, there is nothing to take away.
    let _ = run("nft", ["delete", "table", "bridge", &table]);
}

/// The name of the table for `bridge`.
fn table(bridge: &str) -> Result<String, String> {
    is_plain(bridge)
        .then(|| format!("farlan-{bridge}"))
        .ok_or_else(|| format!("{bridge} is no name for a table of nftables"))
}

/// Names as this program gives them; anything else could be more than a name to `nft`.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(plain)
}

/// The rules as `nft -f` reads them; they take the place of those that are there, in one step.
fn rules(bridge: &str, tap: &str, seed: u32) -> Result<String, String> {
    let table = table(bridge)?;
    if !is_plain(tap) {
        return Err(format!("{tap} is no name for a rule of nftables"));
    }
    let mut text = format!("table bridge {table}\ndelete table bridge {table}\n");
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    say(&format!("table bridge {table} {{"));
    for (set, of, size, time) in [
        ("seen", "mark . mark", FRAMES, FRAMES_FOR),
        ("copies", "iface_index . mark . mark", FRAMES, FRAMES_FOR),
        ("looping", "ether_addr", SOURCES, SOURCES_FOR),
    ] {
        say(&format!(
            "set {set} {{\ntype {of}\nsize {size}\nflags dynamic,timeout\ntimeout {time}\n}}"
        ));
    }
    for front in FRONTS {
        let frame = identity(front, seed);
        say(&format!(
            "chain count{front} {{\nupdate @seen {{ {frame} limit rate over {RATE}/second burst {MOST} \
             packets }} update @looping {{ ether saddr }}\n}}"
        ));
        say(&format!(
            "chain hold{front} {{\nupdate @copies {{ oif . {frame} limit rate over \
             {RATE}/second burst {MOST_LOOPING} packets }} update @looping {{ ether saddr }} \
             counter drop\n}}"
        ));
    }
    say(&format!("chain hold {{\n{}\n}}", by_length("hold")));
    say(&format!(
        "chain {CHAIN} {{\nether saddr @looping goto hold\noifname \"{tap}\" {}\n}}",
        by_length("count")
    ));
    // What is for one machine meets two comparisons.
    say(&format!(
        "chain forward {{\ntype filter hook forward priority -300; policy accept;\nmeta pkttype != other \
         goto {CHAIN}\nether daddr @looping goto hold\n}}\n}}"
    ));
    Ok(text)
}

/// What a frame is known by: two hashes of the Ethernet header, with the VLAN, and of `front` bytes.
fn identity(front: usize, seed: u32) -> String {
    let hash = |words: &str| format!("jhash {words} mod 4294967295 seed {seed:#x}");
    let first = hash(&format!("@ll,0,128{}", words(0, front.min(FIRST_HASH))));
    let Some(rest) = words(FIRST_HASH, front).strip_prefix(" . ").map(hash) else {
        return format!("{first} . {}", hash("@ll,0,96"));
    };
    format!("{first} . {rest}")
}

/// The bytes from `start` to `end` behind the Ethernet header, a word each.
fn words(start: usize, end: usize) -> String {
    let mut text = String::new();
    for at in (start..end).step_by(WORD) {
        let bits = 8 * WORD.min(end - at);
        // Writing to a String cannot fail.
        let _ = write!(text, " . @nh,{},{bits}", 8 * at);
    }
    text
}

/// On to the chain `to` for frames of this length.
fn by_length(to: &str) -> String {
    let mut above = usize::from(u16::MAX);
    let chain = |front: usize| {
        let range = format!("{front}-{above} : goto {to}{front}");
        above = front.saturating_sub(1);
        range
    };
    let chains: Vec<String> = FRONTS.into_iter().map(chain).collect();
    format!("meta length vmap {{ {} }}", chains.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_name_the_own_bridge_and_tap_alone_and_replace_those_before() {
        let text = rules("br-lab", "fl-lab", 0x1234).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("table bridge farlan-br-lab"));
        assert_eq!(lines.next(), Some("delete table bridge farlan-br-lab"));
        assert_eq!(text.matches("oifname").count(), 1, "{text}");
        assert!(
            text.contains(
                "oifname \"fl-lab\" meta length vmap { 88-65535 : goto count88, 56-87 : "
            )
        );
        assert!(text.contains("28-55 : goto hold28, 4-27 : goto hold4 }"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(rules("br-lab; flush ruleset", "fl-lab", 1).is_err());
        assert!(rules("br-lab", "fl\" accept", 1).is_err());
    }

    #[test]
    fn only_copies_are_dropped_and_what_is_for_one_is_not_counted() {
        let text = rules("br-lab", "fl-lab", 1).unwrap();
        for line in text.lines().filter(|line| line.contains("drop")) {
            let copies = "update @copies { oif . jhash @ll,0,128 . @nh,0,";
            assert!(line.starts_with(copies), "{line}");
            assert!(line.contains("limit rate over 320/second burst 4 packets }"));
        }
        assert_eq!(text.matches("drop").count(), FRONTS.len());
        let hooked = text.split("hook forward").nth(1).unwrap();
        let rules: Vec<&str> = hooked.lines().skip(1).take(2).collect();
        let wanted = [
            "meta pkttype != other goto group1",
            "ether daddr @looping goto hold",
        ];
        assert_eq!(rules, wanted);
    }

    #[test]
    fn every_byte_of_the_front_counts_once() {
        assert_eq!(
            words(36, 88),
            " . @nh,288,128 . @nh,416,128 . @nh,544,128 . @nh,672,32"
        );
        assert_eq!(
            identity(28, 0x2a),
            "jhash @ll,0,128 . @nh,0,128 . @nh,128,96 mod 4294967295 seed 0x2a . jhash @ll,0,96 mod \
             4294967295 seed 0x2a"
        );
        assert_eq!(identity(56, 1).matches("@nh").count(), 5);
    }
}
