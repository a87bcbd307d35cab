//! The Query API of ElastiCache, version 2015-02-02: a form comes in at `POST /`, XML goes out, whatever happens.
//!
//! `docs/elasticache.md` has what is spoken and where it differs from AWS.

pub mod actions;
pub mod answer;
pub mod call;
pub mod check;
pub mod error;
pub mod form;
pub mod known;
pub mod shapes;
pub mod stored;
pub mod tagging;
pub mod xml;
