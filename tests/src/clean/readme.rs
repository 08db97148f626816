//! The README as a new user reads it: the commands of its steps.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

/// The steps of "On real hosts".
#[derive(Debug)]
pub struct Readme {
    /// The blocks of commands of each step.
    steps: Vec<Vec<Block>>,
    /// The lines that were taken.
    taken: RefCell<BTreeSet<String>>,
}

/// A block of commands.
#[derive(Debug)]
struct Block {
    /// The last line before it.
    intro: String,
    lines: Vec<String>,
}

impl Readme {
    /// Reads it.
    ///
    /// # Errors
    /// When it has no steps.
    pub fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        Self::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let from = text.find("## On real hosts").context("no such chapter")?;
        let chapter = &text[from..];
        let end = chapter.find("\n## Reading on").unwrap_or(chapter.len());
        let mut steps: Vec<Vec<Block>> = Vec::new();
        let (mut block, mut before) = (None::<Block>, "");
        for line in chapter[..end].lines() {
            let is_step = line
                .strip_prefix("**")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            match &mut block {
                _ if is_step => steps.push(Vec::new()),
                None if line == "```sh" => {
                    block = Some(Block {
                        intro: before.to_owned(),
                        lines: Vec::new(),
                    });
                }
                Some(_) if line == "```" => {
                    let step = steps.last_mut().context("a block before the first step")?;
                    step.extend(block.take());
                }
                Some(block) => block.lines.push(line.to_owned()),
                None => {}
            }
            if !line.is_empty() {
                before = line;
            }
        }
        anyhow::ensure!(steps.len() > 7, "only {} steps", steps.len());
        Ok(Self {
            steps,
            taken: RefCell::default(),
        })
    }

    /// The first command of step `step` that contains `word`, as it stands there, without its comment.
    ///
    /// # Errors
    /// When the step has no such command.
    pub fn command(&self, step: usize, word: &str) -> Result<String> {
        let all = self.steps.get(step).context("no such step")?;
        let mut lines = all.iter().flat_map(|block| &block.lines);
        let line = lines.find(|line| without_comment(line).contains(word));
        let line =
            line.with_context(|| format!("no {word:?} in step {step} of the README: {all:?}"))?;
        self.taken.borrow_mut().insert(line.clone());
        Ok(without_comment(line).to_owned())
    }

    /// All commands of the block of `step` whose intro contains `intro`.
    ///
    /// # Errors
    /// When the step has no such block.
    pub fn block(&self, step: usize, intro: &str) -> Result<Vec<String>> {
        let all = self.steps.get(step).context("no such step")?;
        let block = all.iter().find(|block| block.intro.contains(intro));
        let block =
            block.with_context(|| format!("no block after {intro:?} in step {step}: {all:?}"))?;
        self.taken.borrow_mut().extend(block.lines.iter().cloned());
        Ok(block
            .lines
            .iter()
            .map(|line| without_comment(line).to_owned())
            .collect())
    }

    /// The commands that nobody took.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let taken = self.taken.borrow();
        let lines = self.steps.iter().flatten().flat_map(|block| &block.lines);
        lines
            .filter(|line| !taken.contains(*line))
            .map(|line| without_comment(line).to_owned())
            .collect()
    }
}

fn without_comment(line: &str) -> &str {
    line.split("  #").next().unwrap_or(line).trim_end()
}
