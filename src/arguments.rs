//! How words of the command line become values: durations, hex, endpoints, consistency.

use std::time::Duration;

use bytes::Bytes;
use catena_client::Consistency;

/// Parses `500ms`, `5s`, `2m`, `1h`; a bare number is refused, since nobody can tell its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number
        .parse()
        .map_err(|_| "a duration is a whole number and a unit, such as 500ms or 5s".to_owned())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("the unit is one of ms, s, m, h, as in 500ms or 5s".into()),
    };
    match number.checked_mul(ms) {
        Some(0) => Err("it must be longer than nothing".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err("that is longer than time".into()),
    }
}

/// Parses one `host:port`.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let bad = || Err("an address is HOST:PORT, such as 127.0.0.1:7401 or [::1]:7401".to_owned());
    let Some((host, port)) = text.rsplit_once(':') else {
        return bad();
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.is_empty() && !host.contains([':', '/', '[', ']']);
    if !(bracketed || plain) || port.parse::<u16>().is_err() {
        return bad();
    }
    Ok(text.to_owned())
}

/// Parses `linearizable` or `stale[=MAX_LAG_MS]`.
pub(crate) fn consistency(text: &str) -> Result<Consistency, String> {
    match text.split_once('=') {
        None if text == "linearizable" => Ok(Consistency::Linearizable),
        None if text == "stale" => Ok(Consistency::Stale { lag_ms_max: None }),
        Some(("stale", lag)) => lag
            .parse()
            .map(|ms| Consistency::Stale {
                lag_ms_max: Some(ms),
            })
            .map_err(|_| "the lag is a whole number of milliseconds, as in stale=500".into()),
        _ => Err("it is linearizable, stale or stale=MAX_LAG_MS".into()),
    }
}

/// Parses pairs of hex digits.
pub(crate) fn hex(text: &str) -> Result<Bytes, String> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("hex is pairs of the digits 0-9 and a-f, such as 00ff".into());
    }
    let digit = |d: u8| (d as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = digits.chunks_exact(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect();
    bytes.map(Bytes::from).ok_or_else(|| "not hex".into())
}

/// Writes bytes as pairs of hex digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_length() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["5", "", "s", "-1s", "0s", "5 s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:1", "node-1.example:65535", "[::1]:80"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["", "host", ":1", "host:", "host:65536", "http://h:1", "::1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        assert_eq!(hex("00fF").map(|b| to_hex(&b)), Ok("00ff".into()));
        for bad in ["0", "0g", "+1", "é"] {
            assert!(hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn consistency_has_three_forms() {
        assert_eq!(
            consistency("stale=7"),
            Ok(Consistency::Stale {
                lag_ms_max: Some(7)
            })
        );
        assert_eq!(
            consistency("stale"),
            Ok(Consistency::Stale { lag_ms_max: None })
        );
        assert!(consistency("strong").is_err());
        assert!(consistency("stale=").is_err());
    }
}
