//! The name of a request that its sender may repeat.

use std::sync::Arc;

/// Names one request, so that a broker that keeps names does its work once; HTTP's
/// `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey(Arc<str>);

impl RequestKey {
    /// Bytes of the longest key.
    pub const MOST_BYTES: usize = 255;

    /// A key as its sender wrote it.
    ///
    /// # Errors
    /// It is empty, longer than [`Self::MOST_BYTES`] or not printable ASCII; the text says so.
    pub fn new(text: &[u8]) -> Result<Self, String> {
        let printable = |byte: &u8| (b' '..=b'~').contains(byte);
        match std::str::from_utf8(text) {
            Ok(key)
                if (1..=Self::MOST_BYTES).contains(&key.len()) && text.iter().all(printable) =>
            {
                Ok(Self(key.into()))
            }
            _ => Err(format!(
                "the key of a request has 1 to {} characters, all of them printable ASCII",
                Self::MOST_BYTES
            )),
        }
    }

    /// A key that no other request has.
    pub fn fresh() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that was cut or changed on the way would let two requests share an answer.
    #[test]
    fn keys_are_taken_whole_or_not_at_all() {
        let longest = "k".repeat(255);
        for good in ["a", "\"quoted\"", "a b", &longest] {
            assert_eq!(RequestKey::new(good.as_bytes()).unwrap().as_str(), good);
        }
        let longer = "k".repeat(256);
        for bad in [
            &b""[..],
            b"\xff",
            b"a\tb",
            "ä".as_bytes(),
            longer.as_bytes(),
        ] {
            assert!(RequestKey::new(bad).unwrap_err().contains("255"), "{bad:?}");
        }
    }

    #[test]
    fn fresh_keys_differ() {
        assert_ne!(RequestKey::fresh(), RequestKey::fresh());
    }
}
