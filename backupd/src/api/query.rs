//! The Query API of ElastiCache, version 2015-02-02: a form comes in at `POST /`, XML goes out, whatever happens.
//!
//! `docs/elasticache.md` has what is spoken and where it differs from AWS.

pub mod check;
pub mod error;
pub mod form;
pub mod shapes;
pub mod xml;
