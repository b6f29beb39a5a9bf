//! The configuration that applies, in the form in which one would write it, secrets blanked.

use serde_json::{Map, Value, json};

use super::filter::{Field, Filter};
use super::origin::Origin;
use super::redact::{BLANK, sounds_secret};
use super::units::{show_duration, show_rate, show_size};
use super::{
    Admin, Broker, CircuitBreaker, Cleanup, Config, Consumer, Credentials, Delivery, Deploy,
    Durability, OnLostPosition, Ordering, PluginSource, PrivateKey, Registry, Runtime, Start,
    TopicPattern, TopicSettings,
};

/// The configuration as one value: every key that applies, none that is null.
pub fn resolved(config: &Config) -> Value {
    let mut root = Map::new();
    root.insert("runtime".into(), runtime(&config.runtime));
    root.insert("broker".into(), broker(&config.broker));
    let topics: Map<_, _> = config
        .topics
        .iter()
        .map(|(name, settings)| (name.to_string(), topic(settings)))
        .collect();
    if !topics.is_empty() {
        root.insert("topics".into(), Value::Object(topics));
    }
    root.insert("admin".into(), admin(&config.admin));
    if let Some(address) = config.admin.metrics_listen {
        root.insert("metrics".into(), json!({ "listen": address.to_string() }));
    }
    let registries: Map<_, _> = config
        .registries
        .iter()
        .map(|(host, settings)| (host.to_string(), registry(settings)))
        .collect();
    if !registries.is_empty() {
        root.insert("registries".into(), Value::Object(registries));
    }
    let consumers = config.consumers.iter().map(|c| consumer(c)).collect();
    root.insert("consumer".into(), Value::Array(consumers));
    Value::Object(root)
}

/// The same as TOML.
///
/// # Errors
/// Only by a fault of the serializer.
pub fn resolved_toml(config: &Config) -> Result<String, toml::ser::Error> {
    toml::to_string(&resolved(config))
}

fn runtime(runtime: &Runtime) -> Value {
    let mut value = json!({
        "shutdown_timeout": show_duration(runtime.shutdown_timeout),
        "max_instances": runtime.max_instances,
        "max_plugin_memory": show_size(runtime.max_plugin_memory),
        "plugin_memory": show_size(runtime.plugin_memory),
        "cache_dir": runtime.cache_dir.display().to_string(),
    });
    if let Some(instance) = &runtime.instance {
        value["instance"] = instance.as_str().into();
    }
    value
}

fn broker(broker: &Broker) -> Value {
    match broker {
        Broker::Embedded(embedded) => json!({
            "kind": "embedded",
            "data_dir": embedded.data_dir.display().to_string(),
            "durability": match embedded.durability {
                Durability::Sync => "sync",
                Durability::Os => "os",
            },
            "min_free_disk": show_size(embedded.min_free_disk),
        }),
        Broker::Kafka(kafka) => {
            let properties: Map<_, _> = kafka
                .properties
                .iter()
                .map(|(name, value)| (name.clone(), value.to_string().into()))
                .collect();
            json!({ "kind": "kafka", "properties": properties })
        }
    }
}

fn topic(settings: &TopicSettings) -> Value {
    let mut value = Map::new();
    if let Some(partitions) = settings.partitions {
        value.insert("partitions".into(), partitions.into());
    }
    let mut retention = Map::new();
    if let Some(age) = settings.retention_age {
        retention.insert("age".into(), show_duration(age).into());
    }
    if let Some(bytes) = settings.retention_bytes {
        retention.insert("bytes".into(), show_size(bytes).into());
    }
    if !retention.is_empty() {
        value.insert("retention".into(), Value::Object(retention));
    }
    if let Some(cleanup) = settings.cleanup {
        let cleanup = match cleanup {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
        };
        value.insert("cleanup".into(), cleanup.into());
    }
    if let Some(bytes) = settings.max_event {
        value.insert("max_event".into(), show_size(bytes).into());
    }
    Value::Object(value)
}

