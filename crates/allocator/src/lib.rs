//! The memory allocator of the binary (mimalloc), and the settings of its memory.
//!
//! This is the only room with unsafe code, because settings of mimalloc can be reached only through its C interface. A
//! bounded run fills and frees some hundred megabytes a second. By default, mimalloc returns free memory to the kernel
//! after a second, and the kernel clears the same pages again. If memory is kept longer, it is reused: the kernel hands
//! out a sixth fewer pages, and a run over ten million clicks takes a tenth less time (ADR 12).

use rustix::thread::disable_transparent_huge_pages;
use std::ffi::c_long;
use std::time::Duration;

pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of mimalloc 3 (`mimalloc.h`), which the crate does not name; a test checks its default.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed memory for `delay` before it is returned to the kernel. Call it at the start of the process. If there
/// may be other threads, it does nothing, since mimalloc may be reading the setting.
pub fn keep_freed_memory(delay: Duration) {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if threads.is_ok_and(|threads| threads == 1) {
        set_purge_delay(c_long::try_from(delay.as_millis()).unwrap_or(c_long::MAX));
    }
}

/// Returns free memory to the kernel now, in spite of [`keep_freed_memory`]. If very many inputs are read, memory kept
/// for reuse would be a fifth of the total.
#[allow(unsafe_code)]
pub fn give_back_freed_memory() {
    // SAFETY: the function takes no pointer and may be called from any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Turns off transparent huge pages for this process and its children, whatever mimalloc requests. They would save a
/// thirtieth of a bounded run's time in address translation. But each is cleared as a whole, though often only a part
/// is used, and a virtual machine that returns free memory to its host does so in blocks of their size, which are slow
/// to get back (ADR 12). Call it at the start of the process. If the kernel does not support it, nothing changes.
pub fn use_small_pages() {
    let _ = disable_transparent_huge_pages(true);
}

#[allow(unsafe_code)]
fn set_purge_delay(ms: c_long) {
    // SAFETY: the function takes no pointer and checks that the option exists. It is not thread-safe, but there is only
    // one thread.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code)]
    fn purge_delay() -> c_long {
        // SAFETY: nothing writes: at most, this test runs beside others, and then nothing is set.
        unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }
    }

    /// Another version of mimalloc may number its options differently.
    #[test]
    fn the_option_is_the_one_that_is_meant_and_is_left_alone_beside_other_threads() {
        std::thread::scope(|scope| {
            let other = scope.spawn(std::thread::park);
            keep_freed_memory(Duration::from_secs(10));
            let found = purge_delay();
            // First, since a failure would otherwise wait for it forever.
            other.thread().unpark();
            assert_eq!(found, 1_000, "the default");
        });
    }

    #[test]
    fn huge_pages_are_off_once_they_are_turned_off() {
        use_small_pages();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}
