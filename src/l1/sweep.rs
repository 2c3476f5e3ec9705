//! Walking over the records of a table, a few at a time.
#![allow(unsafe_code)]

use super::record::Record;
use super::table::{Collect, Table, Units};
use quick_cache::DefaultHashBuilder;
use quick_cache::sync::Iter;
use std::sync::Arc;

/// A walk that goes round and round; nothing is locked between two steps.
pub(super) struct Sweep<V: 'static> {
    /// Borrows from `table`, which it is dropped before.
    records: Iter<'static, Record<V>, (), Units, DefaultHashBuilder, Collect>,
    table: Arc<Table<V>>,
}

impl<V> Sweep<V> {
    pub(super) fn new(table: Arc<Table<V>>) -> Self {
        // SAFETY: the table neither moves nor goes as long as `self.table` is there; nobody takes it out of its `Arc`.
        let records = unsafe { &*Arc::as_ptr(&table) }.iter();
        Self { records, table }
    }

    /// The next record; `None` at the end of a round.
    pub(super) fn step(&mut self) -> Option<Record<V>> {
        let found = self.records.next();
        if found.is_none() {
            *self = Self::new(self.table.clone());
        }
        found.map(|(record, ())| record)
    }
}
