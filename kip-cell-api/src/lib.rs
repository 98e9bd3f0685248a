//! kip-cell-api
