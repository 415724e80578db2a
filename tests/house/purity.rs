//! Pure rooms stay pure (STYLE, "The pure core"): no clock, randomness, file,
//! socket, thread, task or `async`, no crate that brings those, and no import of a
//! room that has them. Then one seed replays everything that happens in them.
//!
//! Which rooms and what they may use is in `rooms.rs`; here is how it is checked.

use std::collections::{BTreeMap, BTreeSet};

use crate::rooms::{
    BANNED, BANNED_IDENTS, BANNED_IN_PROTO, BOUNDARIES, PLANNED, PURE, PURE_CRATES,
};
use crate::source::Source;
use crate::{assert_none, repository};

/// Short names of a crate's root, each with the path behind it.
type Exports = BTreeMap<String, Vec<String>>;

#[test]
fn pure_modules_import_no_impure_one() {
    let impure_crates = impure_crates();
    let mut breaches = Vec::new();
    let mut test_only = BTreeSet::new();
    for file in files_of_the_pure_crates() {
        if !is_pure(&file) {
            continue;
        }
        let text = repository::text(&file).expect("the file was just listed");
        let source = match Source::read(&text, &module_of(&file)) {
            Ok(source) => source,
            Err(error) => {
                breaches.push(format!("{file} is not Rust: {error}"));
                continue;
            }
        };
        let folder = file
            .strip_suffix("/mod.rs")
            .or_else(|| file.strip_suffix("/lib.rs"))
            .or_else(|| file.strip_suffix(".rs"))
            .unwrap_or(&file);
        for module in &source.test_modules {
            test_only.insert(format!("{folder}/{module}"));
        }
        let exports = exports_of(crate_of(&file));
        breaches.extend(breaches_in(&file, &source, &impure_crates, &exports));
    }
    breaches.retain(|breach| !test_only.iter().any(|module| is_in(breach, module)));
    assert_none("A pure room names something impure:", &breaches);
}

#[test]
fn every_room_and_boundary_that_is_watched_exists() {
    let files = files_of_the_pure_crates();
    let has = |prefix: &str| files.iter().any(|file| file.starts_with(prefix));
    let mut wrong = Vec::new();
    for prefix in PURE {
        match (PLANNED.contains(prefix), has(prefix)) {
            (false, false) => wrong.push(format!(
                "{prefix}*: no such file. Put that crate's pure part there, or say where it is"
            )),
            (true, true) => wrong.push(format!("{prefix}* has come: take it out of PLANNED")),
            _ => {}
        }
    }
    for boundary in BOUNDARIES {
        if !has(boundary.prefix) {
            wrong.push(format!(
                "{}*: no such file, though it has rights ({})",
                boundary.prefix, boundary.because
            ));
        }
    }
    assert_none("The lists in tests/house/rooms.rs are out of date:", &wrong);
}

fn files_of_the_pure_crates() -> Vec<String> {
    let crates: BTreeSet<&str> = PURE.iter().map(|prefix| crate_of(prefix)).collect();
    crates
        .iter()
        .flat_map(|krate| repository::files(&format!("{krate}/src"), "rs"))
        .collect()
}

/// What a crate's root exports under a short name: `crate::Error` may be `error::Error`.
fn exports_of(krate: &str) -> Exports {
    let root = format!("{krate}/src/lib.rs");
    let text = repository::text(&root).unwrap_or_else(|| panic!("there is no {root}"));
    Source::read(&text, &[])
        .unwrap_or_else(|error| panic!("{root} is not Rust: {error}"))
        .aliases
}

fn crate_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn is_pure(path: &str) -> bool {
    PURE.iter().any(|prefix| path.starts_with(prefix))
        && !BOUNDARIES
            .iter()
            .any(|it| it.may_use == ["*"] && path.starts_with(it.prefix))
}

/// Whether a breach's file is the module at `path` or below it.
fn is_in(breach: &str, path: &str) -> bool {
    breach
        .strip_prefix(path)
        .is_some_and(|rest| rest.starts_with('/') || rest.starts_with(".rs"))
}

