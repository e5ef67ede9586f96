//! Draws convergence, traffic and memory over the size of the tree.
//!
//! Out: `docs/aggregation-sizes.svg` of this workspace.

use crate::sizes::Size;
use bench_common::{Failure, say};
use std::fmt::Write as _;
use std::path::Path;

const WIDTH: f64 = 260.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 34.0;

pub fn draw(sizes: &[Size]) -> Result<(), Failure> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/aggregation-sizes.svg");
    std::fs::write(&file, svg(sizes)?)?;
    say("    drew docs/aggregation-sizes.svg");
    Ok(())
}

fn svg(sizes: &[Size]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let whole = 3.0 * (WIDTH + LEFT) + 20.0;
    write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {whole} {}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        HEIGHT + TOP + 40.0
    )?;
    let of = |pick: fn(&Size) -> f64| -> Vec<(usize, f64)> {
        sizes.iter().map(|one| (one.nodes, pick(one))).collect()
    };
    let panels = [
        ("root aggregate known to all, p99, s", of(|one| one.p99_s)),
        (
            "traffic of a node, sent and received, KB/s",
            of(|one| one.traffic_kb),
        ),
        ("simulated memory of a node, KB", of(|one| one.memory_kb)),
    ];
    for (left, (title, values)) in [0.0, WIDTH + LEFT, 2.0 * (WIDTH + LEFT)]
        .iter()
        .zip(&panels)
    {
        panel(&mut text, *left, title, values)?;
    }
    text.push_str("</svg>\n");
    Ok(text)
}

#[expect(clippy::cast_precision_loss, reason = "counts of nodes")]
fn panel(
    text: &mut String,
    left: f64,
    title: &str,
    values: &[(usize, f64)],
) -> Result<(), std::fmt::Error> {
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max) * 1.15;
    let x = |nodes: usize| left + LEFT + ((nodes as f64).log10() - 2.8) / 2.4 * (WIDTH - 20.0);
    let y = |value: f64| TOP + HEIGHT - value / most * HEIGHT;
    let (begin, end, floor) = (left + LEFT, left + LEFT + WIDTH - 20.0, TOP + HEIGHT);
    writeln!(text, "<text x=\"{begin:.0}\" y=\"20\">{title}</text>")?;
    writeln!(
        text,
        "<path d=\"M{begin:.0} {TOP:.0}V{floor:.0}H{end:.0}\" stroke=\"#888\" fill=\"none\"/>"
    )?;
    let mut line = String::new();
    for (nodes, value) in values {
        let (x, y) = (x(*nodes), y(*value));
        let step = if line.is_empty() { 'M' } else { 'L' };
        write!(line, "{step}{x:.1} {y:.1}")?;
        writeln!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1667b7\"/>"
        )?;
        writeln!(
            text,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.2}</text>",
            y - 8.0
        )?;
        writeln!(
            text,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{nodes}</text>",
            floor + 16.0
        )?;
    }
    writeln!(
        text,
        "<path d=\"{line}\" stroke=\"#1667b7\" fill=\"none\"/>"
    )
}
