//! Tells the crate which CPython it is built for: `cfg(Py_3_12)` and its kind.

fn main() {
    #[cfg(feature = "python")]
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo::rerun-if-changed=build.rs");
}
