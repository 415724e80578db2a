//! Pages that the code leans on: the protocol's rule table, and a stated reason for
//! each dependency.

use std::collections::BTreeMap;

use crate::{assert_none, repository};

const PROTOCOL: &str = "docs/PROTOCOL.md";

/// The rules that the chain's safety rests on. Their numbers are in the code, in the
/// checkers and in the alarms, so the table has to know them all.
const RULES: &[&str] = &[
    "C1", "C2", "C3", "C4", "C5", "L1", "L2", "L3", "L4", "L5", "S1", "S2", "R1", "R2", "R3", "R4",
    "M1", "M2", "M3", "M4", "M5",
];

#[test]
fn the_protocol_page_has_a_row_for_every_rule() {
    let Some(page) = repository::text(PROTOCOL) else {
        panic!(
            "{PROTOCOL} does not exist. It has to hold the table of the rules {RULES:?}: a row \
             each, the number in the first cell and where it is asserted in the last"
        );
    };
    assert_none(
        &format!("{PROTOCOL}, the table of rules:"),
        &rule_breaches(&page),
    );
}

#[test]
fn the_protocol_page_names_only_files_that_exist() {
    let page = repository::text(PROTOCOL).unwrap_or_default();
    let missing: Vec<String> = sources_named_in(&page)
        .into_iter()
        .filter(|path| repository::text(path).is_none())
        .map(|path| format!("{path}: no such file (paths count from the repository's root)"))
        .collect();
    assert_none(&format!("{PROTOCOL} has fallen behind the code:"), &missing);
}

#[test]
fn every_dependency_has_a_stated_reason() {
    let reasons: String = repository::files("docs/decisions", "md")
        .iter()
        .filter_map(|file| repository::text(file))
        .collect();
    let manifest = repository::manifest("Cargo.toml");
    let dependencies = manifest["workspace"]["dependencies"]
        .as_table()
        .expect("the workspace has dependencies");
    let missing: Vec<String> = dependencies
        .keys()
        .filter(|name| !name.starts_with("catena-") && !has_a_reason(name, &reasons))
        .map(|name| format!("{name}: no row in docs/decisions/001-dependencies.md"))
        .collect();
    assert_none("A dependency came in without a reason:", &missing);
}

/// What is wrong with the rule table: rules without a row, and rows whose last cell
/// does not say where the rule is asserted.
fn rule_breaches(page: &str) -> Vec<String> {
    let mut rows: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
    for cells in page.lines().filter_map(cells) {
        if let Some(rule) = RULES
            .iter()
            .find(|rule| cells.first().is_some_and(|it| it == **rule))
        {
            rows.entry(rule).or_default().push(cells);
        }
    }
    let mut breaches = Vec::new();
    for rule in RULES {
        match rows.get(rule) {
            None => breaches.push(format!("{rule}: no row has this number in its first cell")),
            Some(rows)
                if rows
                    .iter()
                    .all(|row| row.len() < 2 || row.last().is_some_and(String::is_empty)) =>
            {
                breaches.push(format!(
                    "{rule}: the last cell does not say where it is asserted"
                ));
            }
            Some(_) => {}
        }
    }
    breaches
}

/// A table row's cells without their mark-up, or `None` for any other line.
fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let bare = |cell: &str| {
        cell.trim()
            .trim_matches(['*', '`', '_', '[', ']'])
            .to_owned()
    };
    Some(row.split('|').map(bare).collect())
}

/// The sources that a page names in backticks, without `::item` or `:line`.
fn sources_named_in(page: &str) -> Vec<String> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| {
            code.contains('/') && code.contains(".rs") && !code.contains(['*', '{', ' '])
        })
        .map(|code| code.split(':').next().unwrap_or(code).to_owned())
        .collect()
}

fn has_a_reason(dependency: &str, reasons: &str) -> bool {
    reasons.lines().filter_map(cells).any(|cells| {
        cells.first().is_some_and(|first| {
            first
                .split(',')
                .any(|name| name.trim().trim_matches('`') == dependency)
        })
    })
}

#[test]
fn a_missing_rule_and_an_empty_place_are_found() {
    let row = |rule: &str| format!("| **{rule}** | text | `chainnode/src/replica/x.rs` |\n");
    let whole: String = RULES.iter().map(|rule| row(rule)).collect();
    assert!(rule_breaches(&whole).is_empty());
    assert_eq!(rule_breaches(&whole.replace(&row("L2"), "")).len(), 1);
    assert_eq!(
        rule_breaches(&whole.replace(&row("R3"), "| R3 | text | |\n")).len(),
        1
    );
    assert_eq!(rule_breaches("L2 is only mentioned").len(), RULES.len());
}

#[test]
fn named_sources_are_read_without_their_items() {
    let page = "see `wal/src/cut.rs::Cut`, `a/b.rs:12`, `Seq`, `x/*.rs` and `target/`";
    assert_eq!(sources_named_in(page), ["wal/src/cut.rs", "a/b.rs"]);
}

#[test]
fn a_reason_is_a_row_and_not_a_mention() {
    let page = "| `tonic`, `prost` | the wire |\n| x | uses sled |\n";
    assert!(has_a_reason("prost", page));
    assert!(!has_a_reason("sled", page));
}
