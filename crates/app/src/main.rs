//! The `adtally` binary.
fn main() {}
