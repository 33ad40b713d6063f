//! The gateway over real sockets, in front of a scripted peer.

mod bad_input;
mod bodies;
mod chat;
mod completions;
mod connections;
mod discovery;
mod explain;
mod fields;
mod large;
mod life;
mod messages;
mod readers;
mod strangers;
mod stream;
