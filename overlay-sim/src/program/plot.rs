//! The plots of docs/SCALE.md: what one network costs, against its nodes. SVG, written by hand.
//!
//! Both axes are logarithmic, so that a straight line is a power: of slope 0 what does not depend on the number of nodes, of slope 1
//! what grows with it.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::say;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 45.0;
const BOTTOM: f64 = 40.0;
const COLUMNS: usize = 2;

/// What is drawn: a title, and the lines with the path of their figure in a measurement.
struct Panel {
    title: &'static str,
    lines: &'static [(&'static str, &'static str, &'static str)],
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Bytes for each node and second",
        lines: &[("run", "/bytes_per_node_s", "IP packets sent")],
    },
    Panel {
        title: "µs of a core for each node and second",
        lines: &[("run", "/cost/cpu_us_per_node_s", "node and simulation")],
    },
    Panel {
        title: "Memory for each node, MB",
        lines: &[("run", "/cost/memory_mb_per_node", "at most")],
    },
    Panel {
        title: "Time until a newcomer reaches a given member, ms",
        lines: &[
            ("join", "/median_ms", "median"),
            ("join", "/worst_ms", "worst"),
        ],
    },
];

const COLOURS: [&str; 2] = ["#1b7f5c", "#c0562b"];

/// One line: how it is called, and its points.
type Line = (&'static str, Vec<(f64, f64)>);

/// Reads measurements, one a line, and prints the picture.
pub(super) fn run(files: &[std::path::PathBuf]) -> Result<bool> {
    let mut measured = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        for (line, number) in text.lines().zip(1..) {
            let value = serde_json::from_str(line);
            let value = value.with_context(|| format!("{} line {number}", file.display()))?;
            measured.push(value);
        }
    }
    say(svg(&measured)?.trim_end())?;
    Ok(true)
}

fn svg(measured: &[Value]) -> Result<String> {
    let panels = PANELS.iter().map(|panel| {
        let lines = panel.lines.iter();
        let lines = lines.map(|(kind, path, name)| (*name, points(measured, kind, path)));
        (panel.title, lines.collect::<Vec<Line>>())
    });
    let all_measured = |lines: &[Line]| lines.iter().all(|(_, points)| !points.is_empty());
    let panels: Vec<_> = panels.filter(|(_, lines)| all_measured(lines)).collect();
    ensure!(!panels.is_empty(), "nothing was measured");
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * number(COLUMNS), HEIGHT * number(rows));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (place, (title, lines)) in panels.iter().enumerate() {
        let at = (
            WIDTH * number(place % COLUMNS),
            HEIGHT * number(place / COLUMNS),
        );
        draw(&mut out, at, title, lines)?;
    }
    out.push_str("</svg>\n");
    Ok(out)
}

/// Nodes and figure of each measurement of a kind that has it, by nodes.
fn points(measured: &[Value], kind: &str, path: &str) -> Vec<(f64, f64)> {
    let of_kind = |one: &&Value| one.get("kind").and_then(Value::as_str) == Some(kind);
    let alone = |one: &&Value| one.get("networks").is_none_or(|count| *count == 1);
    let point = |one: &Value| {
        let figure = one.pointer(path)?.as_f64()?;
        Some((one.get("nodes")?.as_f64()?, figure))
    };
    let fit = measured.iter().filter(of_kind).filter(alone);
    let mut points: Vec<_> = fit.filter_map(point).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

/// A logarithmic axis from one end to the other.
struct Axis {
    from: f64,
    to: f64,
    least: f64,
    most: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let share = (value / self.least).ln() / (self.most / self.least).ln();
        self.from + (self.to - self.from) * share
    }

    /// 1, 2 and 5 of each power of ten.
    fn marks(&self) -> Vec<f64> {
        let mut marks = Vec::new();
        let mut power = 10_f64.powf(self.least.log10().floor());
        while power <= self.most {
            let some = [1.0, 2.0, 5.0].map(|digit| digit * power);
            marks.extend(
                some.into_iter()
                    .filter(|mark| (self.least..=self.most).contains(mark)),
            );
            power *= 10.0;
        }
        marks
    }
}

