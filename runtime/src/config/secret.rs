//! A string that no log, error, API or dump shows.

use std::fmt;

/// A value that is shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    open: bool,
}

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            open: false,
        }
    }

    /// Wraps a value of a place that can hold secrets, such as a broker's property, that itself is
    /// none and may be shown.
    pub fn open(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            open: true,
        }
    }

    /// The value itself, for the one who must use it.
    pub fn reveal(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.open {
            &self.value
        } else {
            super::redact::BLANK
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_value_is_shown() {
        let shown = |secret: Secret| format!("{secret} {secret:?}");
        assert_eq!(shown(Secret::new("hunter2")), "*** ***");
        assert_eq!(shown(Secret::open("plaintext")), "plaintext plaintext");
    }
}
