//! Every command that a message names can be typed as it stands there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose messages a user reads.
const CRATES: [&str; 5] = [
    "overlay-node",
    "bootstrap",
    "control-plane",
    "tap-bridge",
    "overlay-proto",
];

/// The commands that take a network and a MAC.
const TAKE_A_MAC: [&str; 3] = ["announce", "pin", "unpin"];

/// What stands for something else in a message: a placeholder of `format!` or a word in capitals. Any
/// network, interface, file or number is as good as another to see whether the command exists.
fn fill_in(command: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in command.split_whitespace() {
        let before = words.last().map_or("", String::as_str);
        let is_placeholder = word.starts_with('{')
            || word.len() > 1
                && word
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c == '-' || c == '_');
        words.push(match before {
            _ if !is_placeholder => word.to_owned(),
            "--bootstrap" => "/ip4/192.0.2.1/udp/22611/quic-v1".to_owned(),
            "--expires" | "--confirm-within" => "60s".to_owned(),
            "--mtu" | "--workers" => "1".to_owned(),
            "announce" | "pin" | "unpin" => "lab".to_owned(),
            "lab" if words.iter().any(|one| TAKE_A_MAC.contains(&one.as_str())) => {
                "52:54:00:00:00:01".to_owned()
            }
            "where" => "192.0.2.1".to_owned(),
            _ => "lab".to_owned(),
        });
    }
    words
}

/// The texts of a source file that a user may see: its string literals, and where clap makes help of
/// them, its doc comments. Tests say nothing to users.
fn texts(source: &str, is_help: bool) -> Vec<String> {
    let source = source
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default();
    let mut texts = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            if let Some(doc) = rest[..end].strip_prefix("///").filter(|_| is_help) {
                texts.push(doc.to_owned());
            }
            rest = &rest[end..];
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest = &rest[3..];
        } else if rest.starts_with("b'\"'") {
            rest = &rest[4..];
        } else if rest.starts_with("r#\"") {
            let end = rest.find("\"#").map_or(rest.len(), |at| at + 2);
            texts.push(rest[..end].to_owned());
            rest = &rest[end..];
        } else if c == '"' {
            let (text, after) = literal(&rest[1..]);
            texts.push(text);
            rest = after;
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    texts
}

/// The literal that begins here, as it is printed, and what follows it.
fn literal(source: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = source.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, &source[at + 1..]),
            '\\' => match chars.next() {
                Some((next, '\n')) => {
                    let after = source[next + 1..].trim_start();
                    let (more, rest) = literal(after);
                    return (text + &more, rest);
                }
                Some((_, 'n')) => text.push('\n'),
                Some((_, other)) => text.push(other),
                None => {}
            },
            _ => text.push(c),
        }
    }
    (text, "")
}

/// The commands in backticks, and after "type:" or "with:" to the end of the line.
fn commands(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let typed = text
        .match_indices("type: ")
        .filter_map(|(at, word)| text[at + word.len()..].lines().next());
    let all = quoted.chain(typed);
    all.filter(|command| command.starts_with("farlan "))
        .map(|command| command.trim_end_matches(['.', ',', ';', '"']).to_owned())
        .collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// Why a command cannot be typed; `None` if it can.
fn complaint(command: &str) -> Option<String> {
    let error = overlay_node::cli::command()
        .try_get_matches_from(fill_in(command))
        .err()?;
    Some(
        error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    )
}

/// The help of a command and of all below it.
fn helps(command: &clap::Command, check: &mut impl FnMut(&str, &str)) {
    let place = command.get_name();
    let abouts = [command.get_about(), command.get_long_about()];
    let args = command.get_arguments();
    let args = args.flat_map(|arg| [arg.get_help(), arg.get_long_help()]);
    for text in abouts.into_iter().chain(args).flatten() {
        check(place, &text.to_string());
    }
    for below in command.get_subcommands() {
        helps(below, check);
    }
}

#[test]
fn every_command_that_a_message_names_can_be_typed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut found, mut wrong) = (0, Vec::new());
    let mut check = |place: &str, text: &str| {
        for command in commands(text) {
            found += 1;
            if let Some(why) = complaint(&command) {
                wrong.push(format!("{place}: `{command}`: {why}"));
            }
        }
    };
    helps(&overlay_node::cli::command(), &mut check);
    for name in CRATES {
        let mut files = Vec::new();
        sources(&root.join(name).join("src"), &mut files);
        for file in files {
            let is_help = file.file_name().is_some_and(|name| name == "args.rs");
            let source = fs::read_to_string(&file).unwrap();
            for text in texts(&source, is_help) {
                check(&file.display().to_string(), &text);
            }
        }
    }
    assert!(found > 25, "only {found} commands found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_cannot_be_typed_is_found() {
    assert!(complaint("farlan attach").is_some(), "it wants a network");
    assert!(complaint("farlan attach {network} --bridge {bridge}").is_none());
    assert!(complaint("farlan mend {network}").is_some());
    let source = "// `farlan not-this`\nlet a = \"first `farlan \\\n      leave --yes`, then\";";
    let texts = texts(source, false);
    assert_eq!(commands(&texts[0]), ["farlan leave --yes"]);
    assert_eq!(texts.len(), 1);
}
