//! The migrations are compiled in: a change of a file there rebuilds this crate.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
