//! The report as a picture: for each workload the contenders one below the other, events a second
//! to the left, processor time to the right.
//!
//! ```text
//!  q22            events/s                    CPU seconds a million events
//!  bound          ████████████████ 1,102,441   ███▒▒ 1.1 + 0.8
//!  millstream     ███████┼ 412,001             █████▒▒▒▒ 2.2 + 1.3
//! ```

use std::fmt::Write as _;

use crate::contender::Contender;
use crate::report::{Report, Summary};
use crate::table::thousands;
use crate::workload::Workload;

const WIDTH: f64 = 980.0;
const MARGIN: f64 = 28.0;
/// Where the bars begin, and how long the longest is; the rest is for its figure.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 610.0;
const BAR: f64 = 240.0;
const ROW: f64 = 26.0;
const THICK: f64 = 15.0;
const HEAD: f64 = 84.0;

const INK: &str = "#1f2328";
const FAINT: &str = "#656d76";
const LINE: &str = "#d8dee4";

/// The solid and the pale colour of a contender: Millstream stands out, the bound does not.
fn colours(contender: Contender) -> (&'static str, &'static str) {
    if contender.is_millstream() {
        ("#0969da", "#b6d7fb")
    } else if contender.is_peer() {
        ("#bf8700", "#f0dca8")
    } else {
        ("#6e7781", "#d0d7de")
    }
}

/// What a workload is, for a reader of the picture alone.
fn about(workload: Workload) -> &'static str {
    match workload {
        Workload::Q0 => "bids of about 180 bytes pass through",
        Workload::Q22 => "bids are read as JSON, their URL is split, new JSON is written",
        Workload::FilterHeader => "1 % of the bids pass, by a header",
        Workload::FilterPlugin => "1 % of the bids pass, by what they say",
        Workload::FanOut => "each bid goes to 5 consumers, which pass it through",
        Workload::Enrich => "order lines of a shop get exact totals",
        Workload::Q0Of100B => "events of 100 bytes pass through",
        Workload::Q0Of1KiB => "events of 1 KiB pass through",
        Workload::Q0Of64KiB => "events of 64 KiB pass through",
    }
}

/// Draws the workloads of a report; `caption` stands below them.
pub fn draw(report: &Report, caption: &str) -> String {
    let mut workloads: Vec<Workload> = Vec::new();
    for (workload, _) in report.pairs() {
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
    }
    let mut body = String::new();
    let mut y = HEAD;
    for workload in workloads {
        let rows: Vec<(Contender, Summary)> = report
            .pairs()
            .into_iter()
            .filter(|(of, _)| *of == workload)
            .filter_map(|(of, contender)| Some((contender, report.summary(of, contender)?)))
            .collect();
        panel(&mut body, &mut y, workload, &rows);
    }
    for line in wrapped(caption, 150) {
        y += 17.0;
        text(&mut body, MARGIN, y, 11.5, FAINT, "start", "400", &line);
    }
    y += 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" \
         height=\"{y}\" font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" rx=\"10\" fill=\"#ffffff\"/>\n"
    );
    head(&mut svg);
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    svg
}

/// The titles of the columns and what the colours mean.
fn head(svg: &mut String) {
    let title = "Events a second, and what a million of them costs";
    text(svg, MARGIN, 36.0, 18.0, INK, "start", "600", title);
    let mut x = MARGIN;
    for (contender, label) in [
        (Contender::Bound, "the bound: a bare librdkafka loop"),
        (Contender::Millstream, "Millstream"),
        (Contender::KafkaStreams, "others"),
    ] {
        let (solid, _) = colours(contender);
        rect(svg, x, 51.0, 11.0, solid);
        text(svg, x + 17.0, 60.5, 12.0, FAINT, "start", "400", label);
        x += 34.0 + 6.3 * label.len() as f64;
    }
    let legend = "pale: its broker's part of the processor time · thin line: between the runs";
    text(svg, WIDTH - MARGIN, 60.5, 12.0, FAINT, "end", "400", legend);
}

fn panel(svg: &mut String, y: &mut f64, workload: Workload, rows: &[(Contender, Summary)]) {
    let most = |of: fn(&Summary) -> f64| {
        rows.iter()
            .map(|(_, summary)| of(summary))
            .fold(0.0, f64::max)
    };
    let fastest = most(|s| {
        s.events_per_second
            .max
            .max(s.second_half_events_per_second.median)
    });
    let dearest = most(|s| {
        let own = s.cpu_seconds_per_million;
        s.all_cpu_seconds_per_million.median.max(own.max)
    });
    let _ = writeln!(
        svg,
        "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{LINE}\"/>",
        WIDTH - MARGIN
    );
    *y += 26.0;
    text(svg, MARGIN, *y, 15.0, INK, "start", "600", workload.name());
    let x = MARGIN + 14.0 + 8.5 * workload.name().len() as f64;
    text(svg, x, *y, 12.0, FAINT, "start", "400", about(workload));
    *y += 22.0;
    let fast = "events/s, more is better";
    text(svg, LEFT, *y, 11.5, FAINT, "start", "400", fast);
    let dear = "CPU seconds a million events, less is better";
    text(svg, RIGHT, *y, 11.5, FAINT, "start", "400", dear);
    *y += 8.0;
    for (contender, summary) in rows {
        row(svg, *y, *contender, summary, (fastest, dearest));
        *y += ROW;
    }
    *y += 16.0;
}

