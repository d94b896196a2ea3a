//! Toolbox.
fn main() {}
