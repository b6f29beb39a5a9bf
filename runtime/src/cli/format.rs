//! The format of `consume --format`, as `'%t %p %o %k %v\n'`.

use std::io::Write as _;
use std::str::FromStr;

use crate::event::EventView;

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
}

/// A format that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; known are %t topic, %p partition, %o offset, %T timestamp, %k key, %K its length, %v or %s value, \
     %S its length, %h headers, %% and the escapes \\n \\t \\r \\0 \\\\ \\xHH"
)]
pub struct BadFormat(String);

impl FromStr for Format {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            let piece = match next {
                '%' => match rest.next() {
                    Some('%') => {
                        literal.push(b'%');
                        continue;
                    }
                    Some('t') => Piece::Topic,
                    Some('p') => Piece::Partition,
                    Some('o') => Piece::Offset,
                    Some('T') => Piece::Timestamp,
                    Some('k') => Piece::Key,
                    Some('K') => Piece::KeyLength,
                    Some('v' | 's') => Piece::Value,
                    Some('S') => Piece::ValueLength,
                    Some('h') => Piece::Headers,
                    Some(other) => return Err(BadFormat(format!("%{other} means nothing"))),
                    None => return Err(BadFormat("the format ends in %".to_owned())),
                },
                '\\' => {
                    literal.push(escape(&mut rest)?);
                    continue;
                }
                other => {
                    literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }
}

fn escape(rest: &mut std::str::Chars<'_>) -> Result<u8, BadFormat> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.take(2).collect();
            u8::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| digits.len() == 2 && !digits.starts_with('+'))
                .ok_or_else(|| BadFormat(format!("\\x{digits} is not \\x and two digits")))
        }
        Some(other) => Err(BadFormat(format!("\\{other} means nothing"))),
        None => Err(BadFormat("the format ends in \\".to_owned())),
    }
}

impl Format {
    /// Appends an event. With `visible`, control characters of the event are shown as `\xHH`, so
    /// that what is in an event cannot drive the terminal that it is printed to.
    pub fn render(&self, event: &EventView<'_>, visible: bool, out: &mut Vec<u8>) {
        for piece in &self.0 {
            // Writing into a vector cannot fail.
            let _ = match piece {
                Piece::Text(text) => out.write_all(text),
                Piece::Topic => out.write_all(event.source().topic.as_bytes()),
                Piece::Partition => write!(out, "{}", event.source().partition),
                Piece::Offset => write!(out, "{}", event.offset()),
                Piece::Timestamp => write!(out, "{}", event.timestamp_ms()),
                Piece::Key => push(event.key(), visible, out),
                Piece::KeyLength => write!(out, "{}", event.key().map_or(0, <[u8]>::len)),
                Piece::Value => push(event.value(), visible, out),
                Piece::ValueLength => write!(out, "{}", event.value().map_or(0, <[u8]>::len)),
                Piece::Headers => {
                    for (index, (name, value)) in event.headers().enumerate() {
                        if index > 0 {
                            out.push(b',');
                        }
                        let _ = push(Some(name), visible, out);
                        out.push(b'=');
                        let _ = push(value, visible, out);
                    }
                    Ok(())
                }
            };
        }
    }
}

/// Appends bytes; with `visible`, control characters but the tab as `\xHH`.
pub fn push(bytes: Option<&[u8]>, visible: bool, out: &mut Vec<u8>) -> std::io::Result<()> {
    let bytes = bytes.unwrap_or_default();
    let plain = |byte: u8| !byte.is_ascii_control() || byte == b'\t';
    if !visible || bytes.iter().all(|&byte| plain(byte) && byte < 0x80) {
        return out.write_all(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() && character != '\t' {
                true => write!(out, "\\x{:02x}", u32::from(character))?,
                false => write!(out, "{character}")?,
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BlockBuilder, NewEvent, TopicPartition};

    fn show(format: &str, visible: bool, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
        let mut builder = BlockBuilder::new(TopicPartition::new("orders", 3), 1, 64);
        builder.push(NewEvent {
            offset: 42,
            timestamp_ms: 1000,
            timestamp_of_broker: false,
            key,
            value,
        });
        builder.push_header(b"a", Some(b"1"));
        builder.push_header(b"b", None);
        let block = builder.build();
        let mut out = Vec::new();
        let format: Format = format.parse().expect("a format");
        format.render(&block.event(0), visible, &mut out);
        out
    }

    #[test]
    fn every_letter_shows_what_it_says() {
        let shown = show(
            "%t %p %o %T %k(%K) %v|%s(%S) %h 100%%\\t\\x41\\n",
            false,
            Some(b"key"),
            Some(b"value"),
        );
        let wanted = "orders 3 42 1000 key(3) value|value(5) a=1,b= 100%\tA\n";
        assert_eq!(String::from_utf8_lossy(&shown), wanted);
    }

    /// A pipe must get the very bytes; a terminal must not get an escape sequence.
    #[test]
    fn bytes_are_as_they_are_but_on_a_terminal() {
        let value = &b"\x1b[2J\xff\xc2\x9bm gr\xc3\xbc\xc3\x9f"[..];
        assert_eq!(show("%v", false, None, Some(value)), value);
        let shown = show("%v", true, None, Some(value));
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(shown, "\\x1b[2J\\xff\\x9bm grüß");
    }

    #[test]
    fn slips_are_named() {
        for (format, wanted) in [
            ("%", "ends in %"),
            ("%q", "%q means nothing"),
            ("a\\", "ends in \\"),
            ("\\q", "\\q means nothing"),
            ("\\x4", "two digits"),
            ("\\xzz", "two digits"),
        ] {
            let error = format.parse::<Format>().expect_err(format).to_string();
            assert!(error.contains(wanted), "{format}: {error}");
        }
    }
}
