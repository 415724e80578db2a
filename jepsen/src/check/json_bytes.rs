//! Keys and values in JSON: a string, or `{"base64":"…"}` for what is not UTF-8.
//!
//! INTERFACE fixes this form for everything that Catena prints. The codec is
//! the standard alphabet with padding (RFC 4648 §4), and only the canonical
//! form is read.

use bytes::Bytes;
use serde_json::{Value, json};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The JSON form of `bytes`.
#[must_use]
pub(super) fn to_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({ "base64": encode(bytes) }),
    }
}

/// The bytes of a JSON form; a number stands for its decimal digits. `None` when it is none of these.
#[must_use]
pub(super) fn from_json(value: &Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Value::Number(number) => Some(Bytes::from(number.to_string())),
        Value::Object(fields) if fields.len() == 1 => match fields.get("base64") {
            Some(Value::String(text)) => decode(text).map(Bytes::from),
            _ => None,
        },
        _ => None,
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                let digit = (group >> (18 - 6 * place)) & 63;
                text.push(char::from(ALPHABET[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.as_bytes().chunks(4) {
        let mut group = 0u32;
        for digit in chunk {
            let value = ALPHABET.iter().position(|known| known == digit)?;
            group = group << 6 | u32::try_from(value).ok()?;
        }
        group <<= 6 * (4 - chunk.len());
        let [_, first, second, third] = group.to_be_bytes();
        match chunk.len() {
            4 => bytes.extend([first, second, third]),
            3 => bytes.extend([first, second]),
            2 => bytes.push(first),
            _ => return None,
        }
    }
    // One spelling for each value: stray bits and wrong padding are refused.
    (encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_examples_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded).as_deref(), Some(plain.as_bytes()));
        }
        for bad in ["Z", "Zg", "Zh==", "Z===", "Zm9v====", "Zm9-"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_come_back() {
        let bytes = Bytes::from_static(&[0xff, 0x00, 0x80]);
        assert_eq!(from_json(&to_json(&bytes)), Some(bytes));
        assert_eq!(from_json(&json!(7)), Some(Bytes::from_static(b"7")));
        assert_eq!(from_json(&json!({"base64": "Zg==", "more": 1})), None);
    }
}
