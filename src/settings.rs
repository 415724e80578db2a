//! The file of `--settings`: cluster settings by name, checked before any process starts.

use std::path::Path;

use catena_proto::config::Settings;
use serde::Deserialize;

use crate::exit::Failure;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    lease_ms: Option<u64>,
    lease_round_ms: Option<u64>,
    link_silence_ms: Option<u64>,
    log_retained_bytes: Option<u64>,
}

/// The settings of a new cluster: the file's, and the defaults for what it does not name.
pub(crate) fn read(path: Option<&Path>) -> Result<Settings, Failure> {
    let Some(path) = path else {
        return Ok(Settings::default());
    };
    let wrong = |why: String| {
        let help = "the settings are lease_ms, lease_round_ms, link_silence_ms, log_retained_bytes";
        Failure::usage(format!("--settings {}", path.display()), why, help)
    };
    let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
    parse(&text).map_err(wrong)
}

fn parse(text: &str) -> Result<Settings, String> {
    let file: SettingsFile =
        toml::from_str(text).map_err(|why| why.to_string().trim_end().to_owned())?;
    let mut settings = Settings::default();
    for (value, set) in [
        (file.lease_ms, &mut settings.lease_ms),
        (file.lease_round_ms, &mut settings.lease_round_ms),
        (file.link_silence_ms, &mut settings.link_silence_ms),
        (file.log_retained_bytes, &mut settings.log_retained_bytes),
    ] {
        *set = value.unwrap_or(*set);
    }
    settings.check().map_err(|why| why.to_string())?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let settings = parse("lease_ms = 800").expect("valid");
        let wanted = Settings {
            lease_ms: 800,
            ..Settings::default()
        };
        assert_eq!(settings, wanted);
    }

    #[test]
    fn an_unknown_name_and_a_value_out_of_bounds_are_named() {
        assert!(
            parse("leese_ms = 1")
                .expect_err("unknown")
                .contains("leese_ms")
        );
        assert!(
            parse("lease_ms = 1")
                .expect_err("too short")
                .contains("lease_ms")
        );
    }
}
