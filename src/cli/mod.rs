//! placeholder

pub mod quickstart;
