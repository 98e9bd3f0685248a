//! Cell records kept in Kubernetes: the `Cell` custom resource, its definition, and the store over it.

mod definition;
mod resource;
mod store;

pub use definition::{crd_yaml, install};
pub(crate) use resource::label_value;
pub use resource::{Cell, CellMarksFields, CellSpec, CellStatus, OfferingFields, PodFields};
pub(crate) use store::CellAddresses;
pub use store::KubeCellStore;
