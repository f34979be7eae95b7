//! SVG charts, drawn in whole pixels so that every machine draws the same.

use std::fmt::Display;

use chrono::{Datelike as _, NaiveDate, Weekday};
use plotters::coord::Shift;
use plotters::prelude::{
    DrawingArea, IntoDrawingArea as _, IntoFont as _, PathElement, RGBColor, Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, TextStyle};
use reports::figures::{Day, HOURS};

use super::RenderError;
use super::number::count;

const WIDTH: u32 = 960;
const LEFT: i32 = 58;
const RIGHT: i32 = 956;
const TOP: i32 = 10;
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(52, 64, 84);
const FAINT: RGBColor = RGBColor(126, 138, 154);
const GRID: RGBColor = RGBColor(228, 232, 238);
const ANSWERED: RGBColor = RGBColor(31, 95, 168);
const UNANSWERED: RGBColor = RGBColor(188, 204, 222);
const TALK: RGBColor = RGBColor(32, 134, 116);
const NOTHING: RGBColor = RGBColor(242, 244, 247);
/// The colour of the fullest hour and of an hour with hardly a call; hours between get a step between.
const FULL: RGBColor = RGBColor(16, 58, 112);
const SLIGHT: RGBColor = RGBColor(214, 227, 242);
/// Steps of colour: more than an eye tells apart.
const STEPS: i64 = 16;
/// Lines of a scale above its zero: see [`tick`].
const LINES_MAX: i64 = 5;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn failed(error: impl Display) -> RenderError {
    RenderError::Chart(error.to_string())
}

/// Bars per day: answered attempts on a dark ground, all others on top in light.
pub(crate) fn attempts_by_day(days: &[Day]) -> Result<String, RenderError> {
    let values =
        days.iter().map(|day| [day.counters.answered, day.counters.attempts.saturating_sub(day.counters.answered)]);
    bars(days, &values.collect::<Vec<_>>(), [ANSWERED, UNANSWERED], 210)
}

/// Bars per day: minutes of conversation, in the day of the end.
pub(crate) fn minutes_by_day(days: &[Day]) -> Result<String, RenderError> {
    let values = days.iter().map(|day| [day.counters.minutes().scaled(1).unwrap_or(0), 0]);
    bars(days, &values.collect::<Vec<_>>(), [TALK, TALK], 150)
}

fn bars(days: &[Day], values: &[[i64; 2]], colors: [RGBColor; 2], height: i32) -> Result<String, RenderError> {
    let bottom = height - 38;
    let max = values.iter().map(|[a, b]| a.max(&0).saturating_add(*b.max(&0))).max().unwrap_or(0).max(1);
    let step = tick(max);
    let top_value = max.div_euclid(step).saturating_add(i64::from(max % step != 0)).saturating_mul(step);
    let y = |value: i64| bottom - pixels(value, top_value, bottom - TOP);
    draw(height, |area| {
        for value in (0..=LINES_MAX).map(|n| step.saturating_mul(n)).take_while(|value| *value <= top_value) {
            let at = y(value);
            area.draw(&PathElement::new(vec![(LEFT, at), (RIGHT, at)], GRID)).map_err(failed)?;
            label(area, &count(value), (LEFT - 8, at), 12, FAINT, HPos::Right)?;
        }
        for (index, ([low, high], day)) in values.iter().zip(days).enumerate() {
            let (from, to) = column(index, days.len());
            let gap = ((to - from) / 6).max(1);
            let (low, high) = (*low.max(&0), *high.max(&0));
            let middle = y(low);
            if low > 0 {
                let bar = Rectangle::new([(from + gap, middle), (to - gap, bottom)], colors[0].filled());
                area.draw(&bar).map_err(failed)?;
            }
            if high > 0 {
                let bar =
                    Rectangle::new([(from + gap, y(low.saturating_add(high))), (to - gap, middle)], colors[1].filled());
                area.draw(&bar).map_err(failed)?;
            }
            day_label(area, day, (from + to) / 2, bottom)?;
        }
        Ok(())
    })
}

