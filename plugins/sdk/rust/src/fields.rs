//! Named values of a JSON object, found without parsing the rest of it.
//!
//! ```text
//! {"auction":17,"extra":{…},"url":"https://…", … }
//!  └ a name ─▶ wanted? keep where its value lies : pass over it      stop at the last one wanted
//! ```
//! Passing over needs no more than strings and brackets: eight bytes at a time where nothing happens.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Deserialize;

use crate::{Error, Result};

/// A value of a JSON object, or the lack of it: found by [`Event::fields`](crate::Event::fields), read
/// when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    name: &'static str,
    /// Empty where the object has no such field.
    json: &'a [u8],
}

impl<'a> Field<'a> {
    /// Whether the object has it. A `null` is one.
    pub fn is_present(&self) -> bool {
        !self.json.is_empty()
    }

    /// What stands there, as it stands there; empty where nothing does.
    pub fn json(&self) -> &'a [u8] {
        self.json
    }

    /// A string, borrowed from the event unless it holds escapes.
    ///
    /// # Errors
    /// It is missing, no string, or not UTF-8: rejected with the code `decode`.
    pub fn text(&self) -> Result<Cow<'a, str>> {
        match self.json {
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => std::str::from_utf8(inner)
                .map(Cow::Borrowed)
                .map_err(|error| self.wrong(error)),
            _ => self.parse::<String>().map(Cow::Owned),
        }
    }

    /// Any value: a number, an object, an `Option` where it may be missing or `null`. `T` may borrow
    /// from the event.
    ///
    /// # Errors
    /// It is missing and `T` is not optional, or it is not of this shape: rejected with the code
    /// `decode`.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T> {
        // As serde has it: what is missing is what may be left out, and nothing else.
        let json = if self.is_present() {
            self.json
        } else {
            b"null"
        };
        serde_json::from_slice(json).map_err(|error| match self.is_present() {
            true => self.wrong(error),
            false => Error::decode(format!("there is no field `{}`", self.name)),
        })
    }

    fn wrong(&self, error: impl Display) -> Error {
        Error::decode(format!("the field `{}`: {error}", self.name))
    }
}

/// Finds the fields of an object.
///
/// # Errors
/// The text is no JSON object, as far as it was looked at.
pub(crate) fn find<'a, const N: usize>(
    json: &'a [u8],
    names: [&'static str; N],
) -> Result<[Field<'a>; N]> {
    let mut found = names.map(|name| Field { name, json: &[] });
    let mut left = N;
    let mut reader = Reader { json, at: 0 };
    reader.expect(b'{')?;
    if left == 0 || reader.take(b'}') {
        return Ok(found);
    }
    loop {
        let name = reader.name()?;
        reader.expect(b':')?;
        let value = reader.value()?;
        let wanted = |field: &&mut Field<'a>| !field.is_present() && name.is(field.name);
        for field in found.iter_mut().filter(wanted) {
            field.json = value;
            left -= 1;
        }
        if left == 0 || reader.take(b'}') {
            return Ok(found);
        }
        reader.expect(b',')?;
    }
}

/// The name of a field as it stands in the text.
struct Name<'a> {
    quoted: &'a [u8],
    escaped: bool,
}

impl Name<'_> {
    fn is(&self, name: &str) -> bool {
        if self.escaped {
            return serde_json::from_slice::<String>(self.quoted).is_ok_and(|own| own == name);
        }
        self.quoted.get(1..self.quoted.len() - 1) == Some(name.as_bytes())
    }
}

