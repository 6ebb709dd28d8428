//! The targets of the filter: each takes any bytes, and panics where something that must hold doesn't.

mod choices;
mod configuration;
mod decide;
mod engines;
mod generated;
mod peer;
mod request;
mod signals;

pub use configuration::configuration;
pub use decide::decide;
pub use peer::peer;
pub use signals::signals;
