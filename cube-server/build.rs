//! Tells cargo that the migrations are part of the build: `include_dir!` alone would embed a stale set.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
