//! What a consumer wants of its topics, read from type, key and headers alone.

/// Keys are ANDed, values ORed; a missing header never matches. An empty filter wants everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub conditions: Vec<Condition>,
}

/// One key of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub field: Field,
    /// At least one. The condition holds where one of the wanted matches (or none is wanted) and
    /// none of the unwanted (`!…`) does.
    pub values: Vec<Value>,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The header `ce_type`, else `type`, else `event-type`.
    Type,
    Key,
    /// The header of this name.
    Header(String),
}

/// A text in which `*` stands for any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub pattern: String,
    /// Written with a `!` in front.
    pub unwanted: bool,
}

impl Value {
    /// Reads a value as the configuration writes it.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix('!') {
            Some(pattern) => Self {
                pattern: pattern.to_owned(),
                unwanted: true,
            },
            None => Self {
                pattern: text.to_owned(),
                unwanted: false,
            },
        }
    }

    /// Whether the pattern is that of `bytes`, wanted or not.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        glob(self.pattern.as_bytes(), bytes)
    }
}

/// Whether `pattern`, in which `*` stands for any bytes, is that of all of `bytes`.
///
/// Time is at most the product of the lengths, whatever the pattern; nothing is allocated.
pub fn glob(pattern: &[u8], bytes: &[u8]) -> bool {
    let (mut p, mut b) = (0, 0);
    // The last star and where the bytes that it stands for end so far.
    let mut star: Option<(usize, usize)> = None;
    while b < bytes.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, b));
                p += 1;
            }
            Some(byte) if *byte == bytes[b] => {
                p += 1;
                b += 1;
            }
            _ => match star {
                Some((at, end)) => {
                    star = Some((at, end + 1));
                    p = at + 1;
                    b = end + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_bytes() {
        for (pattern, bytes, matches) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("uk*", "uk", true),
            ("uk*", "uk-north", true),
            ("uk*", "eu", false),
            ("*Placed", "OrderPlaced", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a**c", "abc", true),
            ("a.c", "abc", false),
            ("?", "a", false),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), bytes.as_bytes()),
                matches,
                "{pattern} {bytes}"
            );
        }
    }

    fn naive(pattern: &[u8], bytes: &[u8]) -> bool {
        match pattern.split_first() {
            None => bytes.is_empty(),
            Some((b'*', rest)) => (0..=bytes.len()).any(|skip| naive(rest, &bytes[skip..])),
            Some((byte, rest)) => bytes.first() == Some(byte) && naive(rest, &bytes[1..]),
        }
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_a_search_of_all_splits(pattern in "[ab*]{0,8}", bytes in "[ab]{0,10}") {
            proptest::prop_assert_eq!(
                glob(pattern.as_bytes(), bytes.as_bytes()),
                naive(pattern.as_bytes(), bytes.as_bytes())
            );
        }
    }
}
