//! stub
pub struct SessionSettings;
