//! Charts, drawn here: a drawing that stretches to any width, with its words around it, so that they
//! stay as large as all others; each says in words what it shows, and has its numbers in a table.

use std::fmt::Write as _;

use maud::{Markup, html};
use onceward::core::time::Timestamp;

use super::frame::number;
use crate::shape;

/// How wide a column is in the drawing, and how high that is: both stretch.
const COLUMN: usize = 10;
const HEIGHT: f64 = 100.0;

/// The times along a chart, one for each column.
#[derive(Debug)]
pub(super) struct Times {
    /// When each column begins.
    pub(super) begins: Vec<Timestamp>,
    /// What stands below, from the left to the right.
    pub(super) marks: &'static [&'static str],
    /// How long a column is, in words.
    pub(super) each: &'static str,
}

/// What is drawn in one colour.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The class of its colour.
    pub(super) hue: &'static str,
    /// The class of its stroke, so that lines are told apart without their colour.
    pub(super) stroke: &'static str,
    /// A value for each column.
    pub(super) values: Vec<u64>,
}

impl Series {
    fn sum(&self) -> u64 {
        self.values.iter().sum()
    }
}

/// What a chart says about itself.
#[derive(Debug)]
pub(super) struct About {
    /// Told apart from other charts of the page by this.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What is counted, in which unit.
    pub(super) unit: String,
}

/// What is drawn, and what stands around it.
struct Drawn<'a> {
    /// Beside the scale, from the top.
    ticks: Vec<String>,
    drawing: Markup,
    /// What it shows, for whoever does not see it.
    said: String,
    legend: Vec<(&'a Series, String)>,
    is_line: bool,
    /// What each column says when it is pointed at.
    tips: Vec<String>,
}

