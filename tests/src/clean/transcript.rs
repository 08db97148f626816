//! What was typed and what was said, and the commands in it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::target_dir;

/// A transcript that all hosts of a story write into; printed as it grows, and kept in a file.
#[derive(Debug, Clone)]
pub struct Transcript {
    file: PathBuf,
    text: Arc<Mutex<String>>,
    began: Instant,
}

impl Transcript {
    /// One that is kept as `NAME.txt` in the target directory.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            file: target_dir().join(format!("{name}.txt")),
            text: Arc::default(),
            began: Instant::now(),
        }
    }

    /// A heading: what happens next.
    pub fn tell(&self, what: &str) {
        println!("\n[{:.0?} since it began]", self.began.elapsed());
        self.add(&format!("\n## {what}\n\n"));
    }

    pub(super) fn typed(&self, host: &str, line: &str, said: &str, code: i32) {
        let mut text = format!("root@{host}:~# {line}\n{said}");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if code != 0 {
            text.push_str(&format!("[exit code {code}]\n"));
        }
        self.add(&text);
    }

    /// A line for the results: how much was typed, and how long it took.
    pub fn sum_up(&self) {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let typed = text
            .lines()
            .filter(|line| line.starts_with("root@"))
            .count();
        let failed = text.matches("[exit code ").count();
        println!(
            "sample newcomer: {typed} commands typed, {failed} refused, {:.0?} in all",
            self.began.elapsed()
        );
        println!("the transcript: {}", self.file.display());
    }

    fn add(&self, text: &str) {
        print!("{text}");
        let mut all = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_str(text);
        // A story that fails has its transcript, too.
        let _ = fs::write(&self.file, all.as_str());
    }
}

/// The programs whose names begin a command.
const PROGRAMS: [&str; 6] = [
    "farlan",
    "farlan-bootstrap",
    "systemctl",
    "journalctl",
    "chown",
    "timedatectl",
];

/// The commands that a message says to type: in backticks or brackets, or after a colon or `then`, up to
/// the end of the line or the next stop.
#[must_use]
pub fn commands(text: &str) -> Vec<String> {
    let flat = text.replace('\r', "");
    let quoted = flat.split('`').skip(1).step_by(2).map(str::to_owned);
    let told = [": ", "then ", "("].iter().flat_map(|mark| {
        flat.match_indices(mark).filter_map(|(at, mark)| {
            let rest = flat[at + mark.len()..].lines().next()?;
            let end = [";", ", ", ". ", ")", "`"]
                .iter()
                .filter_map(|stop| rest.find(stop))
                .min();
            Some(
                rest[..end.unwrap_or(rest.len())]
                    .trim_end_matches('.')
                    .to_owned(),
            )
        })
    });
    let is_command = |text: &String| PROGRAMS.contains(&text.split(' ').next().unwrap_or_default());
    quoted.chain(told).filter(is_command).collect()
}

#[cfg(test)]
mod tests {
    use super::commands;

    #[test]
    fn the_commands_of_a_message() {
        let said = |text: &str| commands(text);
        assert_eq!(
            said("taken; choose another, or `farlan revoke ash` first; type: farlan attach lab"),
            ["farlan revoke ash", "farlan attach lab"]
        );
        assert_eq!(
            said("next: farlan attach lab, then systemctl start farlan\n"),
            ["farlan attach lab", "systemctl start farlan"]
        );
        assert_eq!(
            said("left it; type: chown -R farlan-bootstrap: /var/lib/farlan-bootstrap"),
            ["chown -R farlan-bootstrap: /var/lib/farlan-bootstrap"]
        );
        assert_eq!(
            said("set it (timedatectl set-ntp true) and join again"),
            ["timedatectl set-ntp true"]
        );
    }
}
