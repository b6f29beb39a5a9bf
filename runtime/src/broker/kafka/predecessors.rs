//! The groups of a consumer's names before: what they left goes on in its own.
//!
//! ```text
//! no position of our own ─▶ a previous group has one ─▶ still a member there? wait
//!                                                          └▶ fence its transactions ─▶ read, stable
//! ```
//! Whoever still works in the old name would settle events after their positions were read, and they
//! would be processed again. So its members are waited for. One of our own `instance` is our own life
//! before: it ended without leaving, as a static member does, and what it may have left open is fenced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};

use super::client::{Listener, Settings};
use super::member::{Member, MemberContext};
use super::positions::committed;
use super::raw::Writer;
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// See the module.
pub(super) struct Predecessors {
    settings: Settings,
    listener: Listener,
    groups: Vec<Arc<str>>,
    transactional: bool,
}

/// What is known of the groups before.
#[derive(Debug)]
pub(super) enum Left {
    /// None has a position that is asked for.
    Nothing,
    Positions {
        group: Arc<str>,
        positions: HashMap<TopicPartition, Progress>,
    },
    /// So many others are members of a group that has.
    InUse { group: Arc<str>, members: usize },
}

impl Predecessors {
    /// The first of `groups` is the one before. With `transactional` what they wrote was in
    /// transactions.
    pub(super) fn new(
        settings: Settings,
        listener: Listener,
        groups: Vec<Arc<str>>,
        transactional: bool,
    ) -> Self {
        Self {
            settings,
            listener,
            groups,
            transactional,
        }
    }

    /// What the first group that has any position in these partitions left. Blocks for a few times
    /// `wait` for each group.
    ///
    /// # Errors
    /// Where the broker does not answer, or a transaction of the group is open; again later.
    pub(super) fn left(&self, partitions: &[TopicPartition], wait: Duration) -> KafkaResult<Left> {
        let groups = self.groups.iter().filter(|_| !partitions.is_empty());
        for group in groups {
            let client = self.client(group)?;
            if committed(&*client, partitions, wait)?.is_empty() {
                continue;
            }
            let members = self.others(&client, group, wait)?;
            if members > 0 {
                let group = group.clone();
                return Ok(Left::InUse { group, members });
            }
            if self.transactional {
                self.fence(group, wait)?;
            }
            // Nobody moves them any more.
            let positions = committed(&*client, partitions, wait)?;
            let group = group.clone();
            return Ok(Left::Positions { group, positions });
        }
        Ok(Left::Nothing)
    }

    fn client(&self, group: &str) -> KafkaResult<Arc<Member>> {
        let mut config = self.settings.reader();
        config.set("group.id", group);
        let member = config.create_with_context(MemberContext::new(self.listener.clone()))?;
        Ok(Arc::new(member))
    }

    /// Members of the group that are not our own life before.
    fn others(&self, client: &Arc<Member>, group: &str, wait: Duration) -> KafkaResult<usize> {
        let list = client.fetch_group_list(Some(group), wait)?;
        let members = list.groups().iter().flat_map(|group| group.members());
        let own = self
            .settings
            .instance()
            .map(|instance| format!("{instance}-"));
        // The coordinator names a static member by its `group.instance.id` and a number of its own.
        let is_own = |id: &str| own.as_ref().is_some_and(|own| id.starts_with(own));
        Ok(members.filter(|member| !is_own(member.id())).count())
    }

    /// Ends what a life before left open, and lets it write no more. Without a stable name nobody
    /// knows its id: then what is open is waited for until it times out.
    fn fence(&self, group: &str, wait: Duration) -> KafkaResult<()> {
        if self.settings.instance().is_none() {
            return Ok(());
        }
        let config = self.settings.transactional(group);
        let writer = Writer::new(&config, self.listener.clone(), Arc::default(), false)?;
        writer.init_transactions(wait).map_err(|failure| {
            tracing::debug!(
                group,
                "ending the transactions of the name before: {failure}"
            );
            KafkaError::Global(failure.code)
        })
    }
}
