//! RDB bytes.
