//! Access rows as a Parquet file: one column per field, snappy.
//!
//! Holds: the file says in its metadata which segments it was made of.

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use wire::rows::AccessRow;

const SEGMENTS_KEY: &str = "homeostat.segments";

const SCHEMA: &str = "message access {
    required int64 at (TIMESTAMP(MILLIS,true));
    required binary client (UTF8);
    required binary method (UTF8);
    required binary host (UTF8);
    required binary path (UTF8);
    required binary protocol (UTF8);
    required boolean tls;
    required int32 status (INTEGER(16,false));
    required int64 bytes (INTEGER(64,false));
    required int64 micros (INTEGER(64,false));
    optional binary project (UTF8);
    optional binary site (UTF8);
    optional binary service (UTF8);
    optional binary replica (UTF8);
    required int32 retries (INTEGER(32,false));
    required binary referer (UTF8);
    required binary agent (UTF8);
    optional binary node (UTF8);
    optional binary forwarded_by (UTF8);
    optional binary request (UTF8);
}";

pub(crate) struct AccessFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
}

impl<W: Write + Send> AccessFile<W> {
    pub fn new(to: W, segments: &str) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![KeyValue::new(
                SEGMENTS_KEY.to_owned(),
                segments.to_owned(),
            )]))
            .build();
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        Ok(Self {
            writer: SerializedFileWriter::new(to, schema, Arc::new(properties))?,
        })
    }

    /// Writes the rows as one row group.
    pub fn write(&mut self, rows: &[AccessRow]) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        let to = &mut group;
        numbers(to, rows, |row| row.at.0.cast_signed())?;
        texts(to, rows, |row| &row.client)?;
        texts(to, rows, |row| &row.method)?;
        texts(to, rows, |row| &row.host)?;
        texts(to, rows, |row| &row.path)?;
        texts(to, rows, |row| &row.protocol)?;
        let tls: Vec<_> = rows.iter().map(|row| row.tls).collect();
        column::<BoolType, _>(to, &tls, None)?;
        let statuses: Vec<_> = rows.iter().map(|row| i32::from(row.status)).collect();
        column::<Int32Type, _>(to, &statuses, None)?;
        numbers(to, rows, |row| row.bytes.cast_signed())?;
        numbers(to, rows, |row| row.micros.cast_signed())?;
        maybe_texts(to, rows, |row| {
            row.project.as_ref().map(ToString::to_string)
        })?;
        maybe_texts(to, rows, |row| row.site.as_ref().map(ToString::to_string))?;
        maybe_texts(to, rows, |row| {
            row.service.as_ref().map(ToString::to_string)
        })?;
        maybe_texts(to, rows, |row| {
            row.replica.as_ref().map(ToString::to_string)
        })?;
        let retries: Vec<_> = rows.iter().map(|row| row.retries.cast_signed()).collect();
        column::<Int32Type, _>(to, &retries, None)?;
        texts(to, rows, |row| &row.referer)?;
        texts(to, rows, |row| &row.agent)?;
        maybe_texts(to, rows, |row| row.node.map(|node| node.to_string()))?;
        maybe_texts(to, rows, |row| {
            row.forwarded_by.map(|node| node.to_string())
        })?;
        maybe_texts(to, rows, |row| row.request.map(|id| format!("{id:016x}")))?;
        group.close().map(drop)
    }

    pub fn finish(self) -> Result<W> {
        self.writer.into_inner()
    }
}

/// The segments a file was made of, as they were given.
pub(crate) fn segments(path: &Path) -> Result<String> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    Ok(pairs
        .into_iter()
        .flatten()
        .find(|pair| pair.key == SEGMENTS_KEY)
        .and_then(|pair| pair.value.clone())
        .unwrap_or_default())
}

type Group<'a, W> = SerializedRowGroupWriter<'a, W>;

fn column<T: DataType, W: Write + Send>(
    group: &mut Group<'_, W>,
    values: &[T::T],
    present: Option<&[i16]>,
) -> Result<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, present, None)?;
        column.close()?;
    }
    Ok(())
}

fn numbers<W: Write + Send>(
    group: &mut Group<'_, W>,
    rows: &[AccessRow],
    of: impl Fn(&AccessRow) -> i64,
) -> Result<()> {
    let values: Vec<_> = rows.iter().map(of).collect();
    column::<Int64Type, _>(group, &values, None)
}

fn texts<W: Write + Send>(
    group: &mut Group<'_, W>,
    rows: &[AccessRow],
    of: impl Fn(&AccessRow) -> &str,
) -> Result<()> {
    let values: Vec<_> = rows.iter().map(|row| ByteArray::from(of(row))).collect();
    column::<ByteArrayType, _>(group, &values, None)
}

fn maybe_texts<W: Write + Send>(
    group: &mut Group<'_, W>,
    rows: &[AccessRow],
    of: impl Fn(&AccessRow) -> Option<String>,
) -> Result<()> {
    let texts: Vec<_> = rows.iter().map(of).collect();
    let present: Vec<_> = texts.iter().map(|text| i16::from(text.is_some())).collect();
    let values: Vec<_> = texts
        .into_iter()
        .flatten()
        .map(|text| ByteArray::from(text.into_bytes()))
        .collect();
    column::<ByteArrayType, _>(group, &values, Some(&present))
}
