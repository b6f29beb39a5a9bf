//! A flame graph: a row of boxes for each depth of the stack, as wide as the time below it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::profile::Stacks;

const WIDTH: f64 = 1200.0;
const ROW: usize = 17;
const TOP: usize = 36;
/// Narrower boxes, in pixels, are left out.
const NARROWEST: f64 = 0.6;
/// About how wide a letter is.
const LETTER: f64 = 6.4;

#[derive(Default)]
struct Node<'a> {
    samples: u64,
    below: BTreeMap<&'a str, Node<'a>>,
}

impl Node<'_> {
    fn depth(&self) -> usize {
        let below = self.below.values().map(Node::depth).max();
        below.map_or(0, |depth| depth + 1)
    }
}

/// The picture, as SVG.
pub fn draw(title: &str, stacks: &Stacks) -> String {
    let mut root = Node::default();
    for (stack, samples) in stacks {
        root.samples += samples;
        let mut node = &mut root;
        for function in stack.split(';') {
            node = node.below.entry(function).or_default();
            node.samples += samples;
        }
    }
    let height = TOP + root.depth() * ROW + 8;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\">{}: {} samples</text>\n",
        escaped(title),
        root.samples
    );
    let scale = (WIDTH - 16.0) / root.samples.max(1) as f64;
    let mut x = 8.0;
    for (name, node) in &root.below {
        boxes(&mut svg, name, node, x, 0, scale, root.samples);
        x += node.samples as f64 * scale;
    }
    svg.push_str("</svg>\n");
    svg
}

fn boxes(
    svg: &mut String,
    name: &str,
    node: &Node<'_>,
    x: f64,
    depth: usize,
    scale: f64,
    all: u64,
) {
    let width = node.samples as f64 * scale;
    if width < NARROWEST {
        return;
    }
    let y = TOP + depth * ROW;
    let share = node.samples as f64 * 100.0 / all.max(1) as f64;
    let letters = (width / LETTER) as usize;
    let shown: String = match letters >= 3 {
        true => short(name).chars().take(letters).collect(),
        false => String::new(),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<g><title>{} ({} samples, {share:.1} %)</title>\
         <rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\" stroke=\"#fff\" \
         stroke-width=\"0.5\"/><text x=\"{:.1}\" y=\"{}\">{}</text></g>",
        escaped(name),
        node.samples,
        ROW - 1,
        colour(name),
        x + 2.0,
        y + 12,
        escaped(&shown)
    );
    let mut at = x;
    for (below, node) in &node.below {
        boxes(svg, below, node, at, depth + 1, scale, all);
        at += node.samples as f64 * scale;
    }
}

/// Without the hash and the path in front of the last two names.
fn short(name: &str) -> &str {
    let starts: Vec<usize> = name.match_indices("::").map(|(at, _)| at + 2).collect();
    match starts.len() {
        0 | 1 => name,
        count => &name[starts[count - 2]..],
    }
}

/// Ours, librdkafka's, the engine's and the kernel's apart.
fn colour(name: &str) -> &'static str {
    match name {
        _ if name.contains("millstream") => "#8fc7a8",
        _ if name.starts_with("rd_") || name.starts_with("rdk") => "#f2b880",
        _ if name.contains("wasmtime") || name.contains("anon") => "#a9b8e8",
        _ if name.contains("tokio") || name.contains("futures") => "#d9d9a6",
        _ => "#e6d9d2",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box that is as wide as its own samples alone would hide what it called.
    #[test]
    fn a_function_is_as_wide_as_all_that_it_called() {
        let stacks = [("t;a;b", 3), ("t;a;c", 1)].map(|(s, n)| (s.to_owned(), n));
        let svg = draw("q0", &stacks.into());
        assert!(
            svg.contains("<title>a (4 samples, 100.0 %)</title>"),
            "{svg}"
        );
        assert!(
            svg.contains("<title>b (3 samples, 75.0 %)</title>"),
            "{svg}"
        );
    }

    #[test]
    fn names_are_text() {
        let stacks = [("t;Vec<u8>::push".to_owned(), 1)];
        assert!(draw("x", &stacks.into()).contains("Vec&lt;u8&gt;::push"));
    }
}
