//! Which names a topic may have: the rules of Kafka, on every broker.

/// Longest name of a topic, in bytes: with a partition's number it is a file name on Kafka.
pub const LONGEST: usize = 249;

/// Checks a topic's name.
///
/// # Errors
/// What is wrong with the name and what would be right.
pub fn check_topic(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a topic's name must not be empty".to_owned());
    }
    if name == "." || name == ".." {
        return Err(format!("a topic must not be named {name:?}"));
    }
    if name.len() > LONGEST {
        return Err(format!(
            "a topic's name has at most {LONGEST} characters, this one has {}",
            name.len()
        ));
    }
    let wrong = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
    match wrong {
        Some(wrong) => Err(format!(
            "the topic's name {name:?} holds {wrong:?}; letters and digits of ASCII, '.', '_' \
             and '-' are allowed"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kafka_takes_pass_and_others_do_not() {
        for good in ["a", "orders.v1", "A-b_c.9", "...", &"x".repeat(249)] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "größe",
            "a\0",
            &"x".repeat(250),
        ] {
            assert!(check_topic(bad).is_err(), "{bad}");
        }
    }
}
