//! Tables for people: columns padded to their widest cell, no line longer than a terminal shows.
//!
//! A table that is too wide is made narrower column by column. A *cut* column loses the middle of
//! its longest cells (names), a *wrapped* one goes on in further lines (addresses, lists): nothing
//! that has to be typed again is lost.

/// No line is longer, in characters.
pub(super) const WIDTH: usize = 100;

/// No column is made narrower than this.
const NARROWEST: usize = 12;

const GAP: &str = "  ";

/// How a column gets narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Give {
    /// It does not.
    Nothing,
    /// The middle of its cells goes.
    Cut,
    /// Its cells go on in further lines.
    Wrap,
}

/// Columns with a heading above.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    gives: Vec<Give>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()],
            gives: vec![Give::Nothing; heading.len()],
        }
    }

    /// These columns lose the middle of long cells.
    pub(super) fn cut(self, headings: &[&str]) -> Self {
        self.giving(headings, Give::Cut)
    }

    /// Long cells of these columns go on in further lines.
    pub(super) fn wrap(self, headings: &[&str]) -> Self {
        self.giving(headings, Give::Wrap)
    }

    fn giving(mut self, headings: &[&str], how: Give) -> Self {
        let names = self.rows.first().into_iter().flatten();
        for (give, name) in self.gives.iter_mut().zip(names) {
            if headings.contains(&name.as_str()) {
                *give = how;
            }
        }
        self
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn text(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.gives);
            let lines: Vec<Vec<String>> = cells
                .map(|((cell, &width), give)| match give {
                    Give::Cut => vec![cut(cell, width)],
                    Give::Wrap => wrap(cell, width),
                    Give::Nothing => vec![cell.clone()],
                })
                .collect();
            let height = lines.iter().map(Vec::len).max().unwrap_or(0);
            for number in 0..height {
                let parts = lines.iter().zip(&widths).map(|(cell, &width)| {
                    let part = cell.get(number).map_or("", String::as_str);
                    format!("{part:width$}")
                });
                let line: Vec<String> = parts.collect();
                text.push_str(line.join(GAP).trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..self.gives.len()).map(width).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > WIDTH {
            let giving = widths.iter_mut().zip(&self.gives);
            let widest = giving
                .filter(|(width, give)| **give != Give::Nothing && **width > NARROWEST)
                .map(|(width, _)| width)
                .max();
            let Some(widest) = widest else {
                break;
            };
            *widest -= 1;
        }
        widths
    }
}

/// The beginning and the end of `text`, in at most `width` characters.
fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head = kept.div_ceil(2);
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - (kept - head)).collect();
    format!("{begin}…{end}")
}

/// `text` in lines of at most `width` characters: broken after a space where there is one, else
/// after a colon or comma, else anywhere.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut rest: Vec<char> = text.chars().collect();
    let mut lines = Vec::new();
    while rest.len() > width {
        // A space just behind the line ends it as well as one in it.
        let seen = rest.get(..=width).unwrap_or(&rest);
        let space = seen.iter().rposition(|c| *c == ' ');
        let seam = || {
            let seen = rest.get(..width).unwrap_or(&rest);
            seen.iter().rposition(|c| matches!(c, ':' | ','))
        };
        let at = space
            .map(|at| at + 1)
            .or_else(|| seam().map(|at| at + 1))
            .unwrap_or(width);
        let tail = rest.split_off(at);
        let line: String = rest.iter().collect();
        lines.push(line.trim_end().to_owned());
        rest = tail;
    }
    lines.push(rest.into_iter().collect());
    lines
}

/// The value, or a dash.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// All of `items`, or a dash.
pub(super) fn list<T: ToString>(items: &[T], between: &str) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    or_dash(Some(items.join(between)).filter(|text| !text.is_empty()))
}

/// A number of bytes in three or four figures.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if count < 10_000 {
        return count.to_string();
    }
    let mut unit = "";
    let mut tenths = count.saturating_mul(10);
    for next in UNITS {
        if tenths < 10_000 {
            break;
        }
        tenths /= 1_000;
        unit = next;
    }
    if tenths < 1_000 {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    } else {
        format!("{}{unit}", tenths / 10)
    }
}

/// How many letters of each id tell them all apart: no fewer than `least`.
pub(super) fn telling(ids: &[String], least: usize) -> usize {
    let mut sorted: Vec<&String> = ids.iter().collect();
    sorted.sort();
    sorted.dedup();
    let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let pairs = sorted.iter().zip(sorted.iter().skip(1));
    let needed = pairs.map(|(a, b)| common(a, b) + 1).max().unwrap_or(0);
    needed.max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["NAME", "MTU"]);
        table.row(vec!["longer-name".to_owned(), "1500".to_owned()]);
        table.row(vec!["a".to_owned(), or_dash::<u16>(None)]);
        assert_eq!(
            table.text(),
            "NAME         MTU\nlonger-name  1500\na            -\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_and_wrapped_cells_are_whole() {
        let mut table = Table::new(&["NAME", "ID", "ADDRESSES"])
            .cut(&["NAME"])
            .wrap(&["ADDRESSES"]);
        let address = "2001:db8:1111:2222:3333:4444:5555:6666";
        table.row(vec![
            "n".repeat(63),
            "12D3KooWDpJ7".to_owned(),
            [address; 5].join(" "),
        ]);
        let text = table.text();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest.unwrap() <= WIDTH, "{text}");
        assert!(text.contains('…'), "{text}");
        assert_eq!(text.matches(address).count(), 5, "{text}");
    }

    #[test]
    fn lines_break_where_they_may() {
        assert_eq!(wrap("one two", 4), ["one", "two"]);
        assert_eq!(wrap("[2001:db8::1]:22611", 12), ["[2001:db8::", "1]:22611"]);
        assert_eq!(wrap("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(cut("abcdefgh", 5), "ab…gh");
    }

    #[test]
    fn ids_are_cut_to_what_tells_them_apart() {
        let ids = ["12D3KooWAbcdX", "12D3KooWAbceX", "12D3KooWZ"].map(str::to_owned);
        assert_eq!(telling(&ids, 4), 12);
        assert_eq!(telling(&ids[..1], 10), 10);
    }

    #[test]
    fn bytes_for_people() {
        for (count, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (123_456, "123k"),
            (1_500_000, "1.5M"),
            (u64::MAX, "18.4E"),
        ] {
            let shown = bytes(count);
            assert!(shown.len() <= 5, "{shown}");
            if count != u64::MAX {
                assert_eq!(shown, text);
            }
        }
    }
}
