//! The pure rooms and their rights: what `purity.rs` holds the code to. A new
//! module or dependency that is pure is added here, where a reviewer sees it.

/// The pure rooms, as prefixes of paths: `master/src/state` covers `state.rs`,
/// `state/` and `state_machine.rs`.
pub(crate) const PURE: &[&str] = &[
    "proto/src/",
    "wal/src/",
    "chainnode/src/replica",
    "chainnode/src/stage",
    "master/src/bootstrap",
    "master/src/state",
    "master/src/control",
    "master/src/push",
    "client/src/answer",
    "client/src/error",
    "client/src/limits",
    "client/src/options",
    "client/src/plan",
    "jepsen/src/check",
    "jepsen/src/model",
    "jepsen/src/sim",
];

/// Pure rooms of the design that nobody has begun to build. A test says when to
/// take one out of this list.
pub(crate) const PLANNED: &[&str] = &[];

/// What inside those prefixes may touch what others may not, and why.
pub(crate) struct Boundary {
    pub(crate) prefix: &'static str,
    /// Prefixes of paths; `*` is everything, and makes the module impure: no pure
    /// module may import it.
    pub(crate) may_use: &'static [&'static str],
    pub(crate) because: &'static str,
}

/// Every right that a pure room has beyond the rule.
pub(crate) const BOUNDARIES: &[Boundary] = &[
    Boundary {
        prefix: "proto/src/lib.rs",
        may_use: &["tonic::include_proto"],
        because: "it declares the module of generated wire types",
    },
    Boundary {
        prefix: "proto/src/conversion",
        may_use: &["crate::wire", "crate::conversion", "tonic", "prost"],
        because: "the one place that knows the wire and the domain",
    },
    Boundary {
        prefix: "proto/src/error",
        may_use: &[
            "crate::wire",
            "crate::conversion",
            "tonic",
            "tonic_types",
            "prost",
            "prost_types",
            "std::collections::HashMap",
        ],
        because: "errors become gRPC statuses with details, which tonic keeps in a `HashMap`",
    },
    Boundary {
        prefix: "proto/src/redirect",
        may_use: &["tonic", "tonic_types", "std::collections::HashMap"],
        because: "a master's refusals are gRPC statuses with details, which tonic keeps in a `HashMap`",
    },
    Boundary {
        prefix: "proto/src/snapshot",
        may_use: &["crate::wire", "crate::conversion", "prost"],
        because: "a snapshot is a wire message in an envelope with a checksum",
    },
    Boundary {
        prefix: "wal/src/disk/mod.rs",
        may_use: &["crate::disk::real"],
        because: "it names the real disk for whoever opens a folder, and uses nothing of it",
    },
    Boundary {
        prefix: "wal/src/lib.rs",
        may_use: &["self::disk::RealDisk"],
        because: "it names the real disk for whoever opens a folder, and uses nothing of it",
    },
    Boundary {
        prefix: "wal/src/disk/real",
        may_use: &["*"],
        because: "the disk itself; everything else in the log runs on the faulty one too",
    },
];

/// Crates that compute and do nothing else. Every other dependency of the workspace
/// is impure until it is listed here.
pub(crate) const PURE_CRATES: &[&str] = &[
    "base64",
    "bytes",
    "catena_chainnode",
    "catena_master",
    "catena_proto",
    "catena_wal",
    "crc32fast",
    "serde",
    "serde_json",
    "stateright",
    "thiserror",
];

/// Paths that no pure room may name, each with what to do instead.
pub(crate) const BANNED: &[(&str, &str)] = &[
    (
        "std::fs",
        "go through the `Disk` trait, or output a `Persist`",
    ),
    ("std::os", "go through the `Disk` trait"),
    (
        "std::net",
        "output a `Send`; use the address type of the domain",
    ),
    ("std::thread", "return an output that the runtime acts on"),
    (
        "std::process",
        "return an error that says `stop the process`",
    ),
    ("std::env", "take the setting as an argument"),
    ("std::io::stdin", "take the text as an argument"),
    ("std::io::stdout", "return the text"),
    ("std::io::stderr", "return the text"),
    (
        "std::sync::mpsc",
        "return outputs; a pure room has no channel",
    ),
    ("std::time::Instant", "take `now` as an argument"),
    ("std::time::SystemTime", "take `now` as an argument"),
    ("std::time::UNIX_EPOCH", "take `now` as an argument"),
    (
        "std::hash::RandomState",
        "use a fixed hasher, or a `BTreeMap`",
    ),
    (
        "std::collections::hash_map::RandomState",
        "use a fixed hasher, or a `BTreeMap`",
    ),
    (
        "std::hash::DefaultHasher",
        "its algorithm may change with the toolchain: use crc32fast",
    ),
    ("rand", "draw from the seeded generator that was passed in"),
    (
        "catena_proto::wire",
        "use the domain types; `conversion` parses and bounds",
    ),
    (
        "catena_proto::conversion",
        "convert at the edge; use the domain types here",
    ),
    (
        "clippy::disallowed_methods",
        "a pure room does not opt out of the determinism bans",
    ),
    (
        "clippy::disallowed_types",
        "a pure room does not opt out of the determinism bans",
    ),
];

/// The same inside `proto`, where the wire types are at home.
pub(crate) const BANNED_IN_PROTO: &[(&str, &str)] = &[
    (
        "crate::wire",
        "use the domain types; `conversion` parses and bounds",
    ),
    ("crate::conversion", "only boundaries convert"),
];

/// Keywords that no pure room needs: nothing in it waits.
pub(crate) const BANNED_IDENTS: &[&str] = &["async", "await"];
