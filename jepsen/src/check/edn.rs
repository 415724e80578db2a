//! A reader for the part of EDN that histories use. It knows syntax only.
//!
//! Numbers that are no 64-bit integers, symbols and characters are kept as
//! text; tags are dropped and their value is kept; a set reads as a vector.
//! Nesting is bounded, so that hostile input cannot exhaust the stack.

/// Deepest nesting that is read; histories need four.
const DEPTH_MAX: u32 = 32;

/// An EDN value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edn {
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A string.
    Text(String),
    /// A keyword, without its colon.
    Keyword(String),
    /// Any other word or number, as it is spelled.
    Word(String),
    /// A vector, list or set.
    Vector(Vec<Edn>),
    /// A map, in the order of the text.
    Map(Vec<(Edn, Edn)>),
}

impl Edn {
    /// The value of a keyword in a map.
    #[must_use]
    pub(super) fn get(&self, keyword: &str) -> Option<&Self> {
        let Self::Map(entries) = self else {
            return None;
        };
        entries
            .iter()
            .find(|(key, _)| matches!(key, Self::Keyword(name) if name == keyword))
            .map(|(_, value)| value)
    }
}

/// Where and why a text is not EDN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(super) struct EdnError {
    /// The byte's offset in the text.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) what: &'static str,
}

/// Reads values one after the other from a text.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `text`.
    #[must_use]
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The offset of the next value, past blanks and comments.
    pub(super) fn position(&mut self) -> usize {
        self.skip_blanks();
        self.at
    }

    /// The next value, or `None` at the end of the text.
    ///
    /// # Errors
    /// When the text goes on with something that is not EDN.
    pub(super) fn next_value(&mut self) -> Result<Option<Edn>, EdnError> {
        self.skip_blanks();
        if self.at == self.text.len() {
            Ok(None)
        } else {
            self.value(0).map(Some)
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error<T>(&self, what: &'static str) -> Result<T, EdnError> {
        Err(EdnError { at: self.at, what })
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b';' {
                let rest = &self.text[self.at..];
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if byte.is_ascii_whitespace() || byte == b',' {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    fn value(&mut self, depth: u32) -> Result<Edn, EdnError> {
        if depth == DEPTH_MAX {
            return self.error("nesting deeper than 32");
        }
        self.skip_blanks();
        match self.peek() {
            None => self.error("the text ends in the middle of a value"),
            Some(b'"') => self.text_value(),
            Some(b'[') => self.items(b']', depth).map(Edn::Vector),
            Some(b'(') => self.items(b')', depth).map(Edn::Vector),
            Some(b'{') => {
                let items = self.items(b'}', depth)?;
                if items.len() % 2 != 0 {
                    return self.error("a map ends after a key");
                }
                let mut entries = Vec::with_capacity(items.len() / 2);
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    entries.push((key, value));
                }
                Ok(Edn::Map(entries))
            }
            Some(b'#') => {
                self.at += 1;
                if self.peek() == Some(b'{') {
                    return self.items(b'}', depth).map(Edn::Vector);
                }
                if self.word().is_empty() {
                    return self.error("a tag wants a name");
                }
                self.value(depth + 1)
            }
            Some(b']' | b')' | b'}') => self.error("a bracket closes nothing"),
            Some(_) => {
                let word = self.word();
                if word.is_empty() {
                    self.error("not a value")
                } else {
                    Ok(word_value(word))
                }
            }
        }
    }

    fn items(&mut self, close: u8, depth: u32) -> Result<Vec<Edn>, EdnError> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(items);
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn text_value(&mut self) -> Result<Edn, EdnError> {
        let mut text = String::new();
        let start = self.at + 1;
        let mut chars = self.text[start..].char_indices();
        while let Some((offset, char)) = chars.next() {
            match char {
                '"' => {
                    self.at = start + offset + 1;
                    return Ok(Edn::Text(text));
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, same @ ('"' | '\\'))) => text.push(same),
                    _ => {
                        return self
                            .error("an escape that is not \\n \\t \\r \\\" \\\\ in the string");
                    }
                },
                char => text.push(char),
            }
        }
        self.error("a string does not end")
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let ends = |char: char| char.is_whitespace() || ",\"[](){};".contains(char);
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }
}

fn word_value(word: &str) -> Edn {
    match word {
        "nil" => Edn::Nil,
        "true" => Edn::Bool(true),
        "false" => Edn::Bool(false),
        _ => match (word.strip_prefix(':'), word.parse()) {
            (Some(name), _) => Edn::Keyword(name.to_owned()),
            (None, Ok(number)) => Edn::Int(number),
            (None, Err(_)) => Edn::Word(word.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Edn>, EdnError> {
        Reader::new(text).next_value()
    }

    #[test]
    fn maps_vectors_strings_and_words_are_read() {
        let event = read(
            r#"; c
            #jepsen.Op{:process 3, :f :cas :value [1 -2] :ok true :s "a\"\n" :t nil :x 1.5}"#,
        )
        .expect("well formed")
        .expect("one value");
        assert_eq!(event.get("process"), Some(&Edn::Int(3)));
        assert_eq!(event.get("f"), Some(&Edn::Keyword("cas".into())));
        assert_eq!(
            event.get("value"),
            Some(&Edn::Vector(vec![Edn::Int(1), Edn::Int(-2)]))
        );
        assert_eq!(event.get("s"), Some(&Edn::Text("a\"\n".into())));
        assert_eq!(event.get("x"), Some(&Edn::Word("1.5".into())));
        assert_eq!(event.get("t"), Some(&Edn::Nil));
        assert_eq!(event.get("none"), None);
    }

    #[test]
    fn broken_or_hostile_text_is_an_error_and_no_panic() {
        let deep = "[".repeat(100_000);
        for text in [
            "{", "{:a}", "]", "\"abc", "\"\\q\"", "#", "[1 2", "\"\\", "# {", &deep,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read("  ,, ; nothing"), Ok(None));
    }
}
