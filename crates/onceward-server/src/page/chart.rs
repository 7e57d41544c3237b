//! Charts, drawn here: a drawing that stretches to any width, with its words around it, so that they
//! stay as large as all others; each says in words what it shows, and has its numbers in a table.

use maud::{Markup, PreEscaped, html};
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

/// Counts, one on top of the other.
pub(super) fn stacked(about: &About, times: &Times, series: &[Series]) -> Markup {
    let columns = times.begins.len();
    let total = |column: usize| series.iter().map(|it| it.values[column]).sum::<u64>();
    let most = (0..columns).map(total).max().unwrap_or_default();
    let top = nice(most);
    let mut floors = vec![0_u64; columns];
    let mut drawing = grid(columns, 2);
    for it in series {
        let mut path = String::new();
        for (column, (value, floor)) in it.values.iter().zip(&mut floors).enumerate() {
            if *value > 0 {
                let high = |count: u64| HEIGHT - count as f64 / top as f64 * HEIGHT;
                let (from, to) = (high(*floor), high(*floor + value));
                let left = column * COLUMN + 1;
                path += &format!("M{left} {from:.1}H{}V{to:.1}H{left}z", left + COLUMN - 2);
            }
            *floor += value;
        }
        drawing += &format!(r#"<path class="bars {}" d="{path}"/>"#, it.hue);
    }
    let tip = |column: usize| {
        let of = |it: &Series| format!("{} {}", it.name, number(it.values[column]));
        series.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let legend = series.iter().map(|it| (it, number(it.sum())));
    let said = format!("{} At most {} at once.", said(about, times, series), number(most));
    let ticks = [top, top / 2, 0].map(short);
    figure(about, times, &ticks, &drawing, &said, legend, tip)
}

/// Durations in microseconds as lines, each step of the scale ten times the one below; where there is
/// none, nothing is drawn.
pub(super) fn lines(about: &About, times: &Times, series: &[(Series, String)]) -> Markup {
    let columns = times.begins.len();
    let there = || series.iter().flat_map(|(it, _)| &it.values).filter(|value| **value > 0);
    let low = there().min().map_or(3.0, |least| (*least as f64).log10().floor()).clamp(2.0, 8.0);
    let high = there().max().map_or(low, |most| (*most as f64).log10().ceil()).max(low + 2.0);
    let steps = (high - low) as usize;
    let y = |value: u64| HEIGHT - ((value as f64).log10() - low) / (high - low) * HEIGHT;
    let mut drawing = grid(columns, steps);
    for (it, _) in series {
        let (mut path, mut dots, mut is_on) = (String::new(), String::new(), false);
        for (column, value) in it.values.iter().enumerate() {
            let x = column * COLUMN + COLUMN / 2;
            if *value > 0 {
                path += &format!("{}{x} {:.1}", if is_on { "L" } else { "M" }, y(*value));
                // One that is alone would be no line.
                let is_alone = !is_on && it.values.get(column + 1).is_none_or(|next| *next == 0);
                if is_alone {
                    dots += &format!("M{x} {:.1}h0", y(*value));
                }
            }
            is_on = *value > 0;
        }
        let Series { hue, stroke, .. } = it;
        drawing += &format!(r#"<path class="line {hue} {stroke}" d="{path}"/>"#);
        drawing += &format!(r#"<path class="dots {hue}" d="{dots}"/>"#);
    }
    let tip = |column: usize| {
        let of = |(it, _): &(Series, String)| match it.values[column] {
            0 => format!("{} -", it.name),
            micros => format!("{} {}", it.name, spent(micros)),
        };
        series.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let legend = series.iter().map(|(it, over_all)| (it, over_all.clone()));
    let names: Vec<_> = series.iter().map(|(it, all)| format!("{} {all}", it.name)).collect();
    let said = format!("{}, {}. Over all: {}.", about.unit, times.each, names.join(", "));
    let ticks: Vec<_> =
        (0..=steps).rev().map(|step| 10_u64.pow(low as u32 + step as u32)).collect();
    let ticks: Vec<_> = ticks.into_iter().map(spent).collect();
    figure(about, times, &ticks, &drawing, &said, legend, tip)
}

fn said(about: &About, times: &Times, series: &[Series]) -> String {
    let sums: Vec<_> =
        series.iter().map(|it| format!("{} {}", number(it.sum()), it.name)).collect();
    format!("{}, {}. In all: {}.", about.unit, times.each, sums.join(", "))
}

fn figure<'a>(
    about: &About,
    times: &Times,
    ticks: &[String],
    drawing: &str,
    said: &str,
    legend: impl Iterator<Item = (&'a Series, String)>,
    tip: impl Fn(usize) -> String,
) -> Markup {
    let About { id, title, unit } = about;
    let columns = times.begins.len();
    let is_line = drawing.contains(r#"class="line"#);
    html! {
        figure.chart.card {
            figcaption { h3 { (title) } span.soft.small { (unit) ", " (times.each) } }
            ul.legend {
                @for (it, value) in legend {
                    li { (swatch(it, is_line)) (it.name) " " strong { (value) } }
                }
            }
            div.plot {
                div.up aria-hidden="true" { @for tick in ticks { span { (tick) } } }
                svg viewBox={ "0 0 " (columns * COLUMN) " " (HEIGHT) } preserveAspectRatio="none"
                    role="img" aria-labelledby={ (id) "-title " (id) "-said" } {
                    title id={ (id) "-title" } { (title) }
                    desc id={ (id) "-said" } { (said) }
                    // Numbers and names of our own, so they need no escaping.
                    (PreEscaped(drawing))
                    @for (column, at) in times.begins.iter().enumerate() {
                        rect.hit x=(column * COLUMN) y="0" width=(COLUMN) height=(HEIGHT) {
                            title { (clock(*at)) ": " (tip(column)) }
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
fn grid(columns: usize, steps: usize) -> String {
    let width = columns * COLUMN;
    let at = |step: usize| HEIGHT - step as f64 * HEIGHT / steps as f64;
    let lines: String = (1..=steps).map(|step| format!("M0 {:.1}H{width}", at(step))).collect();
    format!(r#"<path class="grid" d="{lines}"/><path class="grid base" d="M0 {HEIGHT}H{width}"/>"#)
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
    fn what_is_drawn_stands_where_its_value_is() {
        let begins = (0..2).map(|n| Timestamp::from_micros(n * 60_000_000)).collect();
        let times = Times { begins, marks: &["then", "now"], each: "each minute" };
        let about = About { id: "x", title: "X", unit: "things".to_owned() };
        let series =
            |name, hue, values: [u64; 2]| Series { name, hue, stroke: "", values: values.to_vec() };
        let drawn =
            stacked(&about, &times, &[series("a", "hue-1", [1, 0]), series("b", "hue-2", [1, 4])]);
        let drawn = drawn.into_string();
        assert!(drawn.contains(r#"<path class="bars hue-1" d="M1 100.0H9V75.0H1z"/>"#), "{drawn}");
        assert!(
            drawn.contains(
                r#"<path class="bars hue-2" d="M1 75.0H9V50.0H1zM11 100.0H19V0.0H11z"/>"#
            )
        );
        assert!(drawn.contains("In all: 1 a, 5 b. At most 4 at once."));
        assert!(drawn.contains("01-01 00:01 UTC: a 0, b 4"));
    }
}
