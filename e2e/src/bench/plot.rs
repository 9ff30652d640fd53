//! Bars in SVG.

use std::fmt::Write;

/// Bars of parts, one beneath the other, with a line at what is aimed at.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    /// The names of the parts, from the left.
    pub(super) parts: &'a [&'a str],
    pub(super) bars: Vec<(String, Vec<f64>)>,
    pub(super) target: f64,
}

const LEFT: f64 = 190.0;
const WIDE: f64 = 440.0;
const HIGH: f64 = 28.0;
const TOP: f64 = 64.0;
/// Told apart by those who see no red or green, too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#999999"];

impl Plot<'_> {
    /// The file.
    pub(super) fn svg(&self) -> String {
        let sums = self.bars.iter().map(|(_, parts)| parts.iter().sum::<f64>());
        let scale = WIDE / sums.fold(self.target, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
        let bottom = TOP + HIGH * self.bars.len() as f64;
        let (width, height) = (LEFT + WIDE + 80.0, bottom + 24.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        text(&mut svg, 10.0, 20.0, self.title);
        self.legend(&mut svg);
        let mut top = TOP;
        for (label, parts) in &self.bars {
            self.bar(&mut svg, top, label, parts, scale);
            top += HIGH;
        }
        let x = LEFT + self.target * scale;
        let y = TOP - 6.0;
        element(
            &mut svg,
            &format!("<path d=\"M{x:.1} {y} V{bottom}\" stroke=\"black\" stroke-dasharray=\"4\"/>"),
        );
        text(&mut svg, x - 40.0, bottom + 16.0, &format!("target {} {}", self.target, self.unit));
        svg + "</svg>\n"
    }

    fn legend(&self, svg: &mut String) {
        let mut x = LEFT;
        for (name, colour) in self.parts.iter().zip(COLOURS) {
            element(
                svg,
                &format!("<rect x=\"{x}\" y=\"34\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"),
            );
            text(svg, x + 14.0, 43.0, name);
            #[expect(clippy::cast_precision_loss, reason = "the letters of a name")]
            let letters = name.len() as f64;
            x += 30.0 + 6.5 * letters;
        }
    }

    fn bar(&self, svg: &mut String, top: f64, label: &str, parts: &[f64], scale: f64) {
        text(svg, 10.0, top + 15.0, label);
        let mut x = LEFT;
        for (part, colour) in parts.iter().zip(COLOURS) {
            let wide = part.max(0.0) * scale;
            element(
                svg,
                &format!(
                    "<rect x=\"{x:.1}\" y=\"{top}\" width=\"{wide:.1}\" height=\"20\" fill=\"{colour}\"/>"
                ),
            );
            x += wide;
        }
        let sum: f64 = parts.iter().sum();
        let digits = if sum < 100.0 { 1 } else { 0 };
        text(svg, x + 6.0, top + 15.0, &format!("{sum:.digits$} {}", self.unit));
    }
}

fn element(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

fn text(svg: &mut String, x: f64, y: f64, text: &str) {
    // A String takes all that is written to it.
    let _written = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}
