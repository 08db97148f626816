//! The rig's side inside the guest: makes the scene, runs the cases one after the other, tells how each
//! ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::Result;

use super::scene::Scene;
use super::{Outcome, cases};

/// What the kernel's command line says after `cases=`, split at commas.
fn wanted(command_line: &str) -> Vec<&str> {
    let mut words = command_line.split_whitespace();
    let names = words.find_map(|word| word.strip_prefix("cases="));
    let names = names.unwrap_or_default().split(',');
    names.filter(|name| !name.is_empty()).collect()
}

/// Runs the cases that the kernel's command line names, or all.
///
/// # Errors
/// When the scene cannot be made.
pub fn run() -> Result<()> {
    let command_line = std::fs::read_to_string("/proc/cmdline")?;
    let start = Instant::now();
    let mut scene = Scene::make()?;
    println!("the rig's scene stands after {:?}", start.elapsed());
    for case in cases::chosen(&wanted(&command_line)) {
        let start = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| (case.run)(&mut scene)));
        let failure = match ran {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                Some(text.unwrap_or_else(|| "it panicked".to_owned()))
            }
        };
        let outcome = Outcome {
            name: case.name.to_owned(),
            failure,
            took: start.elapsed(),
        };
        if outcome.failure.is_some() {
            scene.lab.print_logs();
        }
        println!("{}", outcome.line());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn the_command_line_names_cases() {
        assert_eq!(wanted("quiet cases=a,b x"), ["a", "b"]);
        assert!(wanted("quiet cases= x").is_empty());
        assert!(wanted("quiet").is_empty());
    }
}
