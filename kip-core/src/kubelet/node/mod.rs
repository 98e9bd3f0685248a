//! Keeps the Kubernetes Node object true: creates or adopts it, writes its status, makes it anew when somebody deletes it.

mod keeper;
mod object;

pub(crate) use keeper::{NodeKeeper, NodeUid};
pub(crate) use object::seconds;
