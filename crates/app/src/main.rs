//! The `adtally` binary: sets memory options and limits, and calls the library.

use adtally_allocator::Allocator;
use std::process::ExitCode;
use std::time::Duration;

/// Faster than the system's allocator here: decoding and window maps free on other threads than they allocate on.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How long freed memory is kept: a bounded run uses it again within a second, a service after the next epoch.
const FREED_MEMORY_KEPT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    adtally_allocator::use_small_pages();
    adtally_allocator::keep_freed_memory(FREED_MEMORY_KEPT);
    adtally::handles::raise_limit();
    adtally::cli::main()
}
