//! How nodes start, say what is wrong, find each other, and come back.

mod lives;
mod startup;
mod up;
