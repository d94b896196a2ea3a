//! How far an input was read.

use crate::{Error, Invariant};
use serde::{Deserialize, Serialize};

/// A range `(from, to]` of an input: bytes of uncompressed text for files, offsets for Kafka.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// Where the range begins. Earlier epochs have read everything before it.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
}

impl Position {
    /// An empty range at an offset.
    pub const fn at(offset: u64) -> Self {
        Position { from: offset, to: offset }
    }

    /// Appends a range, which must begin at the end of this one.
    ///
    /// ```
    /// # use adtally_model::Position;
    /// let mut position = Position::at(0);
    /// assert!(position.advance(0, 10).is_ok());
    /// assert!(position.advance(11, 20).is_err(), "a hole");
    /// assert!(position.advance(9, 20).is_err(), "an overlap");
    /// assert_eq!(position, Position { from: 0, to: 10 });
    /// ```
    ///
    /// # Errors
    /// An internal error when the ranges do not meet.
    pub fn advance(&mut self, from: u64, to: u64) -> Result<(), Error> {
        if from == self.to && to >= from {
            self.to = to;
            Ok(())
        } else {
            Err(Error::violated(
                Invariant::ContiguousPositions,
                format!("({from}, {to}] does not follow ({}, {}]", self.from, self.to),
            ))
        }
    }

    /// The empty range at the end of this one: where the next epoch begins.
    pub const fn next(self) -> Self {
        Position::at(self.to)
    }
}
