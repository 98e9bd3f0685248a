//! kip-cell
fn main() {}
