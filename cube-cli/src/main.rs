//! cube.

fn main() {}
