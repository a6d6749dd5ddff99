//! stub
use super::location::Location;
#[derive(Debug)]
pub struct HeldLock(pub Location);
#[derive(Debug)]
pub enum LockAttempt {
    Acquired(HeldLock),
    Busy { contents: String },
}
