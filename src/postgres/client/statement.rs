//! A statement that the server works on, and what comes of it.

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use crate::postgres::messages::Malformed;

/// What one answer may hold, in bytes: the names of some 100,000 databases.
pub(super) const ANSWER_MAXIMUM: usize = 16 << 20;

/// How a statement came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished {
    /// The server answered, or the connection was lost.
    Answered {
        /// The first result.
        first: First,
        /// The text of a second one, which is empty unless it is an error.
        further: Option<String>,
    },
    /// It took too long and was cancelled.
    TimedOut {
        /// As for `Answered`.
        further: Option<String>,
    },
    /// It took too long and could not be cancelled. The connection is closed.
    NotCancelled(String),
    /// It could not be sent.
    NotSent(String),
    /// The answer was longer than this many bytes.
    TooLong(usize),
}

/// The first result of a statement.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// It was done, and there are no rows to it.
    Command,
    /// Rows, also when there are none.
    Rows(Rows),
    /// It failed: libpq's text.
    Error(String),
}

/// Rows of a result, as the server sent them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The types of the columns, by number.
    pub types: Vec<u32>,
    /// How many rows there are.
    pub count: usize,
    /// Fields one after the other, each with its length in front, or -1 for null.
    pub(in crate::postgres) data: Vec<u8>,
}

impl Rows {
    /// The fields of all rows, one row after the other; `None` is null.
    pub fn fields(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = self.data.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            // A negative length stands for null. Lengths were checked when the row came.
            let field = usize::try_from(i32::from_be_bytes(*length)).ok().and_then(|length| behind.get(..length));
            rest = behind.get(field.map_or(0, <[u8]>::len)..)?;
            Some(field)
        })
    }

    /// Adds a row, if it has a field for each column.
    fn add(&mut self, row: &DataRowBody) -> Result<(), Malformed> {
        let count = row.ranges().count().map_err(|_| Malformed::Unknown)?;
        if count != self.types.len() {
            return Err(Malformed::Unknown);
        }
        self.data.extend_from_slice(row.buffer());
        self.count += 1;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancellation {
    Unneeded,
    UnderWay,
    Done,
}

/// A statement that the server works on.
pub(super) struct Running {
    pub(super) statement: String,
    pub(super) cancellation: Cancellation,
    rows: Option<Rows>,
    first: Option<First>,
    further: Option<String>,
    /// Bytes of rows so far.
    held: usize,
    /// The server is ready for the next one.
    pub(super) ready: bool,
}

impl Running {
    pub(super) const fn new(statement: String) -> Self {
        let cancellation = Cancellation::Unneeded;
        Self { statement, cancellation, rows: None, first: None, further: None, held: 0, ready: false }
    }

    /// These are the columns of the rows that follow.
    pub(super) fn describe(&mut self, body: &RowDescriptionBody) -> Result<(), Malformed> {
        let types = body.fields().map(|field| Ok(field.type_oid())).collect().map_err(|_| Malformed::Unknown)?;
        self.rows = Some(Rows { types, count: 0, data: vec![] });
        Ok(())
    }

    pub(super) fn add_row(&mut self, row: &DataRowBody) -> Result<(), Malformed> {
        // Also a row of nothing takes something.
        self.held += row.buffer().len() + size_of::<u64>();
        if self.held > ANSWER_MAXIMUM {
            return Err(Malformed::TooLong);
        }
        self.rows.as_mut().ok_or(Malformed::Unknown)?.add(row)
    }

    /// A result is complete.
    pub(super) fn complete(&mut self) {
        let result = self.rows.take().map_or(First::Command, First::Rows);
        self.add(result);
    }

    pub(super) fn add(&mut self, result: First) {
        self.rows = None;
        if self.first.is_none() {
            self.first = Some(result);
        } else if self.further.is_none() {
            self.further = Some(if let First::Error(text) = result { text } else { String::new() });
        }
    }

    /// All results are there, or no more will come.
    pub(super) fn finish(&mut self) -> Finished {
        let further = self.further.take();
        match self.first.take() {
            _ if self.cancellation != Cancellation::Unneeded => Finished::TimedOut { further },
            Some(first) => Finished::Answered { first, further },
            // Never seen: every statement has a result.
            None => Finished::Answered { first: First::Error(String::new()), further },
        }
    }
}
