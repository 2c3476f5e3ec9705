//! Tables as streams: an Arrow IPC file, written a batch at a time.

use super::{StreamWriter, Summary};
use crate::codec::arrow::{conforms, refused, write_error};
use crate::error::Result;
use arrow_array::{Array, RecordBatch};
use arrow_ipc::writer::FileWriter;
use arrow_schema::SchemaRef;
use std::io::Write;

/// Batches are written in parts of about so many bytes: 8 MiB.
const PART: usize = 8 << 20;

/// Writes record batches to a stream, as an Arrow IPC file.
pub struct TableWriter<W: Write> {
    file: FileWriter<StreamWriter<W>>,
    schema: SchemaRef,
}

impl<W: Write> TableWriter<W> {
    /// Begins a table of this schema in a stream to which nothing was written yet.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) for what Arrow IPC cannot hold, and those of the stream.
    pub fn new(stream: StreamWriter<W>, schema: SchemaRef) -> Result<Self> {
        let file = FileWriter::try_new(stream, &schema).map_err(write_error)?;
        Ok(Self { file, schema })
    }

    /// Writes the rows of `batch`; a large batch in several parts.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) for columns of other types than the schema's, and for a dictionary that
    /// differs from the one that its column had before; those of the stream.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let names = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let (expected, found) = (names(&self.schema), names(&batch.schema()));
        if expected != found {
            return Err(refused(
                format!("the columns {:.400}", expected.join(", ")),
                format!("{:.400}", found.join(", ")),
            ));
        }
        conforms(batch, &self.schema)?;
        let bytes: usize =
            batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        let parts = bytes.div_ceil(PART).clamp(1, batch.num_rows().max(1));
        let rows = batch.num_rows().div_ceil(parts).max(1);
        for part in 0..parts {
            let start = (part * rows).min(batch.num_rows());
            let part = batch.slice(start, rows.min(batch.num_rows() - start));
            self.file.write(&part).map_err(write_error)?;
        }
        Ok(())
    }

    /// Bytes of payload that were taken so far.
    pub fn payload(&self) -> u64 {
        self.file.get_ref().payload()
    }

    /// Writes what is left, and the index; returns where it was written to.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(self) -> Result<(W, Summary)> {
        // Finishes the file.
        self.file.into_inner().map_err(write_error)?.finish()
    }
}
