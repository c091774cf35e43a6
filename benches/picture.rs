//! The pictures in `docs/benchmarks`, from the series that rows keep.

use std::path::Path;

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::results::Results;
use crate::row::{Picture, Series};

const SIZE: (u32, u32) = (820, 400);

/// Told apart by people who do not see all colours as well.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// What stands around a picture's lines.
pub struct Frame {
    pub picture: Picture,
    pub file: &'static str,
    pub title: &'static str,
    x: &'static str,
    y: &'static str,
}

/// All pictures in the order of the document.
pub const FRAMES: [Frame; 4] = [
    Frame {
        picture: Picture::CloneThroughput,
        file: "clone-throughput.svg",
        title: "Throughput of a clone over time",
        x: "seconds",
        y: "documents a second",
    },
    Frame {
        picture: Picture::CloneMemory,
        file: "clone-memory.svg",
        title: "Memory of clustersync while it clones",
        x: "seconds",
        y: "MiB",
    },
    Frame {
        picture: Picture::Lag,
        file: "lag.svg",
        title: "Lag from the source's majority to readable on the target",
        x: "milliseconds",
        y: "share of writes",
    },
    Frame {
        picture: Picture::Memory,
        file: "memory.svg",
        title: "Memory of clustersync while it streams",
        x: "seconds",
        y: "MiB",
    },
];

/// Draw what there are series of; whether there were any.
pub fn draw(frame: &Frame, results: &Results, folder: &Path) -> bool {
    let rows = results.rows.values();
    let series: Vec<&Series> = rows
        .flat_map(|kept| &kept.row.series)
        .filter(|series| series.picture == frame.picture && !series.points.is_empty())
        .collect();
    if series.is_empty() {
        return false;
    }
    let all = || series.iter().flat_map(|series| &series.points);
    let most = |axis: usize| all().map(|point| point[axis]).fold(0.0, f64::max);
    let file = folder.join(frame.file);
    let area = SVGBackend::new(&file, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut builder = ChartBuilder::on(&area);
    builder.caption(frame.title, ("sans-serif", 18)).margin(12).x_label_area_size(42).y_label_area_size(70);
    if frame.picture == Picture::Lag {
        let least = all().map(|point| point[0]).fold(f64::MAX, f64::min).max(0.01);
        lines(builder.build_cartesian_2d((least..most(0)).log_scale(), 0.0..1.0).unwrap(), frame, &series);
    } else {
        lines(builder.build_cartesian_2d(0.0..most(0), 0.0..most(1) * 1.1).unwrap(), frame, &series);
    }
    area.present().unwrap();
    true
}

fn lines<'a, X, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    frame: &Frame,
    series: &[&Series],
) where
    X: Ranged<ValueType = f64> + ValueFormatter<f64> + 'a,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64> + 'a,
{
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(frame.x)
        .y_desc(frame.y)
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()
        .unwrap();
    for (one, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let points = one.points.iter().map(|[x, y]| (*x, *y));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .unwrap()
            .label(&one.name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()
        .unwrap();
}
