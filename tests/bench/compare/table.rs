//! The table of results.

/// What the two servers need for the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Both {
    pub(crate) ours: f64,
    pub(crate) original: f64,
    /// Ours over the original's: the median of the rounds' own, where there were rounds.
    pub(crate) ratio: f64,
}

impl Both {
    /// Both in another unit.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { ours: self.ours * factor, original: self.original * factor, ..self }
    }
}

/// What our server is to reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    None,
    /// At most this share of the original's.
    Share(f64),
    /// At least this many times the original's.
    Times(f64),
    /// Less than this, whatever the original needs.
    Below(f64),
}

/// Prints the head of the table, in Markdown. Its lines are printed as they come.
pub(crate) fn head(release: &str) {
    println!("| measure | ours | original {release} | ours/original | target | |");
    println!("|---|---:|---:|---:|---:|---|");
}

/// A measure of both servers.
pub(crate) fn both(measure: &str, both: Both, target: Target, note: &str) {
    let ratio = both.ratio;
    let (text, met) = match target {
        Target::None => (String::new(), None),
        Target::Share(share) => (format!("{share:.3} at most"), Some(ratio <= share)),
        Target::Times(times) => (format!("{times:.1} at least"), Some(ratio >= times)),
        Target::Below(limit) => (format!("ours below {}", number(limit)), Some(both.ours < limit)),
    };
    let cells = [number(both.ours), number(both.original), format!("{ratio:.3}"), text];
    line(measure, &cells, met, note);
}

/// A measure of our server alone.
pub(crate) fn ours(measure: &str, value: f64, target: Target, note: &str) {
    let (text, met) = match target {
        Target::Below(limit) => (format!("ours below {}", number(limit)), Some(value < limit)),
        _ => (String::new(), None),
    };
    line(measure, &[number(value), "-".to_owned(), "-".to_owned(), text], met, note);
}

/// What cannot be measured, and why.
pub(crate) fn not_run(measure: &str, reason: &str) {
    let empty = [const { String::new() }; 4];
    line(measure, &empty, None, &format!("not run: {reason}"));
}

fn line(measure: &str, cells: &[String; 4], met: Option<bool>, note: &str) {
    let judgement = met.map_or("", |met| if met { "met" } else { "**missed**" });
    let separator = if judgement.is_empty() || note.is_empty() { "" } else { "; " };
    println!("| {measure} | {} | {judgement}{separator}{note} |", cells.join(" | "));
}

/// Three digits that say something.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
