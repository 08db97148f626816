//! The slow path and its shell, on a disk that waits for the test's word.

mod receipts;
mod revocations;
