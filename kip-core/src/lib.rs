//! kip-core
