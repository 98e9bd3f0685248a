//! kip-cluster
