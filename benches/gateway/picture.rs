//! The results as a picture: a bar for each variant.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::cpu::Cost;
use crate::instructions::Count;
use crate::options::Options;

/// Writes the picture that the options ask for.
pub(crate) fn write_if_wanted(options: &Options, picture: impl FnOnce() -> String) {
    if let Some(file) = &options.svg {
        fs::write(file, picture()).expect("the picture can be written");
        eprintln!("picture: {}", file.display());
    }
}

/// Instructions a request.
pub(crate) fn of_instructions(counts: &[Count]) -> String {
    let bars = counts
        .iter()
        .filter(|count| !count.is_baseline)
        .map(|count| Bar {
            name: &count.name,
            value: count.request / 1_000.0,
            range: None,
        })
        .collect::<Vec<_>>();
    svg(
        "Instructions a request above no filter, in thousands",
        &bars,
        &today(),
    )
}

/// Processor time a request: medians, with the quartiles as a line over the bar's end.
pub(crate) fn of_time(costs: &[Cost], rounds: usize) -> String {
    let bars = costs
        .iter()
        .filter(|cost| !cost.is_baseline)
        .map(|cost| {
            let [low, median, high] = cost.quartiles;
            Bar {
                name: &cost.name,
                value: median,
                range: Some([low, high]),
            }
        })
        .collect::<Vec<_>>();
    svg(
        "CPU a request above no filter, µs: medians and quartiles",
        &bars,
        &format!("{}, {}, {rounds} rounds", machine(), today()),
    )
}

struct Bar<'a> {
    name: &'a str,
    value: f64,
    range: Option<[f64; 2]>,
}

fn svg(title: &str, bars: &[Bar<'_>], foot: &str) -> String {
    const ROW: usize = 26;
    const LEFT: f64 = 270.0;
    const WIDTH: f64 = 400.0;
    let most = bars
        .iter()
        .map(|bar| bar.range.map_or(bar.value, |[_, high]| high))
        .fold(1.0, f64::max);
    let place = |value: f64| LEFT + value.max(0.0) / most * WIDTH;
    let height = 70 + ROW * bars.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n"
    );
    for (index, bar) in bars.iter().enumerate() {
        let y = 40 + index * ROW;
        let (text_y, line_y) = (y + 15, y + 10);
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{text_y}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"20\" fill=\"{}\"/>",
            LEFT - 8.0,
            bar.name,
            place(bar.value) - LEFT,
            colour(bar.name),
        );
        let mut end = place(bar.value);
        if let Some([low, high]) = bar.range {
            let _ = write!(
                svg,
                "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{line_y}\" y2=\"{line_y}\" stroke=\"#222\"/>",
                place(low),
                place(high),
            );
            end = end.max(place(high));
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{text_y}\">{:.1}</text>",
            end + 8.0,
            bar.value
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{}\" fill=\"#555\" font-size=\"11\">{foot}</text>\n</svg>",
        height - 12,
    );
    svg
}

fn colour(name: &str) -> &'static str {
    if name.starts_with("lua") {
        "#e07a3f"
    } else if name.starts_with("native") {
        "#3f9e6b"
    } else if name.ends_with("floor") || name == "module-empty" || name == "header-mutation" {
        "#9aa5b1"
    } else {
        "#3b7dd8"
    }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(
            || "unknown processor".to_owned(),
            |(_, name)| name.trim().to_owned(),
        )
}

fn today() -> String {
    Command::new("date")
        .arg("+%Y-%m-%d")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(String::new, |date| date.trim().to_owned())
}
