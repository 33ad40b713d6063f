//! Load reports and node states.
