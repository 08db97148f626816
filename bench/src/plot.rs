//! The plot: a panel of horizontal bars for each measure, written as SVG by hand.

use std::fmt::Write;

use crate::contestants::{CONTROL, FARLAN};
use crate::samples::{Measure, Samples, TABLES};

const COLUMNS: usize = 3;
const PANEL_WIDTH: usize = 330;
const BAR: usize = 16;
const LABELS: usize = 110;
/// The longest bar; the rest of the panel is for the figure behind it.
const LONGEST: f64 = 140.0;

/// The whole picture: medians as bars, smallest to largest as a line on them.
#[must_use]
pub fn svg(samples: &Samples) -> String {
    let who = samples.contestants();
    let panels: Vec<(&Measure, Vec<Bar>)> = TABLES
        .iter()
        .flat_map(|t| t.1)
        .filter(|m| m.plotted)
        .map(|m| (m, bars(samples, &who, m)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let panel_height = 40 + BAR * who.len() + 16;
    let height = panel_height * panels.len().div_ceil(COLUMNS) + 10;
    let width = PANEL_WIDTH * COLUMNS;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (index, (measure, bars)) in panels.iter().enumerate() {
        let x = index % COLUMNS * PANEL_WIDTH + 10;
        let y = index / COLUMNS * panel_height + 20;
        panel(&mut out, (x, y), measure, bars);
    }
    out.push_str("</svg>\n");
    out
}

struct Bar {
    who: String,
    median: f64,
    min: f64,
    max: f64,
}

fn bars(samples: &Samples, who: &[String], measure: &Measure) -> Vec<Bar> {
    who.iter()
        .filter_map(|who| {
            let s = samples.summary(who, measure.key)?;
            Some(Bar {
                who: who.clone(),
                median: s.median,
                min: s.min,
                max: s.max,
            })
        })
        .collect()
}

fn panel(out: &mut String, (x, y): (usize, usize), measure: &Measure, bars: &[Bar]) {
    let better = if measure.more_is_better {
        "more"
    } else {
        "less"
    };
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-weight=\"bold\">{} ({}; {better} is better)</text>",
        escape(measure.title),
        measure.unit
    );
    let longest = bars.iter().map(|b| b.max).fold(0.0, f64::max);
    let scale = if longest > 0.0 {
        LONGEST / longest
    } else {
        0.0
    };
    let left = x + LABELS;
    for (row, bar) in bars.iter().enumerate() {
        let top = y + 10 + row * BAR;
        let (text, middle) = (top + 10, top + 6);
        let color = match bar.who.as_str() {
            FARLAN => "#1b7f5c",
            CONTROL => "#9aa0a6",
            _ => "#5b7fb5",
        };
        let length = bar.median * scale;
        let (from, to) = (bar.min * scale, bar.max * scale);
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{left}\" y=\"{top}\" width=\"{length:.1}\" height=\"12\" fill=\"{color}\"/>\
             <path d=\"M{left} {middle}m{from:.1} 0h{:.1}\" stroke=\"#202124\"/>\
             <text x=\"{left}\" dx=\"{:.1}\" y=\"{text}\">{:.*}</text>",
            left - 6,
            escape(&bar.who),
            to - from,
            to.max(length) + 5.0,
            measure.digits,
            bar.median,
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sample;

    #[test]
    fn the_largest_fills_the_panel_and_others_are_in_proportion() {
        let mut samples = Samples::default();
        for (who, value) in [("vxlan", 8.0), ("a<b", 4.0)] {
            let sample = Sample {
                round: 1,
                who: who.to_owned(),
                what: "tcp1".to_owned(),
                value,
            };
            samples.push(sample).unwrap();
        }
        let svg = svg(&samples);
        assert!(svg.contains("width=\"140.0\""), "{svg}");
        assert!(svg.contains("width=\"70.0\""), "{svg}");
        assert!(svg.contains(">a&lt;b</text>"), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
        // One panel: nothing else was measured.
        assert_eq!(svg.matches("is better").count(), 1);
    }
}
