//! A point of growth: one factor at one size, all else as at the base.

use clap::ValueEnum;

use crate::comparison::PARTITIONS;
use crate::deploys::Ground;
use crate::input::CLASS;

/// Events that a point of few repeats itself for: with fewer, a tick of the kernel's clock shows.
const ENOUGH: u64 = 200_000;
/// The most often.
const MOST_ROUNDS: u64 = 20;

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Factor {
    /// Partitions of the topic.
    Partitions,
    /// Events that wait.
    Backlog,
    /// Consumers of one topic that want none of its events, by a header.
    Filtering,
    /// Consumers of one topic that pass each event on.
    Passing,
    /// Lanes of a partition.
    Lanes,
    /// Consumers of the same plugin, from the start of the process until it is ready.
    Start,
}

impl Factor {
    /// Its name in tables and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Partitions => "partitions",
            Self::Backlog => "backlog",
            Self::Filtering => "filtering",
            Self::Passing => "passing",
            Self::Lanes => "lanes",
            Self::Start => "start",
        }
    }
}

/// The sizes of each factor.
#[derive(clap::Args, Clone, Debug)]
pub struct Sizes {
    #[arg(long, value_delimiter = ',', default_value = "1,4,64,500")]
    pub partitions: Vec<u32>,
    /// Events that wait; 10000000 takes some minutes and 10 GiB of disk.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    pub backlogs: Vec<u64>,
    /// Consumers that want no event.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    pub filtering: Vec<u32>,
    /// Consumers that pass each event on.
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    pub passing: Vec<u32>,
    /// Consumers that start.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    pub starting: Vec<u32>,
}

/// How the events of a partition are spread over lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// One a partition, with as many instances as there are processors: the default.
    Default,
    /// `ordering = "none"`: so many, each with an instance.
    InTurn(u32),
    /// `ordering = "key"`: 64, with the instances of the default.
    ByKey,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub factor: Factor,
    pub ground: Ground,
    pub partitions: u32,
    pub consumers: u32,
    pub lanes: Lanes,
    /// Events in the topic when work begins; each consumer gets all of them.
    pub events: u64,
    /// How often.
    pub rounds: u64,
}

/// The points of a factor; `events` are those that all consumers together pass on.
pub fn points(factor: Factor, sizes: &Sizes, events: u64) -> Vec<Point> {
    let base = Point {
        factor,
        ground: match factor {
            Factor::Partitions | Factor::Backlog => Ground::Kafka,
            _ => Ground::Embedded,
        },
        partitions: PARTITIONS,
        consumers: 1,
        lanes: Lanes::Default,
        events,
        rounds: 1,
    };
    match factor {
        Factor::Partitions => {
            let sizes = sizes.partitions.iter();
            sizes
                .map(|partitions| Point {
                    partitions: *partitions,
                    ..base
                })
                .collect()
        }
        Factor::Backlog => {
            let sizes = sizes.backlogs.iter();
            sizes
                .map(|events| Point {
                    events: *events,
                    rounds: (ENOUGH / (*events).max(1)).clamp(1, MOST_ROUNDS),
                    ..base
                })
                .collect()
        }
        Factor::Filtering => {
            let sizes = sizes.filtering.iter();
            sizes
                .map(|consumers| Point {
                    consumers: *consumers,
                    ..base
                })
                .collect()
        }
        // What they write together is the same at each point, and fits on a disk.
        Factor::Passing => {
            let sizes = sizes.passing.iter();
            sizes
                .map(|consumers| Point {
                    consumers: *consumers,
                    events: events / u64::from((*consumers).max(1)),
                    ..base
                })
                .collect()
        }
        Factor::Lanes => {
            let lanes = [
                Lanes::Default,
                Lanes::InTurn(8),
                Lanes::InTurn(64),
                Lanes::ByKey,
            ];
            let of = |lanes| Point {
                partitions: 1,
                lanes,
                ..base
            };
            lanes.map(of).to_vec()
        }
        // It handles no events; see `start.rs`.
        Factor::Start => Vec::new(),
    }
}

impl Point {
    /// How much of its factor there is, as a table shows it.
    pub fn size(&self) -> String {
        match self.factor {
            Factor::Partitions => self.partitions.to_string(),
            Factor::Backlog => crate::table::thousands(self.events as f64),
            Factor::Lanes => match self.lanes {
                Lanes::Default => "1".to_owned(),
                Lanes::InTurn(count) => format!("{count} in turn"),
                Lanes::ByKey => "64 by key".to_owned(),
            },
            _ => self.consumers.to_string(),
        }
    }

    /// Its name, as a topic's.
    pub fn name(&self) -> String {
        let size = self.size().replace([' ', ','], "-");
        format!("{}-{size}", self.factor.name())
    }

    /// What its consumers set.
    pub fn settings(&self) -> String {
        let lanes = match self.lanes {
            Lanes::Default => String::new(),
            Lanes::InTurn(count) => format!("ordering = \"none\"\nconcurrency = {count}\n"),
            Lanes::ByKey => "ordering = \"key\"\n".to_owned(),
        };
        match self.filters() {
            // The header is there, with a value that no event has.
            true => format!("{lanes}filter = {{ header.{CLASS} = [\"none\"] }}\n"),
            false => lanes,
        }
    }

    /// Whether its consumers want no event.
    pub fn filters(&self) -> bool {
        self.factor == Factor::Filtering
    }

    /// Events that all consumers settle in all rounds.
    pub fn handled(&self) -> u64 {
        self.events * self.rounds * u64::from(self.consumers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes {
            partitions: vec![1, 500],
            backlogs: vec![10_000, 1_000_000],
            filtering: vec![1, 100],
            passing: vec![1, 10],
            starting: vec![1],
        }
    }

    /// Two factors that vary at once would say nothing about either.
    #[test]
    fn one_factor_varies_at_a_time() {
        let of = |factor| points(factor, &sizes(), 1_000_000);
        for factor in [Factor::Partitions, Factor::Backlog, Factor::Filtering] {
            let points = of(factor);
            let same = |one: fn(&Point) -> u64| points.iter().all(|p| one(p) == one(&points[0]));
            let varies = [
                !same(|p| p.partitions.into()),
                !same(|p| p.events),
                !same(|p| p.consumers.into()),
            ];
            assert_eq!(varies.iter().filter(|varies| **varies).count(), 1);
            assert!(points.iter().all(|p| p.lanes == Lanes::Default));
        }
        let lanes = of(Factor::Lanes);
        assert!(lanes.iter().all(|p| p.partitions == 1 && p.consumers == 1));
        let handled = |factor| {
            let points = of(factor);
            points.iter().map(Point::handled).collect::<Vec<_>>()
        };
        assert_eq!(handled(Factor::Passing), [1_000_000, 1_000_000]);
        assert_eq!(handled(Factor::Backlog), [200_000, 1_000_000]);
    }

    #[test]
    fn a_factor_is_called_as_its_option_and_a_point_as_a_topic_may_be() {
        for factor in Factor::value_variants() {
            let option = factor.to_possible_value().unwrap();
            assert_eq!(option.get_name(), factor.name());
            for point in points(*factor, &sizes(), 100) {
                let letters = |c: char| c.is_ascii_alphanumeric() || c == '-';
                assert!(point.name().chars().all(letters), "{}", point.name());
            }
        }
    }
}
