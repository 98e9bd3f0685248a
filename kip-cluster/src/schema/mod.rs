//! Know the shape of every served kind: which fields exist, how lists merge, what a quantity is.
//!
//! Built-in kinds come from Kubernetes' published OpenAPI files (see `schema/trim.py`), custom ones from their
//! CustomResourceDefinition; both become the same compact [`Node`] tree, which drives unknown-field checks, strategic
//! merge, and server-side apply.

mod builtin;
pub(crate) mod cel;
pub(crate) mod custom;
pub(crate) mod decode;
mod fields;
mod node;
pub(crate) mod protobuf;
pub(crate) mod validate;

pub(crate) use builtin::{definition, raw_definition};
pub(crate) use fields::{Findings, check_fields};
pub(crate) use node::{ListType, Node, Shape};