fn draw(out: &mut String, (x, y): (f64, f64), title: &str, lines: &[Line]) -> Result<()> {
    let all: Vec<(f64, f64)> = lines
        .iter()
        .flat_map(|(_, points)| points.clone())
        .collect();
    ensure!(
        all.iter()
            .all(|(nodes, figure)| *nodes > 0.0 && *figure > 0.0),
        "{title}: what is not above 0 has no place on a logarithmic axis"
    );
    let ends = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let least = all.iter().map(of).fold(f64::INFINITY, f64::min);
        (least, all.iter().map(of).fold(0.0, f64::max))
    };
    let (least, most) = ends(&|point| point.0);
    let across = Axis {
        from: x + LEFT,
        to: x + WIDTH - RIGHT,
        least: least * 0.8,
        most: most * 1.25,
    };
    let (least, most) = ends(&|point| point.1);
    let up = Axis {
        from: y + HEIGHT - BOTTOM,
        to: y + TOP,
        least: least * 0.6,
        most: most * 1.6,
    };
    writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
        x + 12.0,
        y + 20.0
    )?;
    frame(out, &across, &up, &all)?;
    for (place, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS.get(place).copied().unwrap_or("#202124");
        let place = number(place);
        let path: Vec<String> = points
            .iter()
            .map(|(nodes, figure)| format!("{:.1},{:.1}", across.place(*nodes), up.place(*figure)))
            .collect();
        writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        )?;
        for (nodes, figure) in points {
            let (cx, cy) = (across.place(*nodes), up.place(*figure));
            writeln!(
                out,
                "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"{colour}\"/>\
                 <text x=\"{cx:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\" fill=\"{colour}\">{}</text>",
                cy - 7.0,
                short(*figure)
            )?;
        }
        writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            x + LEFT + 8.0 + 110.0 * place,
            y + TOP - 6.0
        )?;
    }
    Ok(())
}

/// The frame, its marks and lines, and the numbers of nodes.
fn frame(out: &mut String, across: &Axis, up: &Axis, all: &[(f64, f64)]) -> Result<()> {
    let (left, right, bottom) = (across.from, across.to, up.from);
    writeln!(
        out,
        "<rect x=\"{left}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#9aa0a6\"/>",
        up.to,
        right - left,
        bottom - up.to
    )?;
    for mark in up.marks() {
        let at = up.place(mark);
        writeln!(
            out,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#e0e0e0\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 5.0,
            at + 4.0,
            short(mark)
        )?;
    }
    let mut nodes: Vec<f64> = all.iter().map(|point| point.0).collect();
    nodes.dedup();
    for count in nodes {
        let at = across.place(count);
        writeln!(
            out,
            "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#9aa0a6\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{count}</text>",
            bottom + 18.0
        )?;
    }
    writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">nodes in the network</text>",
        f64::midpoint(left, right),
        bottom + 34.0
    )?;
    Ok(())
}

/// Two or three digits.
fn short(figure: f64) -> String {
    if figure >= 10.0 {
        format!("{figure:.0}")
    } else if figure >= 1.0 {
        format!("{figure:.1}").trim_end_matches(".0").to_owned()
    } else {
        format!("{figure:.2}")
    }
}

/// Places in a picture are few.
fn number(place: usize) -> f64 {
    f64::from(u32::try_from(place).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured(nodes: u32, figure: f64) -> Vec<Value> {
        let cost = json!({ "cpu_us_per_node_s": figure, "memory_mb_per_node": figure });
        vec![
            json!({ "kind": "run", "networks": 1, "nodes": nodes, "bytes_per_node_s": figure, "cost": cost }),
            json!({ "kind": "join", "nodes": nodes, "median_ms": figure, "worst_ms": 2.0 * figure }),
        ]
    }

    #[test]
    fn what_is_ten_times_as_much_is_as_far_apart_everywhere() {
        let axis = Axis {
            from: 0.0,
            to: 300.0,
            least: 1.0,
            most: 1_000.0,
        };
        let places = [1.0, 10.0, 100.0, 1_000.0].map(|value| axis.place(value).round());
        assert_eq!(places, [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(
            axis.marks(),
            [
                1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0
            ]
        );
    }

    #[test]
    fn each_measurement_has_its_point_and_worlds_of_many_networks_have_none() {
        let mut all = [measured(300, 20.0), measured(30, 10.0)].concat();
        let mut many = measured(1_000, 5.0);
        many[0]["networks"] = json!(100);
        all.push(many.remove(0));
        let svg = svg(&all).unwrap();
        assert_eq!(svg.matches("<circle").count(), 2 * 5);
        assert_eq!(svg.matches("<polyline").count(), 5);
        assert!(svg.ends_with("</svg>\n"));
        assert!(super::svg(&[]).is_err());
    }
}
