//! What a simulation holds against a room: sums that do not add up, and what is kept for nobody.
//!
//! Both do harm only later, once something is full that should not be, or has grown for long.

use super::Room;

impl Room {
    /// What is wrong between two steps. For simulations: it goes over all that is kept.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let doubt = self.outbox.doubt().or_else(|| self.doubt_subscribers());
        let doubt = doubt.or_else(|| self.presence.doubt());
        doubt.or_else(|| self.kept_for_nobody()).map(|what| format!("{}: {what}", self.document))
    }

    fn doubt_subscribers(&self) -> Option<String> {
        let is_read_for = |id| self.catch_ups.contains_key(id);
        self.subscribers.iter().find_map(|(id, subscriber)| subscriber.doubt(is_read_for(id)))
    }

    fn kept_for_nobody(&self) -> Option<String> {
        let reads = self.catch_ups.keys().chain(self.reads.values());
        let durable = self.undurable.iter().chain(&self.now_durable);
        let all = reads.chain(durable).chain(&self.seeding).chain(self.channels.values());
        let gone = all.copied().find(|id| !self.subscribers.contains_key(id));
        if let Some(id) = gone {
            return Some(format!("something is kept for {id:?}, who is gone"));
        }
        let unread = self.reads.values().find(|id| !self.catch_ups.contains_key(id));
        if let Some(id) = unread {
            return Some(format!("something is read for {id:?}, who lacks nothing"));
        }
        let is_at = |(id, at): (&_, &super::subscriber::Subscriber)| {
            self.channels.get(&at.channel_id) == Some(id)
        };
        let is_each_at_its_place = self.subscribers.iter().all(is_at);
        (!is_each_at_its_place).then(|| "somebody is here on no channel".to_owned())
    }
}
