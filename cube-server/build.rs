//! Compiles the pause program and tells cargo that the migrations are part of the build: `include_dir!` alone would embed a stale set.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const PAUSE: &str = "pause/pause.rs";

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
    println!("cargo::rerun-if-changed={PAUSE}");
    build_pause();
}

/// Builds the sandbox's process into the output folder, whatever the profile, with nothing but the compiler and its linker: no C library, no
/// start files, so that it runs in an empty image.
fn build_pause() {
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("pause");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "pause"])
        .args(["-C", "panic=abort", "-C", "opt-level=z", "-C", "strip=symbols", "-C", "relocation-model=static"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static", "-C", "link-arg=-Wl,--build-id=none"])
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(&out)
        .arg(PAUSE)
        .status()
        .unwrap_or_else(|error| panic!("can't run the Rust compiler for {PAUSE}: {error}"));
    assert!(status.success(), "{PAUSE} does not compile: {status}");
}