fn row(svg: &mut String, y: f64, contender: Contender, summary: &Summary, most: (f64, f64)) {
    let (solid, pale) = colours(contender);
    let weight = if contender.is_millstream() {
        "600"
    } else {
        "400"
    };
    let line = y + 12.0;
    text(
        svg,
        LEFT - 12.0,
        line,
        12.5,
        INK,
        "end",
        weight,
        contender.name(),
    );

    let rate = summary.events_per_second;
    let long = |value: f64| BAR * value / most.0;
    bar(svg, LEFT, y, long(rate.median), solid);
    whisker(svg, y, LEFT + long(rate.min), LEFT + long(rate.max));
    let after = LEFT + long(rate.max.max(rate.median)) + 8.0;
    text(
        svg,
        after,
        line,
        12.0,
        INK,
        "start",
        weight,
        &thousands(rate.median),
    );

    let cpu = summary.cpu_seconds_per_million;
    let all = summary.all_cpu_seconds_per_million.median;
    let long = |value: f64| BAR * value / most.1;
    bar(svg, RIGHT, y, long(all), pale);
    bar(svg, RIGHT, y, long(cpu.median), solid);
    whisker(svg, y, RIGHT + long(cpu.min), RIGHT + long(cpu.max));
    let broker = all - cpu.median;
    let shown = if broker > 0.005 {
        format!("{:.2} + {broker:.2}", cpu.median)
    } else {
        format!("{:.2}, broker included", cpu.median)
    };
    let after = RIGHT + long(all.max(cpu.max)) + 8.0;
    text(svg, after, line, 12.0, INK, "start", weight, &shown);
}

fn bar(svg: &mut String, x: f64, y: f64, length: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{THICK}\" rx=\"2\" fill=\"{colour}\"/>",
        length.max(1.0)
    );
}

/// The span between the runs; nothing where there is none to see.
fn whisker(svg: &mut String, y: f64, from: f64, to: f64) {
    if to - from < 1.0 {
        return;
    }
    let (top, middle, bottom) = (y + 4.0, y + THICK / 2.0, y + THICK - 4.0);
    let _ = writeln!(
        svg,
        "<path d=\"M{from:.1} {top:.1}V{bottom:.1}M{from:.1} {middle:.1}H{to:.1}M{to:.1} {top:.1}V{bottom:.1}\" \
         stroke=\"{INK}\" stroke-width=\"1.2\" fill=\"none\"/>"
    );
}

fn rect(svg: &mut String, x: f64, y: f64, size: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{size}\" height=\"{size}\" rx=\"2\" fill=\"{colour}\"/>"
    );
}

#[expect(clippy::too_many_arguments, reason = "what a text needs to be drawn")]
fn text(
    svg: &mut String,
    x: f64,
    y: f64,
    size: f64,
    colour: &str,
    anchor: &str,
    weight: &str,
    words: &str,
) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-weight=\"{weight}\" \
         text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
    );
}

/// Lines of about so many characters.
fn wrapped(words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
                continue;
            }
            if line.len() + 1 + word.len() <= width {
                line.push(' ');
                line.push_str(word);
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;

    #[test]
    fn every_contender_is_drawn_and_nothing_leaves_the_picture() {
        let mut report = Report::default();
        for (contender, rate) in [(Contender::Bound, 1e6), (Contender::Millstream, 4e5)] {
            report.add(
                Workload::Q0,
                contender,
                Figures {
                    events_per_second: rate,
                    second_half_events_per_second: rate,
                    cpu_seconds_per_million: 1e6 / rate,
                    all_cpu_seconds_per_million: 2e6 / rate,
                    ..Figures::default()
                },
            );
        }
        let svg = draw(&report, "a < b & c");
        for words in [
            ">bound<",
            ">millstream<",
            ">1,000,000<",
            ">2.50 + 2.50<",
            "a &lt; b &amp; c",
        ] {
            assert!(svg.contains(words), "{words} in {svg}");
        }
        let widths = svg.split("width=\"").skip(1);
        for width in widths.filter_map(|rest| rest.split('"').next()) {
            let width: f64 = width.parse().unwrap();
            assert!(width <= WIDTH, "{width}");
        }
    }
}