/// A cell per local hour and day, the darker the more attempts.
pub(crate) fn heat_map(days: &[Day]) -> Result<String, RenderError> {
    const CELL: i32 = 11;
    let rows = i32::try_from(HOURS).unwrap_or(24);
    let bottom = TOP + rows * CELL;
    let max = days.iter().flat_map(|day| day.attempts_by_hour).flatten().max().unwrap_or(0).max(1);
    draw(bottom + 38, |area| {
        for hour in [0, 3, 6, 9, 12, 15, 18, 21] {
            let at = TOP + hour * CELL + CELL / 2;
            label(area, &format!("{hour:02}:00"), (LEFT - 8, at), 12, FAINT, HPos::Right)?;
        }
        for (index, day) in days.iter().enumerate() {
            let (from, to) = column(index, days.len());
            for (hour, attempts) in (0..).zip(day.attempts_by_hour) {
                let Some(attempts) = attempts else { continue };
                let upper = TOP + hour * CELL;
                let cell =
                    Rectangle::new([(from + 1, upper), (to - 1, upper + CELL - 1)], heat(attempts, max).filled());
                area.draw(&cell).map_err(failed)?;
            }
            day_label(area, day, (from + to) / 2, bottom)?;
        }
        Ok(())
    })
}

fn heat(attempts: i64, max: i64) -> RGBColor {
    if attempts <= 0 {
        return NOTHING;
    }
    let step = i64::try_from((i128::from(attempts) * i128::from(STEPS)).div_euclid(i128::from(max))).unwrap_or(STEPS);
    let mix = |from: u8, to: u8| {
        let (from, to) = (i64::from(from), i64::from(to));
        u8::try_from(from + (to - from) * step.clamp(0, STEPS) / STEPS).unwrap_or(0)
    };
    RGBColor(mix(SLIGHT.0, FULL.0), mix(SLIGHT.1, FULL.1), mix(SLIGHT.2, FULL.2))
}

/// Left and right edge of a day's column.
fn column(index: usize, days: usize) -> (i32, i32) {
    let edge = |n: usize| {
        let (n, of) = (i64::try_from(n).unwrap_or(0), i64::try_from(days).unwrap_or(1));
        LEFT + pixels(n, of, RIGHT - LEFT)
    };
    (edge(index), edge(index + 1))
}

fn day_label(area: &Area<'_>, day: &Day, x: i32, bottom: i32) -> Result<(), RenderError> {
    let Ok(date) = day.date.parse::<NaiveDate>() else { return Ok(()) };
    let (name, color) = match date.weekday() {
        Weekday::Sat => ("Sa", FAINT),
        Weekday::Sun => ("Su", FAINT),
        Weekday::Mon => ("Mo", INK),
        Weekday::Tue => ("Tu", INK),
        Weekday::Wed => ("We", INK),
        Weekday::Thu => ("Th", INK),
        Weekday::Fri => ("Fr", INK),
    };
    label(area, &date.day().to_string(), (x, bottom + 12), 13, color, HPos::Center)?;
    label(area, name, (x, bottom + 27), 11, FAINT, HPos::Center)
}

fn label(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    color: RGBColor,
    horizontal: HPos,
) -> Result<(), RenderError> {
    let style = TextStyle::from((FONT, size).into_font()).color(&color).pos(Pos::new(horizontal, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
}

fn draw(height: i32, content: impl FnOnce(&Area<'_>) -> Result<(), RenderError>) -> Result<String, RenderError> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (WIDTH, u32::try_from(height).unwrap_or(0))).into_drawing_area();
    content(&area)?;
    area.present().map_err(failed)?;
    drop(area);
    Ok(svg)
}

/// `value` of `of` as a part of `length` pixels.
fn pixels(value: i64, of: i64, length: i32) -> i32 {
    let scaled = i128::from(value) * i128::from(length) / i128::from(of.max(1));
    i32::try_from(scaled).unwrap_or(length)
}

/// A round step (1, 2 or 5 times a power of ten) that gives at most [`LINES_MAX`] lines.
fn tick(max: i64) -> i64 {
    let mut unit: i64 = 1;
    loop {
        for factor in [1, 2, 5] {
            let step = unit.saturating_mul(factor);
            if max / step <= 4 || step == i64::MAX {
                return step;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let check = |max, expected| assert_eq!(tick(max), expected, "{max}");
        check(1, 1);
        check(9, 2);
        check(1_234, 500);
        check(25_000, 10_000);
        check(i64::MAX, 2_000_000_000_000_000_000);
    }

    #[test]
    fn an_empty_month_and_a_huge_one_can_be_drawn() {
        let day = |attempts| Day {
            date: "2026-11-01".into(),
            counters: reports::resource::Counters { attempts, answered: attempts, ..Default::default() },
            attempts_by_hour: [Some(attempts); HOURS],
        };
        for attempts in [0, 1, i64::MAX] {
            for chart in [attempts_by_day, minutes_by_day, heat_map] {
                assert!(chart(&[day(attempts)]).unwrap().starts_with("<svg"));
            }
        }
        assert!(heat_map(&[]).unwrap().starts_with("<svg"));
    }
}
