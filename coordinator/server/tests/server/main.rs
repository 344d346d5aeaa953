//! The daemon as its clients see it, over real sockets and a real directory.

mod support;
mod whole;