fn admin(admin: &Admin) -> Value {
    let mut value = json!({
        "listen": admin.listen.to_string(),
        "hosts": admin.hosts,
        "stuck_after": show_duration(admin.stuck_after),
    });
    if admin.token.is_some() {
        value["token"] = BLANK.into();
    }
    if let Some(tls) = &admin.tls {
        let key = match &tls.key {
            PrivateKey::File(path) => json!({ "file": path.display().to_string() }),
            PrivateKey::Given(_) => BLANK.into(),
        };
        value["tls"] = json!({
            "certificate": tls.certificate.display().to_string(),
            "key": key,
        });
        if let Some(ca) = &tls.ca {
            value["tls"]["ca"] = ca.display().to_string().into();
        }
    }
    value
}

/// A consumer, without what is not set.
pub(super) fn consumer(consumer: &Consumer) -> Value {
    let (batch, in_flight) = (consumer.batch, consumer.in_flight);
    let (limits, retry) = (consumer.limits, consumer.retry);
    let topics: Vec<_> = consumer
        .topics
        .iter()
        .map(|topic| match topic {
            TopicPattern::Name(name) => name.to_string(),
            TopicPattern::Pattern(pattern) => pattern.as_str().to_owned(),
        })
        .collect();
    let mut value = json!({
        "name": &*consumer.name,
        "group": &*consumer.group,
        "enabled": consumer.enabled,
        "plugin": plugin(&consumer.plugin),
        "topics": topics,
        "delivery": match consumer.delivery {
            Delivery::AtMostOnce => "at-most-once",
            Delivery::AtLeastOnce => "at-least-once",
            Delivery::ExactlyOnce => "exactly-once",
        },
        "ordering": match consumer.ordering {
            Ordering::Partition => "partition",
            Ordering::Key => "key",
            Ordering::None => "none",
        },
        "concurrency": consumer.concurrency,
        "filter": filter(&consumer.filter),
        "batch": {
            "max_events": batch.max_events,
            "max_bytes": show_size(batch.max_bytes as u64),
        },
        "in_flight": {
            "max_events": in_flight.max_events,
            "max_bytes": show_size(in_flight.max_bytes as u64),
        },
        "commit": {
            "interval": show_duration(consumer.commit.interval),
            "max_events": consumer.commit.max_events,
        },
        "limits": {
            "memory": show_size(limits.memory),
            "deadline": show_duration(limits.deadline),
            "call": show_duration(limits.call),
            "init": show_duration(limits.init),
            "outputs": limits.outputs,
            "output_bytes": show_size(limits.output_bytes),
            "headers": limits.headers,
            "hops": limits.hops,
        },
        "retry": {
            "max_attempts": retry.max_attempts,
            "initial": show_duration(retry.initial),
            "max": show_duration(retry.max),
            "factor": retry.factor,
            "jitter": retry.jitter,
            "max_age": show_duration(retry.max_age),
        },
        "config": plugin_config(&consumer.config),
        "previous_names": consumer.previous_names.iter().map(|name| &**name).collect::<Vec<_>>(),
        "on_lost_position": match consumer.on_lost_position {
            OnLostPosition::Stop => "stop",
            OnLostPosition::Beginning => "beginning",
            OnLostPosition::End => "end",
        },
        "capabilities": consumer.capabilities.shown(),
    });
    // Written out, a table without entries would be refused.
    if !consumer.outputs.is_empty() {
        value["outputs"] = outputs(consumer);
    }
    if !consumer.secrets.is_empty() {
        let secrets = consumer.secrets.iter();
        let shown: Map<_, _> = secrets
            .map(|(name, source)| (name.to_string(), source.shown()))
            .collect();
        value["secrets"] = Value::Object(shown);
    }
    if let Some(start) = consumer.start {
        value["start"] = match start {
            Start::Beginning => "beginning".into(),
            Start::End => "end".into(),
            Start::At(milliseconds) => super::time::show(milliseconds).into(),
        };
    }
    if let Some(dead_letter) = &consumer.dead_letter {
        value["dead_letter"] = json!({ "topic": &*dead_letter.topic });
        if let Some(ratio) = dead_letter.max_ratio {
            value["dead_letter"]["max_ratio"] = ratio.into();
        }
    }
    value["circuit_breaker"] = consumer.circuit_breaker.map_or(Value::Bool(false), breaker);
    if let Some(rate) = consumer.rate {
        value["rate"] = show_rate(rate).into();
    }
    value["deploy"] = deploy(consumer.deploy);
    value
}

