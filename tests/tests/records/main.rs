//! What a node writes down of what happened: requests and changes.

mod access_log;
mod audit;
