//! trusted-lb
