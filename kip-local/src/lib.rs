//! kip-local
