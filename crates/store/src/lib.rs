//! Where results live.
pub mod questions;
