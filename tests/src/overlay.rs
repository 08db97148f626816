//! The programs under test.
