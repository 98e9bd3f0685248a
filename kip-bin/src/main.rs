//! kip-bin
fn main() {}
