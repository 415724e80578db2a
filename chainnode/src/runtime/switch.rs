//! A fault switch for tests: a node that accepts no newer config. Only with the feature `testing`.
//!
//! In every other build the mode is a constant, and the code that asks for it folds away.

/// Whether this build has the switch; `catena version` says so.
pub const TESTING: bool = cfg!(feature = "testing");

/// What a node does with newer configs, from whatever source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "only tests switch it")
)]
pub(crate) enum Mode {
    /// Takes them.
    #[default]
    Off,
    /// Refuses each item that is pushed; holds what it held.
    Nack,
    /// Takes and acknowledges what is pushed, and does not put it in force.
    Ignore,
    /// Does not answer pushes at all.
    Silent,
}

/// The switch of one node.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    #[cfg(feature = "testing")]
    mode: parking_lot::Mutex<Mode>,
}

impl Switch {
    /// The mode.
    #[cfg(feature = "testing")]
    pub(crate) fn mode(&self) -> Mode {
        *self.mode.lock()
    }

    /// The mode.
    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self, reason = "the same call as with the feature")]
    pub(crate) const fn mode(&self) -> Mode {
        Mode::Off
    }

    /// Whether configs are taken as always.
    pub(crate) fn is_off(&self) -> bool {
        matches!(self.mode(), Mode::Off)
    }

    #[cfg(feature = "testing")]
    fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }
}

/// `POST /debug/testing/refuse-configs?on=true|false&mode=nack|ignore|silent`.
#[cfg(feature = "testing")]
pub(crate) fn set_by_query(shared: &super::shared::Shared, query: &str) -> Result<String, String> {
    let value = |name: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    };
    let mode = match (value("on"), value("mode").unwrap_or("nack")) {
        (Some("false"), _) => Mode::Off,
        (Some("true"), "nack") => Mode::Nack,
        (Some("true"), "ignore") => Mode::Ignore,
        (Some("true"), "silent") => Mode::Silent,
        _ => return Err("ask with ?on=true|false and mode=nack|ignore|silent".to_owned()),
    };
    tracing::warn!(?mode, "TESTING: the switch that refuses configs is set");
    shared.switch.set(mode);
    if mode == Mode::Off {
        // What was taken meanwhile comes into force, and the rest is asked for anew.
        shared
            .inbox
            .push(super::shared::Work::Config(shared.config()));
        shared.resubscribe.notify_one();
    }
    Ok(format!("{mode:?}\n"))
}