struct Reader<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn take(&mut self, wanted: u8) -> bool {
        let taken = self.next() == Some(wanted);
        self.at += usize::from(taken);
        taken
    }

    fn expect(&mut self, wanted: u8) -> Result<()> {
        if self.take(wanted) {
            return Ok(());
        }
        Err(self.broken())
    }

    fn name(&mut self) -> Result<Name<'a>> {
        if self.next() != Some(b'"') {
            return Err(self.broken());
        }
        let start = self.at;
        let escaped = self.string()?;
        Ok(Name {
            quoted: &self.json[start..self.at],
            escaped,
        })
    }

    /// Passes over any value and returns it.
    fn value(&mut self) -> Result<&'a [u8]> {
        let first = self.next();
        let start = self.at;
        match first {
            Some(b'"') => {
                self.string()?;
            }
            Some(b'{' | b'[') => self.nested()?,
            _ => self.scalar(),
        }
        if self.at == start {
            return Err(self.broken());
        }
        Ok(&self.json[start..self.at])
    }

    /// A number, `true`, `false`, `null`, or what is taken for one.
    fn scalar(&mut self) {
        let rest = &self.json[self.at..];
        let ends = |byte: &u8| {
            matches!(
                byte,
                b',' | b'}' | b']' | b':' | b'"' | b'{' | b'[' | b' ' | b'\t' | b'\n' | b'\r'
            )
        };
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    /// An object or a list with all that is in it. Depth is counted, not followed: no text can make
    /// the plugin run out of stack.
    fn nested(&mut self) -> Result<()> {
        let mut depth = 0_usize;
        loop {
            match self.json.get(self.at) {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
                None => return Err(self.broken()),
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// A string, from its opening quote to behind the closing one; whether it holds escapes.
    fn string(&mut self) -> Result<bool> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain(&self.json[self.at..]);
            match self.json.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                // The next one is no end, whatever it is.
                Some(b'\\') if self.at + 1 < self.json.len() => {
                    escaped = true;
                    self.at += 2;
                }
                _ => return Err(self.broken()),
            }
        }
    }

    fn broken(&self) -> Error {
        let at = self.at;
        match self.json.get(at) {
            Some(_) => Error::decode(format!("no JSON object: unexpected byte at {at}")),
            None => Error::decode(format!("no JSON object: it ends at byte {at}")),
        }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How many bytes at the beginning are neither a quote, a backslash nor a control character.
fn plain(text: &[u8]) -> usize {
    let mut chunks = text.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        // A chunk has eight bytes.
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        // The highest bit of each byte below a bound, up to the first that is: a borrow may set that
        // of bytes behind it. (Sean Anderson, Bit Twiddling Hacks: "hasless".)
        let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGHS;
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = equal(b'"') | equal(b'\\') | below(word, 0x20);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    let rest = chunks.remainder();
    at + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const NAMES: [&str; 4] = ["a", "url", "né\"e", "missing"];

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,20}|[\"\\\\{}\\[\\],:\u{1}-\u{1f}é]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"\\\\]{0,3}", inner, 0..4)
                    .prop_map(Value::from_iter),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = BTreeMap<String, Value>> {
        let name = prop_oneof![
            prop::sample::select(&NAMES[..3]).prop_map(str::to_owned),
            "\\PC{0,12}",
        ];
        prop::collection::btree_map(name, any_json(), 0..8)
    }

    proptest! {
        /// A string that ends too early, or a bracket in one that counts, would hand a plugin a part
        /// of one field as another.
        #[test]
        fn what_is_found_is_what_a_parser_finds(object in any_object(), pretty in any::<bool>()) {
            let text = match pretty {
                true => serde_json::to_vec_pretty(&object),
                false => serde_json::to_vec(&object),
            }.unwrap();
            let parsed: BTreeMap<String, Value> = serde_json::from_slice(&text).unwrap();
            for field in find(&text, NAMES).unwrap() {
                let value: Option<Value> = field.parse().unwrap();
                let known = parsed.get(field.name);
                prop_assert_eq!(field.is_present(), known.is_some());
                prop_assert_eq!(value.as_ref(), known.filter(|value| !value.is_null()));
                if let Some(Value::String(known)) = known {
                    prop_assert_eq!(&*field.text().unwrap(), known);
                }
            }
        }

        /// Anything may come: it is refused or read, and never looked at beyond its end.
        #[test]
        fn no_text_is_too_bad(text in "[{}\\[\\]\",:a\\\\0 \u{1}é]{0,40}", cut in 0..40_usize) {
            let text = text.as_bytes();
            let _ = find(text.get(..cut).unwrap_or(text), ["a", ""]);
        }

        #[test]
        fn eight_bytes_at_once_are_as_good_as_one(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let special = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
            prop_assert_eq!(plain(&text), text.iter().position(special).unwrap_or(text.len()));
        }
    }

    #[test]
    fn what_is_wrong_names_the_field_or_the_place() {
        let [number, text, none] = find(br#"{"n": 1, "t": "x"}"#, ["n", "t", "none"]).unwrap();
        assert_eq!(number.parse::<u64>().unwrap(), 1);
        assert!(
            number
                .text()
                .unwrap_err()
                .reason()
                .contains("the field `n`")
        );
        assert!(
            text.parse::<u64>()
                .unwrap_err()
                .reason()
                .contains("the field `t`")
        );
        assert_eq!(
            none.parse::<u64>().unwrap_err().reason(),
            "there is no field `none`"
        );
        assert_eq!(none.parse::<Option<u64>>().unwrap(), None);
        assert!(none.text().is_err() && none.json().is_empty());
        for (text, place) in [
            ("", "0"),
            ("[1]", "0"),
            ("{\"n\"", "4"),
            ("{\"n\":}", "5"),
            ("{\"n\":1", "6"),
            ("{\"o\":\"\\", "6"),
        ] {
            let error = find(text.as_bytes(), ["x"]).unwrap_err();
            assert_eq!(error.code(), "decode");
            assert!(error.reason().ends_with(place), "{text}: {error}");
        }
    }

    /// The first of two counts, and what stands behind the last one wanted is not looked at: a
    /// change of either would be a change for plugins.
    #[test]
    fn it_stops_at_the_last_one_wanted() {
        let [n] = find(br#"{"n":1,"n":2 and then rubbish"#, ["n"]).unwrap();
        assert_eq!(n.json(), b"1");
        assert!(find(br#"{"n":1 and then rubbish"#, ["m"]).is_err());
        let [escaped] = find(br#"{"\u006e":[{"n":2}]}"#, ["n"]).unwrap();
        assert_eq!(escaped.json(), br#"[{"n":2}]"#);
    }
}
