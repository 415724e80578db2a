//! `catena version`: which build this is, and what it can do that others cannot.

use catena_chainnode::engine::EngineKind;
use serde::Serialize;

use crate::exit::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Version {
    version: &'static str,
    features: Vec<&'static str>,
    profile: &'static str,
    engines: [&'static str; 3],
}

/// Cargo features that change what the binary may do; fault switches exist only with `testing`.
fn features() -> Vec<&'static str> {
    let all = [
        ("testing", cfg!(feature = "testing")),
        ("mutants", catena_chainnode::replica::MUTANTS),
    ];
    all.into_iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| name)
        .collect()
}

/// Prints the version.
pub(crate) fn run(output: &mut Output) -> Result<(), Failure> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        features: features(),
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        engines: EngineKind::ALL.map(EngineKind::as_str),
    };
    if output.is_json() {
        return output.json(&version);
    }
    let features = match version.features.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    };
    output.line(format!("catena {}", version.version).as_bytes())?;
    output.line(format!("features: {features}").as_bytes())?;
    output.line(format!("profile:  {}", version.profile).as_bytes())?;
    output.line(format!("engines:  {}", version.engines.join(", ")).as_bytes())
}
