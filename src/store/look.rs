//! Reading for who keeps a copy: an entry together with the guards that tell when it changes.

use super::blobs::Found;
use super::epochs;
use super::index::Opened;
use super::read::{Asked, AtHand, Hit, Inline, Lookup, Miss, Seen};
use super::row::{Entry, NEVER};
use super::store::Store;
use super::write::check_guards;
use crate::epoch::{Epochs, Guard};
use crate::error::Result;
use std::sync::Arc;

/// On which terms a copy of an entry may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub created: u64,
    /// Until when this store serves it, in the same unit.
    pub deadline: Option<u64>,
    /// The last moment at which any tier may serve it, in the same unit.
    pub until: Option<u64>,
    /// Bytes of the frame.
    pub size: u64,
    /// [Guards](Guard) of its name, its namespace and its tags, one after the other, taken before it was read: as long as
    /// all of them hold, nobody replaced, touched, deleted or invalidated it.
    pub guards: Vec<u8>,
}

impl Terms {
    fn of(entry: &Entry, guards: Vec<u8>) -> Self {
        let moment = |moment| (moment != NEVER).then_some(moment);
        let (deadline, until) = (moment(entry.deadline), moment(entry.until));
        Self { created: entry.created, deadline, until, size: entry.size, guards }
    }
}

impl Store {
    /// The table that its guards refer to; all processes that have the store open share it, and a forked child goes on to.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn epochs(&self) -> Result<Arc<Epochs>> {
        Ok(Arc::clone(&self.index()?.epochs))
    }

    /// Guards of `key`'s name, of the namespace and of `tags`, as they stand now. A value that is computed afterwards is
    /// to be stored only while they hold: see [`New::fence`](super::New::fence).
    ///
    /// # Errors
    /// Those of [`Self::open`] in a forked child, [`Error::Argument`](crate::Error::Argument) for a key that is too long.
    pub fn fence(&self, key: &str, tags: &[&str]) -> Result<Vec<u8>> {
        let (index, name) = (self.index()?, self.name_of(key)?);
        let tags: Vec<_> = tags.iter().map(|tag| epochs::of_tag(&self.namespace.hash_of_tag(tag))).collect();
        Ok(self.guards(index, &name, &tags))
    }

    /// Whether all of these guards hold: nothing that they guard has changed since they were taken.
    ///
    /// # Errors
    /// Those of [`Self::open`] in a forked child, [`Error::Argument`](crate::Error::Argument) for what are no guards.
    pub fn holds(&self, guards: &[u8]) -> Result<bool> {
        check_guards("guards", guards)?;
        let epochs = &self.index()?.epochs;
        Ok(guards.as_chunks().0.iter().all(|guard| epochs.holds(Guard::from_bytes(*guard))))
    }

    /// As [`Self::get`], with the terms on which a hit may be kept. With `stale` an entry past its deadline is found too,
    /// as long as its `until` has not passed.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn look(&self, key: &str, now: u64, stale: bool) -> Result<(Lookup, Option<Terms>)> {
        let (index, asked) = (self.index()?, Asked { stale, ..self.asked(key, now)? });
        let mut gone = None;
        loop {
            let Some((seen, terms)) = self.look_in_index(index, &asked, true, |inline| inline.to_hit())? else {
                continue;
            };
            let (entry, id) = match seen {
                Seen::Inline(hit) => return Ok((Lookup::Hit(hit?), terms)),
                Seen::Miss(Miss::Damaged) => return Ok((self.damaged(index, &asked.name, None)?, None)),
                Seen::Miss(miss) => return Ok((Lookup::Miss(miss), None)),
                Seen::Blob(entry, id) => (entry, id),
            };
            match index.blobs.open(&id, &entry)? {
                Found::Frame(frame) => return Ok((Lookup::Hit(Hit::new(frame, &entry)), terms)),
                // As in `get`.
                Found::Gone if gone != Some(entry.fence) => gone = Some(entry.fence),
                Found::Gone | Found::Damaged => return Ok((self.damaged(index, &asked.name, Some(&entry))?, None)),
            }
        }
    }

    /// As [`Self::look`], if that needs no file and no lock that is held for long; see [`Self::get_at_hand`].
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn look_at_hand<T>(
        &self,
        key: &str,
        now: u64,
        stale: bool,
        inline: impl FnOnce(Inline<'_>) -> T,
    ) -> Result<(AtHand<T>, Option<Terms>)> {
        let Some(index) = self.opened.current() else { return Ok((AtHand::Elsewhere, None)) };
        let asked = Asked { stale, ..self.asked(key, now)? };
        Ok(match self.look_in_index(index, &asked, false, inline)? {
            Some((seen, terms)) => (seen.at_hand(index), terms),
            None => (AtHand::Elsewhere, None),
        })
    }

    /// The terms are those of an entry that was seen. `None` where a snapshot needs waiting, and that `may_wait` forbids.
    fn look_in_index<T>(
        &self,
        index: &Opened,
        asked: &Asked<'_>,
        may_wait: bool,
        inline: impl FnOnce(Inline<'_>) -> T,
    ) -> Result<Option<(Seen<T>, Option<Terms>)>> {
        let (mut tags, mut guarded) = (Vec::new(), None);
        loop {
            let (guards, namespace) = (self.guards(index, &asked.name, &tags), self.namespace_guard(index));
            let reading = if may_wait { Some(index.read()?) } else { index.read_at_once()? };
            let Some(reading) = reading else { return Ok(None) };
            let snapshot = self.snapshot_of(index, namespace, reading)?;
            let row = match self.find(&snapshot, index, asked)? {
                Ok(row) => row,
                Err(miss) => return Ok(Some((Seen::Miss(miss), None))),
            };
            // The guards of tags, too, must be older than the snapshot that says that they are valid; which they are, only
            // the entry says. It is another one in every turn of this loop but two, so that somebody else gets on.
            if row.has_tags() && guarded != Some(row.fence()) {
                guarded = Some(row.fence());
                tags = row.tags().map(|tag| epochs::of_tag(&tag.tag)).collect();
                continue;
            }
            let terms = Terms::of(&row.entry(), guards);
            return Ok(Some((Seen::of(index, asked, &row, inline), Some(terms))));
        }
    }

    fn guards(&self, index: &Opened, name: &[u8; 32], tags: &[u64]) -> Vec<u8> {
        let own = [epochs::of_name(name), epochs::of_namespace(self.namespace.hash())];
        let mut guards = Vec::with_capacity((2 + tags.len()) * Guard::LENGTH);
        for hash in own.iter().chain(tags) {
            guards.extend_from_slice(&index.guard(*hash).to_bytes());
        }
        guards
    }
}
