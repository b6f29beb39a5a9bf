//! `WWW-Authenticate`: how a registry wants to be asked.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token is to be fetched from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The ways in that an answer offers and that are known here, in its order.
pub fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(parse).collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let (scheme, after) = split_token(rest);
        if scheme.is_empty() {
            return found;
        }
        rest = after;
        let mut parameters = Vec::new();
        while let Some((name, value, after)) = parameter(rest) {
            parameters.push((name, value));
            rest = after;
        }
        let value = |wanted: &str| {
            let named = |(name, _): &&(String, String)| name == wanted;
            parameters
                .iter()
                .find(named)
                .map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = value("realm")
        {
            found.push(Challenge::Bearer {
                realm,
                service: value("service"),
                scope: value("scope"),
            });
        }
    }
}

fn split_token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `name=value` or `name="value"` at the start, with the comma before it.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let text = text.trim_start_matches([' ', ',', '\t']);
    let (name, rest) = split_token(text);
    let rest = rest.strip_prefix('=')?;
    let name = name.to_ascii_lowercase();
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, rest) = split_token(rest);
        return Some((name, value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn what_registries_send_is_understood() {
        for (text, wanted) in [
            (
                "Bearer realm=\"https://a.example/token\",service=\"a.example\",scope=\"repository:x/y:pull,push\"",
                vec![bearer(
                    "https://a.example/token",
                    Some("a.example"),
                    Some("repository:x/y:pull,push"),
                )],
            ),
            ("bearer realm=x", vec![bearer("x", None, None)]),
            ("Basic realm=\"a \\\"b\\\", c\"", vec![Challenge::Basic]),
            (
                "Negotiate, Basic realm=\"a\", Bearer realm=\"b\"",
                vec![Challenge::Basic, bearer("b", None, None)],
            ),
            ("Bearer service=\"no realm\"", vec![]),
            ("Digest realm=\"a\", nonce=\"b\"", vec![]),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever a server sends, reading it ends.
        #[test]
        fn nothing_makes_it_panic_or_hang(text in "[a-zA-Z=\", \\\\ü]{0,60}") {
            let _ = parse(&text);
        }
    }
}
