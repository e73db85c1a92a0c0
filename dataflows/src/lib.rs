//! The pure half of contentflow.
#![warn(missing_docs)]

pub mod record;
pub mod reject;
pub mod decode;
pub mod validate;
