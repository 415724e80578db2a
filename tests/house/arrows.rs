//! Arrows between crates point one way (DESIGN, "Rooms"):
//! `catena → jepsen → {master, chainnode, client} → {wal, proto}`. The two planes
//! never import each other, also not in their tests: the bytes between them are all
//! that one may know of the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::{assert_none, repository};

/// Each package's folder and the packages it may depend on.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("catena-proto", "proto", &[]),
    ("catena-wal", "wal", &["catena-proto"]),
    ("catena-master", "master", &["catena-proto", "catena-wal"]),
    (
        "catena-chainnode",
        "chainnode",
        &["catena-proto", "catena-wal"],
    ),
    ("catena-client", "client", &["catena-proto", "catena-wal"]),
    (
        "catena-jepsen",
        "jepsen",
        &[
            "catena-proto",
            "catena-wal",
            "catena-master",
            "catena-chainnode",
            "catena-client",
        ],
    ),
    (
        "catena",
        ".",
        &[
            "catena-proto",
            "catena-wal",
            "catena-master",
            "catena-chainnode",
            "catena-client",
            "catena-jepsen",
        ],
    ),
];

#[test]
fn crates_depend_in_one_direction_only() {
    let manifests: BTreeMap<&str, toml::Table> = ARROWS
        .iter()
        .map(|(name, folder, _)| (*name, repository::manifest(&format!("{folder}/Cargo.toml"))))
        .collect();
    let mut breaches = Vec::new();
    for (name, manifest) in &manifests {
        assert_eq!(
            manifest["package"]["name"].as_str(),
            Some(*name),
            "the package in this folder has another name"
        );
        breaches.extend(wrong_arrows(name, manifest));
    }
    assert_none("A crate depends on one that it must not know:", &breaches);
}

#[test]
fn every_member_of_the_workspace_has_its_arrows() {
    let root = repository::manifest("Cargo.toml");
    let members: BTreeSet<&str> = root["workspace"]["members"]
        .as_array()
        .expect("`members` is a list")
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    let known: BTreeSet<&str> = ARROWS
        .iter()
        .map(|(_, folder, _)| *folder)
        .filter(|folder| *folder != ".")
        .collect();
    assert_eq!(
        members, known,
        "a new crate needs its row in tests/house/arrows.rs"
    );
}

#[test]
fn versions_and_lints_are_those_of_the_workspace() {
    let mut breaches = Vec::new();
    for (name, folder, _) in ARROWS {
        let manifest = repository::manifest(&format!("{folder}/Cargo.toml"));
        breaches.extend(own_ways(name, &manifest));
    }
    assert_none("A crate goes its own way:", &breaches);
}

fn wrong_arrows(name: &str, manifest: &toml::Table) -> Vec<String> {
    let allowed = ARROWS
        .iter()
        .find(|(package, _, _)| *package == name)
        .map_or(&[][..], |(_, _, allowed)| *allowed);
    let mut breaches = Vec::new();
    for (kind, dependency, value) in dependencies(manifest) {
        // A renamed dependency is judged by what it really is.
        let dependency = value
            .get("package")
            .and_then(toml::Value::as_str)
            .unwrap_or(dependency);
        let ours = dependency == "catena" || dependency.starts_with("catena-");
        // A crate's tests may ask for more of its own features.
        let own_tests = dependency == name && kind == "dev-dependencies";
        if ours && !own_tests && !allowed.contains(&dependency) {
            breaches.push(format!(
                "{name}, [{kind}]: {dependency}; it may know {allowed:?}"
            ));
        }
    }
    breaches
}

fn own_ways(name: &str, manifest: &toml::Table) -> Vec<String> {
    let inherits = |value: Option<&toml::Value>| {
        value
            .and_then(|value| value.get("workspace"))
            .and_then(toml::Value::as_bool)
            == Some(true)
    };
    let mut breaches = Vec::new();
    if !inherits(manifest.get("lints")) {
        breaches.push(format!("{name}: no `[lints] workspace = true`"));
    }
    for field in ["edition", "license", "publish", "rust-version", "version"] {
        if !inherits(manifest["package"].get(field)) {
            breaches.push(format!("{name}: no `{field}.workspace = true`"));
        }
    }
    for (kind, dependency, value) in dependencies(manifest) {
        if !inherits(Some(value)) && dependency != name {
            breaches.push(format!(
                "{name}, [{kind}]: {dependency} has a version of its own; move it to \
                 [workspace.dependencies]"
            ));
        }
    }
    breaches
}

/// All dependencies as (table, name, value), those of single targets too.
fn dependencies(manifest: &toml::Table) -> Vec<(&'static str, &str, &toml::Value)> {
    let mut found = Vec::new();
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = std::iter::once(manifest).chain(
        targets
            .into_iter()
            .flat_map(|targets| targets.values().filter_map(toml::Value::as_table)),
    );
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = table.get(kind).and_then(toml::Value::as_table);
            for (name, value) in entries.into_iter().flatten() {
                found.push((kind, name.as_str(), value));
            }
        }
    }
    found
}

fn parsed(text: &str) -> toml::Table {
    text.parse().expect("the text is TOML")
}

#[test]
fn a_wrong_arrow_is_found_wherever_it_hides() {
    for text in [
        "[dependencies]\ncatena-master.workspace = true",
        "[dev-dependencies]\ncatena-master.workspace = true",
        "[build-dependencies]\ncatena-jepsen = { path = \"../jepsen\" }",
        "[dependencies]\nboss = { package = \"catena-master\", path = \"../master\" }",
        "[target.'cfg(unix)'.dependencies]\ncatena-client.workspace = true",
    ] {
        assert_eq!(
            wrong_arrows("catena-chainnode", &parsed(text)).len(),
            1,
            "{text}"
        );
    }
    let good = "[dependencies]\ncatena-wal.workspace = true\ntokio.workspace = true\n\
                [dev-dependencies]\ncatena-chainnode = { path = \".\", features = [\"testing\"] }";
    assert!(wrong_arrows("catena-chainnode", &parsed(good)).is_empty());
    assert_eq!(
        wrong_arrows(
            "catena-master",
            &parsed("[dependencies]\ncatena-chainnode.workspace = true")
        )
        .len(),
        1
    );
}

#[test]
fn a_version_of_its_own_is_found() {
    let head = "[package]\nname = \"x\"\nedition.workspace = true\nlicense.workspace = true\n\
                publish.workspace = true\nrust-version.workspace = true\nversion.workspace = true\n";
    let good = format!("{head}[lints]\nworkspace = true\n[dependencies]\nbytes.workspace = true");
    assert!(own_ways("x", &parsed(&good)).is_empty());
    let version = good.replace("bytes.workspace = true", "bytes = \"1\"");
    assert_eq!(own_ways("x", &parsed(&version)).len(), 1);
    assert_eq!(own_ways("x", &parsed(head)).len(), 1);
}
