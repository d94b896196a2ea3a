//! The `adtally` binary: reads its arguments and hands over to the library.

use std::process::ExitCode;

/// Measured against the system's allocator: decoding and window maps free on other threads than they allocate on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    adtally::cli::main()
}