fn deploy(deploy: Deploy) -> Value {
    json!({
        "shadow": deploy.shadow,
        "probation": show_duration(deploy.probation),
        "max_failure_ratio": deploy.max_failure_ratio,
        "state_version": deploy.state_version,
    })
}

fn plugin(source: &PluginSource) -> Value {
    let mut value = match &source.remote {
        None => json!({ "path": source.path.display().to_string() }),
        Some(remote) => {
            let key = match remote.origin {
                Origin::Url(_) => "url",
                Origin::Oci(_) => "oci",
            };
            json!({
                key: remote.origin.to_string(),
                "max_size": show_size(remote.max_size),
                "timeout": show_duration(remote.timeout),
            })
        }
    };
    if let Some(digest) = &source.sha256 {
        value["sha256"] = digest.as_str().into();
    }
    value
}

fn registry(registry: &Registry) -> Value {
    let mut value = Map::new();
    match &registry.credentials {
        Some(Credentials::Basic { username, .. }) => {
            value.insert("username".into(), username.as_str().into());
            value.insert("password".into(), BLANK.into());
        }
        Some(Credentials::Bearer(_)) => {
            value.insert("token".into(), BLANK.into());
        }
        None => {}
    }
    if let Some(ca) = &registry.ca {
        value.insert("ca".into(), ca.display().to_string().into());
    }
    if let Some(plain) = registry.plain_http {
        value.insert("plain_http".into(), plain.into());
    }
    Value::Object(value)
}

fn breaker(breaker: CircuitBreaker) -> Value {
    json!({
        "failure_ratio": breaker.failure_ratio,
        "min_events": breaker.min_events,
        "consecutive": breaker.consecutive,
        "window": show_duration(breaker.window),
        "open_for": show_duration(breaker.open_for),
        "probes": breaker.probes,
    })
}

fn filter(filter: &Filter) -> Value {
    let mut value = Map::new();
    let mut headers = Map::new();
    for condition in &filter.conditions {
        let values: Vec<_> = condition
            .values
            .iter()
            .map(|value| format!("{}{}", if value.unwanted { "!" } else { "" }, value.pattern))
            .collect();
        match &condition.field {
            Field::Type => value.insert("type".into(), values.into()),
            Field::Key => value.insert("key".into(), values.into()),
            Field::Header(name) => headers.insert(name.clone(), values.into()),
        };
    }
    if !headers.is_empty() {
        value.insert("header".into(), Value::Object(headers));
    }
    Value::Object(value)
}

fn outputs(consumer: &Consumer) -> Value {
    let outputs: Map<_, _> = consumer
        .outputs
        .iter()
        .map(|output| {
            let value = match (&output.topic, output.partitions) {
                (None, _) => Value::Bool(false),
                (Some(topic), None) => (&**topic).into(),
                (Some(topic), Some(partitions)) => {
                    json!({ "topic": &**topic, "partitions": partitions })
                }
            };
            (output.name.to_string(), value)
        })
        .collect();
    Value::Object(outputs)
}

/// A plugin's configuration holds no secret by contract; one that sounds like it is blanked even so.
fn plugin_config(text: &str) -> Value {
    let mut value = serde_json::from_str(text).unwrap_or_default();
    blank(&mut value);
    value
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                if sounds_secret(key) && !value.is_boolean() {
                    *value = BLANK.into();
                } else {
                    blank(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(blank),
        _ => {}
    }
}
