//! What is said of who is present with a document: volatile words, of which the newest counts.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidelog_types::ClientId;
use tidelog_types::limits::{
    PRESENCE_ATTENDEES_MAX, PRESENCE_SEEN_MAX, PRESENCE_STATE_SIZE_MAX, TOKEN_NAME_SIZE_MAX,
};

use crate::message::Bounded;

/// A client's number for one of those on a channel who can be present: an open handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attendee(pub u32);

/// What one who is present says of itself: text that only apps read, of at most
/// [`PRESENCE_STATE_SIZE_MAX`] bytes. Shared by all who are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateText(Arc<str>);

impl StateText {
    /// This text; `None` if it is too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= PRESENCE_STATE_SIZE_MAX).then(|| Self(text.into()))
    }
}

impl Deref for StateText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Serialize for StateText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for StateText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| D::Error::custom("too long"))
    }
}

/// What a client wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hears {
    /// Nothing.
    #[default]
    Nothing,
    /// Who is present on other channels.
    Others,
    /// The same, and who is present on this one.
    All,
}

/// What a client says of its own. Each is also a sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceWord {
    /// What it wants to be told from now on.
    pub hears: Hears,
    /// How many [news](PresenceNews) more it has heard on the channel.
    pub heard: u32,
    /// How those are present of whom there is something new; `None` for one who is not any more.
    /// At most [`PRESENCE_ATTENDEES_MAX`].
    #[serde(deserialize_with = "changes")]
    pub changes: Vec<(Attendee, Option<StateText>)>,
}

/// What a client is told of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceNews {
    /// How many are present on other channels, seen or not.
    pub elsewhere_count: u32,
    /// The keys of all who are seen from now on; `None` if they are those of before.
    #[serde(serialize_with = "keys_as_slice", deserialize_with = "keys")]
    pub keys: Option<Arc<[u64]>>,
    /// Those of them of whom there is something new.
    #[serde(serialize_with = "present_as_slice", deserialize_with = "present")]
    pub present: Arc<[Present]>,
}

/// One who is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// Its number in the room: who came later has a higher one. Never reused.
    pub key: u64,
    /// Who it is, if that was not said since it is seen.
    pub who: Option<PresenceWho>,
    /// What it says of itself.
    pub state: StateText,
}

/// Who is present, by the word of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceWho {
    /// The subject of its token; `None` on a development server.
    #[serde(deserialize_with = "user")]
    pub user: Option<String>,
    /// The client, as it said in Hello.
    pub client: ClientId,
    /// Its number, if it is one of those on the channel of whoever is told.
    pub own: Option<Attendee>,
}

impl Present {
    /// About how many bytes it takes in a message.
    #[must_use]
    pub fn size(&self) -> usize {
        let who = self.who.as_ref().map_or(0, PresenceWho::size);
        8 + 1 + who + 8 + self.state.len()
    }
}

impl PresenceWho {
    /// About how many bytes it takes in a message.
    #[must_use]
    pub fn size(&self) -> usize {
        9 + self.user.as_ref().map_or(0, String::len) + 16 + 5
    }
}

impl PresenceNews {
    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| 8 + keys.len() * 8);
        32 + keys + self.present.iter().map(Present::size).sum::<usize>()
    }
}

fn changes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(Attendee, Option<StateText>)>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(PRESENCE_ATTENDEES_MAX))
}

/// Whoever is told may have one of its own among them.
const LISTED_MAX: usize = PRESENCE_SEEN_MAX + 1;

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<[u64]>>, D::Error> {
    let keys = Option::<Vec<u64>>::deserialize(deserializer)?;
    match keys {
        Some(keys) if keys.len() > LISTED_MAX => Err(D::Error::custom("too many")),
        keys => Ok(keys.map(Arc::from)),
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[Present]>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(LISTED_MAX)).map(|it: Vec<_>| it.into())
}

fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(user) if user.len() > TOKEN_NAME_SIZE_MAX => Err(D::Error::custom("too long")),
        user => Ok(user),
    }
}

fn keys_as_slice<S: Serializer>(
    keys: &Option<Arc<[u64]>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    keys.as_deref().serialize(serializer)
}

fn present_as_slice<S: Serializer>(
    present: &Arc<[Present]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (**present).serialize(serializer)
}
