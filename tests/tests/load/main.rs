//! More than fits: too many requests, too large ones, and readers that don't read.

mod crowds;
mod overload;
mod readers;
