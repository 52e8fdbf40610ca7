//! Selective forwarding as a machine: datagrams and `now` in, datagrams and events out.
#![forbid(unsafe_code)]
