//! Loom's locks and atomics, under the names of `ublk-target`'s `sync`.
//!
//! Loom takes a `SeqCst` access for an `AcqRel` one: a load may then give an old value, and finds faults that are none. With
//! fences beside the accesses that does not happen, but loom then leaves out orders of steps that can be. So here a `SeqCst`
//! load is a read-modify-write that changes nothing, with `Acquire`, and a `SeqCst` store one that forgets what was there,
//! with `Release`: such an access sees the newest value, as in one order of all of them, and orders what is
//! around it as much as `SeqCst` does by itself. All other accesses are as weak as they say.

pub use std::sync::{Arc, PoisonError};

pub use loom::sync::{Condvar, Mutex, MutexGuard};

/// Loom's atomics.
pub mod atomic {
    pub use loom::sync::atomic::Ordering;

    macro_rules! atomic {
        ($name:ident, $inner:ty) => {
            /// See the module.
            #[derive(Debug, Default)]
            pub struct $name(loom::sync::atomic::$name);

            #[allow(missing_docs, reason = "std's documentation holds")]
            impl $name {
                pub fn new(value: $inner) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                #[track_caller]
                pub fn load(&self, order: Ordering) -> $inner {
                    match order {
                        Ordering::SeqCst => self.0.fetch_or(0, Ordering::Acquire),
                        weaker => self.0.load(weaker),
                    }
                }

                #[track_caller]
                pub fn store(&self, value: $inner, order: Ordering) {
                    match order {
                        Ordering::SeqCst => drop(self.0.swap(value, Ordering::Release)),
                        weaker => self.0.store(value, weaker),
                    }
                }

                #[track_caller]
                pub fn swap(&self, value: $inner, order: Ordering) -> $inner {
                    self.0.swap(value, order)
                }

                #[track_caller]
                pub fn fetch_add(&self, value: $inner, order: Ordering) -> $inner {
                    self.0.fetch_add(value, order)
                }

                #[track_caller]
                pub fn fetch_sub(&self, value: $inner, order: Ordering) -> $inner {
                    self.0.fetch_sub(value, order)
                }

                #[track_caller]
                pub fn fetch_and(&self, value: $inner, order: Ordering) -> $inner {
                    self.0.fetch_and(value, order)
                }

                #[track_caller]
                pub fn fetch_or(&self, value: $inner, order: Ordering) -> $inner {
                    self.0.fetch_or(value, order)
                }

                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $inner,
                    new: $inner,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$inner, $inner> {
                    self.0.compare_exchange(current, new, success, failure)
                }

                #[track_caller]
                pub fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    update: impl FnMut($inner) -> Option<$inner>,
                ) -> Result<$inner, $inner> {
                    self.0.fetch_update(set, fetch, update)
                }
            }
        };
    }

    atomic!(AtomicU8, u8);
    atomic!(AtomicU16, u16);
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}
