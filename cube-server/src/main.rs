//! cube-server.

fn main() {}
