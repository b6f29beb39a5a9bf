//! What a plugin may be called: its name is that of a crate, a file and a consumer.

/// Bytes that a name may have.
const MAX: usize = 64;

/// Words that `cargo` takes for no package of a library, or that the project itself depends on.
const TAKEN: &[(&str, &[&str])] = &[
    (
        "a word of the language",
        &[
            "abstract", "as", "async", "await", "become", "box", "break", "const", "continue",
            "crate", "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen",
            "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override",
            "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
            "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while",
            "yield",
        ],
    ),
    (
        "a library that comes with Rust",
        &["alloc", "core", "proc-macro", "std", "test"],
    ),
    (
        "a library that the plugin needs",
        &[
            "millstream-plugin",
            "millstream-wire",
            "serde",
            "serde-json",
            "wit-bindgen",
        ],
    ),
];

/// Checks a name.
///
/// # Errors
/// Why it cannot be one, for a person.
pub fn check(name: &str) -> Result<(), String> {
    let rule = "a name has a to z, 0 to 9, `-` and `_`, and begins with a letter";
    let Some(first) = name.bytes().next() else {
        return Err(format!("the name is empty; {rule}"));
    };
    if name.len() > MAX {
        return Err(format!(
            "the name has {} bytes; at most {MAX} are allowed",
            name.len()
        ));
    }
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if let Some(wrong) = name.chars().find(|c| !c.is_ascii() || !fits(*c as u8)) {
        return Err(format!("`{name}` holds {wrong:?}; {rule}"));
    }
    if !first.is_ascii_lowercase() {
        return Err(format!("`{name}` begins with {:?}; {rule}", first as char));
    }
    let written_alike = name.replace('_', "-");
    let taken = TAKEN
        .iter()
        .find(|(_, words)| words.contains(&written_alike.as_str()));
    match taken {
        Some((what, _)) => Err(format!("`{name}` is {what}; choose another name")),
        None => Ok(()),
    }
}

/// The name in Rust and of the component's file.
pub fn of_crate(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo would refuse these at the first build, long after the project was made.
    #[test]
    fn bad_names_are_refused_with_the_reason() {
        let long = "a".repeat(65);
        let cases = [
            ("", "is empty"),
            (long.as_str(), "65 bytes"),
            ("Orders", "holds 'O'"),
            ("my orders", "holds ' '"),
            ("größe", "holds 'ö'"),
            ("a.b", "holds '.'"),
            ("2nd", "begins with '2'"),
            ("-a", "begins with '-'"),
            ("match", "a word of the language"),
            ("test", "comes with Rust"),
            ("serde_json", "needs"),
        ];
        for (name, wanted) in cases {
            let error = check(name).expect_err(name);
            assert!(error.contains(wanted), "{name}: {error}");
        }
        for name in ["a", "large-orders", "orders_2", "matches"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }
}
