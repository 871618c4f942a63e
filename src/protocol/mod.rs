//! What processes say to each other: client and daemon ([`wire`]), hook or administrator and daemon ([`control`]).

pub mod control;
pub mod wire;
