//! Cell records kept in Kubernetes: the `Cell` custom resource, its definition, and the store over it.

mod convert;
mod definition;
mod resource;
mod store;

pub use definition::{SCHEMA_ANNOTATION, crd_yaml, install};
pub(crate) use resource::label_value;
pub use resource::{
    Cell, CellMarksFields, CellSpec, CellStatus, EndingField, OfferingFields, PodFields, ReplacesFields,
    VerdictFields,
};
pub(crate) use store::CellAddresses;
pub use store::KubeCellStore;
