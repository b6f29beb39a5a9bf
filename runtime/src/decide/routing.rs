//! Whether a consumer wants an event, from its type, key and headers alone.

use crate::config::filter::{Condition, Field, Filter};
use crate::event::EventView;

/// The headers that name an event's type, the first one present wins.
const TYPE_HEADERS: [&str; 3] = ["ce_type", "type", "event-type"];

/// Whether every condition of `filter` holds for `event`.
///
/// A condition on what the event has not (a header, a type, a key that is null) never holds, one
/// of unwanted values alone (`!…`) included. Nothing is allocated.
pub fn wants(filter: &Filter, event: &EventView<'_>) -> bool {
    filter.conditions.iter().all(|condition| {
        field(&condition.field, event).is_some_and(|bytes| holds(condition, bytes))
    })
}

fn field<'a>(field: &Field, event: &EventView<'a>) -> Option<&'a [u8]> {
    match field {
        Field::Type => TYPE_HEADERS.iter().find_map(|name| event.header(name)),
        Field::Key => event.key(),
        Field::Header(name) => event.header(name),
    }
}

fn holds(condition: &Condition, bytes: &[u8]) -> bool {
    let mut any_wanted = false;
    let mut found = false;
    for value in &condition.values {
        if value.unwanted {
            if value.is_of(bytes) {
                return false;
            }
        } else {
            any_wanted = true;
            found = found || value.is_of(bytes);
        }
    }
    found || !any_wanted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::filter::Value;
    use crate::event::{Block, BlockBuilder, NewEvent, TopicPartition};

    type Headers = Vec<(String, Option<String>)>;

    fn block(key: Option<&str>, headers: &Headers) -> Block {
        let mut builder = BlockBuilder::new(TopicPartition::new("t", 0), 1, 64);
        builder.push(NewEvent {
            offset: 0,
            timestamp_ms: 0,
            timestamp_of_broker: false,
            key: key.map(str::as_bytes),
            value: None,
        });
        for (name, value) in headers {
            builder.push_header(name.as_bytes(), value.as_deref().map(str::as_bytes));
        }
        builder.build()
    }

    fn filter(conditions: &[(Field, &[&str])]) -> Filter {
        Filter {
            conditions: conditions
                .iter()
                .map(|(field, values)| Condition {
                    field: field.clone(),
                    values: values.iter().map(|text| Value::parse(text)).collect(),
                })
                .collect(),
        }
    }

    fn wanted(filter: &Filter, key: Option<&str>, headers: &[(&str, &str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
            .collect();
        wants(filter, &block(key, &headers).event(0))
    }

    #[test]
    fn the_example_of_the_guide() {
        let filter = filter(&[
            (Field::Type, &["OrderPlaced"]),
            (Field::Header("region".into()), &["eu", "uk*"]),
            (Field::Key, &["!test*"]),
        ]);
        let placed = ("ce_type", "OrderPlaced");
        assert!(wanted(&filter, Some("o1"), &[placed, ("region", "eu")]));
        assert!(wanted(&filter, Some("o1"), &[placed, ("region", "uk-1")]));
        assert!(!wanted(&filter, Some("o1"), &[placed, ("region", "us")]));
        assert!(!wanted(&filter, Some("test1"), &[placed, ("region", "eu")]));
        assert!(!wanted(&filter, Some("o1"), &[placed]));
        assert!(!wanted(&filter, Some("o1"), &[("region", "eu")]));
        assert!(!wanted(&filter, None, &[placed, ("region", "eu")]));
    }

    #[test]
    fn an_empty_filter_wants_everything() {
        assert!(wanted(&Filter::default(), None, &[]));
    }

    /// A CloudEvent's own type must not lose to an application's header.
    #[test]
    fn the_type_is_read_from_the_first_header_present() {
        let filter = filter(&[(Field::Type, &["a"])]);
        assert!(wanted(&filter, None, &[("type", "b"), ("ce_type", "a")]));
        assert!(!wanted(&filter, None, &[("type", "a"), ("ce_type", "b")]));
        assert!(wanted(&filter, None, &[("event-type", "a")]));
    }

    fn naive_glob(pattern: &str, text: &str) -> bool {
        let pattern = regex::escape(pattern).replace("\\*", ".*");
        regex::Regex::new(&format!("(?s)^{pattern}$"))
            .unwrap()
            .is_match(text)
    }

    fn model(filter: &Filter, key: Option<&str>, headers: &Headers) -> bool {
        let header = |name: &str| {
            let last = headers.iter().rev().find(|(n, _)| n == name);
            last.and_then(|(_, value)| value.clone())
        };
        filter.conditions.iter().all(|condition| {
            let text = match &condition.field {
                Field::Key => key.map(str::to_owned),
                Field::Header(name) => header(name),
                Field::Type => header("ce_type")
                    .or(header("type"))
                    .or(header("event-type")),
            };
            let Some(text) = text else { return false };
            let (no, yes): (Vec<_>, Vec<_>) = condition.values.iter().partition(|v| v.unwanted);
            (yes.is_empty() || yes.iter().any(|v| naive_glob(&v.pattern, &text)))
                && !no.iter().any(|v| naive_glob(&v.pattern, &text))
        })
    }

    fn any_field() -> impl Strategy<Value = Field> {
        prop_oneof![
            Just(Field::Type),
            Just(Field::Key),
            "[xy]".prop_map(Field::Header),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_model(
            conditions in prop::collection::vec(
                (any_field(), prop::collection::vec("!?[ab*]{0,3}", 1..4)), 0..4),
            key in prop::option::of("[ab]{0,3}"),
            headers in prop::collection::vec(
                ("(ce_type|type|event-type|x|y)", prop::option::of("[ab]{0,3}")), 0..5),
        ) {
            let filter = Filter {
                conditions: conditions
                    .into_iter()
                    .map(|(field, values)| Condition {
                        field,
                        values: values.iter().map(|text| Value::parse(text)).collect(),
                    })
                    .collect(),
            };
            let block = block(key.as_deref(), &headers);
            prop_assert_eq!(
                wants(&filter, &block.event(0)),
                model(&filter, key.as_deref(), &headers)
            );
        }
    }
}
