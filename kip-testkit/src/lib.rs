//! kip-testkit