/// `chainnode/src/replica/io.rs` is the module `replica::io`.
fn module_of(file: &str) -> Vec<&str> {
    let inside = file.split_once("/src/").map_or(file, |(_, inside)| inside);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let mut module: Vec<&str> = inside.split('/').collect();
    if matches!(module.last(), Some(&("mod" | "lib"))) {
        module.pop();
    }
    module
}

/// The crates that the workspace depends on and that are not known to be pure, as
/// Rust writes their names.
fn impure_crates() -> BTreeSet<String> {
    let manifest = repository::manifest("Cargo.toml");
    manifest["workspace"]["dependencies"]
        .as_table()
        .expect("the workspace has dependencies")
        .keys()
        .map(|name| name.replace('-', "_"))
        .filter(|name| !PURE_CRATES.contains(&name.as_str()))
        .collect()
}

fn breaches_in(
    file: &str,
    source: &Source,
    impure_crates: &BTreeSet<String>,
    exports: &Exports,
) -> Vec<String> {
    let krate = crate_of(file);
    let may_use: Vec<&str> = BOUNDARIES
        .iter()
        .filter(|it| file.starts_with(it.prefix))
        .flat_map(|it| it.may_use.iter().copied())
        .collect();
    let mut breaches = BTreeSet::new();
    let mut add = |line: usize, what: &str, instead: &str| {
        breaches.insert((line, format!("{file}:{line}: `{what}`: {instead}")));
    };
    for ident in BANNED_IDENTS {
        if let Some(line) = source.idents.get(*ident) {
            add(*line, ident, "a pure room takes inputs and returns outputs");
        }
    }
    for named in &source.paths {
        let path = named.path.join("::");
        if may_use.iter().any(|allowed| starts_with(&path, allowed)) {
            continue;
        }
        let reasons = reasons_against(krate, &named.path, source, impure_crates, exports);
        for reason in reasons {
            add(named.line, &path, reason);
        }
    }
    breaches.into_iter().map(|(_, text)| text).collect()
}

/// Why a pure module may not name this path; nothing if it may.
fn reasons_against(
    krate: &str,
    named: &[String],
    source: &Source,
    impure_crates: &BTreeSet<String>,
    exports: &Exports,
) -> Vec<&'static str> {
    let path = named.join("::");
    let in_proto = if krate == "proto" {
        BANNED_IN_PROTO
    } else {
        &[]
    };
    let mut reasons: Vec<&str> = BANNED
        .iter()
        .chain(in_proto)
        .filter(|(banned, _)| {
            // `use std::time::*` names `std::time::Instant` as well.
            let by_glob = path
                .strip_suffix('*')
                .is_some_and(|prefix| banned.starts_with(prefix));
            by_glob || starts_with(&path, banned)
        })
        .map(|(_, instead)| *instead)
        .collect();
    if is_clock_read(named) {
        reasons.push("take `now` as an argument");
    }
    if is_map_with_a_random_hasher(&path, source) {
        reasons.push(
            "its order differs from run to run: use a `BTreeMap`, or name a fixed `BuildHasher`",
        );
    }
    if impure_crates.contains(&named[0]) {
        reasons.push("no crate that tests/house/rooms.rs lists as pure: leave it to the runtime");
    }
    if named[0] == "crate" && !is_pure_inside(krate, &named[1..], exports) {
        reasons.push("a pure room imports pure rooms only");
    }
    reasons
}

fn starts_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `Instant::now`, however `Instant` came into scope.
fn is_clock_read(path: &[String]) -> bool {
    path.windows(2)
        .any(|pair| ["Instant", "SystemTime"].contains(&pair[0].as_str()) && pair[1] == "now")
}

fn is_map_with_a_random_hasher(path: &str, source: &Source) -> bool {
    let is_map = ["std::collections::HashMap", "std::collections::HashSet"]
        .iter()
        .any(|map| starts_with(path, map));
    let has_fixed_hasher = ["BuildHasher", "BuildHasherDefault"]
        .iter()
        .any(|name| source.idents.contains_key(*name));
    is_map && !has_fixed_hasher
}

