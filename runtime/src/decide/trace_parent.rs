//! The header `traceparent` of W3C Trace Context.

use std::fmt;

/// The parts of a `traceparent` that a continued trace keeps (W3C Trace Context, level 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    pub trace_id: &'a str,
    /// The span that goes on.
    pub parent_id: &'a str,
    pub flags: &'a str,
}

impl<'a> TraceParent<'a> {
    /// `version-traceid-parentid-flags` in lower-case hexadecimal; a malformed one starts no trace.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split('-');
        let (version, trace_id, parent_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hexadecimal = |part: &str, length: usize| {
            part.len() == length
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let valid = hexadecimal(version, 2)
            && version != "ff"
            && hexadecimal(trace_id, 32)
            && hexadecimal(parent_id, 16)
            && hexadecimal(flags, 2)
            && trace_id.bytes().any(|byte| byte != b'0')
            && (version != "00" || parts.next().is_none());
        valid.then_some(Self {
            trace_id,
            parent_id,
            flags,
        })
    }
}

impl fmt::Display for TraceParent<'_> {
    /// The header, in the version of it that everybody reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{}", self.trace_id, self.parent_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_one_is_shown_as_it_came() {
        let shown = |text: &str| TraceParent::parse(text.as_bytes()).map(|one| one.to_string());
        assert_eq!(shown(VALID).as_deref(), Some(VALID));
        let later = format!("cc{}-more", &VALID[2..]);
        assert_eq!(shown(&later).as_deref(), Some(VALID));
    }

    /// It becomes a header of a request: what is not hexadecimal must not get there.
    #[test]
    fn a_malformed_one_is_none() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920\r\n31-01",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
