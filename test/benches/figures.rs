//! Figures: medians, ratios pair by pair, and the table that shows them.

/// A column of the table: one candidate or one ratio, with a value for each run.
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub values: Vec<f64>,
}

/// What a benchmark has found.
pub struct Report {
    pub rows: Vec<Row>,
    /// The line that comes last.
    pub summary: String,
}

pub fn row(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Row {
    Row {
        name: name.into(),
        unit,
        values,
    }
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of the values lies.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() - 1) as f64 * part;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// The ratios a/b, pair by pair.
pub fn ratios(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a / b).collect()
}

impl Report {
    pub fn print(&self, json: bool) {
        if json {
            let rows: Vec<_> = self
                .rows
                .iter()
                .map(|row| {
                    serde_json::json!({"name": row.name, "unit": row.unit, "median": median(&row.values),
                        "values": row.values})
                })
                .collect();
            println!(
                "{}",
                serde_json::json!({"rows": rows, "summary": self.summary})
            );
            return;
        }
        println!(
            "{:<44}{:>12}{:>12}{:>12}   runs",
            "", "median", "min", "max"
        );
        for Row { name, unit, values } in &self.rows {
            println!(
                "{:<44}{:>12.3}{:>12.3}{:>12.3}   {}",
                format!("{name}, {unit}"),
                median(values),
                quantile(values, 0.0),
                quantile(values, 1.0),
                values.len()
            );
        }
        println!("{}", self.summary);
    }
}
