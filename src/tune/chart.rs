//! The chart as a file: SVG, or a page of HTML with the same SVG and the report. One file, no
//! scripts, nothing loaded from anywhere.

use std::fmt::Write;

use super::report::TuneReport;
use super::show::{short, whole};
use crate::limit::percent;

/// What kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.svg`
    Svg,
    /// `.html`
    Html,
}

const ROW: usize = 26;
const TOP: usize = 64;
const LEFT: usize = 250;
const BAR: f64 = 420.0;
const WIDTH: usize = 860;

/// Draws the chart.
pub fn draw(report: &TuneReport, format: Format) -> String {
    match format {
        Format::Svg => svg(report),
        Format::Html => format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>contentflow tune: {}</title>\n\
             <style>body {{ font: 15px sans-serif; margin: 2em }} pre {{ font-size: 13px }}</style>\n</head>\n<body>\n{}\
             <pre>\n{}</pre>\n</body>\n</html>\n",
            escaped(&report.topic),
            svg(report),
            escaped(&report.to_string())
        ),
    }
}

/// One bar for each settings, the fastest first; a thin line from the slowest to the fastest trial
/// on it.
fn svg(report: &TuneReport) -> String {
    let (axes, ranked) = (report.axes(), report.ranked());
    let rates = report.measured.iter().flat_map(|it| it.rates.iter().copied());
    let scale = BAR / rates.fold(1.0, f64::max);
    let height = TOP + ROW * ranked.len() + 40;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let mut text = |x: usize, y: usize, more: &str, text: &str| {
        writeln!(svg, "<text x=\"{x}\" y=\"{y}\"{more}>{}</text>", escaped(text))
            .expect("a string takes any text");
    };
    text(16, 26, " font-size=\"16\" font-weight=\"bold\"", "events a second, by settings");
    text(16, 46, " fill=\"#666666\"", &report.about());
    for (row, it) in ranked.iter().enumerate() {
        let y = TOP + ROW * row + 16;
        let weight = if it.settings == report.choice.chosen { " font-weight=\"bold\"" } else { "" };
        text(16, y, weight, &short(it.settings, &axes));
        let (stage, share) = it.shares.limit();
        let label = format!("{}  {} {}", whole(it.rate()), stage.name(), percent(share));
        text(LEFT + 430, y, weight, &label);
    }
    text(
        16,
        height - 14,
        " fill=\"#666666\"",
        "Bars are medians, lines reach from the slowest trial to the fastest, bold is recommended; with the stage that limits.",
    );
    for (row, it) in ranked.iter().enumerate() {
        let y = TOP + ROW * row;
        let fill = match it.settings {
            settings if settings == report.choice.chosen => "#2b8a3e",
            settings if settings == report.present => "#1971c2",
            _ => "#adb5bd",
        };
        let slowest = it.rates.iter().copied().fold(f64::INFINITY, f64::min).min(it.rate());
        let fastest = it.rates.iter().copied().fold(0.0, f64::max);
        let left = f64::from(u32::try_from(LEFT).unwrap_or_default());
        let [width, low, high] = [it.rate(), slowest, fastest].map(|rate| scale * rate);
        writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"20\" fill=\"{fill}\"/>\n\
             <line x1=\"{:.1}\" y1=\"{}\" x2=\"{:.1}\" y2=\"{}\" stroke=\"#212529\" stroke-width=\"2\"/>",
            left + low,
            y + 10,
            left + high,
            y + 10
        )
        .expect("a string takes any text");
    }
    svg.push_str("</svg>\n");
    svg
}

/// A text as XML and HTML take it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML has no way to write most of them.
            letter if letter.is_control() && letter != '\n' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::report::tests::report;

    #[test]
    fn names_are_escaped_and_every_settings_has_its_bar() {
        let svg = draw(&report(), Format::Svg);
        assert!(
            svg.contains("content.&quot;&lt;drafts&gt;&quot;") && !svg.contains("<drafts>"),
            "{svg}"
        );
        assert_eq!(svg.matches("<line ").count(), 2);
        assert!(svg.contains("120,000  database 97 %") && svg.contains("#2b8a3e"));
    }

    #[test]
    fn a_page_holds_the_chart_and_the_report_and_loads_nothing() {
        let page = draw(&report(), Format::Html);
        assert!(page.contains("<svg ") && page.contains("connections = 2\n"));
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
        assert!(!page.contains("<drafts>"));
    }
}
