//! Everybody who talks to a cluster: public clients, people in a terminal, and those who get it wrong.

mod bad_input;
mod bench;
mod command;
mod grpc;
mod openai_client;
mod scores;
mod talk;
mod traces;
