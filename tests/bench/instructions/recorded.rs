//! The counts that were recorded, and what differs from them.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};

/// What a case may take more or less than was recorded.
const TOLERANCE_PERCENT: f64 = 3.0;

/// Instructions of each case, by its name.
pub(crate) struct Recorded {
    pub(crate) compiler: String,
    pub(crate) counts: BTreeMap<String, u32>,
}

impl Recorded {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().ok_or("recorded.txt does not name a compiler")?.to_owned();
        let counts = lines.map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok().filter(|count| *count > 0)?))
        });
        let counts = counts.collect::<Option<_>>().ok_or("recorded.txt has a line that is no name and count")?;
        Ok(Self { compiler, counts })
    }

    /// A table of both, and what is wrong.
    ///
    /// Also a case that takes less is wrong: until that is recorded, it could grow again unnoticed. Another
    /// compiler may do better without a commit, though, and the table says that it is another one.
    pub(crate) fn compare(&self, now: &Self) -> (String, Option<String>) {
        let (mut table, mut complaint) =
            (format!("{:<34}{:>12}{:>12}\n", "instructions", "recorded", "now"), String::new());
        let same_compiler = self.compiler == now.compiler;
        for (name, count) in &now.counts {
            let Some(before) = self.counts.get(name) else {
                _ = writeln!(complaint, "{name} is new: {count} instructions");
                continue;
            };
            let change = (f64::from(*count) / f64::from(*before) - 1.0) * 100.0;
            _ = writeln!(table, "{name:<34}{before:>12}{count:>12}{change:>+9.2} %");
            if change > TOLERANCE_PERCENT || same_compiler && change < -TOLERANCE_PERCENT {
                let how = if change > 0.0 { "more" } else { "fewer" };
                let change = change.abs();
                _ = writeln!(complaint, "{name} takes {change:.2} % {how} instructions: {before} before, {count} now");
            }
        }
        for name in self.counts.keys().filter(|name| !now.counts.contains_key(*name)) {
            _ = writeln!(complaint, "{name} is recorded but no longer counted");
        }
        if !same_compiler {
            _ = writeln!(table, "The compiler is another one, which may make a difference:");
            _ = writeln!(table, "  recorded with {}\n  now with      {}", self.compiler, now.compiler);
        }
        if complaint.is_empty() {
            return (table, None);
        }
        complaint.push_str(concat!(
            "callgrind_annotate ",
            env!("CARGO_TARGET_TMPDIR"),
            "/callgrind.CASE shows where they are.\n\
             If it has to be so, record it in the same commit, and say why in its body:\n  \
             cargo bench --bench instructions -- --record",
        ));
        (table, Some(complaint))
    }
}

impl Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions of each case. Written by `cargo bench --bench instructions -- --record`; do not edit."
        )?;
        writeln!(f, "{}", self.compiler)?;
        self.counts.iter().try_for_each(|(name, count)| writeln!(f, "{name:<34}{count:>12}"))
    }
}
