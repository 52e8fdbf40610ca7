//! Codecs between bytes and values: no sockets, no clocks, no allocation beyond what a value needs.
#![forbid(unsafe_code)]

pub mod stun;

pub mod xml;