/// Counts, one on top of the other.
pub(super) fn stacked(about: &About, times: &Times, series: &[Series]) -> Markup {
    let columns = times.begins.len();
    let total = |column: usize| series.iter().map(|it| it.values[column]).sum::<u64>();
    let most = (0..columns).map(total).max().unwrap_or_default();
    let top = nice(most);
    let mut floors = vec![0; columns];
    let drawing = html! {
        (grid(columns, 2))
        @for it in series { path class={ "bars " (it.hue) } d=(bars(it, &mut floors, top)) {} }
    };
    let tip = |column: usize| {
        let of = |it: &Series| format!("{} {}", it.name, number(it.values[column]));
        series.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let sums = series.iter().map(|it| format!("{} {}", number(it.sum()), it.name));
    let said = format!(
        "{}, {}. In all: {}. At most {} at once.",
        about.unit,
        times.each,
        sums.collect::<Vec<_>>().join(", "),
        number(most)
    );
    let drawn = Drawn {
        ticks: [top, top / 2, 0].map(short).to_vec(),
        drawing,
        said,
        legend: series.iter().map(|it| (it, number(it.sum()))).collect(),
        is_line: false,
        tips: (0..columns).map(tip).collect(),
    };
    figure(about, times, &drawn)
}

/// A bar in each column that has something, from its floor up, which is raised by it.
fn bars(series: &Series, floors: &mut [u64], top: u64) -> String {
    let mut path = String::new();
    for (column, (value, floor)) in series.values.iter().zip(floors).enumerate() {
        if *value > 0 {
            let high = |count: u64| HEIGHT - count as f64 / top as f64 * HEIGHT;
            let (from, to) = (high(*floor), high(*floor + value));
            let left = column * COLUMN + 1;
            let _ = write!(path, "M{left} {from:.1}H{}V{to:.1}H{left}z", left + COLUMN - 2);
        }
        *floor += value;
    }
    path
}

/// Durations in microseconds as lines, each step of the scale ten times the one below; where there is
/// none, nothing is drawn. Each has its value over all times.
pub(super) fn lines(about: &About, times: &Times, series: &[(Series, String)]) -> Markup {
    let columns = times.begins.len();
    let scale = Scale::of(series.iter().flat_map(|(it, _)| it.values.iter().copied()));
    let drawing = html! {
        (grid(columns, scale.steps()))
        @for (it, _) in series {
            @let (line, dots) = line(it, &scale);
            path class={ "line " (it.hue) " " (it.stroke) } d=(line) {}
            path class={ "dots " (it.hue) } d=(dots) {}
        }
    };
    let tip = |column: usize| {
        let of = |(it, _): &(Series, String)| match it.values[column] {
            0 => format!("{} -", it.name),
            micros => format!("{} {}", it.name, spent(micros)),
        };
        series.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let over_all: Vec<_> = series.iter().map(|(it, all)| format!("{} {all}", it.name)).collect();
    let drawn = Drawn {
        ticks: scale.ticks(),
        drawing,
        said: format!("{}, {}. Over all: {}.", about.unit, times.each, over_all.join(", ")),
        legend: series.iter().map(|(it, all)| (it, all.clone())).collect(),
        is_line: true,
        tips: (0..columns).map(tip).collect(),
    };
    figure(about, times, &drawn)
}

/// A line through what is there, and a dot where that has no neighbour: it would be no line.
fn line(series: &Series, scale: &Scale) -> (String, String) {
    let (mut path, mut dots, mut is_on) = (String::new(), String::new(), false);
    for (column, value) in series.values.iter().enumerate() {
        if *value > 0 {
            let (x, y) = (column * COLUMN + COLUMN / 2, scale.place(*value));
            let _ = write!(path, "{}{x} {y:.1}", if is_on { "L" } else { "M" });
            let is_alone = !is_on && series.values.get(column + 1).is_none_or(|next| *next == 0);
            if is_alone {
                let _ = write!(dots, "M{x} {y:.1}h0");
            }
        }
        is_on = *value > 0;
    }
    (path, dots)
}

/// A scale of which each step is ten times the one below, from ten to the power of `low` on.
struct Scale {
    low: u32,
    high: u32,
}

impl Scale {
    fn of(values: impl Iterator<Item = u64> + Clone) -> Self {
        let there = values.filter(|value| *value > 0);
        let low = there.clone().min().map_or(3, u64::ilog10).max(2);
        let high =
            there.max().map_or(low, |most| (most - 1).checked_ilog10().map_or(0, |it| it + 1));
        Self { low, high: high.max(low + 2) }
    }

    fn steps(&self) -> usize {
        (self.high - self.low) as usize
    }

    fn place(&self, value: u64) -> f64 {
        let up = ((value as f64).log10() - f64::from(self.low)).max(0.0);
        HEIGHT - up / f64::from(self.high - self.low) * HEIGHT
    }

    fn ticks(&self) -> Vec<String> {
        (self.low..=self.high).rev().map(|power| spent(10_u64.saturating_pow(power))).collect()
    }
}

fn figure(about: &About, times: &Times, drawn: &Drawn<'_>) -> Markup {
    let About { id, title, unit } = about;
    let width = times.begins.len() * COLUMN;
    html! {
        figure.chart.card {
            figcaption { h3 { (title) } span.soft.small { (unit) ", " (times.each) } }
            ul.legend {
                @for (it, value) in &drawn.legend {
                    li { (swatch(it, drawn.is_line)) (it.name) " " strong { (value) } }
                }
            }
            div.plot {
                div.up aria-hidden="true" { @for tick in &drawn.ticks { span { (tick) } } }
                svg viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none"
                    role="img" aria-labelledby={ (id) "-title " (id) "-said" } {
                    title id={ (id) "-title" } { (title) }
                    desc id={ (id) "-said" } { (drawn.said) }
                    (drawn.drawing)
                    @for (column, (at, tip)) in times.begins.iter().zip(&drawn.tips).enumerate() {
                        rect.hit x=(column * COLUMN) y="0" width=(COLUMN) height=(HEIGHT) {
                            title { (clock(*at)) ": " (tip) }
                        }
                    }
                }
                div.along aria-hidden="true" { @for mark in times.marks { span { (mark) } } }
            }
        }
    }
}

fn swatch(series: &Series, is_line: bool) -> Markup {
    let Series { hue, stroke, .. } = series;
    html! {
        svg viewBox="0 0 16 10" aria-hidden="true" {
            @if is_line { path class={ "line " (hue) " " (stroke) } d="M0 5H16" {} }
            @else { rect class={ "bars " (hue) } width="16" height="10" rx="2" {} }
        }
    }
}

/// The ground line, and one above it for each step.
fn grid(columns: usize, steps: usize) -> Markup {
    let width = columns * COLUMN;
    let mut lines = String::new();
    for step in 1..=steps {
        let _ = write!(lines, "M0 {:.1}H{width}", HEIGHT - step as f64 * HEIGHT / steps as f64);
    }
    html! {
        path.grid d=(lines) {}
        path.grid.base d={ "M0 " (HEIGHT) "H" (width) } {}
    }
}

/// The least even number of one digit, or two, and noughts, that is no less.
fn nice(most: u64) -> u64 {
    let mut unit = 1;
    loop {
        for digits in [2, 4, 6, 10] {
            if digits * unit >= most {
                return digits * unit;
            }
        }
        unit *= 10;
    }
}

/// A count in few letters.
fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}k", count / 1000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// Microseconds as people say them.
pub(super) fn spent(micros: u64) -> String {
    match micros {
        0..1000 => format!("{:.1} ms", micros as f64 / 1000.0),
        1000..1_000_000 => format!("{} ms", micros / 1000),
        1_000_000..10_000_000 => format!("{:.1} s", micros as f64 / 1e6).replace(".0", ""),
        _ => format!("{} s", micros / 1_000_000),
    }
}

/// A time of day, with its day: in UTC, as all times are that are exact.
pub(super) fn clock(at: Timestamp) -> String {
    let exact = shape::time(at);
    format!("{} {} UTC", &exact[5..10], &exact[11..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_even_round_and_high_enough() {
        for (most, top) in
            [(0, 2), (1, 2), (2, 2), (3, 4), (5, 6), (7, 10), (11, 20), (61, 100), (12_345, 20_000)]
        {
            assert_eq!(nice(most), top);
        }
    }

    #[test]
    fn durations_are_said_in_the_unit_that_fits() {
        for (micros, words) in [
            (100, "0.1 ms"),
            (12_400, "12 ms"),
            (1_000_000, "1 s"),
            (2_500_000, "2.5 s"),
            (30_000_000, "30 s"),
        ] {
            assert_eq!(spent(micros), words);
        }
    }

    #[test]
    fn a_scale_holds_what_is_drawn_on_it() {
        let scale = |values: &[u64]| {
            let scale = Scale::of(values.iter().copied());
            (scale.low, scale.high)
        };
        assert_eq!(scale(&[]), (3, 5));
        assert_eq!(scale(&[0, 1]), (2, 4));
        assert_eq!(scale(&[1500, 1_000_000]), (3, 6));
        assert_eq!(scale(&[1500, 1_000_001]), (3, 7));
        let scale = Scale { low: 3, high: 5 };
        assert_eq!(scale.ticks(), ["100 ms", "10 ms", "1 ms"]);
        assert!((scale.place(10_000) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_drawn_stands_where_its_value_is() {
        let begins = (0..2).map(|n| Timestamp::from_micros(n * 60_000_000)).collect();
        let times = Times { begins, marks: &["then", "now"], each: "each minute" };
        let about = About { id: "x", title: "X", unit: "things".to_owned() };
        let series =
            |name, hue, values: [u64; 2]| Series { name, hue, stroke: "", values: values.to_vec() };
        let drawn =
            stacked(&about, &times, &[series("a", "hue-1", [1, 0]), series("b", "hue-2", [1, 4])]);
        let drawn = drawn.into_string();
        assert!(drawn.contains(r#"class="bars hue-1" d="M1 100.0H9V75.0H1z""#), "{drawn}");
        assert!(drawn.contains(r#"class="bars hue-2" d="M1 75.0H9V50.0H1zM11 100.0H19V0.0H11z""#));
        assert!(drawn.contains("In all: 1 a, 5 b. At most 4 at once."));
        assert!(drawn.contains("01-01 00:01 UTC: a 0, b 4"));
    }
}
