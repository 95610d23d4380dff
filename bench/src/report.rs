//! What is printed: a table for people and one JSON object for machines.

use crate::{
    Format, Options,
    contest::{Figure, Role, Row, Spread},
};
use serde_json::{Map, Value, json};

/// What a suite found.
pub struct Found {
    /// The suite.
    pub suite: &'static str,
    /// What was measured, in words: operation, connections, sizes, TLS.
    pub what: String,
    /// One a system. The first is ours.
    pub rows: Vec<Row>,
    /// Which figure `ratio_to_peer` and `ratio_to_limit` are about.
    pub figure: Figure,
    /// More that the suite has to say, each a name and a value.
    pub facts: Vec<(String, Value)>,
    /// What a reader must know to believe the rows.
    pub notes: Vec<String>,
}

/// Prints it.
pub fn print(options: &Options, found: &Found) {
    println!("\n{}: {}", found.suite, found.what);
    if !found.rows.is_empty() {
        table(found);
    }
    for (name, value) in &found.facts {
        println!("  {name}: {value}");
    }
    for note in &found.notes {
        println!("  note: {note}");
    }
    if options.format == Format::Json {
        println!("{}", json_of(options, found));
    }
}

fn ours(found: &Found) -> Option<&Row> {
    found.rows.iter().find(|row| row.role == Role::Ours)
}

fn of_role(found: &Found, role: Role) -> Option<&Row> {
    found.rows.iter().find(|row| row.role == role)
}

fn table(found: &Found) {
    println!(
        "  {:<30} {:<14} {:>9} {:>8} {:>8} {:>8} {:>22} {:>7} {:>7} {:>7}  ours is better by ({})",
        "system",
        "durability",
        "rate/s",
        "p50 us",
        "p99 us",
        "p999 us",
        "CPU us/req (min-max)",
        "RSS MB",
        "waited",
        "others",
        found.figure.name()
    );
    for row in &found.rows {
        let median = |figure: fn(&crate::contest::Window) -> f64| row.spread(figure).median;
        let cpu = row.spread(|window| window.cpu);
        let cpu = if cpu.max > 0.0 {
            format!("{:.1} ({:.1}-{:.1})", cpu.median, cpu.min, cpu.max)
        } else {
            "-".into()
        };
        let ratio = ours(found)
            .filter(|_| row.role != Role::Ours)
            .map(|ours| row.ratio(ours, found.figure));
        let ratio = ratio.filter(|ratio| ratio.median.is_finite() && ratio.median > 0.0);
        let ratio = ratio
            .map(|Spread { median, min, max }| format!("{median:.2}x ({min:.2}-{max:.2})"))
            .unwrap_or_default();
        println!(
            "  {:<30} {:<14} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>22} {:>7.1} {:>6.0}%{} {:>6.0}%  {}",
            row.name,
            row.durability,
            median(|window| window.rate),
            median(|window| window.p50),
            median(|window| window.p99),
            median(|window| window.p999),
            cpu,
            row.rss_mb,
            median(|window| window.waited) * 100.0,
            if row.crowded() > 0 { "*" } else { " " },
            median(|window| window.foreign) * 100.0,
            ratio,
        );
    }
    if found.rows.iter().any(|row| row.crowded() > 0) {
        println!(
            "  * at least one window in which the server's threads waited for a core for more than 10 % of the time: believe its CPU figures, not its rate"
        );
    }
}

fn json_of(options: &Options, found: &Found) -> Value {
    let mut object = Map::new();
    object.insert("suite".into(), found.suite.into());
    if let Some(row) = ours(found) {
        let ratio = |role| {
            of_role(found, role)
                .map(|other| other.ratio(row, found.figure).median)
                .filter(|ratio| ratio.is_finite())
        };
        let fields = [
            ("rate", json!(row.spread(|window| window.rate).median)),
            ("p50_us", json!(row.spread(|window| window.p50).median)),
            ("p99_us", json!(row.spread(|window| window.p99).median)),
            ("p999_us", json!(row.spread(|window| window.p999).median)),
            ("cpu_us", json!(row.spread(|window| window.cpu).median)),
            ("rss_mb", json!(row.rss_mb)),
            ("durability", json!(row.durability)),
            ("ratio_of", json!(found.figure.name())),
            ("ratio_to_peer", json!(ratio(Role::Peer))),
            ("ratio_to_limit", json!(ratio(Role::Limit))),
            ("rounds", json!(row.windows.len())),
            ("crowded_windows", json!(row.crowded())),
        ];
        object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }
    object.extend(found.facts.iter().cloned());
    object.insert("peer".into(), json!(format!("{:?}", options.peer).to_lowercase()));
    Value::Object(object)
}
