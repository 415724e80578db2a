//! The architecture's rules as tests: who may import whom, what the pure rooms
//! may touch, and which pages have to keep up with the code.
//!
//! clippy (`clippy.toml`) sees calls; these tests see imports, manifests and
//! documents. Each check is a pure function from text to a list of breaches, which
//! is tried on bad input first, because a check that cannot fail proves nothing.

#![allow(
    clippy::disallowed_methods,
    reason = "these tests read the repository's own files"
)]

mod arrows;
mod pages;
mod purity;
mod repository;
mod rooms;
mod source;

/// Fails with every breach at once, since they are mended one by one.
#[track_caller]
fn assert_none(rule: &str, breaches: &[String]) {
    assert!(
        breaches.is_empty(),
        "{rule}\n\n  {}\n",
        breaches.join("\n  ")
    );
}
