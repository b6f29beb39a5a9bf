//! The place of an event as people write it: `TOPIC/PARTITION@OFFSET`.

use std::fmt;
use std::str::FromStr;

use crate::broker::names::check_topic;
use crate::event::TopicPartition;

/// One event of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPlace {
    pub partition: TopicPartition,
    pub offset: u64,
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

impl FromStr for EventPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<Source>()? {
            Source {
                topic,
                partition: Some(partition),
                offset: Some(offset),
            } => Ok(Self {
                partition: TopicPartition::new(topic, partition),
                offset,
            }),
            _ => Err("write it as TOPIC/PARTITION@OFFSET, such as orders/3@1042".to_owned()),
        }
    }
}

/// Where events come from: `TOPIC`, `TOPIC/PARTITION` or `TOPIC/PARTITION@OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub topic: String,
    pub partition: Option<u32>,
    /// Never without a partition.
    pub offset: Option<u64>,
}

impl Source {
    /// Whether the event at this place comes from here.
    pub fn covers(&self, partition: &TopicPartition, offset: u64) -> bool {
        *self.topic == *partition.topic
            && self
                .partition
                .is_none_or(|wanted| wanted == partition.partition)
            && self.offset.is_none_or(|wanted| wanted == offset)
    }
}

impl From<&EventPlace> for Source {
    fn from(place: &EventPlace) -> Self {
        Self {
            topic: place.partition.topic.to_string(),
            partition: Some(place.partition.partition),
            offset: Some(place.offset),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || {
            format!(
                "`{text}` is not TOPIC, TOPIC/PARTITION or TOPIC/PARTITION@OFFSET, such as \
                 orders/3@1042"
            )
        };
        let (topic, rest) = match text.split_once('/') {
            Some((topic, rest)) => (topic, Some(rest)),
            None => (text, None),
        };
        check_topic(topic).map_err(|_| bad())?;
        let (partition, offset) = match rest.map(|rest| rest.split_once('@').ok_or(rest)) {
            None => (None, None),
            Some(Err(partition)) => (Some(partition), None),
            Some(Ok((partition, offset))) => (Some(partition), Some(offset)),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !partition.into_iter().chain(offset).all(digits) {
            return Err(bad());
        }
        Ok(Self {
            topic: topic.to_owned(),
            partition: partition.map(str::parse).transpose().map_err(|_| bad())?,
            offset: offset.map(str::parse).transpose().map_err(|_| bad())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_covers_what_it_says() {
        let place = |topic: &str, number, offset| (TopicPartition::new(topic, number), offset);
        let events = [
            place("orders", 3, 7),
            place("orders", 3, 8),
            place("orders", 4, 7),
            place("other", 3, 7),
        ];
        for (text, wanted) in [
            ("orders", [true, true, true, false]),
            ("orders/3", [true, true, false, false]),
            ("orders/3@7", [true, false, false, false]),
        ] {
            let source: Source = text.parse().expect(text);
            let covered = events
                .clone()
                .map(|(partition, offset)| source.covers(&partition, offset));
            assert_eq!(covered, wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_an_example() {
        for text in [
            "",
            "/",
            "orders/",
            "orders/x",
            "orders/3@",
            "orders/3@-1",
            "orders/+3@1",
            "orders@1",
            "or ders/3@1",
            "orders/3@1@2",
            "orders/3/1",
        ] {
            let error = text.parse::<Source>().expect_err(text);
            assert!(error.contains("orders/3@1042"), "{error}");
        }
        let place: EventPlace = "orders/3@1042".parse().expect("a place");
        assert_eq!(place.to_string(), "orders/3@1042");
        assert!("orders/3".parse::<EventPlace>().is_err());
    }
}
