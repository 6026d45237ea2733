//! Which code an input reached, from counters that the compiler puts into every branch (SanitizerCoverage, inline 8-bit counters).
//!
//! The only place of the project without the compiler's own safety, compiled for long runs only: the counters are the program's, and their
//! address is all that it tells.

#![expect(unsafe_code, reason = "the compiler hands out its counters as addresses")]

use std::cell::RefCell;
use std::slice;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static START: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// For each counter the magnitudes that it has had, as bits.
    static SEEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Called by every object of the program before `main`, each time with the same counters: those of the whole program.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start as usize, Ordering::Relaxed);
    STOP.store(stop as usize, Ordering::Relaxed);
}

/// All counters, eight at a time; a few at either end do not fill eight, and are left out.
fn counters() -> &'static [AtomicU64] {
    let start = START.load(Ordering::Relaxed).next_multiple_of(8);
    let stop = STOP.load(Ordering::Relaxed);
    if stop < start + 8 {
        return &[];
    }
    // SAFETY: the program's own counters, which live as long as it does; aligned, and within what the compiler said. They are changed by
    // plain instructions of other threads at the same time, of which there is none where one input is tried after the other.
    unsafe { slice::from_raw_parts(start as *const AtomicU64, (stop - start) / 8) }
}

pub(crate) fn begin_to_count() {
    for counter in counters() {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Whether code was reached that was not before, or much more often than before.
pub(crate) fn reached_more() -> bool {
    SEEN.with_borrow_mut(|seen| {
        let counters = counters();
        seen.resize(counters.len() * 8, 0);
        let mut more = false;
        for (place, eight) in counters.iter().enumerate() {
            let eight = eight.load(Ordering::Relaxed);
            if eight == 0 {
                continue;
            }
            for (counter, seen) in eight.to_ne_bytes().into_iter().zip(&mut seen[place * 8..]) {
                let magnitude =
                    1_u8.checked_shl(u8::BITS - counter.leading_zeros()).unwrap_or(0) | u8::from(counter > 127);
                if counter != 0 && *seen & magnitude == 0 {
                    *seen |= magnitude;
                    more = true;
                }
            }
        }
        more
    })
}
