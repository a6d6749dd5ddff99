//! stub
#[derive(Debug)]
pub struct Listing;
#[derive(Debug)]
pub struct Removal;
