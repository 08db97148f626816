//! Man pages: a page for each command, with examples, columns and reasons.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use overlay_node::cli::manual;

/// A program that is called as the page of `farlan bootstrap` would be: that page is the program's, in
/// the other package, and the group's commands have pages of their own.
const PROGRAM: &str = "farlan-bootstrap";

/// The page of `command`, and those of its subcommands.
pub(crate) fn write(mut command: Command, dir: &Path) -> Result<()> {
    // Fills in the names and usages of the subcommands.
    command.build();
    let name = command.get_name().to_owned();
    page(&command, &name, "", dir)?;
    below(&command, &name, "", dir)
}

fn below(command: &Command, page_name: &str, path: &str, dir: &Path) -> Result<()> {
    let shown = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
    for sub in command.get_subcommands().filter(shown) {
        let name = format!("{page_name}-{}", sub.get_name());
        let words = [path, sub.get_name()].join(" ");
        if name != PROGRAM {
            page(sub, &name, words.trim(), dir)?;
        }
        below(sub, &name, words.trim(), dir)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str, path: &str, dir: &Path) -> Result<()> {
    let is_node = name != PROGRAM;
    // The examples have a section of their own.
    let command = command.clone().display_name(name.to_owned()).after_help("");
    let man = Man::new(command.clone());
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut out)?;
    }
    if command.has_subcommands() {
        let mut section = Vec::new();
        man.render_subcommands_section(&mut section)?;
        let group = "farlan\\-bootstrap(1)";
        let pages = ["add", "remove", "list"].map(|sub| format!("farlan\\-bootstrap\\-{sub}(1)"));
        let section = String::from_utf8(section)?.replace(group, &pages.join(", "));
        out.extend_from_slice(section.as_bytes());
    }
    if is_node {
        for (heading, terms) in manual::sections(path) {
            section(&mut out, heading, &terms)?;
        }
        // A group's examples are those of its commands.
        let group = path.split(' ').next().unwrap_or_default();
        let own = manual::examples(path);
        examples(
            &mut out,
            if own.is_empty() {
                manual::examples(group)
            } else {
                own
            },
        )?;
        writeln!(
            out,
            ".SH \"SEE ALSO\"\nfarlan(1), farlan\\-status(1), farlan.toml(5), /usr/share/doc/farlan"
        )?;
    }
    if command.get_version().is_some() {
        man.render_version_section(&mut out)?;
    }
    fs::write(dir.join(format!("{name}.1")), out)?;
    Ok(())
}

fn section(out: &mut Vec<u8>, heading: &str, terms: &[(String, String)]) -> Result<()> {
    writeln!(out, ".SH \"{heading}\"")?;
    for (term, text) in terms {
        writeln!(out, ".TP\n\\fB{}\\fR\n{}", escape(term), escape(text))?;
    }
    Ok(())
}

fn examples(out: &mut Vec<u8>, examples: &[manual::Example]) -> Result<()> {
    if examples.is_empty() {
        return Ok(());
    }
    writeln!(out, ".SH EXAMPLES")?;
    for (typed, does) in examples {
        writeln!(out, ".TP\n\\fB{}\\fR\n{}", escape(typed), escape(does))?;
    }
    Ok(())
}

/// A page of section 5 from one of our documents: headings, paragraphs and code.
pub(crate) fn of_markdown(name: &str, about: &str, text: &str) -> String {
    let mut page = format!(
        ".TH {name} 5\n.SH NAME\n{name} \\- {}\n.SH DESCRIPTION\n",
        escape(about)
    );
    let mut code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            page.push_str(if code { ".fi\n.RE\n" } else { ".RS\n.nf\n" });
            code = !code;
        } else if code {
            page.push_str(&escape(line));
            page.push('\n');
        } else if let Some(heading) = line.strip_prefix("## ") {
            page.push_str(&format!(".SH \"{}\"\n", escape(heading).to_uppercase()));
        } else if line.starts_with("# ") {
            // The name of the page says it.
        } else if line.trim().is_empty() {
            page.push_str(".PP\n");
        } else {
            page.push_str(&escape(&line.replace("**", "").replace('`', "")));
            page.push('\n');
        }
    }
    page
}

/// What roff would take for itself.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_a_page() {
        let page = of_markdown(
            "x.toml",
            "about",
            "# X\n\nUse `a`.\n\n```toml\n.b = 1 # c-d\n```\n",
        );
        assert!(page.contains(".SH NAME\nx.toml \\- about"), "{page}");
        assert!(page.contains("Use a.\n"), "{page}");
        assert!(page.contains(".nf\n\\&.b = 1 # c\\-d\n.fi"), "{page}");
    }
}
