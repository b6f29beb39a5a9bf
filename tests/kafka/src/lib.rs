//! The Kafka adapter against a real Kafka: the tests stand in `tests/kafka`.
