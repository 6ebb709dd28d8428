//! TCP ports.

use super::declare::whole;

whole! {
    /// A TCP port.
    Port: u16 = "a port", 1, 65_535;
}
