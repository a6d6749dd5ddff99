//! What the fuzz targets share: the recordings that their corpora begin with, and how input is cut up.
//!
//! A target reads its input from the front, byte by byte, with [`Tape`]: what is flipped by the engine changes one
//! thing, and what runs out ends the course. Nothing here is random, so an input means the same at every run.

pub mod golden;
pub mod seeds;
pub mod tape;
pub mod wire;

pub use tape::Tape;