/// Whether `crate::` and this path is in a pure room of the same crate.
fn is_pure_inside(krate: &str, path: &[String], exports: &Exports) -> bool {
    let full = path.first().and_then(|first| exports.get(first));
    let path = full.map_or(path, Vec::as_slice);
    // What the root only passes on from another crate was judged under that crate's name.
    let foreign = full.is_some_and(|full| PURE_CRATES.contains(&full[0].as_str()));
    foreign || is_pure(&format!("{krate}/src/{}", path.join("/")))
}

fn breaches_of(file: &str, text: &str) -> Vec<String> {
    let source = Source::read(text, &module_of(file)).expect("the text is Rust");
    let impure = BTreeSet::from(["tokio".to_owned(), "tonic".to_owned(), "fjall".to_owned()]);
    let exports = Exports::from([
        (
            "Pure".to_owned(),
            vec!["replica".to_owned(), "Pure".to_owned()],
        ),
        (
            "Impure".to_owned(),
            vec!["runtime".to_owned(), "Impure".to_owned()],
        ),
    ]);
    breaches_in(file, &source, &impure, &exports)
}

#[test]
fn each_kind_of_impurity_is_found() {
    for impure in [
        "use std::fs;",
        "use std::{collections::BTreeMap, fs::File};",
        "use std::net::SocketAddr;",
        "use std::thread;",
        "fn f() { std::thread::sleep(D) }",
        "use std::time::Instant;",
        "use std::time::*;",
        "use std::*;",
        "use std::time; fn f() -> u64 { time::SystemTime::now() }",
        "use tokio::sync::mpsc;",
        "fn f() { tokio::spawn(x) }",
        "use tonic::Status;",
        "use rand::Rng;",
        "async fn f() {}",
        "use std::collections::HashMap; fn f(x: &HashMap<u8, u8>) {}",
        "fn f(x: &std::collections::HashSet<u8>) {}",
        "use crate::runtime::Loop;",
        "use crate::engine::Engine;",
        "use crate::Impure;",
        "use super::super::engine;",
        "use catena_proto::wire::Frame;",
        "#![allow(clippy::disallowed_methods, reason = \"no\")]",
        "#[cfg(any(test, feature = \"testing\"))] fn f() { std::env::var(\"X\") }",
    ] {
        let found = breaches_of("chainnode/src/replica/log.rs", impure);
        assert!(!found.is_empty(), "not found: {impure}");
    }
}

#[test]
fn what_is_pure_is_left_alone() {
    for pure in [
        "use std::time::Duration;",
        "use std::collections::BTreeMap;",
        "use std::collections::HashMap; use std::hash::BuildHasherDefault;",
        "use std::sync::Arc;",
        "use catena_proto::ids::{Epoch, Seq};",
        "use super::io::{Input, Outputs};",
        "use crate::replica::lease::Lease;",
        "use crate::Pure;",
        "use bytes::Bytes;",
        "#[cfg(test)] mod tests { use std::fs; use tokio::time; async fn f() {} }",
        "// std::fs::read",
    ] {
        let found = breaches_of("chainnode/src/replica/log.rs", pure);
        assert!(found.is_empty(), "{pure}: {found:?}");
    }
}

#[test]
fn boundaries_have_their_rights_and_no_others() {
    let conversion = "proto/src/conversion/chain.rs";
    assert!(breaches_of(conversion, "use crate::wire; use tonic::Status;").is_empty());
    assert!(!breaches_of(conversion, "use std::fs;").is_empty());
    assert!(!breaches_of("proto/src/config.rs", "use crate::wire;").is_empty());
    assert!(!breaches_of("proto/src/config.rs", "use tonic::Status;").is_empty());
    assert!(!breaches_of("wal/src/segment.rs", "use crate::disk::real::Folder;").is_empty());
    assert!(!is_pure("wal/src/disk/real.rs"));
}
